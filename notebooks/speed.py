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
# # How fast, and how near the machine's limit
#
# A time alone says little: it may be short on a fast machine and still waste most of it. This page
# puts three numbers side by side for every part, the work it has to do, the time it takes, and what
# the same machine reaches when it does nothing but multiply large matrices or copy memory.
#
# **Work** is counted in FLOPs, the multiplications and additions of matrix products, convolutions
# and attention; what is done element by element is left out, as is usual. **Traffic** is the bytes
# that the operations of a part read and write, as if none found its input in a cache. Their ratio
# is the part's *arithmetic intensity* $I$, and the most that a machine can then reach is
#
# $$P(I) = \min(P_\text{max},\; I \cdot B),$$
#
# with $P_\text{max}$ its rate in matrix products and $B$ that of its memory: the *roofline*
# {cite:p}`williams2009roofline`. A part under the slope waits for memory, one under the flat roof
# for arithmetic. The distance to the roof is what a better implementation could gain, no more.
#
# **After this page you can** say where the time of a segmentation goes, and how near it is to
# what the machine can do.

# %% tags=["remove-input"]
import logging

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from mgca.backbone import load_backbone
from mgca.experiments.report import figures, speed
from mgca.experiments.report.page import open_page
from mgca.training.flops import (
    decoder_flops,
    image_flops,
    loss_flops,
    text_flops,
    unit_flops,
)

page = open_page("speed")
logging.disable(logging.WARNING)  # open_clip's, that the weights are random

# %% [markdown]
# ## The work
#
# At the paper's sizes: CLIP ViT-B/16, embeddings of 512 channels, training on 224×224 pixels with a
# batch of 1,024, inference in windows of 448×448. Counts do not depend on the weights, so none are
# needed: on the device `meta`, tensors have shapes and no contents.

# %%
vit = load_backbone("vit-b-16", pretrained=False).to("meta")
plain = load_backbone("vit-b-16", pretrained=False, last_block="attention").to("meta")

work = {
    "image encoder": (image_flops(vit, 224), image_flops(vit, 448)),
    "the same, last block plain": (image_flops(plain, 224), image_flops(plain, 448)),
    "decoder": (decoder_flops(512, 28, 28), decoder_flops(512, 56, 56)),
    "decoder, forward and backward": (decoder_flops(512, 28, 28, backward=True), None),
    "three losses, forward and backward": (loss_flops(1, 1024, 28 * 28, 512), None),
    "text encoder, one caption": (text_flops(vit), text_flops(vit)),
    "36 semantic units": (None, unit_flops(512, 56 * 56, 36)),
}

# %% tags=["remove-input"]
table = pd.DataFrame(work, index=["224×224", "448×448"]).T / 1e9
figures.table(
    table.map(lambda value: "" if np.isnan(value) else f"{value:.2f}").rename_axis(
        "part"
    ),
    caption="Work of each part, GFLOP an image, by counting.",
)

# %% [markdown]
# * The value-only last block (choice D1) drops a pair of projections and the attention itself, so
#   that the encoder does a little *less* than a plain CLIP: 1.7 % at 224×224, 2.4 % at 448×448.
# * From 224×224 to 448×448 the decoder's work grows by four, the encoder's by more, because the
#   cost of attention is quadratic in the patches.
# * Backward, each convolution is done twice more, for the gradients of its weights and of its
#   input. The frozen encoders need no backward pass at all.
# * The losses compare an image with *all* texts of the batch, so that their work for an image grows
#   with the batch. Most of it is Eq. 2; the hard negatives keep 5 % of the pixels.

# %% tags=["remove-input"]
folder = page.results / "speed"
devices = speed.devices(folder)
# Tables that hold no part were made by other measurements only.
measured = {name: speed.parts_of(table) for name, table in devices.items()}
measured = {name: parts for name, parts in measured.items() if len(parts)}

# %% [markdown]
# ## The time
#
# One window of 448×448, float32, the best of several calls; `decoder, forward and backward` is a
# batch of 16 at 224×224. `lite` comes with its weights; those of `vit-b-16` are random, which
# takes the same time.

# %% tags=["remove-input"]
for name, parts in measured.items():
    caption = f"Time of each part, on {speed.machine(devices[name], folder)}."
    figures.table(speed.times(parts), caption=caption, results=f"speed/{name}.csv")
command = "`python tests/speed/inference.py`"
if not measured:
    display(Markdown(f"**Not run**: {command}."))
if all(name.startswith("cpu") for name in measured):
    display(Markdown(f"**Not run** on a GPU: {command} on a machine with one adds it."))

# %% [markdown]
# ## The roofline
#
# On a GPU torch convolves float32 numbers in TF32 unless it is told otherwise, which training and
# evaluation do. These times are of torch as it comes, and the roof of float32 is that of TF32.


# %% tags=["remove-input"]
for name, parts in measured.items():
    ceilings = speed.ceilings(devices[name])
    figures.show(
        speed.roofline(parts, *ceilings),
        caption=speed.under_the_roof(parts, *ceilings),
        alt="Scatter plot on logarithmic axes: GFLOP/s of each part of both models "
        "against its arithmetic intensity, under the roofs of float32 and bfloat16.",
        name=f"fig-roofline-{name}",
        results=f"speed/{name}.csv",
    )

# %% [markdown]
# What it means for changes to the code:
#
# * The decoder and the transformer are large products. Another layout or another order of the same
#   operations gains little where they are near the roof; fewer or shorter numbers would.
# * The units and the depthwise convolutions of `lite` do few operations with every byte. The units
#   stay cheap because they are few: 36 scalar products for a pixel, beside the 9 · 512 of a
#   decoder's block.
# * The encoders' dense features lie channel by channel in each pixel (`channels_last`), and decoder
#   and units keep that order. In the other layout the norms would stride through memory.

# %% [markdown]
# ## Targets
#
# Set beforehand, as ratios of two times or sizes measured in the same run, so that they hold on
# other machines too.

# %% tags=["remove-input"]
lines = speed.targets(devices)
if len(lines):
    caption = "Targets, and what was measured."
    figures.table(lines, caption=caption, results="speed/cpu-2-cores.csv")
else:
    display(Markdown("**Not run.**"))

# %% [markdown]
# ## Shorter numbers, and without PyTorch
#
# With `model.precision = "bfloat16"`, on GPUs `"float16"` too, matrix products and convolutions
# take their inputs in 16 bits. Published numbers are all float32: the difference is that of the
# pixel embeddings, in their Euclidean norm. ONNX Runtime runs the exported file with the same
# number of threads; its difference is the largest of any embedding's entry, as a share of the
# largest entry.

# %% tags=["remove-input"]
for name in measured:
    caption = f"Numbers of 16 bits, and ONNX Runtime, on {name}."
    lines = speed.precisions(devices[name])
    figures.table(lines, caption=caption, results=f"speed/{name}.csv")
    if text := speed.onnx_over_torch(devices[name]):
        text = f"ONNX Runtime, side by side in one process: {text}."
        display(Markdown(text))

# %% [markdown]
# ### Segmenting without PyTorch
#
# `mgca export lite lite.onnx` writes encoder and decoder as one file, for any number of windows at
# once (`pip install "mgca[onnx]"`). The classes' embeddings are made once, with PyTorch:
#
# ```python
# import mgca, numpy
#
# model = mgca.load("lite")
# names = ["cat", "sofa", "a wooden table"]
# numpy.save("classes.npy", model.texts(names).numpy())
# ```
#
# From then on three packages suffice, `onnxruntime`, `numpy` and `pillow`. How to prepare pixels is
# in the file itself.
#
# ```python
# import numpy, onnxruntime
# from PIL import Image
#
# session = onnxruntime.InferenceSession("lite.onnx")
# said = session.get_modelmeta().custom_metadata_map
# mean, std = (numpy.float32(said[key].split()) for key in ("mean", "std"))
# side = int(said["size"])
#
# image = Image.open("photo.jpg").convert("RGB").resize((side, side), Image.BICUBIC)
# window = (numpy.float32(image) / 255 - mean) / std
# (pixels,) = session.run(["pixels"], {"windows": window.transpose(2, 0, 1)[None]})
#
# pixels /= numpy.linalg.norm(pixels, axis=1, keepdims=True)
# scores = numpy.einsum("kc,nchw->nkhw", numpy.load("classes.npy"), pixels)
# labels = scores.argmax(axis=1)[0]  # (56, 56) for a window of 448
# ```
#
# This is one window with the pixel as its unit. `Model.segment` does more around the same network:
# it keeps the photograph's proportions, slides the window, averages where windows overlap, and
# takes the scores of units. The file's metadata also has the digests of the weights, by which a
# result can be traced to them.

# %% [markdown]
# ## Memory over many images
#
# A process that segments a folder should need no more memory for its last photograph than for its
# first. `python tests/speed/soak.py` segments photographs of many sizes, one after the other.

# %% tags=["remove-input"]
soak = page.read("soak/memory.csv")
if len(soak):
    caption = (
        "Memory of a process after every fiftieth segmentation, from the hundredth on."
    )
    figures.table(speed.memory_held(soak), caption=caption, results="soak/memory.csv")
else:
    display(Markdown("**Not run.**"))

# %% [markdown]
# ## What to take away
#
# * A segmentation is the encoder's and the decoder's work; units and labels are a small part.
# * Large products run near the limit of the machine. What gains most is shorter numbers, or fewer.
# * The exported model gives the same embeddings without PyTorch.

# %% [markdown]
# ## Where the numbers come from
#
# `python tests/speed/inference.py` measures all of this page but the losses and the training
# step, which are those of `tests/speed/training.py`, and adds it to
# `results/speed/<device>.csv`.

# %% tags=["remove-input"]
runs = speed.runs_of(devices, folder)
if len(runs):
    figures.table(runs, caption="The measurements.", results="speed/cpu-2-cores.csv")
else:
    display(Markdown("**Not run.**"))
