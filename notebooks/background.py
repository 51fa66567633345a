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
# # The background's threshold
#
# No method here asks for "background": it is no description, and what it covers differs from set
# to set. Where a set has it as a class, it is what is left when no class is likely enough. The
# cosines of a pixel, or of its unit, to the $K$ class texts become probabilities,
#
# $$p_k = \frac{\exp(\cos_k / \tau)}{\sum_{j=1}^{K} \exp(\cos_j / \tau)},$$
#
# and the pixel is background where the largest does not exceed a threshold. So two numbers decide,
# the threshold and the temperature $\tau$, and they go together: the higher the temperature, the
# lower the threshold that serves best. The paper follows GroupViT in the rule and
# {ref}`states neither <background>`.
#
# **Rules in use.** They cannot be carried over from one to the other, because a probability depends
# on the temperature and on how many classes are asked for.
#
# | method | score | background where it is at most |
# |---|---|---|
# | GroupViT {cite:p}`xu2022groupvit` | softmax | 0.95 on VOC and COCO-Object, 0.35 on Context |
# | TCL {cite:p}`cha2023tcl` | its own sigmoid of every class | 0.5 |
# | MGCA {cite:p}`liu2024mgca` | softmax | not stated |
#
# **Chosen off the benchmarks.** A threshold that is chosen on the images of a table is fitted to
# the table: every method would look better than it is, and the more it depends on the threshold the
# more so. The curves here are of other images: of VOC some of its training split, and scenes of a
# validation seed. One pair serves all lines of a table, so that none is favoured by a choice of its
# own.
#
# **After this page you can** choose threshold and temperature of a background off the images that
# a table reports.

# %% tags=["remove-input"]
from mgca.experiments.report import background

# %% [markdown]
# ## Photographs
#
# The alignment alone, and MGCA with the decoder on top; both as they come with the project.

# %% tags=["remove-input"]
background.show("photos")

# %% [markdown]
# VOC's 20 classes are asked for here. The same pair then serves COCO's 80, where the softmax has
# four times as many terms and probabilities are smaller: it may suit `voc21` better than `coco81`.
# The images are also among those on which MGCA's settings on photographs
# [were tried](results.ipynb).

# %% [markdown]
# ## Scenes
#
# The pair was chosen before these curves were drawn, on scenes of the same validation seed: the
# best of a few thresholds, at the temperature that the small CLIP has learned
# ([the scenes](#scenes-choices)). It was then left alone.

# %% tags=["remove-input"]
background.show("scenes")

# %% [markdown]
# ## What to take away
#
# * A method whose scores are spread otherwise than those of the lines above is handled less well
#   by the common pair. It is a property of the comparison, not of the method.
# * [Every method, one harness](methods.ipynb) has TCL under its own rule beside the common one.
# * For a photograph of your own no threshold is right: `Model.segment(..., background=None)`, the
#   default, gives every pixel a class.

# %% [markdown]
# `mgca experiment thresholds --scale photos` draws the curves again, from one pass over
# the images. `results/<scale>/background.csv` holds them, `results/<scale>/runs/<run>.json` where
# they come from.
