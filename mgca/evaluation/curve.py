"""mIoU over the steps of a run, from its checkpoints: how far training has come."""

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from mgca.evaluation.benchmark import Evaluation
from mgca.utils.files import replacing
from mgca.weights import WeightsError
from mgca.weights.decoders import checkpoints


def learning_curve(
    run: str | os.PathLike[str],
    evaluation_of: Callable[[str], Evaluation],
    out: str | os.PathLike[str],
    work: str | os.PathLike[str],
    *,
    workers: int = 0,
    fresh: bool = False,
) -> tuple[pd.DataFrame, str]:
    """Evaluate each checkpoint of a run's folder.

    Writes ``<out>/<name>.csv`` besides what :meth:`Evaluation.compute` writes of each.

    Args:
        run: Folder of the run.
        evaluation_of: Gives the evaluation of a decoder's file.
        out: Results folder.
        work: Folder of what is unfinished.
        workers: Number of processes that read images ahead.
        fresh: Whether to compute again what is there.

    Returns:
        A table with a row for each checkpoint and unit, ``step``, ``unit``, ``miou`` in percent and
        the evaluation's ``run``; and the name of the curve, made of the run and the set.

    Raises:
        OSError: If there are no checkpoints, or one cannot be read.
    """
    found = list(checkpoints(run))
    if not found:
        raise OSError(
            f"{run} has no checkpoints/step-NUMBER.safetensors: mgca train keeps the newest two, "
            "and with --milestone others too"
        )
    rows, name = [], ""
    for step, path in found:
        try:
            evaluation = evaluation_of(str(path))
        except WeightsError as error:
            raise OSError(f"{path}: {error}") from error
        _, confusions = evaluation.compute(out, work, workers=workers, fresh=fresh)
        rows += [
            {"step": step, "unit": unit, "miou": round(c.miou, 3), "run": evaluation.run}
            for unit, c in confusions.items()
        ]
        subject = Path(evaluation.subject.name).name
        name = f"{Path(os.path.abspath(run)).name}-{subject}"
    table = pd.DataFrame(rows)
    with replacing(Path(out) / f"{name}.csv") as temporary:
        table.to_csv(temporary, index=False)
    return table, name


def draw(table: pd.DataFrame, path: str | os.PathLike[str], title: str) -> Path:
    """Draw mIoU over steps, a line for each unit, into a picture.

    Args:
        table: What :func:`learning_curve` gives.
        path: File of the picture, by its suffix PNG, SVG or PDF.
        title: Title of the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for unit, line in table.groupby("unit", sort=False):
        axes.plot(line["step"], line["miou"], marker="o", label=unit)
    axes.set(xlabel="step", ylabel="mIoU in percent", title=title)
    axes.legend(title="unit")
    with replacing(path) as temporary, temporary.open("wb") as file:
        figure.savefig(file, format=Path(path).suffix[1:])
    return Path(path)
