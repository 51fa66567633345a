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
# # Dense features: what CLIP knows of a patch
#
# CLIP gives one embedding for an image, but up to its last layer its vision transformer carries one
# token for each patch. MGCA starts from these tokens, brought into the space of the texts.
#
# Only the class token was trained to get there. So the last attention layer, which mixes all
# patches into each token, is reduced to what a patch says of itself. Nothing is trained for this.
#
# The CLIP of this page is the [small one of the scenes](scenes_clip.ipynb), whose transformer is
# built as that of ViT-B/16. There it is measured how much it knows of images and of pixels; here it
# is about why.
#
# **After this page you can** write the changed last block in four lines, and say why plain CLIP
# is poor at pixels and MaskCLIP is not.

# %% tags=["parameters"]
shown = 4  # the validation scene of the figures
compared = "value"  # the last block of the maps of words; any name of the table below
patch = (7, 7)  # row and column of the patch whose attention is shown, of 14 × 14
words = ["woman", "flag", "spacesuit"]  # looked for in the last section's photograph
scenes = 40  # validation scenes over which numbers are taken

# %% tags=["hide-input"]
import numpy as np
import skimage.data
import torch
from PIL import Image
from torch.nn import functional as F

import mgca
from mgca.backbone import load_backbone
from mgca.backbone.last_block import last_block
from mgca.backbone.tower import project_positions
from mgca.backbone.vit import interpolate_positions
from mgca.config import LAST_BLOCKS
from mgca.data.scenes import CLASSES, VALIDATION_SEED, evaluation_set
from mgca.experiments.report import figures, page_figures, plots, validation
from mgca.experiments.report.page import open_page
from mgca.experiments.report.plots import Panel
from mgca.experiments.scenes import SIDE
from mgca.prompts import class_embeddings
from mgca.utils.images import to_tensor

torch.set_grad_enabled(False)
open_page("dense_features")

# %%
backbone = load_backbone("scenes")
unseen = evaluation_set("scenes", scenes, seed=VALIDATION_SEED)
_, pictures, masks = zip(*unseen, strict=True)
inputs = [to_tensor(picture, backbone.mean, backbone.std) for picture in pictures]
images = torch.stack(inputs)

visual = backbone.model.visual  # open_clip's vision transformer
block = visual.transformer.resblocks[-1]
tokens = backbone.tokens(images)  # (images, 1 + 14 * 14, 192) before the last block
print(f"{len(visual.transformer.resblocks)} blocks, tokens {tuple(tokens.shape)}")

# %% [markdown]
# ## The last block, with and without attention
#
# Let $z_n$ be the token of patch $n$ before the last block, and $x_n = \mathrm{LN}_1(z_n)$. In each
# head the token becomes a mean of the values of *all* tokens, and a projection joins the heads:
#
# $$
# y_n = W_o \Big[ \textstyle\sum_m a_{nm} v_m \Big]_\text{heads} + b_o, \qquad v_m = W_v x_m + b_v,
# $$
#
# with the weights $a_{nm} = \operatorname{softmax}_m\big( \langle q_n, k_m \rangle / \sqrt d
# \,\big)$ of its query and all keys.
#
# MaskCLIP's change, which TCL and MGCA take over ([D1](#d1)), is $a_{nn} = 1$ and nothing else:
#
# $$
# y_n = W_o (W_v x_n + b_v) + b_o .
# $$
#
# Queries and keys are dropped. What follows stays as it was trained, and the paper's Eq. 1 (see
# [Method](../method.md)) has the result $E_v(x)$ under the decoder $D$:
#
# $$
# z_n' = z_n + y_n, \qquad
# E_v(x)_n = W_p \, \mathrm{LN}_\text{post}\big( z_n' + \mathrm{MLP}(\mathrm{LN}_2(z_n')) \big),
# \qquad P = D(E_v(x)) . \tag{1}
# $$
#
# Written out, and compared with the library:

# %%
width = tokens.shape[-1]
# Queries, keys and values lie one below another.
value_weight = block.attn.in_proj_weight[2 * width :]
value_bias = block.attn.in_proj_bias[2 * width :]

z = tokens[:, 1:]  # without the class token
value = block.ln_1(z) @ value_weight.T + value_bias
y = value @ block.attn.out_proj.weight.T + block.attn.out_proj.bias
changed = z + y
changed = changed + block.mlp(block.ln_2(changed))
mine = visual.ln_post(changed) @ visual.proj  # (images, 196, C)

torch.testing.assert_close(changed, last_block(block, tokens, (14, 14), "value"))
dense = backbone.dense(images)  # (images, C, 14, 14)
torch.testing.assert_close(mine.transpose(1, 2).unflatten(2, (14, 14)), dense)

# %% [markdown]
# The same from PyTorch's own attention: forbid each token to look at any other.

# %%
# Added to the logits.
only_itself = torch.full((197, 197), -torch.inf).fill_diagonal_(0)
x = block.ln_1(tokens)
masked, _ = block.attn(x, x, x, attn_mask=only_itself, need_weights=False)
torch.testing.assert_close(masked[:, 1:], y)

# %% [markdown]
# ## What the attention would do
#
# The contrast sees the class token alone. What it takes from the patches are their *values*,
# averaged and projected: this path was trained to meet the texts. A patch's own token was not, and
# what the last attention adds to it is again an average, nearly the same for all patches.

# %%
attended, weights = block.attn(x, x, x, average_attn_weights=False)
of_patches = weights[:, :, 1:]  # (images, heads, 196, 197)
itself = weights.diagonal(dim1=2, dim2=3)[:, :, 1:].mean()
entropy = -torch.xlogy(of_patches, of_patches).sum(dim=-1)
looked_at = entropy.exp().mean()  # tokens, if all had the same weight
print(f"on itself {itself:.2%}, evenly {1 / 197:.2%}", end="; ")
print(f"spread over {looked_at:.0f} of 197 tokens")


def common(added: torch.Tensor) -> float:  # (images, patches, width)
    """Share of the squared length that is one vector per image."""
    mean = added.mean(dim=1)
    length = added.square().sum(dim=-1).mean(dim=1)
    return (mean.square().sum(dim=-1) / length).mean().item()


shares = common(attended[:, 1:]), common(y)
print("same for all patches: attention {:.0%}, value only {:.0%}".format(*shares))

# %% tags=["hide-input"]
# As trained, (images, 196, C).
plain = visual.ln_post(block(tokens)[:, 1:]) @ visual.proj
patches = validation.Patches(masks, 14)
number = patch[0] * 14 + patch[1]
content = patches.named[shown, number].item()
attention = weights[shown, :, 1 + number, 1:].mean(dim=0)
alike = {"trained": plain[shown], "value only": mine[shown]}
scene = (pictures[shown], masks[shown] == content, CLASSES[content])
figure = page_figures.attention_of_patch(*scene, number, attention, alike)
with_attention, without = patches.alike(plain), patches.alike(mine)
figures.show(
    figure,
    caption="What one patch takes in, and which patches its embedding is then like. As trained it "
    f"takes nearly the mean of the image: {looked_at:.0f} of 197 tokens, {100 * itself:.1f} % of "
    f"the weight on itself. Over {scenes} scenes, patches of different contents have a mean cosine "
    f"of {with_attention[1]:.2f} as trained and {without[1]:.2f} with values only, those of the "
    f"same content {with_attention[0]:.2f} and {without[0]:.2f}.",
    alt="Six panels. A drawn scene with a marked patch; its attention, spread over the image; one "
    "bright cell, the patch itself; the content it lies on; two maps of cosines to the patch, as "
    "trained and with values only, with the content outlined.",
    name="fig-dense-attention",
)

# %% [markdown]
# The values themselves have come through the earlier blocks, where every patch has seen the others.
# So value-only features are not blind to their surroundings; they are only not averaged once more.
#
# ## Similarity maps of words
#
# The similarity of a patch to a word is a cosine in the joint space. Here each map shows by how
# much the patch is more similar to the word than to the average of all 30 words.

# %% tags=["hide-input"]
texts = class_embeddings(backbone, CLASSES)  # (30, C) unit vectors
changed = visual.ln_post(last_block(block, tokens, (14, 14), compared)) @ visual.proj
maps = {}
for title, embeddings in (("trained", plain), (compared, changed)):
    cosines = F.normalize(embeddings[shown], dim=-1) @ texts.T  # (196, 30)
    maps[title] = cosines.T.unflatten(1, (14, 14))
before, after = (patches.labelled(e, texts) for e in (plain, changed))
figures.show(
    plots.word_maps(maps, CLASSES, masks[shown]),
    caption="The three largest contents of a scene, outlined. As trained, the maps hardly say "
    f"where a word is; with the changed block they do for the two large contents, not for the "
    f"ball. Of the pixels of {scenes} scenes {before[0]:.0f} % and {after[0]:.0f} % are labelled "
    "correctly, among 30 words. The label is of something in the scene, wherever, for "
    f"{before[1]:.0f} % and {after[1]:.0f} % of the patches: *what* was known all along.",
    alt="Maps of the similarity to three words, in two rows: as trained, and with the changed "
    "block; the contents are outlined.",
    name="fig-dense-words",
)

# %% [markdown]
# Value-only is one of several answers to the question whom a patch should attend to. Later ones
# are: to those with similar queries or keys, or to its neighbours. None is trained.

# %% tags=["hide-input"]
embeddings = {
    name: visual.ln_post(last_block(block, tokens, (14, 14), name)) @ visual.proj
    for name in LAST_BLOCKS
}
figures.table(
    validation.last_blocks(embeddings, patches, texts),
    caption=f"Choices of the last block (`last_block=`) on {scenes} validation scenes. The "
    "cosines alone do not say which labels most pixels correctly.",
    name="tab-dense-blocks",
)

# %% [markdown]
# MGCA uses `value`, which is how we read the paper. [Every method](methods.ipynb) has the mIoU of
# most of these, and of MGCA trained on top of others.
#
# ## Positions for another size
#
# A token also carries a learned embedding of its position, one for each cell of the grid that CLIP
# was trained with. An image of another size has another grid, and the embeddings are interpolated,
# row by row and column by column: $\tilde E = R_h E R_w^\top$, where a row of $R$ holds the cubic
# weights of the old cells around a new one. The class token keeps its own.


# %%
def cubic_weights(old: int, new: int) -> torch.Tensor:
    """(new, old) weights of bicubic enlargement, rows sum to 1."""
    centres = (torch.arange(new, dtype=torch.float64) + 0.5) * old / new
    d = (torch.arange(old) + 0.5 - centres[:, None]).abs()  # in old cells
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    weights = torch.where(d < 1, near, torch.where(d < 2, far, torch.zeros(())))
    return weights / weights.sum(dim=1, keepdim=True)


positions = visual.positional_embedding  # (1 + 14 * 14, 192)
grid = positions[1:].unflatten(0, (14, 14)).double()
rows, columns = cubic_weights(14, 28), cubic_weights(14, 20)
larger = torch.einsum("yr,xc,rcd->yxd", rows, columns, grid)
mine = torch.cat([positions[:1], larger.flatten(0, 1).float()])

torch.testing.assert_close(mine, interpolate_positions(positions, (14, 14), (28, 20)))

# %% tags=["hide-input"]
few = (pictures[:10], np.stack(masks[:10]), texts)
learned, sides = positions.clone(), (56, 112, 168, 224)
right = {side: validation.correct_at(side, backbone, *few) for side in sides}
positions[1:] = 0
blank = {side: validation.correct_at(side, backbone, *few) for side in sides}
positions[:] = learned
grids = [interpolate_positions(positions, (14, 14), (n, n))[1:] for n in (14, 28)]
lines = {"interpolated": right, "set to 0": blank}
figures.show(
    page_figures.positions(grids, lines, SIDE),
    caption="Cosines of the position in the middle with all others, as trained and interpolated. "
    "In this small CLIP neighbours are not alike: it has not learned where things are, and without "
    f"its positions it labels as many pixels correctly ({blank[112]:.0f} % for {right[112]:.0f} % "
    "at 112²).",
    alt="Two maps with one bright spot in the middle and noise around it, and a line plot of the "
    "pixels labelled correctly against the side of the image, highest at 112; its two lines nearly "
    "coincide.",
    name="fig-dense-positions",
)

# %% [markdown]
# In the scenes a thing may lie anywhere, and no position tells what it is. On photographs, where
# the sky is above, a CLIP may learn more from them; that is not measured here. Larger images do not
# make this encoder better: it has never seen things and textures of that size.
#
# For the paper's encoder the grid is 14 × 14 in training (224², patches of 16) and 28 × 28 in the
# windows of inference (448²). The decoder doubles both.
#
# ## What lite does instead
#
# `lite`, the model for photographs, has no attention. Its image encoder is a convolutional network,
# and its map into the texts' space is linear. What the map gives for the mean feature, which is
# trained against the captions, is *exactly* the mean of what it gives at each position,
#
# $$
# e = W \, \frac{1}{N} \sum_n f^n + b = \frac{1}{N} \sum_n \underbrace{(W f^n + b)}_{E_v(x)_n} .
# $$
#
# Its dense features are these as unit vectors, and beside them what its classifier of 1,000 classes
# sees at the position ([how](#photos-choices)). A photograph as large as this one is looked at
# twice, as it is and at half its size, where things are as large as the network knows them.

# %%
lite = mgca.load("lite", decoder=None)
photograph = Image.fromarray(skimage.data.astronaut()).resize((448, 448))
image = to_tensor(photograph, lite.backbone.mean, lite.backbone.std)[None]

features = lite.backbone.features(image)  # (1, 2 * 1280, 28, 28)
aligned = project_positions(lite.backbone.tower, features[:, :1280])  # (1, 384, 28, 28)
torch.testing.assert_close(aligned.mean(dim=(2, 3)), lite.backbone.tower(image))
dense = lite.backbone.project(features)  # (1, 1384, 28, 28)

# %% tags=["hide-input"]
cosines = validation.similarities(dense, lite.texts(words))[0]
limits = {"vmin": cosines.min(), "vmax": cosines.max()}
pairs = zip(cosines, words, strict=True)
maps = [Panel(own, word, options=limits) for own, word in pairs]
rows = [[Panel(photograph, "photograph"), maps[0]], maps[1:]]
figures.show(
    plots.panels(rows, (5.6, 5), colorbar="cosine similarity"),
    caption="Dense features of `lite`. The maps are coarse: a position of this network has seen "
    "much of its surroundings.",
    alt="A photograph of an astronaut before a flag, and three maps of the similarity to a word.",
    name="fig-dense-lite",
)

# %% [markdown]
# There is nothing to reduce in `lite`, and choice D1 has no meaning for it. Whatever trains the
# embedding of the image trains the dense ones with it; [the results](results.ipynb) say what finer
# levels add.
#
# ## What to take away
#
# * Dense features are CLIP's patch tokens in the texts' space. Only the class token was trained to
#   get there, through an average of the patches' values.
# * Value and projection alone, $W_o (W_v x_n + b_v) + b_o$, take that path for each patch by
#   itself. Nothing is trained, and many more patches are right.
# * Where the map to the texts is linear and pooling is a mean, image and dense embeddings are one.
#
# ## Try it
#
# 1. Set `patch` to a place on another content. Does the attention depend on the patch at all?
# 2. Set `compared = "naclip"`, then `"sclip"`. Which maps are smoother, and which are sharper?
# 3. Set `words` to three others, one of which is not in the photograph.
#
# ```{dropdown} What to expect
# 1. Hardly. As trained, a patch spreads its attention over 163 of 197 tokens, so that all
#    patches take in nearly the same mean.
# 2. The blocks that attend to alike patches smooth the maps; `value` and `value-bare` mix
#    nothing and are the sharpest.
# 3. The word that is not there gets a map too, in the range of the others: only the comparison
#    of words decides.
# ```
