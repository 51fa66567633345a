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
# # Side by side
#
# The paper makes two of its points with pictures: what each level of alignment adds (its Fig. 5),
# and what group, pixel and adaptive unit do to the same image (its Fig. 8). This page repeats both
# with the models of this project, on drawn scenes with exact masks and on photographs.
#
# Pictures persuade too easily. So no image here was picked: a rule, stated at each figure, says
# which are shown, and the last figures are failures found by a rule.
#
# **After this page you can** tell group, pixel and adaptive unit apart in a picture, and look for
# failures by a rule.

# %% tags=["parameters"]
shown = (0, 1, 2)  # which images of a test set; the rule is "the first three"
scenes = 40  # first scenes of the test set, among which failures are sought
groups = 8  # of the group-like unit; GroupViT has 8

# %% tags=["hide-input"]

import numpy as np
import torch
from IPython.display import Markdown
from torch.nn import functional as F

import mgca
from mgca.data.masks import id_names
from mgca.data.scenes import TEST_SEED, evaluation_set
from mgca.experiments.report import figures, overlays, plots, validation
from mgca.experiments.report.correspondence import worded_photographs
from mgca.experiments.report.page import open_page
from mgca.experiments.report.pictures import models_at_hand
from mgca.inference.score_map import ScoreMap
from mgca.inference.segmentation import Segmentation

page = open_page("qualitative", "scenes")

# %% [markdown]
# ## What each level adds
#
# As the paper's Fig. 5: {term}`plain CLIP`, then the decoder trained with the object level, with
# the region level too, with all three, and last the same decoder read through 36 adaptive units.
# Above: the set with a background, as VOC in the paper. Below: the set where everything has a
# class. In both, the first three images of the test set.

# %% tags=["hide-input"]
LEVELS = {
    "plain CLIP": ("baseline", None),
    "object": ("object", None),
    "+ region": ("object+region", None),
    "+ pixel": ("all", None),
    "+ units": ("all", 36),
}
# The decoders that come with the project, whatever else was trained here.
models = models_at_hand("granularity", LEVELS, page.setting, 0, page.project / "none")


# %% tags=["hide-input"]
def levels(name: str):
    """The images of a set by what was trained, and their mIoU."""
    data = evaluation_set(name, 150, seed=TEST_SEED)
    _, images, masks = zip(*(data[number] for number in shown), strict=True)
    named = validation.segmented(models, data, images)
    table, _ = validation.compared(named, masks, len(id_names(data)))
    overlaps = [f"{miou:.0f} ({title})" for title, miou in table["mIoU (%)"].items()]
    return plots.scene_sheet(images, masks, named, id_names(data)), ", ".join(overlaps)


figure, overlaps = levels("things")
figures.show(
    figure,
    caption="Things on a background, the first three of the test set. mIoU of these three, in "
    f"percent: {overlaps}. Plain CLIP sees background nearly everywhere.",
    alt="Three drawn scenes, their masks and five segmentations of each, from plain CLIP to "
    "all three levels with adaptive units.",
    name="fig-levels-things",
)

# %% tags=["hide-input"]
figure, overlaps = levels("scenes")
figures.show(
    figure,
    caption="Things and stuff, the first three of the test set. mIoU of these three, in percent: "
    f"{overlaps}.",
    alt="Three further scenes, their masks and five segmentations of each.",
    name="fig-levels-scenes",
)

# %% [markdown]
# What these six images can show is less than [the ablation](ablation_granularity.ipynb), which has
# 150 images, three decoders and contours as well as areas. It also says which of the paper's claims
# on the levels hold here.
#
# ## Three kinds of units
#
# The paper's Fig. 8 sets GroupViT, TCL and MGCA side by side. GroupViT differs from the other two
# in everything; TCL and MGCA share the frozen CLIP and the kind of decoder, and differ in
# objective, training data and unit. Here only the unit differs. The pixel embeddings are the same,
# from MGCA's published decoder, and they are named
#
# * in **groups**: a few clusters for the whole image, here by $k$-means on directions. GroupViT's
#   groups are learned and its weights have to be downloaded; this stands in for what they have in
#   common, few global centres. GroupViT itself: not run;
# * by the **pixel**, as MaskCLIP and TCL do;
# * in **adaptive units**, from 36 meta-points.

# %%
mgca_scenes, *_ = models["+ units"]


def clusters(pixels: torch.Tensor, count: int, rounds: int = 10) -> torch.Tensor:
    """(N,) cluster of each pixel embedding (N, C), by k-means on their directions."""
    unit = F.normalize(pixels, dim=1)
    # Begin with the pixel most like the mean, then always take the one least like
    # those taken.
    chosen = [(unit @ unit.mean(dim=0)).argmax().item()]
    while len(chosen) < count:
        chosen.append((unit @ unit[chosen].T).amax(dim=1).argmin().item())
    centres = unit[chosen]
    for _ in range(rounds):
        assignment = (unit @ centres.T).argmax(dim=1)
        sums = torch.zeros_like(centres).index_add(0, assignment, unit)
        centres = F.normalize(sums, dim=1)
    return assignment


def by_groups(model, embedded, classes, count: int = groups) -> Segmentation:
    """An image of one window, named by the means of its clusters."""
    (pixels,) = embedded.pixels.flatten(2).transpose(1, 2)  # (N, C)
    assignment = clusters(pixels, count)
    members = F.one_hot(assignment, count).float()  # (N, G)
    means = members.T @ pixels / members.sum(dim=0).clamp(min=1)[:, None]
    table = F.normalize(means, dim=1) @ model.texts(classes).T
    index = assignment.view(1, *embedded.pixels.shape[2:])
    return Segmentation(embedded, classes, ScoreMap(table, index))


# %% tags=["hide-input"]
UNITS = {f"{groups} groups": by_groups, "pixel": None, "36 units": 36}


def by_units(model, embedded, classes) -> dict[str, np.ndarray]:
    """Labels (H, W) by unit."""
    results = {
        name: unit(model, embedded, classes)
        if callable(unit)
        else model.segment(embedded, classes, unit)
        for name, unit in UNITS.items()
    }
    return {name: result.labels.numpy() for name, result in results.items()}


# %% tags=["hide-input"]
data = evaluation_set("scenes", scenes, seed=TEST_SEED)
_, images, masks = zip(*data, strict=True)
embedded = map(mgca_scenes.embed, images)
each = [by_units(mgca_scenes, own, data.classes) for own in embedded]
named = {unit: [own[unit] for own in each] for unit in UNITS}
frame, right = validation.compared(named, masks, len(data.classes))


# %% tags=["hide-input"]
def scene_sheet(numbers, units=UNITS):
    """Scenes, their masks, and what units make of them."""
    labels = {unit: [named[unit][n] for n in numbers] for unit in units}
    chosen = [images[n] for n in numbers], [masks[n] for n in numbers]
    return plots.scene_sheet(*chosen, labels, data.classes)


figures.show(
    scene_sheet(shown),
    caption="The first three scenes of the test set by unit. Pixels right: "
    + "; ".join(
        f"scene {n + 1}: " + ", ".join(f"{right.loc[n, u]:.0f} % ({u})" for u in UNITS)
        for n in shown
    )
    + ".",
    alt="Three scenes with their masks, named in eight groups, by the pixel, and in 36 units.",
    name="fig-units-scenes",
)

# %% tags=["hide-input"]
figures.table(
    frame.rename_axis("unit").round(2),
    caption=f"Over- and under-segmentation on the first {scenes} test scenes: regions are connected"
    " regions of one class, over those of the masks; a thing or stuff of the mask is lost if less "
    "than a tenth of it is labelled correctly.",
)

# %% tags=["hide-input"]
regions, lost = frame["regions / those of the mask"], frame["contents lost (%)"]
between = all(column.rank()["36 units"] == 2 for column in (regions, lost))
Markdown(
    f"Best in mIoU: **{frame['mIoU (%)'].idxmax()}**. Fewest regions: **{regions.idxmin()}**. "
    f"Fewest contents lost: **{lost.idxmin()}**. The paper finds that the adaptive unit alleviates "
    "both problems. Here it lies "
    f"{'between the other two in both' if between else 'not between the other two in both'}."
)

# %% [markdown]
# ## Photographs
#
# The first six of [the quickstart](quickstart.ipynb), with its words for them, cut to the square in
# their middle, which is one window. They have no masks, and `lite` is a small model: what is right
# the reader has to judge.

# %%
lite, photographs = mgca.load("lite"), worded_photographs()
squares = {
    name: overlays.square(photograph).resize((448, 448))
    for name, (photograph, _) in photographs.items()
}


# %% tags=["hide-input"]
def photo_sheet(names):
    """Photographs, and what units make of them; and the numbers of regions."""
    words = [photographs[name][1] for name in names]
    embedded = map(lite.embed, (squares[name] for name in names))
    labels = [by_units(lite, *own) for own in zip(embedded, words, strict=True)]
    counted = validation.count_regions(dict(zip(names, labels, strict=True)))
    return plots.photo_sheet([squares[name] for name in names], words, labels), counted


figure, counted = photo_sheet(list(photographs)[:3])
figures.show(
    figure,
    caption=f"Three photographs by unit. Connected regions of one class: {counted}.",
    alt="A cat, a cup of coffee and an astronaut, named in groups, by the pixel and in units.",
    name="fig-units-photos-1",
)

# %% tags=["hide-input"]
figure, counted = photo_sheet(list(photographs)[3:6])
figures.show(
    figure,
    caption=f"Three more photographs by unit. Regions: {counted}.",
    alt="A motorcycle, a rocket launch and a temple, named in groups, by the pixel and in units.",
    name="fig-units-photos-2",
)

# %% [markdown]
# Where one thing fills the picture, as the cat does, the groups look best of all three. Units keep
# more apart where several things meet, and carry more specks. `lite` is wrong with all of them in
# places: no unit gives the roof of the temple back to the temple.
#
# ## Where it fails
#
# First, where the adaptive unit does harm: of the scenes above, the three in which it loses most
# pixels against the pixel unit. Then the three in which it is right least of all, whatever the
# pixel unit does.

# %% tags=["hide-input"]
change = right["36 units"] - right["pixel"]
harmed = change.nsmallest(3).index
figures.show(
    scene_sheet(harmed, ("pixel", "36 units")),
    caption="Where units do most harm: "
    + ", ".join(f"{change[n]:+.1f} points of accuracy (scene {n + 1})" for n in harmed)
    + f". Units lose accuracy in {(change < 0).sum()} of {scenes} scenes and gain in "
    f"{(change > 0).sum()}; the mean change is {change.mean():+.1f}.",
    alt="Three scenes with masks, named by the pixel and in units, in which units are worse.",
    name="fig-failures-units",
)

# %% tags=["hide-input"]
worst = right["36 units"].nsmallest(3).index
figures.show(
    scene_sheet(worst, ("pixel", "36 units")),
    caption="Where least is right: "
    + ", ".join(
        f"{right.loc[n, '36 units']:.0f} % of the pixels (scene {n + 1})" for n in worst
    )
    + f", against {right['36 units'].median():.0f} % in the median scene. Large areas get a wrong "
    "name as a whole: no unit mends what its pixels agree on.",
    alt="The three scenes with the lowest accuracy, with masks, by the pixel and in units.",
    name="fig-failures-all",
)

# %% [markdown]
# ## What to take away
#
# * With the same pixel embeddings, the unit alone decides how coarse or scattered the result is.
# * Averages mend noise. They do not mend a wrong name that all pixels of an area share.
# * Three pictures prove nothing in either direction: the tables count, and the failures belong
#   beside the successes.
#
# ## Try it
#
# * Set `shown = (3, 4, 5)` at the top. Would you tell the same story from these images?
# * Set `groups = 3`, then `36`. When do groups stop losing contents, and what is left then of the
#   difference to adaptive units?
# * Add a word to a photograph that is not in it: `photographs["temple"][1].append("dog")`. Which
#   unit is fooled least?
