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

# %% tags=["remove-input"]
import logging
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from mgca.backbone import load_backbone
from mgca.evaluation.results import read_results, read_run
from mgca.experiments.report import figures
from mgca.training.flops import decoder_flops, image_flops, loss_flops, text_flops, unit_flops

figures.use_style()
logging.disable(logging.WARNING)  # open_clip's, that the weights are random
here = Path.cwd()
project = here if (here / "results").is_dir() else here.parent
speed = project / "results" / "speed"

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
    table.map(lambda value: "" if np.isnan(value) else f"{value:.2f}").rename_axis("part"),
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
PARTS = ["encoder", "decoder", "decoder, forward and backward", "text", "units"]
NOT_RUN = "**Not run** on a GPU: `python tests/speed/inference.py` on a machine with one adds it."


def rows(table: pd.DataFrame, variant: str | None = None, metric: str | None = None):
    """The lines of a variant and of a metric."""
    kept = table if variant is None else table[table["variant"] == variant]
    return kept if metric is None else kept[kept["metric"] == metric]


def parts_of(table: pd.DataFrame) -> pd.DataFrame:
    """Model and part by metric, in the order of PARTS."""
    chosen = table[table["dataset"].isin(PARTS)]
    wide = chosen.pivot_table(index=["variant", "dataset"], columns="metric", values="value")
    wide = wide.reset_index().rename(columns={"variant": "model", "dataset": "part"})
    wide["model"] = wide["model"].str.replace(" (random weights)", "", regex=False)
    order = wide["part"].map(PARTS.index) if len(wide) else None
    return wide.assign(order=order).sort_values(["model", "order"], ignore_index=True)


devices = {path.stem: read_results(path) for path in sorted(speed.glob("*.csv"))}
# Tables that hold no part were made by other measurements only.
measured = {name: parts_of(table) for name, table in devices.items()}
measured = {name: parts for name, parts in measured.items() if len(parts)}
gpus = [name for name in measured if not name.startswith("cpu")]


def machine(name: str) -> str:
    """What the provenance says of a device's measurement."""
    run = rows(devices[name], "ceiling")["run"].iloc[0]
    record = read_run(speed, run)
    return (
        f"{record['device']}, {record['threads']} threads, torch {record['environment']['torch']}"
    )


# %% [markdown]
# ## The time
#
# One window of 448×448, float32, the best of several calls; `decoder, forward and backward` is a
# batch of 16 at 224×224. `lite` comes with its weights; those of `vit-b-16` are random, which
# takes the same time.

# %% tags=["remove-input"]
for name, parts in measured.items():
    shown = pd.DataFrame(
        {
            "model": parts["model"],
            "part": parts["part"],
            "ms": (1000 * parts["seconds"]).map("{:.1f}".format),
            "GFLOP": parts["gflop"].map("{:.2f}".format),
            "GFLOP/s": parts["gflops"].map("{:.0f}".format),
            "of the ceiling": parts["share_of_ceiling"].map("{:.0%}".format),
        }
    )
    figures.table(
        shown,
        caption=f"Time of each part, on {machine(name)}.",
        results=f"speed/{name}.csv",
    )
if not measured:
    display(Markdown("**Not run**: `python tests/speed/inference.py`."))
if not gpus:
    display(Markdown(NOT_RUN))

# %% [markdown]
# ## The roofline


# %% tags=["remove-input"]
def draw(name: str, parts: pd.DataFrame) -> Figure:
    """Parts of both models under the roof of a machine."""
    table = devices[name]
    peaks = rows(table, "ceiling", "matmul_gflops").set_index("dataset")["value"]
    memory = rows(table, "ceiling", "memory_gb_per_s")["value"].iloc[0]
    figure, axis = plt.subplots(figsize=(6.6, 6), layout="constrained")
    intensity = np.geomspace(
        parts["flop_per_byte"].min() / 2, 3 * parts["flop_per_byte"].max(), 200
    )
    for kind, style in (("float32", "-"), ("bfloat16", ":")):
        roof = np.minimum(peaks[kind], intensity * memory)
        axis.plot(intensity, roof, style, color="black", linewidth=1.5, label=f"roof, {kind}")
    sns.scatterplot(
        parts,
        x="flop_per_byte",
        y="gflops",
        hue="part",
        hue_order=[part for part in PARTS if part in set(parts["part"])],
        style="model",
        s=90,
        ax=axis,
    )
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="arithmetic intensity (FLOP per byte)",
        ylabel="GFLOP/s",
    )
    axis.legend_.remove()
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def describe(name: str, parts: pd.DataFrame) -> str:
    """The figure in words, from its own numbers."""
    table = devices[name]
    peak = rows(table, "ceiling", "matmul_gflops").set_index("dataset")["value"]
    memory = rows(table, "ceiling", "memory_gb_per_s")["value"].iloc[0]
    roof = np.minimum(peak["float32"], parts["flop_per_byte"] * memory)
    share = parts["gflops"] / roof
    near, far = (parts.loc[place] for place in (share.idxmax(), share.idxmin()))
    under = parts["flop_per_byte"] * memory < peak["float32"]
    waits = ", ".join(sorted(parts[under]["part"].unique())) or "no part"
    text = (
        f"Large matrix products reach {peak['float32']:.0f} GFLOP/s in float32 "
        f"and {peak['bfloat16']:.0f} in bfloat16, copies {memory:.1f} GB/s. Nearest to the float32 "
        f"roof is the {near['part']} of {near['model']}, at {share.max():.0%}; farthest the "
        f"{far['part']} of {far['model']}, at {share.min():.0%}. Under the slope: {waits}."
    )
    if share.max() > 1:
        text += (
            " A point above the roof is no contradiction: what it reads was still in a cache, or "
            "its kernel is better than those the roof was measured with."
        )
    return text


for name, parts in measured.items():
    figures.show(
        draw(name, parts),
        caption=describe(name, parts),
        alt="Scatter plot on logarithmic axes: GFLOP/s of each part of both models against its "
        "arithmetic intensity, under the roofs of float32 and bfloat16.",
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
TARGETS = {
    "units_over_decoder": ("Units, beside the decoder's time for the same window", 0.05),
    "losses_over_decoder": ("Losses, beside the decoder's time, forward and backward", 0.25),
    "losses_peak_over_similarity": ("Peak memory of the losses, beside one (B, B, N) tensor", 2),
    "step_over_floor": ("A training step, beside encoder, decoder and text alone", 1.35),
    "scaling_exponent_batch": ("Growth of the losses' time with the batch, as an exponent", None),
}
lines = []
for name, table in devices.items():
    for metric, (what, most) in TARGETS.items():
        found = rows(table, metric=metric)
        if metric == "units_over_decoder":
            found = rows(found, "units")
        for row in found.itertuples():
            met = "" if most is None else "met" if row.value <= most else "not met"
            target = "none set" if most is None else f"at most {most:g}"
            lines.append(
                {"what": what, "case": row.dataset, "device": name}
                | {"measured": f"{row.value:.3g}", "target": target, "result": met}
            )
        if found.empty:
            lines.append(
                {"what": what, "case": "", "device": name}
                | {"measured": "not run", "target": "", "result": ""}
            )
if lines:
    figures.table(
        pd.DataFrame(lines),
        caption="Targets, and what was measured.",
        results="speed/cpu-2-cores.csv",
    )
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
    table = devices[name]
    lines = []
    for variant in table[table["dataset"].isin(PARTS)]["variant"].unique():
        model = variant.replace(" (random weights)", "")
        own = rows(table, variant)
        values = own.set_index(["dataset", "metric"])["value"]
        plain_ms = [1000 * values.get((part, "seconds"), np.nan) for part in ("encoder", "decoder")]
        lines.append((model, "float32", *plain_ms, sum(plain_ms), "0"))
        for case in [c for c in own["dataset"].unique() if c.startswith("window 448, ")]:
            kind = case.split(", ")[1]
            if kind == "ONNX":
                total, moved = values[case, "onnx_seconds"], values[case, "largest_difference"]
                lines.append((model, "ONNX Runtime", np.nan, np.nan, 1000 * total, f"{moved:.1e}"))
                continue
            both = [1000 * values[case, f"{part}_seconds"] for part in ("encoder", "decoder")]
            moved = values[case, "relative_difference"]
            lines.append((model, kind, *both, sum(both), f"{moved:.1e}"))
    shown = pd.DataFrame(
        lines, columns=["model", "numbers", "encoder, ms", "decoder, ms", "both, ms", "difference"]
    )
    for column in ("encoder, ms", "decoder, ms", "both, ms"):
        shown[column] = [("" if np.isnan(v) else f"{v:.0f}") for v in shown[column]]
    figures.table(
        shown,
        caption=f"Numbers of 16 bits, and ONNX Runtime, on {name}.",
        results=f"speed/{name}.csv",
    )
    ratios = rows(table, metric="onnx_over_torch")
    text = "; ".join(
        f"{row.variant.replace(' (random weights)', '')} takes {row.value:.2f} of PyTorch's time"
        for row in ratios.itertuples()
    )
    if text:
        display(Markdown(f"ONNX Runtime, side by side in one process: {text}."))

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
soak = read_results(project / "results" / "soak" / "memory.csv")
held = rows(soak, metric="memory_MiB")["value"]
if len(held):
    counted = rows(soak, metric="memory_MiB")["dataset"].iloc[-1].removeprefix("after ").lstrip("0")
    figures.table(
        pd.DataFrame(
            {
                "model": [soak["variant"].iloc[0]],
                "segmentations": [counted],
                "least memory": [f"{held.min():.0f} MiB"],
                "most memory": [f"{held.max():.0f} MiB"],
                "most over least": [f"{held.max() / held.min():.3f}"],
            }
        ).set_index("model"),
        caption="Memory of a process after every fiftieth segmentation, from the hundredth on.",
        results="soak/memory.csv",
    )
else:
    display(Markdown("**Not run.**"))

# %% [markdown]
# ## Where the numbers come from
#
# `python tests/speed/inference.py` measures all of this page but the losses and the training
# step, which are those of `tests/speed/training.py`, and adds it to
# `results/speed/<device>.csv`.

# %% tags=["remove-input"]
lines = []
for name, table in devices.items():
    for run in table["run"].unique():
        record = read_run(speed, run)
        lines.append(
            {"device": name, "run": run, "measured": record["config"].get("benchmark", "")}
            | {"commit": record["commit"][:12], "machine": record["device"]}
            | {"threads": record["threads"], "seconds": record["seconds"]}
        )
if lines:
    figures.table(pd.DataFrame(lines), caption="The measurements.", results="speed/cpu-2-cores.csv")
else:
    display(Markdown("**Not run.**"))
