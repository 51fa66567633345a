"""The paper's tables of eight benchmarks, later methods', and what was measured here of them."""

from collections.abc import Mapping

import pandas as pd

from mgca.experiments.report.tables import measured_here

#: Titles of the sets of the paper's Tables 1, with a background class, and 2, without.
SETS = {
    1: {"voc": "VOC", "context": "Context", "coco": "COCO"},
    2: {"voc20": "VOC20", "c59": "C59", "stuff": "STUFF", "city": "CITY", "ade": "ADE"},
}
_FROZEN = "--model vit-b-16 --decoder none --last-block {} --units pixel"
_TRAINED = '--model vit-b-16 --decoder FILE --label "{}"'
#: Options of ``mgca evaluate`` for the rows that this library has code for, and the name that the
#: model then has in ``evaluation.csv``.
OPTIONS = {
    "MaskCLIP": (_FROZEN.format("value"), "vit-b-16 value"),
    "SCLIP": (_FROZEN.format("sclip"), "vit-b-16 sclip"),
    "NACLIP with PAMR": (_FROZEN.format("naclip"), "vit-b-16 naclip"),
    "GroupViT (YFCC)": ("--model groupvit --rule groupvit --background 0.95", "groupvit"),
    "TCL (CC3M retrained)": (_TRAINED.format("TCL (CC3M retrained)"), "TCL (CC3M retrained)"),
    "TCL": ("--model tcl --decoder tcl.pth --rule sigmoid --background 0.5", "tcl"),
    "MGCA": (_TRAINED.format("MGCA"), "MGCA"),
}


def beside_ours(
    number: int, paper: pd.DataFrame, others: pd.DataFrame, evaluated: pd.DataFrame
) -> pd.DataFrame:
    """A table of the paper and of methods since, beside what was measured here.

    Args:
        number: 1 or 2.
        paper: The paper's table of that number.
        others: Numbers of methods since, by their own repositories.
        evaluated: The rows of ``results/evaluation/evaluation.csv``.
    """
    sets = SETS[number]
    both = _together(paper.assign(source=f"the paper's Table {number}"), others, sets)
    both["measured here"] = [
        measured_here(evaluated, [OPTIONS[name][1]], sets) if name in OPTIONS else "–"
        for name in both["method"]
    ]
    both["trained on"] = both["pretrain_data"].replace("-", "nothing")
    titles = sets | {"avg": "mean"}
    for name, title in titles.items():
        both[f"published, {title}"] = [f"{x:.1f}" if x == x else "–" for x in both[name]]
    numbers = [f"published, {title}" for title in titles.values()]
    columns = ["method", "measured here", *numbers, "trained on", "source"]
    return both[columns].set_index("method")


def eight(tables: Mapping[int, pd.DataFrame], others: pd.DataFrame) -> pd.Series:
    """The mean over all eight benchmarks of the methods that have all, the highest first.

    Args:
        tables: The paper's tables by number.
        others: As for :func:`beside_ours`.
    """
    first, second = (
        _together(tables[number], others, sets).set_index("method")[list(sets)]
        for number, sets in SETS.items()
    )
    mean = first.join(second, how="inner").dropna().mean(axis=1)
    return mean.sort_values(ascending=False)


def _together(paper: pd.DataFrame, others: pd.DataFrame, sets: Mapping[str, str]) -> pd.DataFrame:
    later = others[["method", "pretrain_data", *sets, "source"]]
    later = later.assign(avg=later[list(sets)].mean(axis=1))
    return pd.concat([paper, later], ignore_index=True)


def html_commands() -> str:
    """The commands that measure the rows, as an HTML table."""
    rows = "".join(
        f"<tr><td>{name}</td><td><code>mgca evaluate voc --root DIR {options}</code></td></tr>"
        for name, (options, _) in OPTIONS.items()
    )
    return (
        '<table class="dataframe words">'
        f"<thead><tr><th>row</th><th>command</th></tr></thead><tbody>{rows}</tbody></table>"
    )
