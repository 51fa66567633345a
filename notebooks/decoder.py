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
# # The decoder: a door that starts shut
#
# All that MGCA trains is a small decoder: it doubles the resolution of the
# [dense features](dense_features.ipynb), and two *gated convolution blocks* refine them. The gates
# start shut, so that training starts from exactly the backbone's own features.
#
# This page takes a block apart, counts its parameters, watches the gates open, and shows what the
# trained decoder changes.
#
# **After this page you can** write a gated block by hand, count its parameters, and say why
# training starts from the backbone itself.

# %% tags=["parameters"]
shown = 4  # the validation scene of the maps
scenes = 40  # validation scenes over which numbers are taken
steps = 24  # of the short training
batch = 16  # of the short training
rate = 6e-3  # learning rate, that of the scenes scale

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from mgca.backbone import load_backbone
from mgca.data.scenes import CLASSES, VALIDATION_SEED, evaluation_set, training_pairs
from mgca.decoder import GatedConvBlock, GatedConvDecoder, upsample2
from mgca.experiments.report import figures, page_figures, plots
from mgca.experiments.report.page import open_page
from mgca.experiments.report.validation import correct_pixels, similarities
from mgca.experiments.scenes import scenes_training
from mgca.losses.objective import mgca_loss
from mgca.prompts import class_embeddings
from mgca.utils.images import to_tensor
from mgca.weights import load_weights
from mgca.weights.decoders import decoder_from

open_page("decoder")

# %%
backbone = load_backbone("scenes")
trained = decoder_from(*load_weights("scenes-mgca"), backbone).requires_grad_(False)

unseen = evaluation_set("scenes", scenes, seed=VALIDATION_SEED)
_, pictures, masks = zip(*unseen, strict=True)
inputs = [to_tensor(picture, backbone.mean, backbone.std) for picture in pictures]
with torch.no_grad():
    dense = backbone.dense(torch.stack(inputs))  # (images, 96, 14, 14)
names = class_embeddings(backbone, CLASSES)  # (30, 96)


def right(pixels: torch.Tensor) -> float:
    """% of the pixels whose most similar word is right."""
    return correct_pixels(similarities(pixels, names), np.stack(masks))


# %% [markdown]
# ## A block
#
# $$
# x' = x + \tanh(g) \; \mathrm{conv}_{3 \times 3}\big( \mathrm{GELU}(\mathrm{LN}(x)) \big) ,
# \qquad g = 0 \text{ at the start.}
# $$
#
# In the paper's Eq. 1 (see [Method](../method.md)),
#
# $$
# P = D(E_v(x)) , \tag{1}
# $$
#
# $D$ has two such blocks behind one upsampling. The paper says "two gated convolution blocks from"
# TCL, and not what is in them: this inside is [our choice](#d2). It has the paper's number of
# parameters.
#
# By hand, the convolution as nine shifted matrix products:


# %%
def by_hand(block: GatedConvBlock, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W)
    # At each position, over its channels.
    mean = x.mean(dim=1, keepdim=True)
    variance = x.var(dim=1, keepdim=True, correction=0)
    normal = (x - mean) / (variance + 1e-5).sqrt()
    normal = normal * block.norm.weight[:, None, None] + block.norm.bias[:, None, None]
    active = normal * (1 + torch.erf(normal / 2**0.5)) / 2
    padded = F.pad(active, (1, 1, 1, 1))
    height, width = x.shape[-2:]
    out = block.conv.bias[:, None, None]
    for dy in range(3):
        for dx in range(3):
            shifted = padded[:, :, dy : dy + height, dx : dx + width]
            weight = block.conv.weight[:, :, dy, dx]
            out = out + torch.einsum("oc,bchw->bohw", weight, shifted)
    return x + torch.tanh(block.gate) * out


x = upsample2(dense)  # (images, 96, 28, 28)
for block in trained.blocks:
    torch.testing.assert_close(by_hand(block, x), block(x), rtol=1e-4, atol=1e-4)
    x = block(x)
torch.testing.assert_close(x, trained(dense))

# %% [markdown]
# ## How many parameters
#
# A block has $9 C^2$ weights and $C$ biases of the convolution, $2C$ numbers of the normalisation,
# and one gate. Two blocks: $2\,(9 C^2 + 3 C + 1)$.


# %%
def parameters(channels: int) -> int:
    return 2 * (9 * channels**2 + 3 * channels + 1)


for channels in (96, 384, 512):
    decoder = GatedConvDecoder(channels)
    assert parameters(channels) == sum(p.numel() for p in decoder.parameters())

# %% tags=["hide-input"]
sizes = {"scenes": 96, "CLIP ViT-B/16": 512}
frame = pd.DataFrame({"encoder": list(sizes), "channels C": list(sizes.values())})
frame["parameters"] = frame["channels C"].map(parameters).map("{:,}".format)
frame["paper"] = ["", "4.72 M"]
figures.table(
    frame.set_index("encoder"),
    caption="The decoder's parameters for the encoders of this book.",
    name="tab-decoder-size",
)

# %% [markdown]
# ## Before the first step, MGCA is its backbone
#
# With $g = 0$ a block is the identity, and the decoder is its upsampling. Exactly:

# %%
torch.manual_seed(0)
decoder = GatedConvDecoder(96)
assert torch.equal(decoder(dense), upsample2(dense))

# %% [markdown]
# So step 0 already segments, as well as the backbone does. That matters, because MGCA takes its
# positives and negatives from its own similarities. What if the gates of this same new decoder
# stood open?

# %%
opened = GatedConvDecoder(96)
opened.load_state_dict(
    decoder.state_dict() | {f"blocks.{n}.gate": torch.tensor(5.0) for n in (0, 1)}
)
with torch.no_grad():
    for title, new in (("shut", decoder), ("open", opened)):
        print(f"gates {title}: {right(new(dense)):.0f} % of the pixels correct")

# %% [markdown]
# Less is lost than one may think: the sum $x + \dots$ carries the features past the random
# convolutions. What the shut gates give is exactness. All that MGCA does differently from its
# backbone, it has learned.
#
# ## Only the gates have a gradient
#
# Write $h$ for the output of the convolution and $\theta$ for its weights. At a block,
#
# $$
# \frac{\partial L}{\partial g}
#   = \big(1 - \tanh^2 g\big) \Big\langle \frac{\partial L}{\partial x'}, h \Big\rangle ,
# \qquad
# \frac{\partial L}{\partial \theta}
#   = \tanh(g) \Big(\frac{\partial h}{\partial \theta}\Big)^{\!\top}
#     \frac{\partial L}{\partial x'} .
# $$
#
# At $g = 0$ the second is zero whatever the loss. The gate alone can move; once it has, the
# convolution can.

# %%
pairs = training_pairs(6 * batch, seed=0)
config = scenes_training()
with torch.no_grad():
    inputs = [to_tensor(image, backbone.mean, backbone.std) for image in pairs.images]
    parts = torch.stack(inputs).split(32)
    features = torch.cat([backbone.dense(part) for part in parts])
    texts = backbone.encode_text([captions[0] for captions in pairs.captions])

parts = {
    "gates": [block.gate for block in decoder.blocks],
    "convolutions": [p for block in decoder.blocks for p in block.conv.parameters()],
    "normalisations": [p for block in decoder.blocks for p in block.norm.parameters()],
}
decay = config.weight_decay
optimizer = torch.optim.AdamW(decoder.parameters(), lr=rate, weight_decay=decay)
generator = torch.Generator().manual_seed(0)
curve = []
for step in range(1, steps + 1):
    drawn = torch.randperm(len(features), generator=generator)[:batch]
    loss = mgca_loss(decoder(features[drawn]), texts[drawn], config.loss)["total"]
    optimizer.zero_grad()
    loss.backward()
    norms = {
        name: torch.cat([p.grad.flatten() for p in own]).norm().item()
        for name, own in parts.items()
    }
    optimizer.step()
    blocks = enumerate(decoder.blocks, start=1)
    gates = {f"gate {n}": block.gate.item() for n, block in blocks}
    curve.append({"step": step, "loss": loss.item(), **norms, **gates})
curve = pd.DataFrame(curve).set_index("step")
assert (curve.loc[1, ["convolutions", "normalisations"]] == 0).all()

# %% tags=["hide-input"]
rows = curve.loc[[1, 2, 3, steps]].rename(
    columns={name: f"gradient, {name}" for name in parts}
)
figures.table(
    rows.map(lambda value: f"{value:.3g}"),
    caption="Norms of the gradients before a step, and the gates after it. In the first step the "
    "convolutions and normalisations have none. Adam's first step has the length of the learning "
    "rate, whatever the gradient.",
    name="tab-decoder-gradients",
)

# %% tags=["hide-input"]
fifth = max(1, steps // 5)
figures.show(
    page_figures.opening_gates(curve, list(parts)),
    caption="The gates open step by step; zero gradients, those of the first step, cannot be drawn "
    f"on the right. The loss falls from {curve['loss'].iloc[:fifth].mean():.2f} to "
    f"{curve['loss'].iloc[-fifth:].mean():.2f} (means of the first and last {fifth} steps).",
    alt="Two line plots. Left: tanh of both gates against the step, from 0. Right: norms of the "
    "gradients of gates, convolutions and normalisations; the latter two begin at step 2.",
    name="fig-decoder-gates",
)

# %% [markdown]
# The sign of a gate has no meaning: a convolution and a gate of opposite signs give the same. The
# weight decay, 0.05 for all parameters ([D9](#d9)), pulls the gates back towards shut.
#
# ## What the trained decoder changes
#
# Its gates are still far from open, but what counts is their product with the convolutions: the
# length of $D(E_v(x)) - \mathrm{up}(E_v(x))$ against that of $\mathrm{up}(E_v(x))$.


# %%
def change(decoder: GatedConvDecoder, features: torch.Tensor) -> float:
    """Mean length of what the blocks add, as a share of what they add it to."""
    before = upsample2(features)
    return ((decoder(features) - before).norm(dim=1) / before.norm(dim=1)).mean().item()


first, second = (torch.tanh(block.gate).item() for block in trained.blocks)
print(f"tanh of the gates {first:+.3f} and {second:+.3f}")
print(f"what is added is {change(trained, dense):.2f} of the length of what was there")

# %% tags=["hide-input"]
before, after = upsample2(dense), trained(dense)
stages = {"before": before, "after": after}
maps = {title: similarities(pixels, names)[shown] for title, pixels in stages.items()}
figures.show(
    plots.word_maps(maps, CLASSES, masks[shown]),
    caption="Before and after training: the three largest contents of a scene, outlined. "
    "What was right stands out more, and what was faint among other places is the strongest. "
    f"Over {scenes} scenes {right(before):.0f} % of the pixels are labelled correctly before, "
    f"{right(after):.0f} % after.",
    alt="Maps of the similarity to three words in two rows, before and after training, with the "
    "outlines of the contents.",
    name="fig-decoder-maps",
)

# %% [markdown]
# [Training MGCA on scenes](scenes_training.ipynb) has the whole run, and segmentations before and
# after.
#
# How far does a block look? Two 3 × 3 convolutions reach two pixel embeddings to each side, and the
# upsampling one token more. What the embedding of one pixel depends on, from its gradient:

# %%
probe = dense[shown : shown + 1].clone().requires_grad_()
trained(probe)[0, :, 14, 14].sum().backward()
depends = probe.grad[0].norm(dim=0) > 0  # (14, 14)
count = int(depends.sum())
print(f"one pixel embedding depends on {count} of {depends.numel()} tokens")

# %% [markdown]
# The decoder can compare a place with its neighbours. What a pixel must know of the whole image has
# to come from the encoder.
#
# ## Upsampling: bilinear or nearest
#
# The paper does not name the interpolation ([D2](#d2)). Bilinear, the choice here, puts the new
# positions a quarter to either side of the old ones: along a row,
#
# $$
# x'_{2i} = \tfrac14 x_{i-1} + \tfrac34 x_i , \qquad x'_{2i+1} = \tfrac34 x_i + \tfrac14 x_{i+1} .
# $$
#
# Nearest, as in TCL's code, repeats each token four times.


# %%
def twice(rows: torch.Tensor) -> torch.Tensor:
    """Double the last dimension; the ends are held."""
    left = torch.cat([rows[..., :1], rows[..., :-1]], dim=-1)
    right = torch.cat([rows[..., 1:], rows[..., -1:]], dim=-1)
    between = [left / 4 + 3 * rows / 4, 3 * rows / 4 + right / 4]
    return torch.stack(between, dim=-1).flatten(-2)


mine = twice(twice(dense).transpose(2, 3)).transpose(2, 3)
torch.testing.assert_close(mine, upsample2(dense, "bilinear"))

# %% tags=["hide-input"]
modes = {mode: upsample2(dense, mode) for mode in ("nearest", "bilinear")}
distinct = [len(torch.unique(p[shown].flatten(1), dim=1).T) for p in modes.values()]
correct = [right(pixels) for pixels in modes.values()]
word = np.argsort(-np.bincount(masks[shown].ravel(), minlength=len(CLASSES)))[2]
cosines = {mode: similarities(p, names)[shown, word] for mode, p in modes.items()}
maps = {f"{CLASSES[word]}, {mode}": own for mode, own in cosines.items()}
figures.show(
    page_figures.scene_and_maps(pictures[shown], maps, masks[shown] == word),
    caption="The same features before training, upsampled in two ways: "
    f"{distinct[0]} different pixel embeddings of 784 with nearest, "
    f"{distinct[1]} with bilinear. Pixels labelled correctly over {scenes} scenes: "
    f"{correct[0]:.1f} % and {correct[1]:.1f} %.",
    alt="A drawn scene and two maps of the similarity to a word: the first in blocks of four equal "
    "pixels, the second smooth.",
    name="fig-decoder-upsampling",
)

# %% [markdown]
# For the losses the difference is one of choice: among four equal embeddings the most similar pixel
# is four pixels. A decoder that is trained with nearest has 2 to 5 points of mIoU less on scenes:
# [what the open choices change](ablation_choices.ipynb).
#
# ## What to take away
#
# * The decoder is upsampling plus two blocks $x + \tanh(g) \, \mathrm{conv}(\cdot)$, with the
#   paper's number of parameters at $C = 512$.
# * Shut gates make step 0 the backbone itself. Then the gates move first, and the convolutions
#   after them.
# * It looks at neighbours only: it refines what the encoder knows of a place.
#
# ## Try it
#
# 1. Set `rate = 1e-3`, then `2e-2`. How far do the gates open in the same number of steps?
# 2. Set `batch = 4`. What do fewer negatives do to the gradients?
# 3. Set `shown` to another scene. Which contents gain from the decoder, and which do not?
#
# ```{dropdown} What to expect
# 1. Adam moves a parameter by about the rate a step, so that tanh of a gate is at most 0.024 after
#    24 steps at 1e-3, and could be 0.45 at 2e-2; at 6e-3 it is at most 0.14.
# 2. Guessing among 4 captions costs $\log 4 = 1.39$ a level instead of $\log 16 = 2.77$, so
#    there is less to gain, and means over fewer pairs are noisier.
# 3. Large contents that were right in part gain most: the decoder compares a place with its
#    neighbours. What the encoder does not know it does not add.
# ```
