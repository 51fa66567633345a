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
# # What the protocol moves
#
# A number on a benchmark is made by a method and by a protocol: templates, statistics of pixels,
# sizes and windows, padding, thresholds, units. Papers compare methods, and seldom under one
# protocol. Here every knob is turned alone, for every method, with all else as in the scale's own
# tables.
#
# The table is computed by `mgca experiment protocol --scale scenes --images 20 --seeds 0,1,2,3,4
# --publish`. Where it was not run this page says so. What is trained has five seeds, and its
# numbers are means over them. Intervals are of the difference to the value before the knob is
# turned: the images are drawn anew a thousand times, the same ones for both, and 95 % of the
# differences lie within. Of several seeds an interval reaches from the lowest end to the highest.
#
# A scene fills one window at its own size, so that nothing is resized or padded there. TCL's
# filter, padding and positions are therefore turned at two thirds of the size, the knob `size`.
# Class names need no cleaning here; each stuff has one synonym, which no caption has.
#
# Not among the knobs are those that this library does not have: embeddings averaged over windows in
# the place of scores, and a softmax before resizing. A decoder of your own becomes a further method
# by `--decoder NAME=FILE`. On photographs fewer knobs were turned: [below](#protocol-photos).

# %% tags=["parameters"]
scale = "scenes"  # or "photos"
unit = "36"  # or "pixel", "16", "64"

# %% tags=["hide-input"]
from IPython.display import Markdown, display

from mgca.experiments.protocol_rows import (
    read_protocol,
    spread,
    turned_around,
)
from mgca.experiments.report import figures, interactive, protocol, words
from mgca.experiments.report.page import open_page

page = open_page("protocol")
table = read_protocol(page.project / "results" / scale)
table["method"] = [words.worded(name, scale) for name in table["method"]]
if not len(table):
    display(Markdown(f"**Not run** at the scale {scale}."))

# %% [markdown]
# ## What was found

# %% tags=["remove-input"]
if len(table):
    display(Markdown(protocol.findings(table, unit)))

# %% [markdown]
# ## Turn a knob
#
# Choose a knob, a set and a unit: what every method has at each value of it. All numbers were
# computed beforehand; with their intervals they are in the file below the next table.

# %% tags=["hide-input"]
if len(table):
    interactive.write("protocol/knobs", protocol.choices(table))
    interactive.element(
        "ablation",
        "protocol/knobs",
        fallback=protocol.draw_spread(table, unit),
        alt="How far each knob of the protocol moves each method, beside how far the "
        "methods are apart.",
        caption=f"mIoU of each method at each value of a knob, scale {scale}, mean ± "
        "standard deviation over the seeds of what is trained. On paper: how far each "
        f"knob moves each method, mean over the sets, unit {unit}. Numbers: "
        f"results/{scale}/protocol.csv.",
    )

# %% [markdown]
# ## How far each knob moves each method
#
# The largest mIoU minus the smallest over the values of a knob, in points. The last column is how
# far the methods are apart with all knobs as usual: a knob that moves more than that decides which
# method is the best.

# %% tags=["remove-input"]
if len(table):
    found = spread(table).xs(unit, level="unit").groupby("knob", sort=False).mean()
    caption = (
        f"What a knob moves, unit {unit}, scale {scale}: points of mIoU, mean over the "
        "sets that have it."
    )
    figures.table(found.round(1), caption=caption, results=f"{scale}/protocol.csv")

# %% [markdown]
# ## How often two methods change places

# %% tags=["remove-input"]
if len(table):
    caption = (
        f"Pairs of methods, over all sets, units and values of a knob, scale {scale}."
    )
    figures.table(
        turned_around(table), caption=caption, results=f"{scale}/protocol.csv"
    )

# %% [markdown]
# (tcl-protocol)=
# ## What TCL's preparation of an image changes
#
# Percent of the pixels that get another label, and points of mIoU, by each of the three choices
# that are [the default of the paper's scale](#smaller-choices).

# %% tags=["remove-input"]
if len(table):
    shown = protocol.prepared(table, unit)
    caption = f"TCL's choice in the place of ours, unit {unit}, scale {scale}."
    figures.table(shown, caption=caption, results=f"{scale}/protocol.csv")

# %% [markdown]
# ## Another map to group in
#
# Units are grouped by an earlier stage of the frozen trunk, and averaged and named as before. On
# scenes, with 36 units, it does not help: of 24 pairs of a method and a set three lose by the
# intervals of all their seeds (SCLIP, ClearCLIP and NACLIP with MGCA on the scenes without
# background, by 0.7 to 2.9 points), and none gains.

# %% tags=["remove-input"]
if len(table):
    shown = protocol.affinity(table)
    caption = f"mIoU of units by their own map and by another, scale {scale}."
    figures.table(shown, caption=caption, results=f"{scale}/protocol.csv")

# %% [markdown]
# (protocol-photos)=
# ## On photographs
#
# 20 images of each set, one seed, and only knobs that leave the windows as they are; `--without
# KNOB` leaves one alone. The methods are the head of `lite` as captions of whole images have
# trained it, and after TCL's loss or MGCA's.

# %% tags=["remove-input"]
photos = read_protocol(page.project / "results" / "photos")
photos["method"] = [words.worded(name, "photos") for name in photos["method"]]
if len(photos):
    display(Markdown(protocol.findings(photos, unit)))
    figures.table(
        protocol.affinity(photos),
        caption="mIoU of units by their own map and by an earlier stage, photographs.",
        results="photos/protocol.csv",
    )
else:
    display(Markdown("**Not run** on photographs."))

# %% [markdown]
# Here the protocol decides more than the loss does: the three methods are closer to each other than
# to themselves with other templates or statistics. Units that are grouped by an earlier stage lose
# 4 to 8 points in streets, for every method and number of units; on VOC and COCO so few images
# decide nothing.
