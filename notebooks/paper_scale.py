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
# # At the paper's scale
#
# The paper trains on 2.56 million pairs of CC3M {cite:p}`sharma2018cc3m`, in batches of 1,024, on
# four GPUs. This page goes from shards of images and captions to a decoder at that scale: the
# commands, what a step does on several processes, what the losses cost at that batch, what the
# whole takes, and what was run of it here.
#
# ```{important}
# What is **measured** on this page names the device it was measured on. What is **arithmetic**
# says so. **Not run**: several machines, CC3M itself, and on a GPU anything but what a table names.
# There is no result of ours at this scale. The [last section](#paper-scale-checked) lists what was
# checked instead.
# ```

# %% tags=["remove-input"]
import logging
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from mgca.backbone import load_backbone
from mgca.config import config_hash
from mgca.evaluation.results import read_results, read_run
from mgca.experiments.report import figures
from mgca.losses.lean import WORKSPACE, Comparison, workspace
from mgca.losses.levels import area_in_pixels
from mgca.training.estimate import DECODER_MAPS
from mgca.training.flops import decoder_flops, image_flops, loss_flops, text_flops
from mgca.training.runs import load_run

figures.use_style()
logging.disable(logging.WARNING)  # open_clip's, that the weights are random
here = Path.cwd()
project = here if (here / "results").is_dir() else here.parent
speed, shards = project / "results" / "speed", project / "results" / "shards"
paper = load_run("paper")
BATCH, SIDE, DIM = paper.train.batch_size, paper.stream.size, 512
PIXELS = (2 * SIDE // 16) ** 2  # the decoder doubles the encoder's 14 x 14
PAIRS = 2_560_000

# %% [markdown]
# (paper-scale-commands)=
# ## From shards to a decoder
#
# `pip install "mgca[train]"` adds webdataset and Lightning Fabric.
#
# ### Shards
#
# Shards are tars of images, each beside its caption as `.txt` or under `caption` of its `.json`.
# Two ways lead to those of CC3M:
#
# * *Made*, with [img2dataset](https://github.com/rom1504/img2dataset), from the list of URLs and
#   captions that [the set's page](https://ai.google.com/research/ConceptualCaptions/download)
#   offers. Its
#   [recipe](https://github.com/rom1504/img2dataset/blob/main/dataset_examples/cc3m.md) reports an
#   hour, on 16 cores and a line of 2 Gbit/s. By default it pads images to squares with a border,
#   which should not be trained on, hence `keep_ratio`. Some of the URLs are gone by now; how many
#   pairs come out depends on the day.
# * *Made already*: [pixparse/cc3m-wds](https://huggingface.co/datasets/pixparse/cc3m-wds), 2.91
#   million pairs for training by its own page. Its `_info.json` says which shards are the
#   training split, and only those are taken.
#
# ```bash
# sed -i '1s/^/caption\turl\n/' cc3m.tsv
# img2dataset --url_list cc3m.tsv --input_format tsv --url_col url --caption_col caption \
#   --output_format webdataset --output_folder cc3m --image_size 256 --resize_mode keep_ratio \
#   --resize_only_if_bigger True --processes_count 16 --thread_count 64
#
# hf download pixparse/cc3m-wds --repo-type dataset --local-dir cc3m   # or this
# ```
#
# Images and captions of your own become shards with `mgca data pack captions.tsv cc3m`; the table
# is that of [How to run](../running.md). A folder of your own shards, a list of paths, a
# pattern or a URL will do wherever a command says `SHARDS`.
#
# ```bash
# mgca data shards cc3m                         # complete? how many, what captions?
# mgca data captions cc3m                       # their nouns, once
# mgca data captions cc3m --embed vit-b-16 --device cuda   # and all text embeddings, once
# ```
#
# The first scans every tar from header to header. A cut-off or empty shard is found here and not
# hours into training; all damaged ones are named at once. The second tags the captions, about
# 2,400 a second and core. Without it, reading processes tag as they go, each epoch again. The third
# also embeds captions and the texts made of nouns, so that training needs no text encoder. It asks
# for 4 · 512 bytes a text, 6 GB for CC3M's captions, and says so before it begins.
#
# Shards behind `http` are streamed through the cache, whole, by webdataset, which needs `curl`.
# `--download-limit` bounds what they take there, in GiB; the limit should hold more than one shard
# per lane.
#
# ### Training
#
# ```bash
# mgca train --shards cc3m --config paper --dry-run
# mgca train --shards cc3m --config paper
# torchrun --nproc-per-node 4 -m mgca train --shards cc3m --config paper
# ```
#
# The first says what the run takes and ends: parameters, steps, FLOPs, memory by purpose, disk, and
# hours, from some steps that it times. `--random-weights` does that without CLIP's weights. A run
# that will not fit into memory or onto the disk is refused before it starts, with what to change.
# The second trains on one device, the third on four of one machine. **The same command resumes**: a
# run that was stopped or killed goes on after its last checkpoint, on another number of
# processes too.
#
# Options that change what is learned, and with it the name of the run:
#
# * `--set train.loss.alpha=0.3` changes a value, in TOML's syntax, and may be repeated;
# * `--config mine.toml` names a file of what is not the paper's.
#
# Options that change nothing but time, memory and rounding:
#
# * `--micro-batch 128`: so many images of a process go through the decoder at a time;
# * `--budget 512`: the losses hold at most so many MiB beside their inputs;
# * `--workers 4`: reading processes for each training process;
# * `--checkpoint-every 500`, `--keep 2`, `--milestone 2500`: how often, how many, which for good;
# * `--precomputed DIR`: where `mgca data captions --out DIR` wrote to;
# * `--corrupt-limit 0.01`: share of samples that may be unreadable. They are left out and named.
#
# A file has the structure of `mgca.training.runs.RunConfig`:
#
# ```toml
# clip = 1.0                # largest norm of the gradient; the paper states none
# [train]
# precision = "bfloat16"    # of the decoder's convolutions, and of the encoders on a GPU
# [train.loss]
# alpha = 0.3
# [stream]
# lanes = 32
# ```
#
# The default precision is float32, because the paper names none. By their vendors' figures
# [below](#paper-scale-cost) GPUs are two to sixteen times as fast in `bfloat16`.
#
# On a set of another size than the paper's, 15 epochs are another number of steps. `--set
# train.steps=37500` is the paper's number: 15 epochs of 2,500.
#
# ### What lies in the run's folder
#
# `--out runs` holds a folder for each configuration, named by its hash
# ([how](../reproducibility.md)).

# %% tags=["remove-input"]
Markdown(f"""
That of `--config paper` is `runs/{config_hash(paper)}`:

* `checkpoints/step-000000500.safetensors`: decoder, the optimizer's moments, step, configuration
  and the digest of the shards;
* `metrics.csv`, a row per step: rate, losses, norm of the gradient, images, corrupt ones, images a
  second, utilisation, share of the time spent waiting for data;
* `decoder.safetensors`, at the end: the trained decoder;
* `run.json`, at the end: its provenance.

```bash
mgca evaluate voc20 --root /data/voc2012 --model vit-b-16 \\
  --decoder runs/{config_hash(paper)}/decoder.safetensors
```

```python
model = mgca.load("vit-b-16", decoder="runs/{config_hash(paper)}/decoder.safetensors")
```
""")

# %% [markdown]
# ### Several machines, and jobs with a time limit
#
# Each machine starts `torchrun`, and they find each other at a rendezvous:
#
# ```bash
# torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint FIRST:29500 \
#   --rdzv-id mgca -m mgca train --shards /data/cc3m
# ```
#
# All must see the shards and the run's folder. SLURM stops a job when its time is over. SIGUSR1,
# SIGTERM and Ctrl-C end training after the step under way, on all processes after the same one,
# with a checkpoint. The script {download}`train.sbatch <../train.sbatch>` asks for the signal in
# time and queues the job again:
#
# ````{dropdown} train.sbatch
# ```{literalinclude} ../train.sbatch
# :language: bash
# ```
# ````
#
# It was run with stand-ins for SLURM's commands only.
#
# ### In a container
#
# Reading processes hand batches over in shared memory, `/dev/shm`, where about two of them lie at a
# time: 3 · 224 · 224 bytes an image, 308 MB for 1,024 images on one process. Docker gives 64 MB
# unless told otherwise: `--shm-size 1g`, or `--workers 0`, with which a process reads by itself.

# %% [markdown]
# ## The order of the data
#
# Which samples a step takes is a pure function of the seed and the step. In each epoch the shards
# are permuted, and the samples within each shard; one after the other they are the sequence of all
# samples. It is cut into $L$ contiguous segments of equal length, the *lanes*, 16 by default, and a
# batch takes the next $B / L$ samples of each.
#
# Processes and their workers only share the lanes out: process $r$ of $W$ reads lanes $r L / W$ to
# $(r + 1) L / W - 1$. Hence
#
# * a batch is the same for any number of processes and workers. $W$ times the workers has to
#   divide $L$, and $L$ the batch;
# * nothing has to be saved to go on but the number of the step, and going on skips and repeats
#   nothing;
# * as many shards are open as there are lanes, and samples are read where they lie in them. There
#   is no shuffle buffer, whose contents a resumed run would have lost.
#
# The text drawn for a sample (choice [D10](#d10)) and its crop come from a generator seeded with
# seed, epoch, shard and key, whoever reads it. What does not fill a last batch is left out of that
# epoch. Samples that cannot be read are left out of their batch, which is then smaller.

# %% [markdown]
# (paper-scale-step)=
# ## A step on several processes
#
# Contrast is over all $B$ images and texts, of all processes. Process $r$ has the images and texts
# of its lanes and does four things:
#
# 1. It encodes its images and texts, and gathers the texts of all.
# 2. It computes the *rows of the logits* that belong to its images, $Z_r$ with $B / W$ rows
#    and $B$ columns, at each of the three levels. A row needs the pixels of one image and all
#    texts. Pixel embeddings and regions never leave their process.
# 3. It gathers the rows of all, $Z$ with $B$ rows, with gradient, and computes the losses
#    $\mathcal{L}(Z)$. All processes compute the same.
# 4. It takes the gradient back to its own rows, and through its decoder. `DistributedDataParallel`
#    averages the gradients of the parameters.
#
# **Why that is the gradient of one process.** In the backward pass of gathering, a row's gradient
# is the sum of what all $W$ processes make of it. They compute the same loss, so it is
# $W \, \partial\mathcal{L} / \partial Z_r$, and process $r$ finds for the parameters $\theta$
#
# $$
# g_r = W \, \frac{\partial \mathcal{L}}{\partial Z_r} \frac{\partial Z_r}{\partial \theta},
# \qquad\text{averaged:}\qquad
# \frac{1}{W} \sum_{r=1}^{W} g_r
# = \sum_{r=1}^{W} \frac{\partial \mathcal{L}}{\partial Z_r} \frac{\partial Z_r}{\partial \theta}
# = \frac{\mathrm{d} \mathcal{L}}{\mathrm{d} \theta} .
# $$
#
# Nothing in it asks for equal numbers of rows, so a process that left a corrupt sample out is no
# special case.
#
# ```{literalinclude} ../../mgca/training/distributed.py
# :pyobject: _GatherRows
# ```
#
# **In parts.** Gradient accumulation, as it is commonly done, adds up the losses of small batches;
# for a contrast that is another loss, with fewer negatives. With `--micro-batch` the loss stays
# that of the whole batch. The logits of each part are computed without gradient first, which gives
# $Z$ and $G = \partial\mathcal{L} / \partial Z$. Then they are computed again, part by part, and
# the gradient of
#
# $$
# \sum_{\text{parts } q} \langle G_q, Z_q(\theta) \rangle
# \qquad\text{is}\qquad
# \sum_q G_q \frac{\partial Z_q}{\partial \theta}
# = \frac{\mathrm{d} \mathcal{L}}{\mathrm{d} \theta} .
# $$
#
# Memory is that of one part, and a step takes one more forward pass of decoder and comparison. The
# encoders run once.
#
# ````{dropdown} mgca.training.step.backward
# ```{literalinclude} ../../mgca/training/step.py
# :pyobject: backward
# ```
# ````
#
# **What is exchanged**, by arithmetic, for a batch of 1,024 on any number of processes:

# %% tags=["remove-input"]
DECODER = 4_721_666
exchanged = {
    "texts, gathered": f"B · C = {BATCH:,} · {DIM}",
    "logits of three levels, gathered": f"3 · B² = 3 · {BATCH:,}²",
    "their gradients, summed": f"3 · B² = 3 · {BATCH:,}²",
    "gradients of the decoder, averaged": f"{DECODER:,}",
}
numbers = [BATCH * DIM, 3 * BATCH**2, 3 * BATCH**2, DECODER]
lines = [
    {"what": what, "float32 numbers": count, "MB a step": f"{4e-6 * number:.1f}"}
    for (what, count), number in zip(exchanged.items(), numbers, strict=True)
]
lines.append(
    {"what": "together", "float32 numbers": ""} | {"MB a step": f"{4e-6 * sum(numbers):.1f}"}
)
figures.table(pd.DataFrame(lines), caption="What processes exchange in a step.")
display(
    Markdown(
        f"Gathering the pixel embeddings instead, B · N · C numbers, would be "
        f"{4e-6 * BATCH * PIXELS * DIM:,.0f} MB."
    )
)

# %% [markdown]
# (paper-scale-losses)=
# ## The losses at a batch of 1,024
#
# Eq. 2 to 7 compare every pixel of every image with every text. Written down as they stand
# (`mgca.losses.levels`), the tensors are these, in float32 and for one process:

# %% tags=["remove-input"]
area = area_in_pixels(paper.train.loss.alpha, PIXELS)
negatives = area_in_pixels(paper.train.loss.alpha_neg, PIXELS)
spec = Comparison(0, area, 19, negatives, 1)
kept = BATCH * (negatives * BATCH + area)


def gib(size: float) -> str:
    return f"{size / 2**30:.2f}"


sizes = [
    ("similarities", "4 · B² · N", gib(4 * BATCH**2 * PIXELS)),
    ("weights of the regions", "4 · B² · N", gib(4 * BATCH**2 * PIXELS)),
    ("regions", "4 · B² · C", gib(4 * BATCH**2 * DIM)),
    ("best pixels of each pair", f"6 · B · ({negatives} · B + {area})", gib(6 * kept)),
    ("workspace", "at most 256 MiB", gib(min(WORKSPACE, 4 * BATCH**2 * PIXELS))),
]
sizes = pd.DataFrame(sizes, columns=["tensor", "bytes", "GiB"])
figures.table(sizes.iloc[:3], caption="Tensors of the losses as they are written.")
size, _ = workspace(spec, BATCH, BATCH, PIXELS, DIM)
display(
    Markdown(
        "In the backward pass their gradients stand beside them. A loss needs of all that one "
        "cosine and one similarity a pair. `mgca.losses.lean` takes a few images at a time, here "
        f"{size} of {BATCH:,}, and keeps of each pair only what the backward pass cannot do "
        f"without: the {negatives} largest similarities (5 % of {PIXELS}) and which pixels they "
        "are of, 4 and 2 bytes each. The images' regions are made from these, used, and dropped, "
        "and made again in the backward pass."
    )
)
figures.table(sizes.iloc[3:], caption="What `mgca.losses.lean` holds instead.")

# %% [markdown]
# [Method](#pairwise) has the gradient in full. The backward pass holds most, for each image at a
# time three maps for each text, three regions for each text and three copies of its pixels:
#
# $$
# \text{bytes per image} = 4 \, (3 T N + 3 T C + 3 N C) + 20 \, (39 \, T + 313)
# $$
#
# for $T$ texts; as many images are taken as fit the workspace of 256 MiB. `--budget` sets another
# size, for what is kept and the workspace together. Where the two do not fit in it, the best pixels
# are not kept and are found again, which costs a second product of pixels and texts. A budget that
# does not hold a single image is refused, with the size it needs.
#
# ### Measured


# %% tags=["remove-input"]
def tables() -> dict[str, pd.DataFrame]:
    """Measurements of losses and steps by device; rows of earlier forms have another unit."""
    found = {path.stem: read_results(path) for path in sorted(speed.glob("*.csv"))}
    return {name: table[table["unit"] == "all"] for name, table in found.items()}


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """One line a case, the smallest batch first, and one column a metric."""
    cases = table.pivot_table(index="dataset", columns="metric", values="value")
    batch = cases.index.str.extract(r"^B=(\d+)", expand=False).astype(int)
    return cases.iloc[np.argsort(batch, kind="stable")].rename_axis(columns=None)


HEADS = {
    "losses_seconds": "losses, s",
    "decoder_seconds": "decoder, s",
    "losses_over_decoder": "losses / decoder",
    "plain_over_losses": "plain losses / losses, time",
    "losses_peak_MiB": "peak, MiB",
    "losses_peak_over_similarity": "peak / similarities",
    "plain_losses_peak_over_similarity": "plain, peak / similarities",
}
NO_LOSSES = "**Not run yet**: `python tests/speed/training.py`."
measured = tables()
losses = {name: table[table["variant"] == "losses"] for name, table in measured.items()}
losses = {name: table for name, table in losses.items() if len(table)}
for name, table in losses.items():
    cases = wide(table)
    shown = cases[[metric for metric in HEADS if metric in cases]].dropna(how="all")
    shown = shown.map(lambda value: "" if np.isnan(value) else f"{value:.3g}")
    record = read_run(speed, table["run"].iloc[-1])
    figures.table(
        shown.rename(columns=HEADS).rename_axis("case"),
        caption=f"The losses, measured on {record['device']}, {record['threads']} threads.",
        results=f"speed/{name}.csv",
    )
if not losses:
    display(Markdown(NO_LOSSES))
if all(name.startswith("cpu") for name in losses):
    display(Markdown("**Not run** on a GPU: the same command on a machine with one adds it."))

# %% [markdown]
# Times are forward and backward together, the best of several calls. *Decoder* is its own forward
# and backward pass on the same batch. *Peak* is the most that a call holds beside its inputs and
# the gradient of the pixels, also as a multiple of one tensor of similarities. Cases with a budget
# have that much and no more, plus the logits.


# %% tags=["remove-input"]
def show_growth(name: str, table: pd.DataFrame) -> None:
    """Show the time of the losses over the batch."""
    times = table[(table["metric"] == "losses_seconds") & ~table["dataset"].str.contains("budget")]
    batch = times["dataset"].str.extract(r"^B=(\d+) ")[0].astype(float)
    points = pd.DataFrame({"batch": batch, "seconds": times["value"]}).dropna()
    fitted = table[table["metric"] == "scaling_exponent_batch"]
    if len(points) < 3 or fitted.empty:
        text = f"**{name}**: batches of too few sizes were measured for a figure."
        display(Markdown(text))
        return
    points = points.sort_values("batch", ignore_index=True)
    exponent = fitted["value"].iloc[0]
    x = points["batch"].to_numpy()
    level = np.exp(np.mean(np.log(points["seconds"]) - exponent * np.log(x)))
    figure, axis = plt.subplots(figsize=(6.2, 3.8), layout="constrained")
    axis.plot(x, points["seconds"], "o", label="measured")
    axis.plot(x, level * x**exponent, "-", label=f"exponent {exponent:.2f}")
    axis.plot(x, points["seconds"].iloc[0] * (x / x[0]) ** 2, ":", label="exponent 2")
    axis.set(xscale="log", yscale="log", xlabel="batch", ylabel="seconds")
    axis.set_xticks(x, [f"{value:.0f}" for value in x])
    axis.minorticks_off()
    axis.legend()
    figures.show(
        figure,
        caption=f"The time of the three losses grows with the batch to the power of "
        f"{exponent:.2f}: forward and backward, batches of {x[0]:.0f} to {x[-1]:.0f}, one process. "
        "There are B² pairs, so 2 is what the work itself grows with once it is all of pairs.",
        alt="Line chart on logarithmic axes: seconds against the batch, as measured, with the "
        "fitted power and with the power of 2.",
        name=f"fig-growth-{name}",
        results=f"speed/{name}.csv",
    )


for name, table in losses.items():
    show_growth(name, table)

# %% [markdown]
# ### A whole step
#
# CLIP ViT-B/16 with random weights, which take the same time, at 224×224. The *floor* is encoders
# and decoder alone: what no implementation of the losses can save.

# %% tags=["remove-input"]
STEP = "step, vit-b-16 (random weights)"
STEP_HEADS = {
    "encoders_seconds": "encoders, s",
    "decoder_seconds": "decoder, s",
    "step_seconds": "step, s",
    "step_over_floor": "step / floor",
    "losses_over_step": "losses / step",
    "images_per_second": "images/s",
}
steps = {name: table[table["variant"] == STEP] for name, table in measured.items()}
steps = {name: table for name, table in steps.items() if len(table)}
for name, table in steps.items():
    cases = wide(table)
    shown = cases[[metric for metric in STEP_HEADS if metric in cases]].map("{:.3g}".format)
    figures.table(
        shown.rename(columns=STEP_HEADS).rename_axis("case"),
        caption=f"A step of training, on {name}.",
        results=f"speed/{name}.csv",
    )
if not steps:
    display(Markdown(NO_LOSSES))

# %% [markdown]
# The [page on speed](speed.ipynb) has the targets that were set for these ratios, and encoder and
# decoder beside the machine's limits.

# %% [markdown]
# (paper-scale-cost)=
# ## What the whole costs
#
# By arithmetic. Counted on the device `meta`, without weights; a backward pass is of the decoder
# and the losses alone, because the encoders are frozen.

# %%
vit = load_backbone("vit-b-16", pretrained=False).to("meta")
work = {
    "image encoder": image_flops(vit, SIDE),
    "text encoder": text_flops(vit),
    "decoder, forward and backward": decoder_flops(DIM, 28, 28, backward=True),
    "losses against 1,024 texts, forward and backward": loss_flops(1, BATCH, PIXELS, DIM),
}
image = sum(work.values())
seen = PAIRS * paper.train.epochs

# %% tags=["remove-input"]
table = pd.DataFrame(
    [
        {"part": part, "GFLOP an image": f"{value / 1e9:.1f}", "share": f"{value / image:.0%}"}
        for part, value in [*work.items(), ("together", image)]
    ]
)
figures.table(table, caption="Work for one image of training.")
display(
    Markdown(
        f"{PAIRS / 1e6:.2f} million pairs, {paper.train.epochs:.0f} epochs: "
        f"{seen / 1e6:.1f} million images, {seen / BATCH:,.0f} steps, "
        f"{image * seen / 1e18:.2f} EFLOP ({image * seen:.2e} FLOP). With text embeddings computed "
        "beforehand the text encoder drops out."
    )
)

# %% [markdown]
# What that is in hours depends on the share of a card's peak that is reached. Peaks are the
# vendor's, for dense matrix products: RTX 3090 {cite:p}`nvidia2021ga102`, A100 SXM
# {cite:p}`nvidia2020a100`, H100 SXM {cite:p}`nvidia2022h100`; bfloat16 with sums in float32. The
# utilisation is an **assumption**: 50 % in float32 and 35 % in bfloat16, where what is not counted
# (norms, sorting, memory) weighs more. Nothing of this table was measured. The paper used four RTX
# 3090; it does not say for how long.

# %% tags=["remove-input"]
PEAKS = {"RTX 3090": (35.6, 71.2), "A100 SXM": (19.5, 312.0), "H100 SXM": (66.9, 989.4)}
ASSUMED = {"float32": 0.5, "bfloat16": 0.35}
lines = []
for card, peaks in PEAKS.items():
    for (kind, share), peak in zip(ASSUMED.items(), peaks, strict=True):
        hours = image * seen / (peak * 1e12 * share) / 3600
        lines.append(
            {"card": card, "numbers": kind, "peak, TFLOP/s": f"{peak:g}", "assumed": f"{share:.0%}"}
            | {"hours, one card": f"{hours:.1f}", "hours, four": f"{hours / 4:.1f}"}
            | {"images/s, four": f"{4 * peak * 1e12 * share / image:,.0f}"}
        )
figures.table(pd.DataFrame(lines), caption="Hours by arithmetic, under the assumption.")

# %% [markdown]
# The last column is how many images would have to be read and decoded in a second. The probe of
# `mgca train --dry-run` measures reading too and counts the slower of the two; `waiting` in
# `metrics.csv` says which it was.
#
# Memory of one process, as `mgca train` estimates it; encoders and optimizer, 0.6 GiB in float32,
# come on top:

# %% tags=["remove-input"]
lines = []
for world, micro in ((1, None), (1, 128), (4, None), (4, 64), (8, None)):
    part = min(micro or BATCH, BATCH // world)
    pairs = 4 * part * BATCH * PIXELS
    held = BATCH // world * (3 * SIDE**2 + DIM * PIXELS) + part * 4 * 3 * SIDE**2
    activations = 4 * DECODER_MAPS * part * DIM * PIXELS
    lines.append(
        {"processes": world, "--micro-batch": micro or "", "images at a time": part}
        | {"images and features, GiB": gib(held), "decoder, GiB": gib(activations)}
        | {"losses, GiB": gib(min(pairs, WORKSPACE) + pairs // 10)}
    )
figures.table(pd.DataFrame(lines), caption="Memory of one process, by arithmetic.")

# %% [markdown]
# ### Measured
#
# What `mgca train --config paper` estimates before it starts, from parts of a step that it times
# and from reading Flickr8k's photographs; random weights, extrapolated to 37,500 steps of 1,024
# images. *Trained* is the median of real steps, where some minutes were trained.

# %% tags=["remove-input"]
COST_HEADS = {
    "hours": "hours",
    "step_seconds": "s a step",
    "images_per_second": "images/s",
    "read_images_per_second": "reading, images/s",
    "memory_GiB": "memory, GiB",
    "utilisation": "of the ceiling",
    "trained_images_per_second": "trained, images/s",
    "trained_utilisation": "trained, of the ceiling",
    "trained_peak_GiB": "trained, peak GiB",
}
cost = read_results(shards / "paper.csv")
if len(cost):
    cases = cost.pivot_table(index="dataset", columns="metric", values="value")
    cases = cases.rename_axis(columns=None)
    shown = cases[[metric for metric in COST_HEADS if metric in cases]]
    shown = shown.map(lambda value: "" if np.isnan(value) else f"{value:,.4g}")
    shown["run"] = cost.groupby("dataset")["run"].last()
    figures.table(
        shown.rename(columns=COST_HEADS).rename_axis("device and numbers"),
        caption="What the paper's configuration would take, extrapolated from parts of a step.",
        results="shards/paper.csv",
    )
else:
    display(Markdown("**Not run yet**: `python tests/speed/paper.py --data ../shared/data`."))
if cost["dataset"].str.startswith("cpu").all():
    display(Markdown("On a GPU: **not run**. The same command adds it."))
for name, table in steps.items():
    for row in table[table["metric"] == "images_per_second"].itertuples():
        text = (
            f"The step of the table further up, {name} with {row.dataset}, without reading: "
            f"{row.value:.3g} images/s, {seen / row.value / 3600:,.0f} hours for {seen / 1e6:.1f} "
            "million images."
        )
        display(Markdown(text))

# %% [markdown]
# (paper-scale-end)=
# ## End to end, in small
#
# What could be run here is the same code on less: Flickr8k's training captions
# {cite:p}`hodosh2013flickr8k`, packed into shards, with the encoders of `lite`, 200 steps of 16
# images in float32. Three runs: on one process, on two, and on two that were killed three times,
# all processes at once (SIGKILL, which no program can catch), when 33, 97 and 151 steps were done
# and the next was under way, with checkpoints every 20 steps. Each time the same command was given
# again.

# %% tags=["remove-input"]
NO_END = (
    "**Not run yet**: `python tests/speed/end_to_end.py --data ../shared/data`, with the "
    "folder of the real data."
)
end = read_results(shards / "end_to_end.csv")
ONE, TWO, KILLED = "1 process", "2 processes", "2 processes, killed 3 times"
END_HEADS = {
    "first_loss": "first loss",
    "last_loss": "last 20 steps, mean loss",
    "images_per_second": "images/s, median",
    "waiting": "waiting for data",
    "total_relative_difference": "largest difference of a loss",
    "gradient_relative_difference": "of a gradient's norm",
    "weights_relative_difference": "of the weights",
    "same_bits": "same bits",
}
if len(end):
    cases = end.pivot_table(index="variant", columns="metric", values="value", sort=False)
    cases = cases.rename_axis(columns=None).reindex(
        [run for run in (ONE, TWO, KILLED) if run in cases.index]
    )
    shown = cases[[metric for metric in END_HEADS if metric in cases]].copy().astype(object)
    for metric in shown:
        form = {"same_bits": lambda v: "yes" if v else "no", "waiting": "{:.0%}".format}
        small = "{:.1e}".format if metric.endswith("difference") else "{:.4g}".format
        render = form.get(metric, small)
        shown[metric] = [("" if pd.isna(v) else render(v)) for v in shown[metric]]
    shown.insert(
        len(shown.columns) - sum(m in shown for m in list(END_HEADS)[4:]),
        "compared with",
        [{TWO: ONE, KILLED: TWO}.get(run, "") for run in shown.index],
    )
    figures.table(
        shown.rename(columns=END_HEADS).rename_axis("run"),
        caption="One process, two, and two that were killed.",
        results="shards/end_to_end.csv",
    )
else:
    display(Markdown(NO_END))


# %% tags=["remove-input"]
def metrics_of(run: str, variant: str) -> pd.DataFrame | None:
    path = shards / "runs" / f"{run}-{variant.replace(' ', '-')}.csv"
    return pd.read_csv(path) if path.is_file() else None


def show_end(one: pd.DataFrame, two: pd.DataFrame) -> None:
    """Show both curves, and how far they are apart."""
    apart = ((two["total"] - one["total"]) / one["total"]).abs()
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(6.2, 4.6), sharex=True, layout="constrained", height_ratios=[3, 2]
    )
    top.plot(one["step"], one["total"], label="1 process")
    top.plot(two["step"], two["total"], "--", label="2 processes")
    top.set(ylabel="loss")
    top.legend()
    # A difference of 0 has no place on a logarithmic axis.
    bottom.plot(one["step"], apart.where(apart > 0), ".", color="black", markersize=3)
    bottom.set(yscale="log", xlabel="step", ylabel="relative difference")
    first, last = one["total"].iloc[:20].mean(), one["total"].iloc[-20:].mean()
    figures.show(
        figure,
        caption="Above, the loss at each step on one process and on two; the mean of 20 steps goes "
        f"from {first:.2f} at the start to {last:.2f} at the end. Below, by how much the two "
        f"differ, as a share of the loss: at most {apart.max():.1e}, and {apart.iloc[0]:.1e} at "
        "the first step, when both still have the same weights. What grows is rounding, which "
        "training carries on: sums over a batch are taken in another order.",
        alt="Two charts against the step: the loss on one process and on two, which lie on each "
        "other, and their relative difference on a logarithmic axis.",
        name="fig-end-to-end",
        results="shards/end_to_end.csv",
    )


run = end["run"].iloc[-1] if len(end) else ""
one, two = metrics_of(run, ONE), metrics_of(run, TWO)
if one is not None and two is not None:
    show_end(one, two)
    display(
        Markdown(
            "What the run shows is that one, two and killed processes compute the same, not that "
            "they learn: batches of 16 differ more from each other than a decoder on `lite` "
            "changes them, and that it gains nothing there is a "
            "[result on photographs](results.html) too."
        )
    )

# %% tags=["remove-input"]
if len(end):
    same = end[(end["variant"] == KILLED) & (end["metric"] == "same_bits")]["value"]
    if len(same) and same.iloc[0] == 1:
        text = (
            "The run that was killed ends with the **same bits** as the one that was left alone: "
            "`decoder.safetensors` has the same SHA-256."
        )
    else:
        text = "The run that was killed did **not** end with the same bits."
    display(Markdown(text))
    record = read_run(shards, run)
    digest = next(iter(record["data"].values()), "")
    came = {
        "run": run,
        "commit": record["commit"][:12],
        "machine": record["device"],
        "threads": record["threads"],
        "seconds, last call": record["seconds"],
        "digest of the shards": digest[:12],
    }
    figures.table(
        pd.DataFrame([came]),
        caption="Where these numbers come from.",
        results="shards/end_to_end.csv",
    )

# %% [markdown]
# (paper-scale-checked)=
# ## What was checked, and what was not run
#
# Each claim with the test in `tests/` that would fail without it.
#
# * Losses and gradients are those of the equations, in any layout and budget.
#   `test_pairwise.py`: `test_equals_the_plain_losses_and_their_gradients`,
#   `test_float32_is_within_1e_5_of_the_loops_in_float64`, `test_gradcheck`.
# * They hold at most two tensors of similarities, or the budget.
#   `test_memory_beside_the_inputs_and_their_gradient`, `test_a_budget_is_kept`.
# * 2 and 4 processes, launched with `torchrun`, find loss and gradient of one to a relative 1e-5,
#   with unequal shares too. `test_distributed.py`:
#   `test_processes_find_the_loss_and_gradient_of_one`.
# * Parts change nothing. `test_parts_change_nothing`.
# * A run on two processes learns what one does. `test_engine.py`:
#   `test_two_processes_learn_what_one_does`.
# * Training from shards is the training of the small scales, on the same batches.
#   `test_it_is_the_small_training_on_the_same_batches`.
# * Killed at any time, while a checkpoint is written too, a run ends with the same bits.
#   `test_killed_at_any_time_it_ends_with_the_same_bits`.
# * Signals stop it after a step, and it goes on.
#   `test_a_signal_stops_after_a_step_and_the_run_goes_on`.
# * Batches are the same for any number of processes and workers, and resuming anywhere gives the
#   rest. `test_shards.py`: `test_processes_and_workers_do_not_matter`,
#   `test_resuming_anywhere_gives_the_rest`.
# * An epoch takes each sample once. `test_an_epoch_takes_each_sample_once_where_sizes_divide`.
# * Truncated, empty and damaged shards are found. `test_shards_index.py`:
#   `test_truncated_anywhere`, `test_holes_are_found_or_lose_no_sample`,
#   `test_a_damaged_header_is_not_the_end`.
# * Shards behind http give what those on disk give, from a server on the same machine.
#   `test_remote_shards_are_those_on_disk`.
# * Nouns and embeddings computed beforehand give the same texts and vectors.
#   `test_shards_texts.py`.
# * A step holds no more memory than was estimated, and FLOPs are those counted by hand.
#   `test_estimate.py`, `test_flops.py`.
# * `--config paper` is the paper's configuration. `test_runs.py`:
#   `test_paper_is_the_defaults_and_the_defaults_are_the_papers`.
#
# **Not run:**
#
# * a GPU, but for what the tables above name; several of them with NCCL; float16, but for a test
#   that makes a CPU do it;
# * several machines, and SLURM itself;
# * CC3M: its shards as they are, 2.56 million pairs, a batch of 1,024 from end to end;
# * http servers other than one on the same machine;
# * the decoder that would come out, and with it every number of the paper's tables.
