"""Training at the paper's scale: its cost by arithmetic, and what was measured of it."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mgca.evaluation.results import read_run
from mgca.experiments.report import figures
from mgca.experiments.report.page import Page
from mgca.experiments.report.published import OPTIONS, SETS
from mgca.experiments.report.speed import devices
from mgca.experiments.report.tables import measured_here
from mgca.losses.lean import room
from mgca.training.estimate import DECODER_MAPS

DECODER = 4_721_666  # parameters
#: TFLOP/s of cards in dense matrix products, float32 and bfloat16, by their vendor.
PEAKS = {"RTX 3090": (35.6, 71.2), "A100 SXM": (19.5, 312.0), "H100 SXM": (66.9, 989.4)}
#: Utilisation that is assumed.
ASSUMED = {"float32": 0.5, "bfloat16": 0.35}
#: Runs of the end-to-end measurement, each compared with the one before.
ENDS = ("1 process", "2 processes", "2 processes, killed 3 times")
LOSSES = {
    "losses_seconds": "losses, s",
    "decoder_seconds": "decoder, s",
    "losses_over_decoder": "losses / decoder",
    "plain_over_losses": "plain losses / losses, time",
    "losses_peak_MiB": "peak, MiB",
    "losses_peak_over_similarity": "peak / similarities",
    "plain_losses_peak_over_similarity": "plain, peak / similarities",
}
STEP = {
    "encoders_seconds": "encoders, s",
    "decoder_seconds": "decoder, s",
    "step_seconds": "step, s",
    "step_over_floor": "step / floor",
    "losses_over_step": "losses / step",
    "images_per_second": "images/s",
}
COST = {
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
_END = {
    "first_loss": "first loss",
    "last_loss": "last 20 steps, mean loss",
    "images_per_second": "images/s, median",
    "waiting": "waiting for data",
    "total_relative_difference": "largest difference of a loss",
    "gradient_relative_difference": "of a gradient's norm",
    "weights_relative_difference": "of the weights",
    "same_bits": "same bits",
}
_COMPARED = 4  # of these: what is compared with another run


def gib(size: float) -> str:
    """Bytes in GiB."""
    return f"{size / 2**30:.2f}"


class Sizes(NamedTuple):
    """Sizes of a step.

    Attributes:
        batch: Images, and texts.
        side: Pixels along an image's side.
        pixels: Pixel embeddings of an image.
        channels: Channels of the embeddings.
    """

    batch: int
    side: int
    pixels: int
    channels: int = 512

    def exchanged(self) -> pd.DataFrame:
        """What processes exchange in a step."""
        b, c = self.batch, self.channels
        lines = [
            ("texts, gathered", f"B · C = {b:,} · {c}", b * c),
            ("logits of three levels, gathered", f"3 · B² = 3 · {b:,}²", 3 * b**2),
            ("their gradients, summed", f"3 · B² = 3 · {b:,}²", 3 * b**2),
            ("gradients of the decoder, averaged", f"{DECODER:,}", DECODER),
        ]
        lines.append(("together", "", sum(number for *_, number in lines)))
        table = pd.DataFrame(lines, columns=["what", "float32 numbers", "MB a step"])
        return table.assign(**{"MB a step": [f"{4e-6 * n:.1f}" for n in table["MB a step"]]})

    def tensors(self, area: int, negatives: int) -> pd.DataFrame:
        """Tensors of the losses as they are written, then what is held instead.

        Args:
            area: Pixels of the object.
            negatives: Pixels of the hard negative region.
        """
        b, n, c = self.batch, self.pixels, self.channels
        best = 6 * b * (negatives * b + area)
        lines = [
            ("similarities", "4 · B² · N", 4 * b**2 * n),
            ("weights of the regions", "4 · B² · N", 4 * b**2 * n),
            ("regions", "4 · B² · C", 4 * b**2 * c),
            ("best pixels of each pair", f"6 · B · ({negatives} · B + {area})", best),
            ("workspace on a CPU", "at most 256 MiB", min(room("cpu"), 4 * b**2 * n)),
            ("workspace on a GPU", "at most 1 GiB", min(room("cuda"), 4 * b**2 * n)),
        ]
        table = pd.DataFrame(lines, columns=["tensor", "bytes", "GiB"])
        return table.assign(GiB=table["GiB"].map(gib))

    def memory(self) -> pd.DataFrame:
        """Memory of one process on a GPU, by the number of processes and the images at a time."""
        lines = []
        for world, micro in ((1, None), (1, 128), (4, None), (4, 64), (8, None)):
            part = min(micro or self.batch, self.batch // world)
            pairs = 4 * part * self.batch * self.pixels
            image = 3 * self.side**2
            held = self.batch // world * (image + self.channels * self.pixels) + part * 4 * image
            maps = 4 * DECODER_MAPS * part * self.channels * self.pixels
            losses = min(pairs, room("cuda")) + pairs // 10
            lines.append((world, micro or "", part, *map(gib, (held, maps, losses))))
        columns = ["processes", "--micro-batch", "images at a time", "images and features, GiB"]
        return pd.DataFrame(lines, columns=[*columns, "decoder, GiB", "losses, GiB"])


def shares(work: Mapping[str, float]) -> pd.DataFrame:
    """Work for one image by part.

    Args:
        work: FLOPs by part.
    """
    image = sum(work.values())
    return pd.DataFrame(
        [
            {"part": part, "GFLOP an image": f"{value / 1e9:.1f}", "share": f"{value / image:.0%}"}
            for part, value in [*work.items(), ("together", image)]
        ]
    )


def hours(image: float, seen: float) -> pd.DataFrame:
    """Hours of cards under the assumed utilisation.

    Args:
        image: FLOPs of an image.
        seen: Images of the training.
    """
    lines = []
    for card, peaks in PEAKS.items():
        for (kind, share), peak in zip(ASSUMED.items(), peaks, strict=True):
            rate = peak * 1e12 * share
            took = image * seen / rate / 3600
            lines.append(
                {"card": card, "numbers": kind, "peak, TFLOP/s": f"{peak:g}"}
                | {"assumed": f"{share:.0%}", "hours, one card": f"{took:.1f}"}
                | {"hours, four": f"{took / 4:.1f}", "images/s, four": f"{4 * rate / image:,.0f}"}
            )
    return pd.DataFrame(lines)


def measured(folder: str | os.PathLike, variant: str) -> dict[str, pd.DataFrame]:
    """Measurements of the losses or of a step, by device; none of a device without any.

    Args:
        folder: ``results/speed``.
        variant: What was measured.
    """
    # Rows of earlier forms have another unit.
    found = {
        name: table[(table["unit"] == "all") & (table["variant"] == variant)]
        for name, table in devices(folder).items()
    }
    return {name: table for name, table in found.items() if len(table)}


def by_case(
    table: pd.DataFrame, heads: Mapping[str, str], form: str = "{:.3g}", *, ordered: bool = True
) -> pd.DataFrame:
    """One line a case and one column a metric.

    Args:
        table: Rows of a results table.
        heads: Titles of the metrics that are shown.
        form: How a number is written.
        ordered: Whether cases begin with "B=<batch>", and the smallest batch is first.
    """
    cases = table.pivot_table(index="dataset", columns="metric", values="value")
    if ordered:
        batch = cases.index.str.extract(r"^B=(\d+)", expand=False).astype(int)
        cases = cases.iloc[np.argsort(batch, kind="stable")]
    shown = cases[[metric for metric in heads if metric in cases]].dropna(how="all")
    shown = shown.map(lambda value: "" if np.isnan(value) else form.format(value))
    return shown.rename_axis(columns=None).rename(columns=heads).rename_axis("case")


def times_by_batch(table: pd.DataFrame) -> pd.DataFrame:
    """Seconds of the losses by batch, of the cases without a budget."""
    times = table[(table["metric"] == "losses_seconds") & ~table["dataset"].str.contains("budget")]
    batch = times["dataset"].str.extract(r"^B=(\d+) ")[0].astype(float)
    points = pd.DataFrame({"batch": batch, "seconds": times["value"]}).dropna()
    return points.sort_values("batch", ignore_index=True)


def show_growth(name: str, table: pd.DataFrame) -> None:
    """Show the time of the losses over the batch.

    Args:
        name: Name of the device.
        table: Its measurements of the losses.
    """
    from IPython.display import Markdown, display

    points = times_by_batch(table)
    fitted = table[table["metric"] == "scaling_exponent_batch"]["value"]
    if len(points) < 3 or fitted.empty:
        display(Markdown(f"**{name}**: batches of too few sizes were measured for a figure."))
        return
    batch, exponent = points["batch"].to_numpy(), fitted.iloc[0]
    figures.show(
        growth(batch, points["seconds"], exponent),
        caption=f"The time of the three losses grows with the batch to the power of "
        f"{exponent:.2f}: forward and backward, batches of {batch[0]:.0f} to {batch[-1]:.0f}, one "
        "process. There are B² pairs, so 2 is what the work itself grows with once it is all of "
        "pairs.",
        alt="Line chart on logarithmic axes: seconds against the batch, as measured, with the "
        "fitted power and with the power of 2.",
        name=f"fig-growth-{name}",
        results=f"speed/{name}.csv",
    )


def growth(batch: np.ndarray, seconds: pd.Series, exponent: float) -> Figure:
    """Times over the batch, with the power fitted to them and the square.

    Args:
        batch: Sizes of the batch, rising.
        seconds: The time of each.
        exponent: The power fitted.
    """
    level = np.exp(np.mean(np.log(seconds) - exponent * np.log(batch)))
    figure, axis = plt.subplots(figsize=(6.2, 3.8), layout="constrained")
    axis.plot(batch, seconds, "o", label="measured")
    axis.plot(batch, level * batch**exponent, "-", label=f"exponent {exponent:.2f}")
    axis.plot(batch, seconds.iloc[0] * (batch / batch[0]) ** 2, ":", label="exponent 2")
    axis.set(xscale="log", yscale="log", xlabel="batch", ylabel="seconds")
    axis.set_xticks(batch, [f"{value:.0f}" for value in batch])
    axis.minorticks_off()
    axis.legend()
    return figure


def two_runs(one: pd.DataFrame, two: pd.DataFrame, apart: pd.Series) -> Figure:
    """The losses of a run on one process and on two, and below how far they are apart.

    Args:
        one: Columns ``step`` and ``total`` of the one.
        two: The same of the other.
        apart: Their relative difference.
    """
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
    return figure


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """The end-to-end runs, each with how far it is from the one before.

    Args:
        table: The rows of ``results/shards/end_to_end.csv``.
    """
    cases = table.pivot_table(index="variant", columns="metric", values="value", sort=False)
    cases = cases.rename_axis(columns=None).reindex([run for run in ENDS if run in cases.index])
    forms = {"same_bits": lambda value: "yes" if value else "no", "waiting": "{:.0%}".format}
    shown = pd.DataFrame(index=cases.index)
    for place, metric in enumerate(_END):
        if place == _COMPARED:
            before = dict(zip(ENDS[1:], ENDS, strict=False))
            shown["compared with"] = [before.get(run, "") for run in cases.index]
        if metric in cases:
            small = "{:.1e}".format if metric.endswith("difference") else "{:.4g}".format
            form = forms.get(metric, small)
            shown[_END[metric]] = ["" if pd.isna(v) else form(v) for v in cases[metric]]
    return shown.rename_axis("run")


def show_ends(folder: str | os.PathLike, run: str) -> bool:
    """Show the losses of the run on one process and on two, and how far they are apart.

    Args:
        folder: ``results/shards``.
        run: Name of the measurement.

    Returns:
        Whether their curves are kept.
    """
    paths = [Path(folder) / "runs" / f"{run}-{name.replace(' ', '-')}.csv" for name in ENDS[:2]]
    if not all(path.is_file() for path in paths):
        return False
    one, two = map(pd.read_csv, paths)
    apart = ((two["total"] - one["total"]) / one["total"]).abs()
    first, last = one["total"].iloc[:20].mean(), one["total"].iloc[-20:].mean()
    figures.show(
        two_runs(one, two, apart),
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
    return True


def came_from(folder: str | os.PathLike, run: str) -> pd.DataFrame:
    """Where the end-to-end numbers come from."""
    record = read_run(folder, run)
    digest = next(iter(record["data"].values()), "")
    came = {"run": run, "commit": record["commit"][:12], "machine": record["device"]}
    came |= {"threads": record["threads"], "seconds, last call": record["seconds"]}
    return pd.DataFrame([came | {"digest of the shards": digest[:12]}])


def on_gpu(names: Collection[str]) -> bool:
    """Whether a device of some measurements is a GPU."""
    return not all(name.startswith("cpu") for name in names)


def not_run(page: Page) -> str:
    """What ``results/`` holds nothing of, a list in Markdown.

    Args:
        page: The page that says it.
    """
    lines = []
    names = [*devices(page.results / "speed"), *page.read("shards/paper.csv")["dataset"]]
    gpu = "any GPU"
    if on_gpu(names):
        gpu = "a GPU, but for what the tables above name"
    lines.append(f"{gpu}; several of them with NCCL; float16, but for tests")
    ours = measured_here(
        page.read("evaluation/evaluation.csv"), [OPTIONS["MGCA"][1]], SETS[1] | SETS[2]
    )
    if ours == "not run":
        lines.append(
            "CC3M: its shards as they are, 2.56 million pairs, a batch of 1,024 from end to end; "
            "and the decoder that would come out, with every number of the paper's tables"
        )
    text = "\n".join(f"* {line};" for line in lines)
    return text if ours == "not run" else f"{text}\n* a decoder of this scale was: {ours}."
