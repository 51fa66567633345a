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
# says so. The [last section](#paper-scale-checked) lists what was not run, and what was checked
# instead.
# ```

# %% tags=["remove-input"]
import logging

from IPython.display import Markdown, display

from mgca.backbone import load_backbone
from mgca.config import config_hash
from mgca.evaluation.results import read_run
from mgca.experiments.report import figures
from mgca.experiments.report import paper_scale as at_scale
from mgca.experiments.report.page import open_page
from mgca.losses.lean import Comparison, room, workspace
from mgca.losses.levels import area_in_pixels
from mgca.training.flops import decoder_flops, image_flops, loss_flops, text_flops
from mgca.training.runs import load_run

# %% tags=["remove-input"]
page = open_page("paper_scale")
logging.disable(logging.WARNING)  # open_clip's, that the weights are random
speed, shards = page.results / "speed", page.results / "shards"
paper = load_run("paper")
BATCH, SIDE, DIM = paper.train.batch_size, paper.stream.size, 512
PIXELS = (2 * SIDE // 16) ** 2  # the decoder doubles the encoder's 14 x 14
PAIRS = 2_560_000
sizes = at_scale.Sizes(BATCH, SIDE, PIXELS)

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
folder = f"runs/{config_hash(paper)}"
Markdown(f"That of `--config paper` is `{folder}`:")

# %% [markdown]
# * `checkpoints/step-000000500.safetensors`: decoder, the optimizer's moments, step, configuration
#   and the digest of the shards;
# * `metrics.csv`, a row per step: rate, losses, norm of the gradient, images, corrupt ones, images
#   a second, utilisation, share of the time spent waiting for data;
# * `decoder.safetensors`, at the end: the trained decoder;
# * `run.json`, at the end: its provenance.

# %% tags=["remove-input"]
Markdown(f"""
```bash
mgca evaluate voc20 --root /data/voc2012 --model vit-b-16 \\
  --decoder {folder}/decoder.safetensors
```

```python
model = mgca.load("vit-b-16", decoder="{folder}/decoder.safetensors")
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
figures.table(sizes.exchanged(), caption="What processes exchange in a step.")
Markdown(
    "Gathering the pixel embeddings instead, B · N · C numbers, would be "
    f"{4e-6 * BATCH * PIXELS * DIM:,.0f} MB."
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
tensors = sizes.tensors(area, negatives)
figures.table(tensors.iloc[:3], caption="Tensors of the losses as they are written.")
spec = Comparison(0, area, 19, negatives, 1)
few, many = (
    workspace(spec, BATCH, BATCH, PIXELS, DIM, room(device))[0]
    for device in ("cpu", "cuda")
)

# %% tags=["remove-input"]
text = (
    "In the backward pass their gradients stand beside them. A loss needs of all that "
    "one cosine and one similarity a pair. `mgca.losses.lean` takes a few images at a "
    f"time, here {few} of {BATCH:,} on a CPU and {many} on a GPU, and keeps of each pair "
    f"what the backward pass needs: the {negatives} largest similarities (5 % of {PIXELS}) "
    "and which pixels they are of, 4 and 2 bytes each. The images' regions are made "
    "from these, used, and dropped, and made again in the backward pass."
)
display(Markdown(text))
figures.table(tensors.iloc[3:], caption="What `mgca.losses.lean` holds instead.")

# %% [markdown]
# The backward pass ([below](#pairwise)) holds most, for each image at a time three maps for each
# text, three regions for each text and three copies of its pixels:
#
# $$
# \text{bytes per image} = 4 \, (3 T N + 3 T C + 3 N C) + 20 \, (39 \, T + 313)
# $$
#
# for $T$ texts; as many images are taken as fit the workspace. `--budget` sets another size, for
# what is kept and the workspace together. Where the two do not fit in it, the best pixels are not
# kept and are found again, which costs a second product of pixels and texts. A budget that does not
# hold a single image is refused, with the size it needs.
#
# (pairwise)=
# ### The gradient in full
#
# In the backward pass the regions are made once more. Let $K$ be the kept pixels of a pair, $w$
# their softmax, $o = \sum_{n \in K} w^n p^n$ and $t$ the text. With $\hat{o} = o / \lVert o \rVert$
# and $\hat{t} = t / \lVert t \rVert$,
#
# $$
# \begin{aligned}
# \varphi &= \langle \hat{o}, \hat{t} \rangle, &
# h &= \frac{\partial \varphi}{\partial o}
#   = \frac{\hat{t} - \varphi \, \hat{o}}{\lVert o \rVert}, \\
# \frac{\partial \varphi}{\partial s^n} &= w^n \langle h, p^n \rangle, &
# \frac{\partial \varphi}{\partial p^n} &= w^n h + \frac{\partial \varphi}{\partial s^n} \, t .
# \end{aligned}
# $$
#
# A softmax's derivative subtracts a mean, here $\langle h, o \rangle$; it is 0, because $h$ is
# orthogonal to $o$. In the last equation the first term reaches a pixel as a member of the region,
# the second through the weights; it falls away where they carry no gradient ([D4](#d4)). Summed
# over the texts, both are matrix products for one image. In either direction the regions of a few
# images exist at a time, $T \times C$ numbers for each.
#
# ```{listing} ../../mgca/losses/objective.py
# :pyobject: MGCA._lean
# ```
#
# Which of the two computes is no choice of a run: the lean one where $B \times B \times N$
# similarities would take more than 256 MiB. Before it is used, training compares both on four
# images; where somebody has changed a level in one of them only, it says so and trains with the
# plain form.
#
# ```{listing} ../../mgca/losses/lean.py
# :pyobject: _gradient
# ```
#
# A row of the logits belongs to one image and needs all texts. So rows can be computed apart, on
# several processes or one part after the other, before the loss is taken of all of them.
#
# ### Measured


# %% tags=["remove-input"]
losses = at_scale.measured(speed, "losses")
for name, table in losses.items():
    record = read_run(speed, table["run"].iloc[-1])
    caption = (
        f"The losses, measured on {record['device']}, {record['threads']} threads."
    )
    shown = at_scale.by_case(table, at_scale.LOSSES)
    figures.table(shown, caption=caption, results=f"speed/{name}.csv")

# %% tags=["remove-input"]
NO_LOSSES = "**Not run yet**: `python tests/speed/training.py`."
if not losses:
    display(Markdown(NO_LOSSES))
if not at_scale.on_gpu(losses):
    text = "**Not run** on a GPU: the same command on a machine with one adds it."
    display(Markdown(text))

# %% [markdown]
# Times are forward and backward together, the best of several calls. *Decoder* is its own forward
# and backward pass on the same batch. *Peak* is the most that a call holds beside its inputs and
# the gradient of the pixels, also as a multiple of one tensor of similarities. Cases with a budget
# have that much and no more, plus the logits.


# %% tags=["remove-input"]
for name, table in losses.items():
    at_scale.show_growth(name, table)

# %% [markdown]
# ### A whole step
#
# CLIP ViT-B/16 with random weights, which take the same time, at 224×224. The *floor* is encoders
# and decoder alone: what no implementation of the losses can save.

# %% tags=["remove-input"]
steps = at_scale.measured(speed, "step, vit-b-16 (random weights)")
for name, table in steps.items():
    shown = at_scale.by_case(table, at_scale.STEP)
    caption = f"A step of training, on {name}."
    figures.table(shown, caption=caption, results=f"speed/{name}.csv")
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
    "losses against 1,024 texts, forward and backward": loss_flops(
        1, BATCH, PIXELS, DIM
    ),
}
image = sum(work.values())
seen = PAIRS * paper.train.epochs

# %% tags=["remove-input"]
figures.table(at_scale.shares(work), caption="Work for one image of training.")
Markdown(
    f"{PAIRS / 1e6:.2f} million pairs, {paper.train.epochs:.0f} epochs: "
    f"{seen / 1e6:.1f} million images, {seen / BATCH:,.0f} steps, "
    f"{image * seen / 1e18:.2f} EFLOP ({image * seen:.2e} FLOP). With text embeddings "
    "computed beforehand the text encoder drops out."
)

# %% [markdown]
# What that is in hours depends on the share of a card's peak that is reached. Peaks are the
# vendor's, for dense matrix products: RTX 3090 {cite:p}`nvidia2021ga102`, A100 SXM
# {cite:p}`nvidia2020a100`, H100 SXM {cite:p}`nvidia2022h100`; bfloat16 with sums in float32. The
# utilisation is an **assumption**: 50 % in float32 and 35 % in bfloat16, where what is not counted
# (norms, sorting, memory) weighs more. Nothing of this table was measured. The paper used four RTX
# 3090; it does not say for how long.

# %% tags=["remove-input"]
hours = at_scale.hours(image, seen)
figures.table(hours, caption="Hours by arithmetic, under the assumption.")

# %% [markdown]
# The last column is how many images would have to be read and decoded in a second. The probe of
# `mgca train --dry-run` measures reading too and counts the slower of the two; `waiting` in
# `metrics.csv` says which it was.
#
# Memory of one process, as `mgca train` estimates it; encoders and optimizer, 0.6 GiB in float32,
# come on top:

# %% tags=["remove-input"]
figures.table(sizes.memory(), caption="Memory of one process, by arithmetic.")

# %% [markdown]
# ### Measured
#
# What `mgca train --config paper` estimates before it starts, from parts of a step that it times
# and from reading Flickr8k's photographs; random weights, extrapolated to 37,500 steps of 1,024
# images. *Trained* is the median of real steps, where some minutes were trained: on the GPUs half a
# minute, of 1,536 photographs, whose reading starts anew every other step and is waited for.

# %% tags=["remove-input"]
cost = page.read("shards/paper.csv")
if len(cost):
    shown = at_scale.by_case(cost, at_scale.COST, "{:,.4g}", ordered=False)
    shown["run"] = cost.groupby("dataset")["run"].last()
    caption = (
        "What the paper's configuration would take, extrapolated from parts of a step."
    )
    shown = shown.rename_axis("device and numbers")
    figures.table(shown, caption=caption, results="shards/paper.csv")

# %% tags=["remove-input"]
if cost.empty:
    command = "`python tests/speed/paper.py --data ../shared/data`"
    display(Markdown(f"**Not run yet**: {command}."))
if not at_scale.on_gpu(cost["dataset"]):
    display(Markdown("On a GPU: **not run**. The same command adds it."))

# %% tags=["remove-input"]
for name, table in steps.items():
    for row in table[table["metric"] == "images_per_second"].itertuples():
        text = (
            f"The step of the table further up, {name} with {row.dataset}, without "
            f"reading: {row.value:.3g} images/s, {seen / row.value / 3600:,.0f} hours "
            f"for {seen / 1e6:.1f} million images."
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
end = page.read("shards/end_to_end.csv")
if len(end):
    caption = "One process, two, and two that were killed."
    figures.table(at_scale.ends(end), caption=caption, results="shards/end_to_end.csv")
else:
    command = "`python tests/speed/end_to_end.py --data ../shared/data`"
    text = f"**Not run yet**: {command}, with the folder of the real data."
    display(Markdown(text))

# %% tags=["remove-input"]
run = end["run"].iloc[-1] if len(end) else ""
text = (
    "What the run shows is that one, two and killed processes compute the same, not "
    "that they learn: batches of 16 differ more from each other than a decoder on "
    "`lite` changes them, and that it gains nothing there is a [result on "
    "photographs](results.html) too."
)
if at_scale.show_ends(shards, run):
    display(Markdown(text))

# %% tags=["remove-input"]
killed = end[end["variant"] == at_scale.ENDS[-1]]
same = (killed.loc[killed["metric"] == "same_bits", "value"] == 1).any()
text = (
    "The run that was killed ends with the **same bits** as the one that was left "
    "alone: `decoder.safetensors` has the same SHA-256."
    if same
    else "The run that was killed did **not** end with the same bits."
)

# %% tags=["remove-input"]
if len(end):
    display(Markdown(text))
    caption = "Where these numbers come from."
    came = at_scale.came_from(shards, run)
    figures.table(came, caption=caption, results="shards/end_to_end.csv")

# %% [markdown]
# (paper-scale-checked)=
# ## What was checked, and what was not run
#
# Each claim with the test in `tests/` that would fail without it.
#
# * Losses and gradients are those of the equations, in any layout and budget.
#   `test_lean.py`: `test_equals_the_plain_losses_and_their_gradients`,
#   `test_float32_is_within_1e_5_of_the_loops_in_float64`, `test_gradcheck`.
# * They hold at most two tensors of similarities, or the budget.
#   `test_memory_beside_the_inputs_and_their_gradient`, `test_a_budget_is_kept`.
# * 2 and 4 processes, launched with `torchrun`, find loss and gradient of one to a relative 1e-5,
#   with unequal shares too. `test_distributed.py`:
#   `test_processes_find_the_loss_and_gradient_of_one`.
# * Parts change nothing. `test_parts_change_nothing`.
# * A run on two processes learns what one does. `test_trainer.py`:
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
# No record in `results/` could show several machines, SLURM itself, or http servers other than one
# on the same machine: of these there are tests with stand-ins. By what `results/` holds, these
# were **not run**:

# %% tags=["remove-input"]
Markdown(at_scale.not_run(page))
