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
# # The adaptive unit
#
# Training gives an embedding to every pixel. What should be compared with the words: each pixel by
# itself, or pixels together? Single pixels are noisy and the segmentation falls into specks. A few
# large groups are quiet, but swallow what is small. MGCA's *adaptive semantic unit* lies between:
# pixels gather around a grid of *meta-points*, and the average of each gathering is named.
#
# Nothing is trained for it. It is a way to read pixel embeddings, and it can be put on those of any
# other method.

# %% tags=["parameters"]
side = 6  # meta-points along each side; the paper has 6, which makes 36 units
image = 0  # which scene of the test set is taken apart below
scenes = 30  # of the test set, that the curves on this page are measured on

# %% tags=["hide-input"]
import dataclasses
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.patches import Patch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch.nn import functional as F

import mgca
from mgca.data.scenes import TEST_SEED, evaluation_set
from mgca.evaluation.boundary import count_components
from mgca.evaluation.measure import CLASS_IOU, measure
from mgca.evaluation.results import read_results
from mgca.experiments.report import figures, interactive
from mgca.experiments.report.tables import group_means, mean_and_std
from mgca.experiments.scenes import ScenesScale
from mgca.inference.overlay import palette
from mgca.units import meta_point_index, semantic_units

figures.use_style()
here = Path.cwd()
results = (here if (here / "results").is_dir() else here.parent) / "results"

# %% [markdown]
# ## What it does
#
# Take $m^2$ pixels on a uniform grid, the meta-points, $n_g$ being the pixel of meta-point $g$.
# Every pixel $n$ joins the meta-point whose embedding points most nearly in its own direction.
# A unit is the mean of those that joined:
#
# $$
# g(n) = \arg\max_g \; \varphi(p^n, p^{n_g}), \qquad
# u_g = \frac{1}{|\{n : g(n) = g\}|} \sum_{n : g(n) = g} p^n
# $$
#
# where $\varphi$ is the cosine. The unit takes the word $t_k$ with the largest
# $\varphi(u_g, t_k)$, and all its pixels take the same. The paper gives no number to these
# equations; [the method](../method.md) has them with the rest of inference.
#
# Here is a scene of [the small world](scenes_world.ipynb), its 784 pixel embeddings from the
# published decoder, and the three steps in plain code.

# %%
setting = ScenesScale()
model = mgca.load("scenes", config=setting.segment())
data = evaluation_set("scenes", scenes, seed=TEST_SEED)
_, picture, truth = data[image]
embedded = model.embed(picture)
pixels = embedded.pixels[0]  # (C, H, W), one window
texts = model.texts(data.classes)  # (K, C), unit vectors
tuple(pixels.shape), tuple(texts.shape)


# %%
def adaptive_units(pixels, texts, side):
    """Assignment (H*W,), units (side*side, C) and the class of each pixel (H*W,)."""
    channels, height, width = pixels.shape
    flat = pixels.reshape(channels, -1).T  # (N, C)

    # 1. Meta-points: the pixels under the centres of a side x side grid of cells.
    rows = [(2 * i + 1) * height // (2 * side) for i in range(side)]
    columns = [(2 * j + 1) * width // (2 * side) for j in range(side)]
    points = [y * width + x for y in rows for x in columns]

    # 2. Each pixel joins the meta-point that it is most similar to.
    joins = [F.cosine_similarity(p[None], flat[points], dim=1).argmax() for p in flat]
    assignment = torch.stack(joins)

    # 3. Each set of pixels is averaged, and the average is named.
    units = torch.stack([flat[assignment == g].mean(dim=0) for g in range(len(points))])
    names = F.cosine_similarity(units[:, None], texts[None], dim=2).argmax(dim=1)
    return assignment, units, names[assignment]


assignment, units, named = adaptive_units(pixels, texts, side)

# %% [markdown]
# The library does the same for many windows at once. Equal to it:

# %%
library = semantic_units(embedded.pixels, side)
assert torch.equal(assignment, library.assignment[0].flatten())
torch.testing.assert_close(units, library.units[0])
scores = model.scores(embedded.pixels, texts, side)
assert torch.equal(named, scores.table.argmax(dim=1)[scores.index[0]].flatten())

# %% tags=["remove-input"]
pieces = [
    count_components(np.where(assignment.view(pixels.shape[1:]) == unit, 0, 255), ignore=255)
    for unit in range(side**2)
]
sizes = torch.bincount(assignment)
Markdown(
    f"The {side**2} units of this scene have {sizes.min()} to {sizes.max()} pixels. Distance plays "
    f"no part in the assignment: {sum(n > 1 for n in pieces)} of them lie in more than one piece."
)

# %% [markdown]
# ## Before and after

# %% tags=["hide-input"]
OTHER = (245, 245, 245)  # of a class that the scene does not have


def colours_of(classes, truth) -> np.ndarray:
    """(K, 3): those of the classes that the mask has, and white for all others."""
    present = np.unique(truth)
    colours = np.full((len(classes), 3), OTHER, np.uint8)
    colours[present] = palette([classes[k] for k in present])
    return colours


colours = colours_of(data.classes, truth)
height, width = pixels.shape[1:]


def labels_of(points: int | None) -> np.ndarray:
    """(H, W) of the scene: the class that each pixel is given."""
    return model.segment(embedded, data.classes, points).labels.numpy()


def over(labels: np.ndarray, photo: Image.Image, colours: np.ndarray) -> np.ndarray:
    """The image under the colours of its labels."""
    return (0.35 * np.asarray(photo) + 0.65 * colours[labels]).astype(np.uint8)


def draw_meta_points(axis, index: torch.Tensor, cells: tuple[int, int], size: int) -> None:
    """Dots at the meta-points, on an image of another size."""
    y, x = np.divmod(index.numpy(), cells[1])
    axis.scatter(
        (x + 0.5) * size / cells[1] - 0.5,
        (y + 0.5) * size / cells[0] - 0.5,
        s=16,
        c="white",
        edgecolors="black",
        linewidths=1,
    )


points = meta_point_index(height, width, side)
shuffled = np.random.default_rng(0).permutation(side**2)
unit_colours = (255 * plt.get_cmap("nipy_spectral")(shuffled / side**2)[:, :3]).astype(np.uint8)
unit_map = np.kron(assignment.view(height, width), np.ones((4, 4), int))
shown = {
    "meta-points": np.asarray(picture),
    f"{side**2} units": over(unit_map, picture, unit_colours),
    "exact mask": over(truth, picture, colours),
    "pixels named": over(labels_of(None), picture, colours),
    f"{side**2} units named": over(labels_of(side**2), picture, colours),
    "4 units named": over(labels_of(4), picture, colours),
}
figure, axes = plt.subplots(2, 3, figsize=(7, 5.6), layout="constrained")
for axis, (title, drawn) in zip(axes.flat, shown.items(), strict=True):
    axis.imshow(drawn)
    axis.set_title(title)
    axis.axis("off")
for axis in axes[0, :2]:
    draw_meta_points(axis, points, (height, width), picture.height)
legend = [(colours[k] / 255, data.classes[k]) for k in np.unique(truth)]
legend.append((np.array(OTHER) / 255, "a class not there"))
figure.legend(
    handles=[Patch(facecolor=colour, edgecolor="0.4", label=name) for colour, name in legend],
    loc="outside lower center",
    ncols=3,
)


def right(points: int | None) -> float:
    """Percent of the scene's pixels that have the right class."""
    return 100 * (labels_of(points) == truth).mean()


figures.show(
    figure,
    caption=f"One scene, the first of the test set. Right are {right(None):.0f} % of its pixels "
    f"when each is named by itself, {right(side**2):.0f} % with {side**2} units and "
    f"{right(4):.0f} % with 4; connected regions of one class: {count_components(labels_of(None))},"
    f" {count_components(labels_of(side**2))} and {count_components(labels_of(4))}, against "
    f"{count_components(truth)} in the mask.",
    alt="A drawn scene with a grid of meta-points, its units in arbitrary colours, its exact mask, "
    "and the classes it is given by pixels, by units, and by only four units.",
    name="fig-unit-steps",
)

# %% [markdown]
# ## From one unit to as many as pixels
#
# Move the slider. On the left end the whole image is one unit and gets one word:
# *under-segmentation*. On the right end each pixel is its own unit and specks appear:
# *over-segmentation*. Point at the picture to see all pixels of one unit.

# %% tags=["hide-input"]
SIDES = range(1, 29)  # 28 squared is 784


def steps_of(model, embedded, classes, truth=None) -> list[dict]:
    """The units of one window, and what they are named, for every number of meta-points."""
    pixels, texts = embedded.pixels, model.texts(classes)
    steps = []
    for side in (*SIDES, None):
        scores = model.scores(pixels, texts, side)
        named = scores.table.argmax(dim=1)
        labels = named[scores.index[0]].numpy()
        steps.append(
            {
                "points": side,
                "assignment": scores.index[0]
                .numpy()
                .astype(np.uint8 if side and side < 17 else np.uint16)
                if side
                else None,
                "named": (named if side else torch.from_numpy(labels)).numpy().astype(np.uint8),
                "regions": count_components(labels),
                "right": None if truth is None else 100 * float((labels == truth).mean()),
            }
        )
    return steps


def handled(title, model, picture, classes, truth=None) -> dict:
    """An image of the interactive figure."""
    embedded = model.embed(picture)
    if truth is not None:  # one pixel of the mask for each pixel embedding, from its middle
        step = truth.shape[0] // embedded.pixels.shape[2]
        truth = truth[step // 2 :: step, step // 2 :: step]
    return {
        "title": title,
        "picture": picture.resize((448, 448), Image.Resampling.BICUBIC),
        "classes": list(classes),
        "colours": (palette(classes) if truth is None else colours_of(classes, truth)).tolist(),
        "truth": truth,
        "steps": steps_of(model, embedded, classes, truth),
    }


temple = Image.fromarray(load_sample_image("china.jpg"))
left = (temple.width - temple.height) // 2
temple = temple.crop((left, 0, left + temple.height, temple.height))  # one window
lite = mgca.load("lite")
words = ["temple", "sky", "tree", "people", "pavement"]
payload = {
    "start": SIDES.index(side),
    "images": [
        *(
            handled(f"scene {number + 1}", model, *(data[number][1], data.classes, data[number][2]))
            for number in range(2)
        ),
        handled("a photograph", lite, temple, words),
    ],
}
interactive.write("adaptive_unit/meta-points", payload)

figure, axes = plt.subplots(3, 4, figsize=(7, 5.8), layout="constrained")
for row, own in zip(axes, payload["images"], strict=True):
    photo, own_colours = own["picture"].resize((224, 224)), np.array(own["colours"], np.uint8)
    for axis, chosen in zip(row, (1, 3, 6, None), strict=True):
        step = own["steps"][-1 if chosen is None else SIDES.index(chosen)]
        labels = step["named"] if chosen is None else step["named"][step["assignment"]]
        factor = 224 // len(labels)
        axis.imshow(over(np.kron(labels, np.ones((factor, factor), int)), photo, own_colours))
        axis.set_title("pixel" if chosen is None else f"{chosen**2}, {step['regions']} regions")
        axis.axis("off")
interactive.element(
    "units",
    "adaptive_unit/meta-points",
    fallback=figure,
    alt="Two scenes and a photograph, segmented with few meta-points, with many and by the pixel.",
    caption="Two scenes and a photograph with 1 to 784 meta-points and with the pixel as the unit, "
    "drawn at the resolution of the pixel embeddings. The scenes have 784 of them, so that 784 "
    "meta-points are exactly the pixel unit; the photograph has 3136. White, in the scenes: a "
    "class that is not there.",
)

# %% [markdown]
# ## Over- and under-segmentation, measured
#
# One image shows little. Over the first scenes of the test set, with exact masks: mean IoU, and the
# number of connected regions over that of the masks. A segmentation without specks and without
# losses would have 1.

# %% tags=["hide-input"]
NUMBERS = (1, 4, 9, 16, 25, 36, 64, 100, 196, 400, 784, None)
kept: dict = {}  # the embeddings of the scenes, which all of the page shares


def measured(model, numbers) -> pd.DataFrame:
    """Measures of the first scenes by number of meta-points, None for the pixel unit."""
    rows = pd.DataFrame(measure(model, data, numbers, kept=kept))
    rows = rows[~rows["metric"].str.startswith(CLASS_IOU)]
    table = rows.pivot(index="unit", columns="metric", values="value")
    return table.loc[["pixel" if n is None else str(n) for n in numbers]]


curve = measured(model, NUMBERS)
figure, axes = plt.subplots(2, 1, figsize=(5.2, 5.6), sharex=True, layout="constrained")
at = np.array([n for n in NUMBERS if n])
for axis, metric, label in zip(
    axes, ("miou", "components"), ("mIoU (%)", "regions / those of the mask"), strict=True
):
    axis.plot(at, curve[metric].iloc[:-1], "o-", color="C0")
    axis.axhline(curve.loc["pixel", metric], color="C1", linestyle="--", label="pixel unit")
    axis.set(xscale="log", ylabel=label)
    axis.set_xticks([1, 4, 16, 36, 100, 784], ["1", "4", "16", "36", "100", "784"])
    axis.minorticks_off()
axes[0].legend(loc="lower right")
axes[1].axhline(1, color="grey", linestyle=":")
axes[1].set_xlabel("meta-points")
best = curve["miou"].idxmax()
figures.show(
    figure,
    caption=f"mIoU is best at {best} meta-points, {curve.loc[best, 'miou']:.1f} against "
    f"{curve.loc['pixel', 'miou']:.1f} with pixels, and falls steeply below 16. Regions are "
    f"{curve.loc['4', 'components']:.1f} times those of the mask with 4 meta-points, "
    f"{curve.loc['36', 'components']:.1f} times with 36 and "
    f"{curve.loc['pixel', 'components']:.1f} times with pixels. Averaging removes "
    f"some of the specks, not most of them. First {scenes} test scenes, one decoder.",
    alt="Two curves over the number of meta-points: mIoU rises to about 36 and then falls slowly "
    "to the value of pixels; the number of regions is least with few, and largest with pixels.",
    name="fig-unit-curve",
)

# %% [markdown]
# At the right end, as many meta-points as pixels give exactly the pixel unit. The table has the
# published runs, with fewer numbers of meta-points and more of everything else: three decoders, 150
# scenes, also a set with background. Beside them the paper's Table 4, from photographs and CLIP
# ViT-B/16: only the order of its rows can be compared.

# %% tags=["remove-input"]
assert (curve.loc["784"] == curve.loc["pixel"]).all()
published = read_results(results / "scenes" / "meta_points.csv")
means = group_means(published, setting.groups)
ours = {
    metric: mean_and_std(means, metric, digits=digits).droplevel("variant")
    for metric, digits in (("miou", 1), ("components", 2))
}
paper = pd.read_csv(results / "paper" / "table4.csv", dtype={"meta_points": str})
paper = paper.assign(unit=paper["meta_points"].replace("3136", "pixel")).set_index("unit")
order = ["16", "25", "36", "49", "64", "81", "121", "pixel"]
frame = pd.DataFrame(
    {
        "mIoU, with background": ours["miou"]["with background"],
        "mIoU, without": ours["miou"]["without background"],
        "regions, with background": ours["components"]["with background"],
        "regions, without": ours["components"]["without background"],
        "paper: mIoU, with background": paper["avg_with_bg"],
        "paper: mIoU, without": paper["avg_without_bg"],
    }
).loc[order]
figures.table(
    frame.rename_axis("meta-points"),
    caption="Scenes, mean ± standard deviation over three decoders; regions are connected regions "
    "over those of the masks.",
    results="scenes/meta_points.csv",
)

# %% [markdown]
# ## Why an average helps
#
# A pixel embedding is what the pixel shows plus noise. As far as the noise of pixels that look
# alike to the model is independent, their average has less of it. The price: a pixel that joined
# the wrong gathering is lost, even if it was named rightly by itself.

# %% tags=["remove-input"]
counts = np.zeros(4, dtype=int)
closer = []
for identifier, _, mask in data:
    own = kept[data.source, identifier]
    single = model.segment(own, data.classes, None).labels.numpy() == mask
    joint = model.segment(own, data.classes, side**2).labels.numpy() == mask
    counts += [(single & joint).sum(), (~single & joint).sum(), (single & ~joint).sum(), mask.size]
    units = semantic_units(own.pixels, side)
    members = units.units[0][units.assignment[0]].permute(2, 0, 1)[None]  # (1, C, H, W)
    step = mask.shape[0] // own.pixels.shape[2]
    true = texts[torch.from_numpy(mask[step // 2 :: step, step // 2 :: step].astype(int))]
    closer.append(
        [
            F.cosine_similarity(each[0].permute(1, 2, 0), true, dim=-1).mean().item()
            for each in (own.pixels, members)
        ]
    )
mended, spoilt = 100 * counts[1] / counts[3], 100 * counts[2] / counts[3]
alone, together = np.mean(closer, axis=0)
Markdown(
    f"On these {scenes} scenes the {side**2} units mend **{mended:.1f} %** of all pixels and spoil "
    f"**{spoilt:.1f} %**. The cosine between a pixel's embedding and its true class is "
    f"{alone:.3f} on average; between its unit's embedding and that class, {together:.3f}."
)

# %% [markdown]
# ## Two choices that the paper leaves open
#
# *Uniform sampling* of the meta-points may mean the centres of the grid's cells, or points spread
# from edge to edge ([D11](../open-choices.md)). *Averaged* may mean the embeddings as they are, in
# which long ones weigh more, or their directions ([D12](../open-choices.md)). The first of each is
# the default here.

# %% tags=["hide-input"]
CHOICES = {
    "cell centres, raw": {},
    "edge to edge, raw": {"placement": "corner"},
    "cell centres, directions": {"average": "normalised"},
}
variants = {
    title: mgca.Model(
        model.backbone, model.decoder, dataclasses.replace(setting.segment(), **options)
    )
    for title, options in CHOICES.items()
}
default = labels_of(side**2)
figure, axes = plt.subplots(1, 3, figsize=(7, 2.9), layout="constrained")
changed, values = {}, {}
for axis, (title, variant) in zip(axes, variants.items(), strict=True):
    labels = variant.segment(embedded, data.classes, side**2).labels.numpy()
    axis.imshow(over(labels, picture, colours))
    differs = labels != default
    if differs.any():
        axis.contour(differs, [0.5], colors="white", linewidths=2.5)
        axis.contour(differs, [0.5], colors="black", linewidths=1)
    index = meta_point_index(height, width, side, variant.config.placement)
    draw_meta_points(axis, index, (height, width), picture.height)
    axis.set_title(title)
    axis.axis("off")
    changed[title] = 100 * differs.mean()
    values[title] = measured(variant, (side**2,))["miou"].item()
first, corner, directions = CHOICES
figures.show(
    figure,
    caption=f"The scene above with the other values, outlined where the class changes: "
    f"{changed[corner]:.0f} % of the pixels with points from edge to edge, "
    f"{changed[directions]:.1f} % with directions averaged. mIoU over the first {scenes} scenes: "
    f"{values[first]:.1f} by default, {values[corner]:.1f} and {values[directions]:.1f} with them.",
    alt="The scene under its classes three times, with meta-points in cell centres and from edge "
    "to edge, and with normalised averages; changed pixels are outlined.",
    name="fig-unit-choices",
)

# %% [markdown]
# ## What it costs
#
# The assignment takes $m^2 N C$ multiplications per window. For the paper's 36 meta-points, 3136
# pixels and 512 channels that is 58 million, where the encoder takes billions. Naming becomes
# cheaper: 36 comparisons with each word instead of 3136.
#
# ## What to take away
#
# * A unit is the mean of the pixels that are nearest to one meta-point in embedding space. Nothing
#   is trained, and as many meta-points as pixels give back the pixel.
# * Between one unit and one per pixel there is a broad best range around 36. Too few swallow small
#   things, too many keep the noise.
# * Units mend more pixels than they spoil, but they do not know contours: specks become fewer, not
#   few.
#
# ## Try it
#
# * Set `side = 2` at the top: what happens to the smallest thing of the scene, and to the share of
#   pixels that are mended and spoilt?
# * In `adaptive_units`, drop step 3's average and name each unit by its meta-point alone,
#   `units = flat[points]`. How much of the gain was the average?
# * Set `image = 7`, and look for a unit that lies in several pieces. Is that a mistake?
