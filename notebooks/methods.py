# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Every method, one harness
#
# Every method that runs here, on the same encoders, with the same windows, class names, prompts,
# background rule and metric. Two scores of one method in two harnesses can differ by several
# points, so methods are compared within a table of this page and not across.
#
# | row | what it is | trained |
# |---|---|---|
# | {term}`plain CLIP` | the dense features as trained {cite:p}`radford2021clip` | nothing |
# | {term}`MaskCLIP` | the last attention layer's values {cite:p}`zhou2022maskclip` | nothing |
# | SCLIP | queries attend to queries and keys to keys {cite:p}`wang2024sclip` | nothing |
# | ClearCLIP | queries to queries; no residual, no MLP {cite:p}`lan2024clearclip` | nothing |
# | NACLIP | as before, keys to keys, near ones preferred {cite:p}`hajimiri2025naclip` | nothing |
# | TCL's loss | TCL's objective {cite:p}`cha2023tcl` | MGCA's decoder, on MaskCLIP |
# | MGCA | MGCA {cite:p}`liu2024mgca` | the same decoder, on the same features |
# | MGCA on SCLIP, and so on | MGCA on that method's last block | that decoder, on those features |
#
# Each is scored with two units: the pixel, and the 36 adaptive units of MGCA's inference.
#
# ```{caution}
# The encoders are small, not CLIP ViT-B/16, and the sets are drawn scenes and *parts* of public
# benchmarks, with mIoU over the classes that occur. No number here compares with a published one,
# and an order found here may be another with the paper's encoder.
# ```
#
# ```{important}
# **The comparison is not even.** Learning rate, steps and the norm of the texts were chosen for
# MGCA on scenes of a validation seed ([how](#scenes-choices)). For no other method was anything
# tuned. TCL has the weights, the expected area and the temperatures of its release, with the rate,
# steps, batch and texts that suit MGCA. The training-free methods keep their authors' constants.
# The one [threshold](background.ipynb) of the background was chosen on MGCA and on MaskCLIP, not on
# all methods.
# ```
#
# **After this page you can** compare every method that runs here under one protocol, and say what
# is not even about it.

# %% tags=["remove-input"]
import pandas as pd
from IPython.display import Markdown, display

from mgca.evaluation.results import read_run
from mgca.experiments import load_scale
from mgca.experiments.report import charts, figures
from mgca.experiments.report.methods import UNITS, Methods, count
from mgca.experiments.report.page import open_page
from mgca.experiments.report.pictures import models_at_hand, pictures
from mgca.experiments.report.tables import measured_here, provenance_table

# %% tags=["remove-input"]
page = open_page("methods")
every = [
    Methods(load_scale(scale), page.read(f"{scale}/benchmarks.csv"))
    for scale in ("scenes", "photos")
]
found = [each for each in every if len(each.table)]
scenes, photos = every


# %% tags=["remove-input"]
def describe(each: Methods) -> None:
    """The table of a scale, with what stands out."""
    scale = each.setting.name
    if each not in found:
        command = f"mgca experiment run benchmarks --scale {scale}"
        return display(Markdown(f"**Not run**: `{command}`."))
    caption = f"Every method at the scale {scale}: mIoU in percent, mean ± standard "
    caption += "deviation over the seeds, and seconds per image."
    figures.table(each.overview(), caption=caption, results=each.file)
    display(Markdown(each.notes()))


# %% [markdown]
# ## Tables
#
# mIoU in percent, mean ± standard deviation over the seeds; lines without ± have nothing that
# depends on a seed, or one seed so far. A click on a column's head sorts by it.
#
# ### Scenes
#
# The small CLIP of the [scenes](scenes_clip.ipynb), trained on whole images and captions.
# `things` has a background; `open` asks for things in colours, and for stuff by words, that no
# training caption has.

# %% tags=["remove-input"]
describe(scenes)

# %% [markdown]
# ### Photographs
#
# The image encoder of `lite` is convolutional: it has no last attention block, so the methods that
# change attention do not apply. What levels, decoder and units give there stands on the page of
# [results](results.ipynb); TCL's objective on it was not run.

# %% tags=["remove-input"]
describe(photos)

# %% tags=["remove-input"]
text = []
for each in found:
    for run in each.times["run"].iloc[:1]:
        record = read_run(page.results / each.setting.name, run)
        text.append(
            f"{each.setting.name.capitalize()}: median over "
            f"{record['config']['timing']} images a set on {record['device']}, "
            f"{record['config']['cores']} threads, methods taking turns; then the mean "
            "over the sets"
        )

# %% tags=["remove-input"]
Markdown(
    f"**Time.** From the open image to labels at its size. {'. '.join(text)}."
    if text
    else "**Time per image:** not run, `mgca experiment timing --scale scenes`."
)

# %% [markdown]
# ### Other measures
#
# Accuracy of pixels and boundary IoU in percent; connected components over those of the truth, of
# which 1 is right and more means a broken-up prediction. Means over the groups of sets.

# %% tags=["remove-input", "hide-output"]
for each in found:
    caption = f"Other measures at the scale {each.setting.name}."
    figures.table(each.other_measures(), caption=caption, results=each.file)

# %% [markdown]
# ## Questions
#
# **The rule** is that of [what held](what_held.ipynb): a difference is taken seed by seed and holds
# where its interval over the seeds lies above 0, with Holm's correction over the lines of a
# question. Between two lines that no seed changes the interval is a point: there the rule is the
# sign alone, on one set of images.
#
# ### Do adaptive units help the other methods too?


# %% tags=["remove-input"]
text = [
    f"* **{each.setting.name.capitalize()}, {group}**: {each.helped(group)}"
    for each in found
    for group in each.groups
]
Markdown("\n".join(text) or "Not run.")


# %% tags=["remove-input"]
GAIN = "36 units minus pixel, points of mIoU"


def range_of(gains: pd.DataFrame, group: str) -> str:
    """The least and the most that a method gains in a group of sets."""
    mean = gains[gains["dataset"] == group].groupby("variant")["gain"].mean()
    return (
        f"{group}: from {mean.min():+.1f} ({mean.idxmin()}) to {mean.max():+.1f} "
        f"({mean.idxmax()})"
    )


# %% tags=["remove-input"]
alt = "A row of dots for each method: points of mIoU that 36 units add to the pixel."
for each in found:
    gains, scale = each.gains_by_seed(), each.setting.name
    text = "; ".join(range_of(gains, group) for group in each.groups)
    caption = f"What 36 units add to each method at the scale {scale}: {text}. A "
    caption += "dot per seed, one dot where no seed plays a part."
    order = [each.word(name) for name in each.names]
    figure = charts.gains(gains, order, each.groups, GAIN)
    said = {"caption": caption, "alt": alt, "results": each.file}
    figures.show(figure, name=f"fig-units-gain-{scale}", **said)

# %% [markdown]
# ### Does MGCA's decoder add to a better last block?
#
# MGCA trains its decoder on MaskCLIP. Here the same decoder, with the same training, is put on the
# other last blocks: on plain CLIP, as it was trained, and on those that came later.

# %% tags=["remove-input"]
rows = [row for each in found for row in each.on_other_blocks()]
columns = ["line", "sets", "unit", "over the frozen block", "over MGCA"]
added = pd.DataFrame(rows, columns=columns).set_index("line")
if len(added):
    caption = "MGCA's decoder on other last blocks, in points of mIoU."
    figures.table(added, caption=caption, results=scenes.file)

# %% tags=["remove-input"]
Markdown(
    "Over its own frozen block the gain of the decoder holds in "
    f"**{count(added['over the frozen block'])}** comparisons, over MGCA as in its "
    f"paper in **{count(added['over MGCA'])}**."
    if len(added)
    else "Not run."
)

# %% tags=["remove-input"]
grown = scenes.changes() if scenes in found else []
caption = (
    f"The decoder changes mIoU per pixel by {min(grown):+.1f} to {max(grown):+.1f} "
    f"points, over {len(grown)} pairs of a last block and a group of sets."
    if grown
    else "The frozen last blocks. None has a decoder on top so far."
)
alt = "For each last block, a grey dot for its mIoU when frozen and blue dots, one per "
alt += "seed, for MGCA's decoder on top."

# %% tags=["remove-input"]
if scenes in found:
    pixel = scenes.miou[scenes.miou["unit"] == "pixel"]
    figure = charts.before_and_after(pixel, scenes.decoders, scenes.groups)
    said = {"caption": caption, "alt": alt, "results": scenes.file}
    figures.show(figure, name="fig-last-blocks", **said)

# %% [markdown]
# ### TCL's loss and MGCA's
#
# Under the same decoder, features, texts, batch, steps, rate and seeds. What differs is the
# objective. TCL also has its own rule for the background: the class wins where its score
# `sigmoid(w cos + b)`, with the learned `w` and `b`, exceeds 0.5.

# %% tags=["remove-input"]
rows = [row for each in found for row in each.against_tcl()]
columns = ["difference", "scale", "sets", *UNITS.values()]
compared = pd.DataFrame(rows, columns=columns).set_index("difference")
if len(compared):
    caption = "TCL's objective and MGCA's under one decoder, in points of mIoU."
    figures.table(compared, caption=caption, results=scenes.file)

# %% tags=["remove-input"]
cells = compared[list(UNITS.values())].stack()
of = cells.index.get_level_values(0)
ours = count(cells[of == "MGCA minus TCL's loss"])
theirs = count(cells[of.str.startswith("TCL's loss minus ")])
Markdown(
    f"MGCA's advantage over TCL holds in **{ours}** comparisons, that of TCL's loss "
    f"over the frozen model in **{theirs}**."
    if len(cells)
    else "Not run."
)

# %% [markdown]
# This is no verdict on TCL. Its own decoder has twice as many blocks, starts from the transformer's
# tokens, ends at four times their resolution, and was trained on CC3M and CC12M.

# %% [markdown]
# ## Pictures
#
# Scenes, from what needs no training: frozen last blocks, and the decoder that comes with the
# project. The first images of the set, not chosen.

# %% tags=["remove-input"]
names = ("clip", "maskclip", "naclip", "mgca")
columns = {scenes.word(name): (name, None) for name in names}
columns["MGCA, 36 units"] = ("mgca", 36)
shown = next(data for data in scenes.setting.sets() if data.name == "scenes")
# No folder of trained decoders: the page shows the same pictures everywhere.
nowhere = page.project / "no-decoders"
models = models_at_hand("benchmarks", columns, scenes.setting, 0, nowhere)
absent = ", ".join(title for title in columns if title not in models)

# %% tags=["remove-input"]
figures.show(
    pictures(shown, models),
    caption="The first scenes of the set: from plain CLIP to MGCA with units.",
    alt="A grid. Columns: three scenes. Rows: the image, its true classes, and the "
    f"prediction of {', '.join(models)}.",
    name="fig-methods-pictures",
)
if absent:
    display(Markdown(f"Left out, because their decoders are not at hand: {absent}."))

# %% [markdown]
# ## What needs other weights
#
# **GroupViT** {cite:p}`xu2022groupvit` is the one model whose units are learned. Group tokens
# inside its image transformer gather the patches of a window, first into 64 segments and then into
# 8 groups, and a group is named by the class whose text embedding is nearest to its own. Where MGCA
# forms 36 units from pixel embeddings at inference, GroupViT has 8, fixed by training.
# `mgca.evaluation.baselines.groupvit` loads the authors' model and scores it as units in our sense
# or by the rule of the authors' code. Its weights have to be downloaded, and it has its own
# encoders.
#
# ```bash
# mgca evaluate voc --root DIR --model groupvit --rule groupvit --background 0.95
# ```
#
# **TCL as published** is `mgca.evaluation.baselines.tcl`, which reads the file of its release.
# That has to be downloaded too. The row "TCL's loss" above is its objective under our decoder.
#
# ```bash
# mgca evaluate voc --root DIR --model tcl --decoder tcl.pth --rule sigmoid --background 0.5
# ```
#
# **CLIP ViT-B/16** under the same last blocks is on the page of
# [the paper scale](results.ipynb).
#
# What of this was measured here, mIoU in percent, by `results/evaluation`:

# %% tags=["remove-input"]
evaluated = page.read("evaluation/evaluation.csv")
sets = {name: name for name in evaluated["dataset"].unique()}
weights = {"GroupViT": ["groupvit"], "TCL as published": ["tcl"]}
weights["CLIP ViT-B/16"] = [
    name for name in evaluated["variant"].unique() if name.startswith("vit-b-16")
]
state = {
    title: measured_here(evaluated, names, sets) for title, names in weights.items()
}
Markdown("\n".join(f"* {title}: **{text}**." for title, text in state.items()))

# %% [markdown]
# ## What to take away
#
# * What is done to the last block, without any training, matters as much as the objective that is
#   trained on top: the best line of the scenes puts MGCA's decoder on NACLIP's last block.
# * The units help MGCA and the weaker blocks, and fewer than half of all methods.
# * Methods compare within a table of this page, under a protocol whose settings were chosen for
#   MGCA.

# %% [markdown]
# ## Where each number comes from

# %% tags=["remove-input", "hide-output"]
for each in found:
    scale = each.setting.name
    table = each.table.drop(each.times.index)
    runs = provenance_table(table, page.results / scale)
    figures.table(runs, caption=f"The runs of the scale {scale}.", results=each.file)

# %% [markdown]
# `results/<scale>/benchmarks.csv` holds the tables, `results/<scale>/runs/<run>.json` the
# configuration, environment and data of each run. To compute what is missing:
# `mgca experiment run benchmarks --scale scenes`, or `photos`.
