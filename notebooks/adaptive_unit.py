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
# pixels gather around a grid of *meta-points*, and the average of each gathering is labelled.
#
# Nothing is trained for it. It is a way to read pixel embeddings, and it can be put on those of any
# other method.
#
# **After this page you can** write the adaptive unit in ten lines, and measure over- and
# under-segmentation.

# %% tags=["parameters"]
side = 6  # meta-points along each side; the paper has 6, which makes 36 units
image = 0  # which scene of the test set is taken apart below
scenes = 30  # of the test set, that the curves on this page are measured on

# %% tags=["hide-input"]
import dataclasses

import numpy as np
import torch
from IPython.display import Markdown
from sklearn.datasets import load_sample_image
from torch.nn import functional as F

import mgca
from mgca.data.scenes import TEST_SEED, evaluation_set
from mgca.evaluation.metrics import count_components
from mgca.experiments.report import figures, interactive, overlays, unit_steps
from mgca.experiments.report.page import open_page
from mgca.experiments.report.tables import group_means
from mgca.units import meta_point_index, semantic_units

page = open_page("adaptive_unit", "scenes")

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
setting = page.setting
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

# %% tags=["hide-input"]
cells = pixels.shape[1:]
alone = [np.where(assignment.view(cells) == unit, 0, 255) for unit in range(side**2)]
parted = sum(count_components(unit, ignore=255) > 1 for unit in alone)
sizes = torch.bincount(assignment)
Markdown(
    f"The {side**2} units of this scene have {sizes.min()} to {sizes.max()} pixels. Distance plays "
    f"no part in the assignment: {parted} of them lie in more than one piece."
)

# %% [markdown]
# ## Before and after

# %%
results = [model.segment(embedded, data.classes, n) for n in (None, side**2, 4)]
labels = [result.labels.numpy() for result in results]
right = [100 * (own == truth).mean() for own in labels]  # % of the pixels
regions = [count_components(own) for own in labels]

# %% tags=["hide-input"]
titles = ("pixels labelled", f"{side**2} units labelled", "4 units labelled")
named_by = dict(zip(titles, labels, strict=True))
scene = (picture, truth, data.classes, assignment.view(cells).numpy())
figure = unit_steps.steps_figure(*scene, named_by)
figures.show(
    figure,
    caption=f"One scene, the first of the test set. Of its pixels {right[0]:.0f} % are correct "
    f"when each is labelled by itself, {right[1]:.0f} % with {side**2} units and "
    f"{right[2]:.0f} % with 4; connected regions of one class: {regions[0]},"
    f" {regions[1]} and {regions[2]}, against "
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
temple = overlays.square(load_sample_image("china.jpg"))  # one window
words = ["temple", "sky", "tree", "people", "pavement"]
images = [
    unit_steps.unit_image(f"scene {n + 1}", model, own, data.classes, mask)
    for n, (_, own, mask) in enumerate(data[n] for n in range(2))
]
images.append(unit_steps.unit_image("a photograph", mgca.load("lite"), temple, words))
start = unit_steps.SIDES.index(side)
interactive.write("adaptive_unit/meta-points", {"start": start, "images": images})
interactive.element(
    "units",
    "adaptive_unit/meta-points",
    fallback=unit_steps.still(images, (1, 3, 6, None)),
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
numbers = (1, 4, 9, 16, 25, 36, 64, 100, 196, 400, 784, None)
kept: dict = {}  # the embeddings of the scenes, which all of the page shares
curve = unit_steps.measured(model, data, numbers, kept)
best = curve["miou"].idxmax()
few, paper, single = curve.loc[["4", "36", "pixel"], "components"]
figures.show(
    unit_steps.unit_curve(curve),
    caption=f"mIoU is best at {best} meta-points, {curve.loc[best, 'miou']:.1f} against "
    f"{curve.loc['pixel', 'miou']:.1f} with pixels, and falls steeply below 16. Regions are "
    f"{few:.1f} times those of the mask with 4 meta-points, {paper:.1f} times with 36 and "
    f"{single:.1f} times with pixels. Averaging removes "
    f"some of the specks, not most of them. First {scenes} test scenes, one decoder.",
    alt="Two curves over the number of meta-points: mIoU rises to about 36 and then falls slowly "
    "to the value of pixels; the number of regions is least with few, and largest with pixels.",
    name="fig-unit-curve",
)

# %% [markdown]
# At the right end, as many meta-points as pixels give exactly the pixel unit. The table has the
# published runs, with fewer numbers of meta-points and more of everything else: five decoders, 150
# scenes, also a set with background. Beside them the paper's Table 4, from photographs and CLIP
# ViT-B/16: only the order of its rows can be compared.

# %% tags=["hide-input"]
assert (curve.loc["784"] == curve.loc["pixel"]).all()
published = page.read("scenes/meta_points.csv")
means = group_means(published, setting.groups)
figures.table(
    unit_steps.published_table(means, page.paper("table4.csv")),
    caption="Scenes, mean ± standard deviation over five decoders; regions are connected regions "
    "over those of the masks.",
    results="scenes/meta_points.csv",
)

# %% [markdown]
# ## Why an average helps
#
# A pixel embedding is what the pixel shows plus noise. As far as the noise of pixels that look
# alike to the model is independent, their average has less of it. The price: a pixel that joined
# the wrong gathering is lost, even if it was labelled correctly by itself.

# %% tags=["hide-input"]
means = unit_steps.averaged(model, data, side, kept)
Markdown(
    f"On these {scenes} scenes the {side**2} units mend **{means['mended']:.1f} %** of all pixels "
    f"and spoil **{means['spoilt']:.1f} %**. The cosine between a pixel's embedding and its true "
    f"class is {means['alone']:.3f} on average; between its unit's embedding and that class, "
    f"{means['together']:.3f}."
)

# %% [markdown]
# ## Two choices that the paper leaves open
#
# *Uniform sampling* of the meta-points may mean the centres of the grid's cells, or points spread
# from edge to edge ([D11](../open-choices.md)). *Averaged* may mean the embeddings as they are, in
# which long ones weigh more, or their directions ([D12](../open-choices.md)). The first of each is
# the default here.

# %% tags=["hide-input"]
choices = {
    "cell centres, raw": {},
    "edge to edge, raw": {"placement": "corner"},
    "cell centres, directions": {"average": "normalised"},
}
configs = [dataclasses.replace(setting.segment(), **own) for own in choices.values()]
variants = [mgca.Model(model.backbone, model.decoder, config) for config in configs]
miou = [unit_steps.measured(v, data, (side**2,), kept)["miou"].item() for v in variants]

# %% tags=["hide-input"]
results = [variant.segment(embedded, data.classes, side**2) for variant in variants]
by_choice = dict(zip(choices, (r.labels.numpy() for r in results), strict=True))
changed = [100 * (own != labels[1]).mean() for own in by_choice.values()]
points = [meta_point_index(*cells, side, c.placement).numpy() for c in configs]
scene = (picture, truth, data.classes)
figure = unit_steps.choices_figure(*scene, labels[1], by_choice, points)
figures.show(
    figure,
    caption=f"The scene above with the other values, outlined where the class changes: "
    f"{changed[1]:.0f} % of the pixels with points from edge to edge, "
    f"{changed[2]:.1f} % with directions averaged. mIoU over the first {scenes} scenes: "
    f"{miou[0]:.1f} by default, {miou[1]:.1f} and {miou[2]:.1f} with them.",
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
# 1. Set `side = 2` at the top: what happens to the smallest thing of the scene, and to the share of
#    pixels that are mended and spoilt?
# 2. In `adaptive_units`, drop step 3's average and name each unit by its meta-point alone,
#    `units = flat[points]`. How much of the gain was the average?
# 3. Set `image = 7`, and look for a unit that lies in several pieces. Is that a mistake?
#
# ```{dropdown} What to expect
# 1. On this scene 4 units are right for slightly fewer pixels than single pixels are: the figure
#    above has both. Over all scenes mIoU falls steeply below 16 meta-points.
# 2. Then the noise of one pixel names the whole unit. Compare the pixels that are right with those
#    of the figure above.
# 3. No. Distance plays no part in the assignment: things of one kind in two places are one
#    unit.
# ```
