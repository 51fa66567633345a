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
# # The object level: a caption finds its object
#
# No mask is given, so MGCA lets the caption make one. The pixels most like the caption are taken
# for the object that it describes. Their weighted mean must then fit this caption better than all
# other captions of the batch.
#
# A correspondence that a model makes for itself is a guess. This page draws the guess, and on
# [drawn scenes](scenes_world.ipynb), where the truth is known, measures how good it is.
# [Method](../method.md) has all equations; this page is about Eq. 3 to 5.
#
# **After this page you can** compute Eq. 3 to 5 by hand, and say how good the object is that a
# caption picks.

# %% tags=["parameters"]
alpha_photos = 0.4  # the paper's, for CC3M
alpha_scenes = 0.34  # the mean area of what texts describe in the scenes
temperature = 0.07
counted = 256  # scenes to measure on

# %% tags=["hide-input"]
import math

import torch
from IPython.display import Markdown
from torch.nn import functional as F

import mgca
from mgca.decoder import upsample2
from mgca.experiments.report import figures, level_figures, plots
from mgca.experiments.report.correspondence import (
    by_rank,
    cut_out,
    frozen_features,
    kept,
    photo_pairs,
)
from mgca.experiments.report.page import open_page
from mgca.experiments.report.plots import Panel
from mgca.experiments.report.truth import Scenes, own_scores
from mgca.losses.levels import (
    area_in_pixels,
    object_loss,
    region_embeddings,
    similarity,
)

open_page("object_level")
lite = mgca.load("lite")
photos = photo_pairs()
scenes = Scenes(mgca.load("scenes"), counted)

# %% [markdown]
# ## A batch
#
# Seven photographs that come with scikit-image and scikit-learn, with captions written for this
# page, go through [`lite`](quickstart.ipynb) at 224 × 224. Its 14 × 14 positions, upsampled as a
# decoder does, are $28 \cdot 28 = 784$ pixel embeddings, as many as in the paper.


# %%
features = frozen_features(lite, photos.images)
texts = lite.backbone.encode_text(photos.captions)
pixels = upsample2(lite.pixels(features))  # Eq. 1

# %% [markdown]
# ## The guess, in eight lines
#
# With $s^n_{ii} = \langle p^n_i, t_i \rangle$ the similarity of pixel $n$ to the image's own
# caption, $A$ is a softmax over the pixels, and $M$ keeps the $\lfloor \alpha N \rfloor$ most
# similar ones:
#
# $$
# \begin{aligned}
# A^n_{ii} &= \frac{\exp s^n_{ii}}{\sum_m \exp s^m_{ii}}, \cr
# M^n_{ii} &= \begin{cases} 1 & \text{if } s^n_{ii} \text{ is among the largest } \lfloor \alpha N
# \rfloor \cr 0 & \text{otherwise} \end{cases}
# \end{aligned} \tag{3}
# $$
#
# $$
# o_{ii} = \frac{\sum_n A^n_{ii} M^n_{ii} \, p^n_i}{\sum_n A^n_{ii} M^n_{ii}} \tag{4}
# $$
#
# The paper has $\alpha = 0.4$: 313 of 784 pixels. It is the average area of what a caption of its
# training data describes.


# %%
def object_of(pixels, text, alpha):
    """The object that a text describes in an image, written as in Eq. 3 and 4."""
    p = pixels.flatten(1).T  # (N, C)
    s = p @ text  # (N,)
    A = s.exp() / s.exp().sum()
    size = math.floor(alpha * len(s))
    M = torch.zeros(len(s))
    M[s.argsort(descending=True)[:size]] = 1
    return (A * M) @ p / (A * M).sum(), A, M


objects = torch.stack(
    [object_of(p, t, alpha_photos)[0] for p, t in zip(pixels, texts, strict=True)]
)

# %% [markdown]
# The library computes the same for all pairs of a batch at once:

# %%
pairs = zip(pixels, texts, strict=True)
own = torch.stack([similarity(p[None], t[None])[0] for p, t in pairs])
torch.testing.assert_close(objects, region_embeddings(pixels, own, alpha_photos)[:, 0])


# %% tags=["hide-input"]
rows = []
for i in (2, 0, 3):
    inside = kept(own[i, 0], alpha_photos)
    # Those of Eq. 4: the weights of the pixels kept add up to 1.
    weights = own[i, 0].masked_fill(~inside, -torch.inf).softmax(-1)
    title = f"{plots.quoted(photos.captions[i], 26)}\npixels kept"
    cut, map_ = cut_out(photos.images[i], inside), own[i, 0].view(28, 28)
    hot = Panel(weights.view(28, 28), "weights", options={"cmap": "magma"})
    rows.append([Panel(map_, "similarity"), Panel(cut, title), hot])
figures.show(
    plots.panels(rows, (7, 7.9)),
    caption="The caption's similarity to each pixel, the "
    f"{area_in_pixels(alpha_photos, 784)} pixels that $\\alpha = {alpha_photos:g}$ keeps, and "
    "their weights. The motorcycle is found, and a few of its pixels have nearly all the weight. "
    "Of the cat, which nearly fills its picture, more than half is missed: "
    f"{100 * alpha_photos:.0f} % is all that is kept. Of the woman the face is found, but her "
    "suit, which the caption names, is not, and some of the wall is kept.",
    alt="Three photographs in rows: a woman in a space suit, a cat and a motorcycle. Columns: "
    "similarity to the caption, the photograph with all but the kept pixels faded, and weights.",
    name="fig-object-photos",
)

# %% [markdown]
# ## Contrast: which caption is yours?
#
# The guess alone teaches nothing: any caption has pixels that are most like it. What teaches is the
# comparison. Each object is compared with all captions of the batch, and each caption with all
# objects, by cosine similarity $\varphi$ at the temperature $\tau = 0.07$:
#
# $$
# \begin{aligned}
# \mathcal{L}_\mathrm{object} = -\frac{1}{2B} \sum_i \Big[
# & \log \frac{e^{\varphi(o_{ii}, t_i)/\tau}}{\sum_j e^{\varphi(o_{ii}, t_j)/\tau}} \cr
# + & \log \frac{e^{\varphi(o_{ii}, t_i)/\tau}}{\sum_j e^{\varphi(o_{jj}, t_i)/\tau}} \Big]
# \end{aligned} \tag{5}
# $$

# %%
cosines = F.normalize(objects, dim=-1) @ F.normalize(texts, dim=-1).T  # (B, B)
logits = cosines / temperature
# Of each object the probability of its caption, and of each caption that of its object.
image_to_text = logits.softmax(dim=1).diagonal()
text_to_image = logits.softmax(dim=0).diagonal()
loss = -(image_to_text.log() + text_to_image.log()).mean() / 2
torch.testing.assert_close(
    loss, object_loss(pixels, texts, alpha=alpha_photos, temperature=temperature)
)

# %% tags=["hide-input"]
labels = {"rows": "object", "columns": "caption"}
figure = plots.matrices(
    {"": cosines}, photos.names, (6, 5.2), **labels, numbers=True, rotation=40
)
count = len(photos.names)
right = (cosines.argmax(dim=1) == torch.arange(count)).sum().item()
pair, off = cosines.diagonal(), cosines[~torch.eye(count, dtype=torch.bool)]
figures.show(
    figure,
    caption=f"Cosine similarity of each object to each caption. {right} of {count} objects "
    f"are most like their own caption; the pairs lie between {pair.min():.2f} and "
    f"{pair.max():.2f}, the others between {off.min():.2f} and {off.max():.2f}. The "
    f"loss of this batch is {loss:.2f}; guessing would give $\\log {count}$ = "
    f"{math.log(count):.2f}.",
    alt="A matrix of seven objects by seven captions; the diagonal is darkest.",
    name="fig-object-matrix",
)

# %% [markdown]
# Note who is compared: an object and a foreign *caption*. What else lies in the image, outside the
# pixels kept, is in no pair. That is left to [the region level](region_level.ipynb).
#
# ## What α lets in
#
# A smaller $\alpha$ keeps less of the object, a larger one more of what is not the object.

# %% tags=["hide-input"]
# A caption of one thing or two, of which one sees enough.
i = scenes.first(2, 0.2, 0.35)
scores = own_scores(scenes.trained, scenes.captions.embeddings)[i]
cups, drawn, truth = [], [], scenes.captions.truth[i]
for area in (0.1, 0.4, 0.8):
    cup, scene = kept(own[1, 0], area), kept(scores, area)
    cups.append(Panel(cut_out(photos.images[1], cup), f"α = {area:g}"))
    named = f"{100 * truth[scene].mean():.0f} % named"
    drawn.append(Panel(cut_out(scenes.images[i], scene), named))
lost = truth[~kept(scores, 0.1)].sum() / truth.sum()
figures.show(
    plots.panels([cups, drawn], (7, 5.3)),
    caption=f"What three areas keep, for “{photos.captions[1]}” and, below, "
    f"“{scenes.captions.words[i]}” "
    "with the small CLIP of the scenes. *Named* is the share of the kept pixels that the caption "
    "names, by the exact mask. At $\\alpha = 0.1$ nearly all is right and "
    f"{100 * lost:.0f} % of what is named is missed; at 0.8 most of what is kept is wrong.",
    alt="A cup of coffee and a drawn scene, each with a tenth, four tenths and eight tenths of "
    "its pixels kept and the others faded.",
    name="fig-object-alpha",
)

# %% [markdown]
# ## How good is the guess?
#
# Of scenes the masks are exact, so the kept pixels can be compared with what the text names.
# Training draws captions, and texts made of one of their nouns; here each scene is taken with its
# caption, and with one class that the caption names.
#
# *Precision* is the share of the kept pixels that the text names, and *recall* the share of what it
# names that is kept. *Weighted precision* counts each kept pixel by its weight in Eq. 4.


# %%
def quality(scores, truth, alphas):
    """(len(alphas), 3) precision, recall, weighted precision: means over the images."""
    # A caption's word may be wrong, and then it names nothing.
    visible = truth.sum(-1) > 0
    sorted_truth = by_rank(scores, truth)[visible]
    sorted_scores = scores[visible].sort(-1, descending=True).values
    rows = []
    for alpha in alphas:
        size = area_in_pixels(alpha, scores.shape[-1])
        found = sorted_truth[:, :size]
        weights = sorted_scores[:, :size].softmax(-1)
        recall = found.sum(-1) / sorted_truth.sum(-1)
        values = [found.mean(-1), recall, (weights * found).sum(-1)]
        rows.append(torch.stack(values).mean(-1))
    return torch.stack(rows)


# %% tags=["hide-input"]
kinds = {"a caption": scenes.captions, "one class it names": scenes.single}
grid = [0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.27, alpha_scenes]
grid += [n / 10 for n in range(4, 11)]
found = {
    (kind, name): quality(own_scores(pixels, own.embeddings), own.truth, grid)
    for kind, own in kinds.items()
    for name, pixels in (("frozen", scenes.frozen), ("trained", scenes.trained))
}

# %% tags=["hide-input"]
areas = {kind: own.truth[own.visible].mean() for kind, own in kinds.items()}
weighted = found["one class it names", "trained"][:, 2]
figures.show(
    level_figures.quality_curves(grid, found, areas, alpha_scenes),
    caption=f"Over {counted} scenes, with the published decoder and, dotted, before its training. "
    "A larger $\\alpha$ trades precision for recall. The weighted precision hardly falls: for one "
    f"class it is {weighted[grid.index(0.05)]:.2f} at $\\alpha = 0.05$ and "
    f"{weighted[-1]:.2f} at 1, because the softmax has put the weight where the text "
    "points. Before training it falls further.",
    alt="Two diagrams of precision, recall and weighted precision over alpha, for captions and for "
    "single classes. Precision falls, recall rises to one, weighted precision stays nearly level.",
    name="fig-object-quality",
)

# %% tags=["hide-input"]
size, at = area_in_pixels(alpha_scenes, 784), grid.index(alpha_scenes)
scores = own_scores(scenes.trained, scenes.single.embeddings)
weights = scores.topk(size).values.softmax(-1)
entropy = -(weights * weights.clamp_min(1e-30).log()).sum(-1)
before, after = (
    found["one class it names", name][at] for name in ("frozen", "trained")
)
Markdown(
    f"At α = {alpha_scenes:g}, for one class: precision goes from {before[0]:.2f} to "
    f"{after[0]:.2f} with training, recall from {before[1]:.2f} to {after[1]:.2f}, weighted "
    f"precision from {before[2]:.2f} to {after[2]:.2f}. Of the {size} pixels kept "
    f"the weights are as uneven as if {entropy.exp().median():.0f} shared the weight equally "
    "(the exponential of the entropy, median)."
)

# %% [markdown]
# A guess that improves the decoder, which improves the guess: that is the loop that training runs.
# It starts from a useful guess, because the frozen features already meet the text a little
# ([Scenes: the small CLIP](scenes_clip.ipynb)).
#
# Whole captions cover most of a scene and single classes a quarter of it, yet $\alpha$ is one
# number. The weights choose within it, which may be why decoders trained with any $\alpha$ from 0.2
# to 0.8 are nearly equal here, as [the ablation of the areas](ablation_areas.ipynb) shows.
#
# ## What to take away
#
# * A caption selects its own object: the $\lfloor \alpha N \rfloor$ most similar pixels, weighted
#   by a softmax of their similarities.
# * Only the contrast with the other captions of the batch teaches, and it compares one object with
#   many texts. The rest of the image is left alone.
# * $\alpha$ bounds the object; the weights decide. Precision falls with $\alpha$, weighted
#   precision hardly.
#
# ## Try it
#
# 1. Set `temperature` to 1. The matrix of cosines stays as it is; what becomes of the loss?
# 2. Set `alpha_photos` to 0.01: seven pixels are left. Are the objects still most like their
#    captions?
# 3. In `object_of`, leave out `A` and use `M / M.sum()` as weights. Which objects lose most? (The
#    check against the library will fail, as it should.)
#
# ```{dropdown} What to expect
# 1. The loss rises to just under $\log 7 = 1.95$: cosines that differ by a few tenths hardly
#    move a softmax at temperature 1.
# 2. Look at the diagonal of the matrix. Seven pixels are the most similar ones, so the object
#    is the caption's best place, and says least about the rest of what it names.
# 3. Those whose weights were most uneven, such as the motorcycle: with equal weights every kept
#    pixel counts, also those beside the thing.
# ```
