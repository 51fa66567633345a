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
# # Handle it yourself
#
# Two figures to handle: what the model thinks of each pixel of a photograph, and the numbers behind
# the ablations. They work with the mouse, with a finger and with the keyboard, without a server and
# without a network. A third, which moves the number of meta-points, is on the page of
# [the adaptive unit](adaptive_unit.ipynb).
#
# Everything shown was computed by the cells of this page or read from `results/`. Your own
# photographs and words need the library: see [your own photographs](own_photos.ipynb).

# %% tags=["parameters"]
side = 6  # meta-points along each side, for the second kind of unit

# %% tags=["hide-input"]
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import skimage.data
import torch
from IPython.display import Markdown
from PIL import Image
from sklearn.datasets import load_sample_image

import mgca
from mgca.evaluation.results import read_results
from mgca.experiments.report import figures, interactive

figures.use_style()
here = Path.cwd()
results = (here if (here / "results").is_dir() else here.parent) / "results"

# %% [markdown]
# ## What is a pixel most like?
#
# For each pixel embedding $p^n$ and word $t_k$ the model has one number, the cosine of their angle:
#
# $$
# \varphi(p^n, t_k) = \frac{\langle p^n, t_k \rangle}{\lVert p^n \rVert \, \lVert t_k \rVert}
# $$
#
# The pixel takes the word with the largest. Nothing else decides: add a word, and it takes the
# pixels that are more like it than like the others. These are the numbers of a photograph.

# %%
model = mgca.load("lite")


def similarities(photo: Image.Image, words: list[str], side: int | None) -> torch.Tensor:
    """(K, H, W): the cosine of each pixel, or of its unit, with each word."""
    scores = model.scores(model.embed(photo).pixels, model.texts(words), side)
    return scores.table[scores.index[0]].permute(2, 0, 1)


# %% tags=["hide-input"]
def square(array: np.ndarray) -> Image.Image:
    """The square in the middle of a photograph, which is one window."""
    photo = Image.fromarray(array)
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    return photo.crop((left, top, left + side, top + side)).resize((448, 448))


PHOTOGRAPHS = {
    "an astronaut": (
        skimage.data.astronaut(),
        ["woman", "face", "hair", "spacesuit", "flag", "spacecraft", "wall", "dog"],
    ),
    "a temple": (
        load_sample_image("china.jpg"),
        ["temple", "roof", "tree", "sky", "lake", "people", "boat", "cat"],
    ),
    "a motorcycle": (
        skimage.data.stereo_motorcycle()[0],
        ["motorcycle", "wheel", "seat", "engine", "floor", "shelf", "wall", "cat"],
    ),
}
UNITS = {"pixel": None, f"{side**2} meta-points": side}
photographs, exact = [], {}
for title, (array, words) in PHOTOGRAPHS.items():
    photo = square(array)
    maps = {name: similarities(photo, words, unit) for name, unit in UNITS.items()}
    exact[title] = maps
    low = min(each.min().item() for each in maps.values())
    high = max(each.max().item() for each in maps.values())
    photographs.append(
        {
            "title": title,
            "picture": photo,
            "words": words,
            "low": low,
            "high": high,
            # In 256 steps, which is finer than the two decimals shown.
            "maps": {
                name: ((each - low) / (high - low) * 255).round().byte().numpy()
                for name, each in maps.items()
            },
        }
    )
interactive.write("explore/similarity", {"photographs": photographs})

figure, axes = plt.subplots(3, 3, figsize=(7, 7.4), layout="constrained")
first = photographs[0]
pictures = [first["picture"], *first["maps"]["pixel"]]
for axis, drawn, title in zip(axes.flat, pictures, ["photograph", *first["words"]], strict=True):
    shown = axis.imshow(drawn, **({"vmin": 0, "vmax": 255} if title != "photograph" else {}))
    axis.set_title(title)
    axis.axis("off")
bar = figure.colorbar(shown, ax=axes, location="bottom", shrink=0.6, label="cosine similarity")
bar.set_ticks([0, 255], labels=[f"{first['low']:.2f}", f"{first['high']:.2f}"])
interactive.element(
    "similarity",
    "explore/similarity",
    fallback=figure,
    alt="A photograph of an astronaut and the similarity of its pixels to eight words.",
    caption="The cosine of each pixel with eight words, the last of which is not in the picture. "
    "Point at a pixel to see its numbers, click to hold it, choose a word to see its map. The "
    "scale is that of the photograph, the same for all its words.",
)

# %% tags=["remove-input"]
lines = []
for (title, maps), own in zip(exact.items(), photographs, strict=True):
    single, joint = maps.values()
    best = single.argmax(dim=0)
    absent = 100 * (best == len(own["words"]) - 1).float().mean()
    changed = 100 * (best != joint.argmax(dim=0)).float().mean()
    ahead, behind = single.topk(2, dim=0).values
    lines.append(
        f"* {title}: *{own['words'][-1]}*, which is not there, is the best word of {absent:.0f} % "
        f"of the pixels. The best word leads the second by {(ahead - behind).mean():.3f} on "
        f"average. With meta-points {changed:.0f} % of the pixels change their best word."
    )
Markdown("\n".join(lines))

# %% [markdown]
# Three things to look for:
#
# * The absent word has similarities too, in the same range as the others'.
# * Parts compete with wholes: *hair* takes pixels from *woman*, *wheel* from *motorcycle*.
# * Switch the unit. All pixels of a unit have the same numbers. Where two words are close, a small
#   change of the average decides between them.

# %% [markdown]
# ## The ablations, as you like to compare them
#
# Small CLIP and decoder on [scenes](scenes_world.ipynb), mean and standard deviation over three
# seeds, 150 images per set. The paper's own averages stand beside them where it has a table: its
# Table 3 (levels) and 4 (units), with background beside the set *things*, without beside *scenes*.
# They come from photographs, other data and a larger encoder, so compare how the curves run, not
# how high they lie.

# %% tags=["hide-input"]
tables = {
    name: read_results(results / "scenes" / f"{name}.csv")
    for name in ("granularity", "meta_points", "areas", "k")
}
paper = {number: pd.read_csv(results / "paper" / f"table{number}.csv") for number in (3, 4)}
DATASETS = {"things": "avg_with_bg", "scenes": "avg_without_bg", "open": None}
METRICS = {
    "miou": "mIoU (%)",
    "accuracy": "pixels right (%)",
    "boundary_iou": "boundary IoU (%)",
    "components": "regions / those of the mask",
}
BY_UNIT = {"pixel": "pixel", "36": "36 units"}
PAPER = "the paper, other data"


def named(table: pd.DataFrame, pattern: str, series: dict[str, str]) -> pd.DataFrame:
    """The lines whose variant matches, with the value as tick and unit and rest as series."""
    found = table["variant"].str.extract(pattern)
    lines = table.assign(tick=found[0], rest=found[1].fillna(""))[found[0].notna()]
    return lines.assign(series=lines["rest"].map(series) + lines["unit"].map(BY_UNIT))


levels = named(tables["granularity"], r"^([a-z+]+)()$", {"": ""})
units = tables["meta_points"].assign(series="MGCA")
units["tick"] = units["unit"]
in_paper = paper[3][["object", "region", "pixel"]].astype(bool)
order = ["baseline", "maskclip", "object", "region", "pixel", "object+region", "all"]
paper_levels = ["+".join(in_paper.columns[row]) or "baseline" for row in in_paper.to_numpy()]
paper_levels = [{"object+region+pixel": "all"}.get(name, name) for name in paper_levels]
paper_units = paper[4]["meta_points"].astype(str).replace("3136", "pixel")
areas = {"": "all levels, ", ",no pixel": "no pixel level, "}
ABLATIONS = [
    ("Levels of alignment", "trained with", levels, order, paper[3].assign(tick=paper_levels)),
    (
        "Number of meta-points",
        "meta-points per window",
        units,
        [*sorted(set(units["tick"]) - {"pixel"}, key=int), "pixel"],
        paper[4].assign(tick=paper_units),
    ),
    (
        "Rank of the positive pixel, k",
        "k, share of the object",
        named(tables["k"], r"^k=([\d.]+)()$", {"": ""}),
        None,
        None,
    ),
    (
        "Rank of the negative pixel, k_neg",
        "k_neg, share of the object",
        named(tables["k"], r"^k_neg=([\d.]+)()$", {"": ""}),
        None,
        None,
    ),
    (
        "Area of the object, alpha",
        "alpha, share of the image",
        named(tables["areas"], r"^alpha=([\d.]+)()$", {"": ""}),
        None,
        None,
    ),
    (
        "Area of the negative region, alpha_neg",
        "alpha_neg, share of the image",
        named(tables["areas"], r"^alpha_neg=([\d.]+)(,no pixel)?$", areas),
        None,
        None,
    ),
]


def rounded(value: float) -> float | None:
    """As JSON has it: None for the missing deviation of a single number."""
    return None if pd.isna(value) else round(float(value), 3)


ablations, rows = [], []
for number, (title, axis, lines, ticks, published) in enumerate(ABLATIONS):
    ticks = ticks or sorted(lines["tick"].unique(), key=float)
    series = list(lines["series"].unique())
    shown = [{"name": name, "paper": False} for name in series]
    shown += [{"name": PAPER, "paper": True}] if published is not None else []
    ablations.append({"title": title, "axis": axis, "ticks": ticks, "series": shown})
    for place, metric in enumerate(METRICS):
        measured = lines[lines["metric"] == metric]
        grouped = measured.groupby(["dataset", "series", "tick"])["value"]
        found = grouped.agg(["mean", "std", "count", "nunique"])
        for (dataset, name, tick), value in found.iterrows():
            at = [list(DATASETS).index(dataset), place, series.index(name), ticks.index(tick)]
            # Where nothing is trained all seeds agree, and there is no spread to speak of.
            std = rounded(value["std"]) if value["nunique"] > 1 else None
            rows.append([number, *at, rounded(value["mean"]), std, int(value["count"])])
    if published is None:
        continue
    for which, column in enumerate(DATASETS.values()):
        for _, line in published.iterrows():
            if column and line["tick"] in ticks:
                at = [which, 0, len(series), ticks.index(line["tick"])]
                rows.append([number, *at, rounded(line[column]), None, 1])
interactive.write(
    "explore/ablations",
    {
        "ablations": ablations,
        "datasets": list(DATASETS),
        "metrics": list(METRICS.values()),
        "rows": rows,
    },
)

figure, axes = plt.subplots(len(ablations) // 2, 2, figsize=(7, 8.4), layout="constrained")
for number, (axis, own) in enumerate(zip(axes.flat, ablations, strict=True)):
    for place, one in enumerate(own["series"]):
        line = sorted(row for row in rows if row[:4] == [number, 1, 0, place])
        axis.errorbar(
            [row[4] for row in line],
            [row[5] for row in line],
            [row[6] or 0 for row in line],
            fmt="s--" if one["paper"] else "o-",
            color="0.5" if one["paper"] else f"C{place}",
            label=one["name"],
        )
    axis.set_title(own["title"])
    axis.set_xticks(range(len(own["ticks"])), own["ticks"], rotation=40, ha="right")
axes[0, 0].legend()
axes[-1, -1].set_ylim(bottom=26)  # room for the names
axes[-1, -1].legend(loc="lower right")
for axis in axes[:, 0]:
    axis.set_ylabel("mIoU (%)")
interactive.element(
    "ablation",
    "explore/ablations",
    fallback=figure,
    alt="mIoU on the set scenes over what was trained, the number of meta-points, both ranks and "
    "both areas.",
    caption="The ablations on scenes, mean ± standard deviation over three seeds; dashed, where it "
    "has a table, the paper's averages. Numbers: results/scenes/granularity.csv, meta_points.csv, "
    "k.csv and areas.csv, and results/paper.",
)

# %% [markdown]
# The pages of the [levels](ablation_granularity.ipynb), the [areas](ablation_areas.ipynb), the
# [ranks](ablation_k.ipynb) and the [meta-points](ablation_meta_points.ipynb) say what the paper
# claims of each and whether it holds here; [one page](what_held.ipynb) has the verdicts.
#
# ## What to take away
#
# * A segmentation is a competition of cosines. Which words compete is up to you.
# * Where two words are close, the unit decides which of them wins.
# * A curve over three seeds has a width. Where two series overlap within it, nothing was shown.
#
# ## Try it
#
# * Replace the last word of a list by one that says in other words what is there, such as
#   *pagoda*. From which word does it take pixels?
# * Set `side = 2`. Which pixels change their best word?
# * In the plot, choose the measure *regions* and the ablation of the levels. Is the variant with
#   the best mIoU the one with the fewest regions?
