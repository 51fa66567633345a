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
# # The world
#
# The *scenes* scale is a small world of drawn images. Things lie on stuff, captions tell some of
# what is there, and the mask of every image is exact. A model can be trained on it and measured in
# minutes without a GPU, and everything that a caption leaves out is known. That makes it a place to
# test a method that learns masks from captions; it says nothing about photographs.
#
# A scene is a pure function of a configuration, a seed and an index. Nothing is stored: images,
# captions and masks are drawn when they are asked for.
#
# Change the parameters with papermill, for example
# `papermill scenes_world.ipynb out.ipynb -p seed 5`.

# %% tags=["parameters"]
seed = 0  # of the scenes shown and counted; 0 is the seed of the training set
scenes = 1000  # to count over

# %% tags=["hide-input"]
import base64
import dataclasses
import io
import time
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, Markdown, display
from matplotlib.patches import Patch
from PIL import Image

from mgca.data.scenes import (
    CLASSES,
    COLOURS,
    HELD_OUT,
    STUFFS,
    SYNONYMS,
    TEST_SEED,
    THINGS,
    TRAINING_SEED,
    VALIDATION_SEED,
    WorldConfig,
    compose,
    described_area,
    evaluation_set,
    render,
    sentences,
    training_pairs,
)
from mgca.data.scenes.scene import TELLING, random
from mgca.data.scenes.sentences import NAMED_AREA, STUFF_RATE
from mgca.data.scenes.sets import CAPTIONS, SETS
from mgca.experiments.report import figures
from mgca.experiments.scenes import IMAGES, scenes_training
from mgca.inference.overlay import palette

figures.use_style()
config = WorldConfig()
composed = [compose(config, seed, index) for index in range(scenes)]
told = [
    sentences(config, scene, random(seed, TELLING, scene.index), CAPTIONS) for scene in composed
]


def gallery(items: list[tuple[Image.Image, str]], width: int) -> HTML:
    """Images with a text under each, as many in a row as fit."""
    cells = []
    for image, text in items:
        file = io.BytesIO()
        image.save(file, format="WEBP", quality=85)
        data = base64.b64encode(file.getvalue()).decode()
        cells.append(
            f'<div><img alt="{text}" src="data:image/webp;base64,{data}" '
            f'width="{image.width}" height="{image.height}" '
            'style="display:block;width:100%;height:auto;margin:0">'
            f'<div style="font-size:0.85em;line-height:1.3">{text}</div></div>'
        )
    columns = f"grid-template-columns:repeat(auto-fill,minmax({width}px,1fr))"
    return HTML(
        f'<div style="display:grid;gap:12px;margin-bottom:1rem;{columns}">{"".join(cells)}</div>'
    )


# %% [markdown]
# ## Twenty-four scenes
#
# The first images of the training set, each with one of its captions. Nothing was selected.

# %% tags=["remove-input"]
gallery(
    [
        (Image.fromarray(render(config, scene)[0]), own[0].text)
        for scene, own in zip(composed[:24], told, strict=False)
    ],
    width=110,
)

# %% [markdown]
# ## What there is
#
# One example of each thing and stuff. Things have several drawings and ten colours, stuffs several
# textures; turn, size, mirror image, tint, light and noise differ from scene to scene.

# %% tags=["remove-input"]
alone = WorldConfig(things=(1, 1), stuffs=(1, 1), mean_area=0.3, grain=0)
best: dict[str, tuple[float, int]] = {}  # the scene in which most is seen of each
for index in range(400):
    for content in compose(alone, seed, index).contents:
        best[content.name] = max(best.get(content.name, (0, 0)), (content.area, index))
found = {
    name: Image.fromarray(render(alone, compose(alone, seed, index))[0])
    for name, (_, index) in best.items()
}
display(Markdown(f"**{len(THINGS)} things**"))
display(gallery([(found[name], name) for name in THINGS], width=70))
display(Markdown(f"**{len(STUFFS)} stuffs**"))
display(gallery([(found[name], name) for name in STUFFS], width=70))

# %% [markdown]
# ## How a scene is composed
#
# Curves part the ground into kinds of stuff. Things are painted on it one after the other, so that
# later ones hide parts of earlier ones. Each is put at the freest of a few places. A thing of which
# nearly nothing would be seen is left out. Light, tint and noise come last. The mask records what
# is seen.

# %% tags=["remove-input"]
shown = next(scene for scene in composed if len(scene.things) == 4 and len(scene.stuffs) == 2)
quiet = WorldConfig(light=0, gradient=0, grain=0)
steps = {}
for number in range(len(shown.things) + 1):
    partial = dataclasses.replace(shown, things=shown.things[:number])
    title = f"+ {shown.things[number - 1].name}" if number else " and ".join(shown.stuffs)
    steps[title] = render(quiet, partial)[0]
picture, mask = render(config, shown)
steps["light and noise"] = picture
present = [CLASSES.index(content.name) for content in shown.contents]
colours = np.zeros((256, 3), np.uint8)
colours[present] = palette([CLASSES[k] for k in present])
steps["mask"] = colours[mask]
figure, axes = plt.subplots(2, 4, figsize=(7, 4.2), layout="constrained")
for axis in axes.flat:
    axis.set_axis_off()
for axis, (title, image) in zip(axes.flat, steps.items(), strict=False):
    axis.imshow(image)
    axis.set_title(title)
axes.flat[-1].legend(
    handles=[Patch(color=colours[k] / 255, label=CLASSES[k]) for k in present],
    loc="center",
)
figures.show(
    figure,
    caption="A scene, step by step: the ground, one thing after the other, light and noise. The "
    "mask is exact, because it is drawn with the image.",
    alt="Eight panels: the ground alone, then with one to four things on it, the finished image, "
    "its mask in the colours of the classes, and the legend.",
    name="fig-scene-steps",
)

# %% tags=["remove-input"]
things = [thing for scene in composed for thing in scene.things]
visible = [c.area for scene in composed for c in scene.contents if c.colour]
made = pd.DataFrame(
    [
        ("image", f"{config.size} × {config.size} pixels", ""),
        (
            "stuffs per image",
            "{} to {}".format(*config.stuffs),
            np.mean([len(s.stuffs) for s in composed]),
        ),
        (
            "things per image",
            "{} to {}".format(*config.things),
            np.mean([len(s.things) for s in composed]),
        ),
        (
            "area of a thing",
            "{:.0%} to {:.0%}".format(*config.areas),
            np.mean([t.area for t in things]),
        ),
        ("visible area of a thing", f"at least {config.visible:.0%}", np.mean(visible)),
        ("turn", f"up to {config.turn:.0f}° to either side", ""),
        ("brightness", f"log-normal, {config.light:g}", ""),
        ("noise", f"up to {config.grain:g} of 255", ""),
    ],
    columns=["what", "setting", f"mean of {scenes:,} scenes"],
).set_index("what")
figures.table(
    made.map(lambda value: f"{value:.3g}" if isinstance(value, float) else value),
    caption="What is drawn at random, and how it came out.",
)

# %% [markdown]
# ## Captions, and what they leave out
#
# Each image has captions that are drawn independently. The larger something is, the more likely it
# is named; stuff is named less often than a thing of the same area. What captions say of places,
# colours and sizes is true, but a few names are wrong, as on the web. A scene and its captions:

# %% tags=["remove-input"]
example = next(
    number
    for number, (scene, own) in enumerate(zip(composed, told, strict=True))
    if len(scene.contents) >= 5 and all(2 <= len(s.contents) <= 3 for s in own)
)
scene, own = composed[example], told[example]
display(gallery([(Image.fromarray(render(config, scene)[0]), "the scene")], width=220))
rows = [
    {
        "content": f"{content.colour or ''} {content.name}".strip(),
        "area": f"{content.area:.0%}",
        **{
            f"caption {n}": "named" if k in sentence.contents else ""
            for n, sentence in enumerate(own, start=1)
        },
    }
    for k, content in enumerate(scene.contents)
]
display(Markdown("\n".join(f"* caption {n}: *{s.text}*" for n, s in enumerate(own, start=1))))
figures.table(
    pd.DataFrame(rows).set_index("content"),
    caption="What the scene above holds, and which of its captions name it.",
)

# %% tags=["remove-input"]
contents = pd.DataFrame(
    [
        {
            "kind": "thing" if content.colour else "stuff",
            "area": content.area,
            "named": k in sentence.contents,
        }
        for scene, own in zip(composed, told, strict=True)
        for sentence in own
        for k, content in enumerate(scene.contents)
        if content.area >= config.visible
    ]
)
edges = np.array([0.01, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1])
contents["bin"] = np.digitize(contents["area"], edges) - 1
figure, axes = plt.subplots(1, 2, figsize=(7, 3.4), sharey=True, layout="constrained")
for axis, (kind, rate), colour in zip(
    axes, {"thing": 1, "stuff": STUFF_RATE}.items(), ("C0", "C1"), strict=False
):
    rows = contents[contents["kind"] == kind].groupby("bin")["named"].agg(["mean", "size"])
    rows = rows[rows["size"] >= 20]
    left = edges[rows.index]
    axis.bar(left, rows["mean"], np.diff(edges)[rows.index], align="edge", color=colour)
    area = np.linspace(0.01, 1, 200)
    axis.plot(
        area, rate * (1 - np.exp(-((area / NAMED_AREA) ** 1.5))), color="black", label="designed"
    )
    axis.set(title=f"{kind}s", xlabel="visible area, share of the image", xlim=(0, left[-1] + 0.1))
axes[0].set_ylabel("share named in a caption")
axes[1].legend()
small, large = contents["area"] < 0.05, contents["area"] >= 0.2
share = contents.groupby("kind")["named"].mean()
is_thing = contents["kind"] == "thing"
number = sum(len(own) for own in told)
wrong = sum(s.wrong for own in told for s in own)
names = sum(s.wrong + len(s.contents) for own in told for s in own)
figures.show(
    figure,
    caption=f"What is larger is named more often, in {number:,} captions. A "
    f"caption names {contents['named'].sum() / number:.1f} of the "
    f"{len(contents) / number:.1f} contents that one sees: {100 * share['thing']:.0f} % of the "
    f"things and {100 * share['stuff']:.0f} % of the stuffs. Things below 5 % of the image are "
    f"named in {100 * contents[is_thing & small]['named'].mean():.0f} % of the captions, things of "
    f"20 % and more in {100 * contents[is_thing & large]['named'].mean():.0f} %. Of all names "
    f"{100 * wrong / names:.1f} % are wrong. Line: the probability that was designed, before the "
    "wrong names.",
    alt="Two bar charts, things and stuffs: the share of the captions that name what is visible, "
    "against its area, with the designed probability as a line.",
    name="fig-named",
)

# %% [markdown]
# ## The described area
#
# The objects of MGCA cover a share α of the image. The paper's rule for it is the average area of
# what texts describe, 0.4 on its training data. Here it can be measured, because the area of all
# that a caption names is known. Training draws a caption, or a text made of one of its nouns; a
# wrong word describes nothing.

# %% tags=["remove-input"]
areas = described_area(scenes, seed)
alpha = scenes_training().loss.alpha
figures.table(
    pd.DataFrame(
        {
            "what": [
                "all that a caption names",
                "one thing or stuff that it names",
                "a text as training draws it",
            ],
            "mean area": [f"{areas[key]:.3f}" for key in ("caption", "content", "text")],
        }
    ).set_index("what"),
    caption=f"The area that texts describe, over {scenes:,} scenes.",
)
whole = [
    sum(scene.contents[k].area for k in sentence.contents)
    for scene, own in zip(composed, told, strict=True)
    for sentence in own
]
single = [
    scene.contents[k].area
    for scene, own in zip(composed, told, strict=True)
    for sentence in own
    for k in sentence.contents
]
figure, axis = plt.subplots(figsize=(6.8, 3.2), layout="constrained")
for values, label in ((whole, "all that a caption names"), (single, "one content that it names")):
    sns.histplot(
        x=values,
        bins=np.linspace(0, 1, 26),
        stat="probability",
        element="step",
        label=label,
        ax=axis,
    )
axis.axvline(alpha, color="black", linestyle="--", label=f"α = {alpha:g}")
axis.set(xlabel="area, share of the image", ylabel="share of the texts")
axis.legend()
figures.show(
    figure,
    caption=f"A text as training draws it describes {areas['text']:.3f} of the image on average; "
    f"the scale's α is {alpha:g}. Single texts are far from the mean: the standard deviation is "
    f"{np.std(whole):.2f} for captions and "
    f"{np.std(single):.2f} for single contents.",
    alt="Histograms of the area that a caption describes and of the area of one named content, "
    "with a line at alpha.",
    name="fig-described-area",
)

# %% [markdown]
# ## Masks of the evaluation sets
#
# | set | asks for | background |
# |---|---|---|
# | `things` | the things | all stuff |
# | `scenes` | things and stuffs | none |
# | `open` | things in colours that training leaves out, stuffs by other words | none |
#
# Each set has images of its own. `things` stands for the sets with a background class of the paper,
# `scenes` for those without. Decisions, such as the learning rate and the threshold of the
# background, are taken on images of one seed, and results are measured on those of another.

# %% tags=["remove-input"]
for name in SETS:
    data = evaluation_set(name, 3, seed=VALIDATION_SEED)
    classes = ("background", *data.classes) if data.background else data.classes
    # Below the masks as much room as the longest legend takes.
    room = 0.21 * max(len(np.unique(mask)) for _, _, mask in data)
    figure, axes = plt.subplots(
        3, 3, figsize=(6.5, 4.4 + room), height_ratios=[2.1, 2.1, room], layout="constrained"
    )
    for column, (_, image, mask) in zip(axes.T, data, strict=True):
        # Colours of its own for each image: few, and told apart by colour-blind readers too.
        seen = [k for k, _ in Counter(mask.ravel().tolist()).most_common()]
        colours = np.zeros((256, 3), np.uint8)
        colours[seen] = palette([classes[k] for k in seen])
        column[0].imshow(image)
        column[1].imshow(colours[mask])
        column[2].legend(
            handles=[Patch(color=colours[k] / 255, label=classes[k]) for k in seen],
            loc="upper center",
            borderpad=0,
        )
    for axis in axes.flat:
        axis.set_axis_off()
    figures.show(
        figure,
        caption=f"The set `{name}`, {len(classes)} classes"
        + (" with the background" if data.background else "")
        + ": its first images of the validation seed.",
        alt="Three images, below them their masks, and a legend of the classes in each.",
        name=f"fig-set-{name}",
    )

# %% [markdown]
# ## Held-out combinations and synonyms
#
# A thing is never seen in two of the ten colours, except in `open`, where it has no others. There
# the stuffs go by words that no caption uses. What is asked for is then new to MGCA, though not to
# the sentence encoder, which was trained on other texts.

# %% tags=["remove-input"]
counts = Counter((thing.name, thing.colour) for thing in things)
table = np.array([[counts[thing, colour] for colour in COLOURS] for thing in THINGS])
held = np.array([[colour in HELD_OUT[thing] for colour in COLOURS] for thing in THINGS])
figure, axis = plt.subplots(figsize=(6.5, 7), layout="constrained")
sns.heatmap(
    table,
    mask=held,
    xticklabels=list(COLOURS),
    yticklabels=THINGS,
    cmap="cividis",
    cbar_kws={"label": f"times seen in {scenes:,} training scenes", "shrink": 0.6},
    ax=axis,
)
for y, x in zip(*np.nonzero(held), strict=True):
    axis.text(x + 0.5, y + 0.5, "×", ha="center", va="center")
axis.grid(False)
axis.tick_params(axis="x", rotation=60)
figures.show(
    figure,
    caption="How often each thing is seen in each colour; × are the held-out combinations. "
    f"{held.sum()} of {held.size} are held out and were seen {table[held].sum()} times; the others "
    f"were seen {table[~held].min()} to {table[~held].max()} times.",
    alt="Heat map of things by colours; two cells of each row are crossed out.",
    name="fig-held-out",
)

# %% tags=["remove-input"]
pairs = training_pairs(IMAGES, TRAINING_SEED)
words = Counter(
    word
    for own in pairs.captions
    for text in own
    for word in text.lower().strip(".").replace(",", "").split()
)
spoken = pd.DataFrame(
    [
        {"stuff": stuff, "times": words[stuff], "in the open set": other, "times ": words[other]}
        for stuff, other in SYNONYMS.items()
    ]
)
figures.table(
    spoken.set_index("stuff"),
    caption="Words for stuffs, and how often they stand in the "
    f"{IMAGES * CAPTIONS:,} captions of the training set.",
)

# %% [markdown]
# ## How often each class occurs

# %% tags=["remove-input"]
frequency = pd.DataFrame(
    [
        {
            "class": content.name,
            "kind": "thing" if content.colour else "stuff",
            "area": content.area,
        }
        for scene in composed
        for content in scene.contents
        if content.area
    ]
)
per_class = frequency.groupby(["class", "kind"])["area"].agg(["size", "sum"]).reset_index()
per_class[["size", "sum"]] *= 100 / scenes
per_class = per_class.sort_values(["kind", "sum"], ascending=[False, False])
figure, axes = plt.subplots(1, 2, figsize=(7, 6.8), sharey=True, layout="constrained")
for axis, (column, title) in zip(
    axes, {"size": "of the images it occurs in", "sum": "of all pixels"}.items(), strict=True
):
    sns.barplot(
        per_class,
        x=column,
        y="class",
        hue="kind",
        hue_order=["thing", "stuff"],
        ax=axis,
        legend=column == "sum",
    )
    axis.set(xlabel=f"% {title}", ylabel="")
axes[1].legend(title="")
kinds = per_class.groupby("kind")[["size", "sum"]].agg(["min", "max"])
pixels = per_class.groupby("kind")["sum"].sum()
figures.show(
    figure,
    caption=f"A thing occurs in {kinds.loc['thing', ('size', 'min')]:.0f} to "
    f"{kinds.loc['thing', ('size', 'max')]:.0f} % of the images, a stuff in "
    f"{kinds.loc['stuff', ('size', 'min')]:.0f} to {kinds.loc['stuff', ('size', 'max')]:.0f} %. Of "
    f"all pixels {pixels['stuff']:.0f} % are stuff. What is drawn is uniform; visible areas "
    "differ, because things differ in shape and hide one another.",
    alt="Two bar charts over the 30 classes: the share of images in which each occurs, and its "
    "share of all pixels.",
    name="fig-frequency",
)

# %% [markdown]
# ## Data set card

# %% tags=["remove-input"]
began = time.perf_counter()
for index in range(100):
    render(config, compose(config, seed, index))
speed = 100 / (time.perf_counter() - began)
card = [("training", TRAINING_SEED, pairs.digest, IMAGES, f"{CAPTIONS} per image", "", "")]
for role, number in (("decisions", VALIDATION_SEED), ("results", TEST_SEED)):
    for name in SETS:
        data = evaluation_set(name, seed=number)
        card.append(
            (
                f"{name}, for {role}",
                number,
                data.digest,
                len(data),
                "",
                len(data.classes),
                "yes" if data.background else "no",
            )
        )
table = pd.DataFrame(
    card, columns=["set", "seed", "digest", "images", "captions", "classes", "background"]
)
figures.table(table.assign(digest=table["digest"].str[:12]).set_index("set"), caption="The sets.")
longest = max((text for own in pairs.captions[:scenes] for text in own), key=len)
card = pd.Series(
    {
        "images": f"{config.size} × {config.size}, RGB, drawn",
        "captions": f"English, the longest of the first {scenes * CAPTIONS:,} has "
        f"{len(longest.split())} words",
        "masks": "exact, one class per pixel",
        "digest": "SHA-256 of settings and first scenes, 12 digits",
        "drawing": f"{speed:.0f} images per second when this page was built, one process",
        "people, places, brands": "none",
        "made by": "this project: mgca.data.scenes",
        "licence": "Apache-2.0",
        "not for": "claims about photographs",
    },
    name="all sets",
)
figures.table(card.to_frame(), caption="The card of the data.")
