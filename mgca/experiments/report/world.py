"""What the page on the world of scenes counts and draws: contents, captions, sets."""

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from mgca.data.masks import id_names
from mgca.data.scenes import (
    CLASSES,
    COLOURS,
    HELD_OUT,
    SYNONYMS,
    TEST_SEED,
    THINGS,
    VALIDATION_SEED,
    Scene,
    SceneSet,
    Sentence,
    WorldConfig,
    compose,
    evaluation_set,
    render,
)
from mgca.data.scenes.sentences import NAMED_AREA, STUFF_RATE
from mgca.data.scenes.sets import SETS
from mgca.experiments.report import overlays, plots


def examples(seed: int, tried: int = 400) -> dict[str, Image.Image]:
    """By class the scene of one thing and one stuff in which most is seen of it."""
    alone = WorldConfig(things=(1, 1), stuffs=(1, 1), mean_area=0.3, grain=0)
    best: dict[str, tuple[float, int]] = {}
    for index in range(tried):
        for content in compose(alone, seed, index).contents:
            best[content.name] = max(best.get(content.name, (0, 0)), (content.area, index))
    return {
        name: Image.fromarray(render(alone, compose(alone, seed, index))[0])
        for name, (_, index) in best.items()
    }


def steps(config: WorldConfig, scene: Scene) -> dict[str, np.ndarray]:
    """Pictures of a scene by step: its ground, each thing, and last light and noise."""
    quiet, drawn = dataclasses.replace(config, light=0, gradient=0, grain=0), {}
    for number in range(len(scene.things) + 1):
        title = f"+ {scene.things[number - 1].name}" if number else " and ".join(scene.stuffs)
        partial = dataclasses.replace(scene, things=scene.things[:number])
        drawn[title] = render(quiet, partial)[0]
    return drawn | {"light and noise": render(config, scene)[0]}


def steps_figure(config: WorldConfig, scene: Scene) -> Figure:
    """A scene step by step, its mask, and a legend, in two rows."""
    present = [CLASSES.index(content.name) for content in scene.contents]
    colours = overlays.own_colours(CLASSES, present)
    drawn = steps(config, scene) | {"mask": colours[render(config, scene)[1]]}
    panels = [plots.Panel(image, title) for title, image in drawn.items()]
    half = len(panels) // 2 + 1
    rows = [panels[:half], [*panels[half:], *[None] * (2 * half - len(panels))]]
    figure = plots.panels(rows, (7, 4.2))
    handles = overlays.key([CLASSES[k] for k in present], colours[present])
    for axis in figure.axes[len(panels) :]:
        axis.set_axis_off()
    figure.axes[-1].legend(handles=handles, loc="center")
    return figure


def settings(config: WorldConfig, composed: Sequence[Scene]) -> pd.DataFrame:
    """What is drawn at random, and the mean over scenes of how it came out."""
    things = [thing for scene in composed for thing in scene.things]
    visible = [c.area for scene in composed for c in scene.contents if c.colour]
    stuffs_per, things_per = (
        [len(getattr(scene, kind)) for scene in composed] for kind in ("stuffs", "things")
    )
    rows = [
        ("image", f"{config.size} × {config.size} pixels", None),
        ("kinds of stuff per image", "{} to {}".format(*config.stuffs), stuffs_per),
        ("things per image", "{} to {}".format(*config.things), things_per),
        ("area of a thing", "{:.0%} to {:.0%}".format(*config.areas), [t.area for t in things]),
        ("visible area of a thing", f"at least {config.visible:.0%}", visible),
        ("turn", f"up to {config.turn:.0f}° to either side", None),
        ("brightness", f"log-normal, {config.light:g}", None),
        ("noise", f"up to {config.grain:g} of 255", None),
    ]
    table = pd.DataFrame(
        [(what, how, "" if of is None else f"{np.mean(of):.3g}") for what, how, of in rows],
        columns=["what", "setting", f"mean of {len(composed):,} scenes"],
    )
    return table.set_index("what")


def visible_contents(
    config: WorldConfig, composed: Sequence[Scene], told: Sequence[Sequence[Sentence]]
) -> pd.DataFrame:
    """A row for each caption and each content that one sees: its ``"kind"``, its ``"area"`` and
    whether it is ``"named"``."""
    return pd.DataFrame(
        [
            {
                "kind": "thing" if content.colour else "stuff",
                "area": content.area,
                "named": k in sentence.contents,
            }
            for scene, own in zip(composed, told, strict=True)
            for sentence in own
            for k, content in enumerate(scene.contents)
            if content.area >= config.visible
        ]
    )


def named_by_area(contents: pd.DataFrame) -> Figure:
    """How often what is visible is named in a caption, by its area, and as it was designed.

    Args:
        contents: Rows of :func:`visible_contents`.
    """
    edges = np.array([0.01, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1])
    bins = np.digitize(contents["area"], edges) - 1
    area = np.linspace(0.01, 1, 200)
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.4), sharey=True, layout="constrained")
    for axis, (kind, rate), colour in zip(
        axes, {"thing": 1, "stuff": STUFF_RATE}.items(), ("C0", "C1"), strict=True
    ):
        of_kind = contents["kind"] == kind
        bars = contents[of_kind].groupby(bins[of_kind])["named"].agg(["mean", "size"])
        bars = bars[bars["size"] >= 20]
        left, width = edges[bars.index], np.diff(edges)[bars.index]
        axis.bar(left, bars["mean"], width, align="edge", color=colour)
        designed = rate * (1 - np.exp(-((area / NAMED_AREA) ** 1.5)))
        axis.plot(area, designed, color="black", label="designed")
        axis.set(title=f"{kind}s", xlabel="visible area, share of the image")
        axis.set_xlim(0, left[-1] + 0.1)
    axes[0].set_ylabel("share named in a caption")
    axes[1].legend()
    return figure


def telling(
    composed: Sequence[Scene], told: Sequence[Sequence[Sentence]]
) -> tuple[Scene, Sequence[Sentence]]:
    """The first scene of at least five contents whose captions name two or three of them each."""
    return next(
        (scene, own)
        for scene, own in zip(composed, told, strict=True)
        if len(scene.contents) >= 5 and all(2 <= len(s.contents) <= 3 for s in own)
    )


def named_in_captions(scene: Scene, own: Sequence[Sentence]) -> pd.DataFrame:
    """What a scene holds, and which of its captions name it."""
    rows = [
        {
            "content": f"{content.colour or ''} {content.name}".strip(),
            "area": f"{content.area:.0%}",
            **{
                f"caption {n}": "named" if k in sentence.contents else ""
                for n, sentence in enumerate(own, start=1)
            },
        }
        for k, content in enumerate(scene.contents)
    ]
    return pd.DataFrame(rows).set_index("content")


def described_areas(
    composed: Sequence[Scene], told: Sequence[Sequence[Sentence]]
) -> tuple[list[float], list[float]]:
    """The area of all that a caption names, for each; and of each content that one names."""
    single = [
        [scene.contents[k].area for k in sentence.contents]
        for scene, own in zip(composed, told, strict=True)
        for sentence in own
    ]
    return [sum(areas) for areas in single], [area for areas in single for area in areas]


def things_by_colour(composed: Sequence[Scene]) -> tuple[np.ndarray, np.ndarray]:
    """(things, colours) how often each thing is in each colour, and which of these are held out."""
    counts = Counter((thing.name, thing.colour) for scene in composed for thing in scene.things)
    table = np.array([[counts[thing, colour] for colour in COLOURS] for thing in THINGS])
    held = np.array([[colour in HELD_OUT[thing] for colour in COLOURS] for thing in THINGS])
    return table, held


def synonyms(captions: Sequence[Sequence[str]]) -> pd.DataFrame:
    """How often the words for stuff stand in captions, and those that the open set uses."""
    words = Counter(
        word
        for own in captions
        for text in own
        for word in text.lower().strip(".").replace(",", "").split()
    )
    rows = [
        {"stuff": stuff, "times": words[stuff], "in the open set": other, "times ": words[other]}
        for stuff, other in SYNONYMS.items()
    ]
    return pd.DataFrame(rows).set_index("stuff")


def frequencies(composed: Sequence[Scene]) -> pd.DataFrame:
    """By ``"class"`` and ``"kind"``, percent of the scenes it occurs in, ``"size"``, and of all
    pixels, ``"sum"``; things first, most pixels first."""
    rows = pd.DataFrame(
        [
            (content.name, "thing" if content.colour else "stuff", content.area)
            for scene in composed
            for content in scene.contents
            if content.area
        ],
        columns=["class", "kind", "area"],
    )
    table = rows.groupby(["class", "kind"])["area"].agg(["size", "sum"]).reset_index()
    table[["size", "sum"]] *= 100 / len(composed)
    return table.sort_values(["kind", "sum"], ascending=[False, False])


def frequency_bars(table: pd.DataFrame) -> Figure:
    """Percent of the scenes that each class occurs in, and of all pixels, as :func:`frequencies`
    counts them."""
    import seaborn as sns

    figure, axes = plt.subplots(1, 2, figsize=(7, 6.8), sharey=True, layout="constrained")
    style = {"y": "class", "hue": "kind", "hue_order": ["thing", "stuff"]}
    sns.barplot(table, x="size", ax=axes[0], legend=False, **style)
    sns.barplot(table, x="sum", ax=axes[1], legend=True, **style)
    axes[0].set(xlabel="% of the images it occurs in", ylabel="")
    axes[1].set(xlabel="% of all pixels", ylabel="")
    axes[1].legend(title="")
    return figure


def area_histogram(samples: Mapping[str, Sequence[float]], alpha: float) -> Figure:
    """Shares of texts by the area that they describe, by name, and a line at α."""
    import seaborn as sns

    figure, axis = plt.subplots(figsize=(6.8, 3.2), layout="constrained")
    style = {"bins": np.linspace(0, 1, 26), "stat": "probability", "element": "step", "ax": axis}
    for label, areas in samples.items():
        sns.histplot(x=areas, label=label, **style)
    axis.axvline(alpha, color="black", linestyle="--", label=f"α = {alpha:g}")
    axis.set(xlabel="area, share of the image", ylabel="share of the texts")
    axis.legend()
    return figure


def set_sheet(data: SceneSet) -> Figure:
    """Images of a set, their masks, and a legend of the classes in each."""
    classes = id_names(data)
    # Colours of its own for each image: few, and told apart by colour-blind readers too.
    seen = [[k for k, _ in Counter(mask.ravel().tolist()).most_common()] for _, _, mask in data]
    room = 0.21 * max(map(len, seen))  # as much as the longest legend takes
    figure, axes = plt.subplots(
        3,
        len(seen),
        figsize=(6.5, 4.4 + room),
        height_ratios=[2.1, 2.1, room],
        layout="constrained",
    )
    for column, present, (_, image, mask) in zip(axes.T, seen, data, strict=True):
        colours = overlays.own_colours(classes, present)
        handles = overlays.key([classes[k] for k in present], colours[present])
        column[0].imshow(image)
        column[1].imshow(colours[mask])
        column[2].legend(handles=handles, loc="upper center", borderpad=0)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


def sets_table(training: Sequence[object]) -> pd.DataFrame:
    """A row for each set: its seed, digest, number of images and classes.

    Args:
        training: The row of the training set, in the order of the columns.
    """
    rows = [tuple(training)]
    for role, seed in (("decisions", VALIDATION_SEED), ("results", TEST_SEED)):
        for name in SETS:
            data = evaluation_set(name, seed=seed)
            background = "yes" if data.background else "no"
            numbers = (seed, data.digest, len(data), "", len(data.classes), background)
            rows.append((f"{name}, for {role}", *numbers))
    columns = ["set", "seed", "digest", "images", "captions", "classes", "background"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(digest=table["digest"].str[:12]).set_index("set")


def scenes_per_second(config: WorldConfig, seed: int, count: int = 100) -> float:
    """How many scenes are composed and drawn in a second, by this process."""
    began = time.perf_counter()
    for index in range(count):
        render(config, compose(config, seed, index))
    return count / (time.perf_counter() - began)


def card(config: WorldConfig, captions: Sequence[Sequence[str]], seed: int) -> pd.DataFrame:
    """The card of the data.

    Args:
        config: The world.
        captions: Captions of some scenes.
        seed: Seed of the scenes that are timed.
    """
    texts = [text for own in captions for text in own]
    words = len(max(texts, key=len).split())
    speed = scenes_per_second(config, seed)
    rows = {
        "images": f"{config.size} × {config.size}, RGB, drawn",
        "captions": f"English, the longest of the first {len(texts):,} has {words} words",
        "masks": "exact, one class per pixel",
        "digest": "SHA-256 of settings and first scenes, 12 digits",
        "drawing": f"{speed:.0f} images per second when this page was built, one process",
        "people, places, brands": "none",
        "made by": "this project: mgca.data.scenes",
        "licence": "Apache-2.0",
        "not for": "claims about photographs",
    }
    return pd.Series(rows, name="all sets").to_frame()
