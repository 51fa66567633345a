"""Measurements of speed: parts of the network under a machine's roof, losses, and whole steps."""

import os
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mgca.evaluation.results import read_results, read_run
from mgca.experiments.report.charts import sns

#: The parts that are measured, in the order of the tables.
PARTS = ["encoder", "decoder", "decoder, forward and backward", "text", "units"]
#: Targets set beforehand: what is measured, and at most how much; None where none was set.
TARGETS = {
    "units_over_decoder": ("Units, beside the decoder's time for the same window", 0.05),
    "losses_over_decoder": ("Losses, beside the decoder's time, forward and backward", 0.25),
    "losses_peak_over_similarity": ("Peak memory of the losses, beside one (B, B, N) tensor", 2),
    "step_over_floor": ("A training step, beside encoder, decoder and text alone", 1.35),
    "scaling_exponent_batch": ("Growth of the losses' time with the batch, as an exponent", None),
}
_RANDOM = " (random weights)"  # of a model, in the tables


def devices(folder: str | os.PathLike) -> dict[str, pd.DataFrame]:
    """The measurements of ``results/speed`` by device.

    Args:
        folder: That folder.
    """
    return {path.stem: read_results(path) for path in sorted(Path(folder).glob("*.csv"))}


def rows(table: pd.DataFrame, variant: str | None = None, metric: str | None = None):
    """The lines of a variant and of a metric."""
    kept = table if variant is None else table[table["variant"] == variant]
    return kept if metric is None else kept[kept["metric"] == metric]


def parts_of(table: pd.DataFrame) -> pd.DataFrame:
    """Model and part by metric, in the order of :data:`PARTS`; no rows if none was measured."""
    chosen = table[table["dataset"].isin(PARTS)]
    wide = chosen.pivot_table(index=["variant", "dataset"], columns="metric", values="value")
    wide = wide.reset_index().rename(columns={"variant": "model", "dataset": "part"})
    wide["model"] = wide["model"].str.replace(_RANDOM, "", regex=False)
    order = wide["part"].map(PARTS.index) if len(wide) else None
    return wide.assign(order=order).sort_values(["model", "order"], ignore_index=True)


def times(parts: pd.DataFrame) -> pd.DataFrame:
    """Time, work and rate of each part, as shown."""
    return pd.DataFrame(
        {
            "model": parts["model"],
            "part": parts["part"],
            "ms": (1000 * parts["seconds"]).map("{:.1f}".format),
            "GFLOP": parts["gflop"].map("{:.2f}".format),
            "GFLOP/s": parts["gflops"].map("{:.0f}".format),
            "of the ceiling": parts["share_of_ceiling"].map("{:.0%}".format),
        }
    )


def machine(table: pd.DataFrame, folder: str | os.PathLike) -> str:
    """What the provenance says of a device.

    Args:
        table: Its measurements.
        folder: ``results/speed``.
    """
    record = read_run(folder, rows(table, "ceiling")["run"].iloc[0])
    torch = record["environment"]["torch"]
    return f"{record['device']}, {record['threads']} threads, torch {torch}"


def ceilings(table: pd.DataFrame) -> tuple[pd.Series, float]:
    """GFLOP/s of matrix products by precision, and GB/s of copies."""
    peaks = rows(table, "ceiling", "matmul_gflops").set_index("dataset")["value"]
    return peaks, rows(table, "ceiling", "memory_gb_per_s")["value"].iloc[0]


def under_the_roof(parts: pd.DataFrame, peaks: Mapping[str, float], memory: float) -> str:
    """Which parts are nearest to the float32 roof and farthest, and which wait for memory.

    Args:
        parts: As :func:`parts_of` gives them.
        peaks: Peak rates of the arithmetic, as :func:`ceilings` gives them.
        memory: Rate of the memory, as :func:`ceilings` gives it.
    """
    slope = parts["flop_per_byte"] * memory
    share = parts["gflops"] / np.minimum(peaks["float32"], slope)
    near, far = (parts.loc[place] for place in (share.idxmax(), share.idxmin()))
    waits = ", ".join(sorted(parts[slope < peaks["float32"]]["part"].unique())) or "no part"
    text = (
        f"Large matrix products reach {peaks['float32']:.0f} GFLOP/s in float32 and "
        f"{peaks['bfloat16']:.0f} in bfloat16, copies {memory:.1f} GB/s. Nearest to the float32 "
        f"roof is the {near['part']} of {near['model']}, at {share.max():.0%}; farthest the "
        f"{far['part']} of {far['model']}, at {share.min():.0%}. Under the slope: {waits}."
    )
    if share.max() > 1:
        text += (
            " A point above the roof is no contradiction: what it reads was still in a cache, or "
            "its kernel is better than those the roof was measured with."
        )
    return text


def roofline(parts: pd.DataFrame, peaks: Mapping[str, float], memory: float) -> Figure:
    """Parts of models under the roof of a machine.

    Args:
        parts: As :func:`parts_of` gives them.
        peaks: Peak rates of the arithmetic, as :func:`ceilings` gives them.
        memory: Rate of the memory, as :func:`ceilings` gives it.
    """
    figure, axis = plt.subplots(figsize=(6.6, 6), layout="constrained")
    low, high = parts["flop_per_byte"].min() / 2, 3 * parts["flop_per_byte"].max()
    intensity = np.geomspace(low, high, 200)
    for kind, style in (("float32", "-"), ("bfloat16", ":")):
        roof = np.minimum(peaks[kind], intensity * memory)
        axis.plot(intensity, roof, style, color="black", linewidth=1.5, label=f"roof, {kind}")
    present = [part for part in PARTS if part in set(parts["part"])]
    by = {"x": "flop_per_byte", "y": "gflops", "hue": "part", "style": "model"}
    sns.scatterplot(parts, hue_order=present, s=90, ax=axis, **by)
    axis.set(xscale="log", yscale="log")
    axis.set(xlabel="arithmetic intensity (FLOP per byte)", ylabel="GFLOP/s")
    axis.legend_.remove()
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def targets(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The targets, and what each device reached.

    Args:
        tables: Measurements by device.
    """
    lines = []
    for name, table in tables.items():
        for metric, (what, most) in TARGETS.items():
            found = rows(table, metric=metric)
            if metric == "units_over_decoder":
                found = rows(found, "units")
            for row in found.itertuples():
                met = "" if most is None else "met" if row.value <= most else "not met"
                target = "none set" if most is None else f"at most {most:g}"
                lines.append((what, row.dataset, name, f"{row.value:.3g}", target, met))
            if found.empty:
                lines.append((what, "", name, "not run", "", ""))
    return pd.DataFrame(lines, columns=["what", "case", "device", "measured", "target", "result"])


def precisions(table: pd.DataFrame) -> pd.DataFrame:
    """Times of a window in float32, in 16 bits and with ONNX Runtime, and how far results differ.

    Args:
        table: Measurements of a device.
    """
    lines = []
    for variant in table[table["dataset"].isin(PARTS)]["variant"].unique():
        model, own = variant.replace(_RANDOM, ""), rows(table, variant)
        values = own.set_index(["dataset", "metric"])["value"]
        both = [1000 * values.get((part, "seconds"), np.nan) for part in ("encoder", "decoder")]
        lines.append((model, "float32", *both, sum(both), "0"))
        for case in [c for c in own["dataset"].unique() if c.startswith("window 448, ")]:
            kind = case.split(", ")[1]
            if kind == "ONNX":
                total, moved = values[case, "onnx_seconds"], values[case, "largest_difference"]
                lines.append((model, "ONNX Runtime", np.nan, np.nan, 1000 * total, f"{moved:.1e}"))
                continue
            both = [1000 * values[case, f"{part}_seconds"] for part in ("encoder", "decoder")]
            moved = values[case, "relative_difference"]
            lines.append((model, kind, *both, sum(both), f"{moved:.1e}"))
    ms = ["encoder, ms", "decoder, ms", "both, ms"]
    shown = pd.DataFrame(lines, columns=["model", "numbers", *ms, "difference"])
    for column in ms:
        shown[column] = [
            "" if np.isnan(v) else f"{v:.1f}" if v < 20 else f"{v:.0f}" for v in shown[column]
        ]
    return shown


def onnx_over_torch(table: pd.DataFrame) -> str:
    """How much of PyTorch's time ONNX Runtime takes, by model; empty where not measured."""
    return "; ".join(
        f"{row.variant.replace(_RANDOM, '')} takes {row.value:.2f} of PyTorch's time"
        for row in rows(table, metric="onnx_over_torch").itertuples()
    )


def memory_held(soak: pd.DataFrame) -> pd.DataFrame:
    """Least and most memory of a process over many segmentations.

    Args:
        soak: The rows of ``results/soak/memory.csv``, at least one.
    """
    rows_of = rows(soak, metric="memory_MiB")
    held, last = rows_of["value"], rows_of["dataset"].iloc[-1]
    shown = {
        "model": soak["variant"].iloc[0],
        "segmentations": last.removeprefix("after ").lstrip("0"),
        "least memory": f"{held.min():.0f} MiB",
        "most memory": f"{held.max():.0f} MiB",
        "most over least": f"{held.max() / held.min():.3f}",
    }
    return pd.DataFrame([shown]).set_index("model")


def runs_of(tables: Mapping[str, pd.DataFrame], folder: str | os.PathLike) -> pd.DataFrame:
    """The run behind each measurement.

    Args:
        tables: Measurements by device.
        folder: ``results/speed``.
    """
    lines = []
    for name, table in tables.items():
        for run in table["run"].unique():
            record = read_run(folder, run)
            lines.append(
                {"device": name, "run": run, "measured": record["config"].get("benchmark", "")}
                | {"commit": record["commit"][:12], "machine": record["device"]}
                | {"threads": record["threads"], "seconds": record["seconds"]}
            )
    return pd.DataFrame(lines)
