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
# # Two figures to try in the browser
#
# Two figures that answer to your hand: what the model thinks of each pixel of a photograph, and the
# numbers behind the ablations. They work with the mouse, with a finger and with the keyboard,
# without a server and without a network. A third, which moves the number of meta-points, is on the
# page of [the adaptive unit](adaptive_unit.ipynb).
#
# Everything shown was computed by the cells of this page or read from `results/`. Your own
# photographs and words need the library: see [your own photographs](own_photos.ipynb).
#
# **After this page you can** read the similarities behind one pixel, and compare the ablations as
# you like.

# %% tags=["parameters"]
side = 6  # meta-points along each side, for the second kind of unit

# %% tags=["hide-input"]
import skimage.data
import torch
from IPython.display import Markdown
from PIL import Image
from sklearn.datasets import load_sample_image

import mgca
from mgca.experiments.report import explore, interactive
from mgca.experiments.report.page import open_page

page = open_page("explore")

# %% [markdown]
# ## What is a pixel most like?
#
# For each pixel embedding $p^n$ and word $t_k$ the model has one number, the cosine of their angle:
#
# $$
# \varphi(p^n, t_k) = \frac{\langle p^n, t_k \rangle}{\lVert p^n \rVert \, \lVert t_k \rVert}
# $$
#
# The pixel takes the word with the largest. Nothing else decides: add a word, and it takes the
# pixels that are more like it than like the others. These are the numbers of a photograph.

# %%
model = mgca.load("lite")


def similarities(
    photo: Image.Image, words: list[str], side: int | None
) -> torch.Tensor:
    """(K, H, W): the cosine of each pixel, or of its unit, with each word."""
    scores = model.scores(model.embed(photo).pixels, model.texts(words), side)
    return scores.table[scores.index[0]].permute(2, 0, 1)


# %% tags=["hide-input"]
WORDS = {
    "an astronaut": "woman, face, hair, spacesuit, flag, spacecraft, wall, dog",
    "a temple": "temple, roof, tree, sky, lake, people, boat, cat",
    "a motorcycle": "motorcycle, wheel, seat, engine, floor, shelf, wall, cat",
}
WORDS = {title: words.split(", ") for title, words in WORDS.items()}
arrays = [skimage.data.astronaut(), load_sample_image("china.jpg")]
arrays.append(skimage.data.stereo_motorcycle()[0])
PHOTOGRAPHS = dict(zip(WORDS, map(explore.window, arrays), strict=True))

# %% tags=["hide-input"]
UNITS = {"pixel": None, f"{side**2} meta-points": side}
exact, photographs = {}, []
for title, photo in PHOTOGRAPHS.items():
    words = WORDS[title]
    exact[title] = {
        name: similarities(photo, words, unit) for name, unit in UNITS.items()
    }
    photographs.append(explore.word_maps(title, photo, words, exact[title]))

# %% tags=["hide-input"]
interactive.write("explore/similarity", {"photographs": photographs})
interactive.element(
    "similarity",
    "explore/similarity",
    fallback=explore.draw_word_maps(photographs[0], "pixel"),
    alt="A photograph of an astronaut and the similarity of its pixels to eight words.",
    caption="The cosine of each pixel with eight words, the last of which is not in "
    "the picture. Point at a pixel to see its numbers, click to hold it, choose a word to "
    "see its map. The scale is that of the photograph, the same for all its words.",
)

# %% tags=["remove-input"]
lines = [
    explore.compared(title, WORDS[title], *exact[title].values()) for title in exact
]
Markdown("\n".join(lines))

# %% [markdown]
# Three things to look for:
#
# * The absent word has similarities too, in the same range as the others'.
# * Parts compete with wholes: *hair* takes pixels from *woman*, *wheel* from *motorcycle*.
# * Switch the unit. All pixels of a unit have the same numbers. Where two words are close, a small
#   change of the average decides between them.

# %% [markdown]
# ## The ablations, as you like to compare them
#
# Small CLIP and decoder on [scenes](scenes_world.ipynb), mean and standard deviation over three
# seeds, 150 images per set. The paper's own averages stand beside them where it has a table: its
# Table 3 (levels) and 4 (units), with background beside the set *things*, without beside *scenes*.
# They come from photographs, other data and a larger encoder, so compare how the curves run, not
# how high they lie.

# %% tags=["hide-input"]
ablations = explore.ablations(page)
interactive.write("explore/ablations", ablations)
interactive.element(
    "ablation",
    "explore/ablations",
    fallback=explore.draw_ablations(ablations),
    alt="mIoU on the set scenes over what was trained, the number of meta-points, both "
    "ranks and both areas.",
    caption="The ablations on scenes, mean ± standard deviation over five seeds; "
    "dashed, where it has a table, the paper's averages. Numbers: "
    "results/scenes/granularity.csv, meta_points.csv, k.csv and areas.csv, and "
    "results/paper.",
)

# %% [markdown]
# The pages of the [levels](ablation_granularity.ipynb), the [areas](ablation_areas.ipynb), the
# [ranks](ablation_k.ipynb) and the [meta-points](ablation_meta_points.ipynb) say what the paper
# claims of each and whether it holds here; [one page](what_held.ipynb) has the verdicts.
#
# ## What to take away
#
# * A segmentation is a competition of cosines. Which words compete is up to you.
# * Where two words are close, the unit decides which of them wins.
# * A curve over five seeds has a width. Where two series overlap within it, nothing was shown.
#
# ## Try it
#
# * Replace the last word of a list by one that says in other words what is there, such as
#   *pagoda*. From which word does it take pixels?
# * Set `side = 2`. Which pixels change their best word?
# * In the plot, choose the measure *regions* and the ablation of the levels. Is the variant with
#   the best mIoU the one with the fewest regions?
