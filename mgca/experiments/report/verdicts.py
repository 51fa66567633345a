"""Which claims hold, as the pages of the ablations and the page of what held say it."""

from collections.abc import Sequence

import pandas as pd

from mgca.experiments.report.claims import CLAIMS, SOURCES
from mgca.experiments.report.judging import Column, verdicts


def sentences(ablation: str, columns: Sequence[Column]) -> str:
    """The claims on an ablation as a list in Markdown, with their verdicts.

    Args:
        ablation: Name of the ablation.
        columns: Groups of sets of a scale, with the tables of all its ablations: the verdicts are
            those of the page of what held.
    """
    found, lines = verdicts(CLAIMS, columns), []
    for column in columns:
        lines.append(f"\n**{column.group.capitalize()}**\n")
        for claim in CLAIMS:
            said = found.get((claim.text, column.title))
            if said and claim.ablation == ablation:
                ours = "" if claim.paper else "Not a claim of the paper: "
                numbers = said.numbers + (f", {said.beside}" if said.beside else "")
                lines.append(f"* {ours}{claim.text}: **{said.judged.verdict}** ({numbers}).")
    return "\n".join(lines)


def table(columns: Sequence[Column]) -> pd.DataFrame:
    """The paper's claims on groups of sets of a scale, each with its verdict.

    Returns:
        Columns ``claim``, ``ablation``, ``column`` (its title), ``verdict`` ("holds", "does not
        hold", "undecided" or "not run"), ``before`` (by the rule of one standard deviation),
        ``shown`` (the numbers), and ``mean``, ``low`` and ``high`` of those that are differences in
        mIoU, else NaN.
    """
    found, rows = verdicts(CLAIMS, columns), []
    for claim in (claim for claim in CLAIMS if claim.paper):
        for column in (column for column in columns if claim.applies(column)):
            row = {"claim": claim.text, "ablation": claim.ablation, "column": column.title}
            row |= {"verdict": "not run", "before": "not run", "shown": ""}
            row |= dict.fromkeys(("mean", "low", "high"), float("nan"))
            said = found.get((claim.text, column.title))
            if said:
                judged = said.judged
                before = "holds" if said.above_spread else "does not hold"
                row |= {"verdict": judged.verdict, "before": before, "shown": said.numbers}
                if claim.plotted:
                    row |= {"mean": judged.difference.mean, "low": judged.low, "high": judged.high}
            rows.append(row)
    return pd.DataFrame(rows)


def in_short(judged: pd.DataFrame) -> str:
    """How many claims hold, do not, and are undecided, a line of Markdown for each column.

    Args:
        judged: As :func:`table` gives it.
    """
    lines = []
    for title, rows in judged.groupby("column", sort=False):
        run = rows[rows["verdict"] != "not run"]
        if run.empty:
            lines.append(f"* **{title}**: not run.")
            continue
        counts = run["verdict"].value_counts()
        text = f"* **{title}**: of {len(run)} claims {counts.get('holds', 0)} hold, "
        text += (
            f"{counts.get('does not hold', 0)} do not, {counts.get('undecided', 0)} are undecided."
        )
        if len(run) < len(rows):
            text += f" {len(rows) - len(run)} were not run."
        for verdict, said in (("does not hold", "Do not hold"), ("undecided", "Undecided")):
            # Without the measure.
            short = [name.split(" (")[0] for name in run.loc[run["verdict"] == verdict, "claim"]]
            text += f" {said}: {'; '.join(short)}." if short else ""
        lines.append(text)
    return "\n".join(lines)


def by_both_rules(judged: pd.DataFrame) -> pd.DataFrame:
    """The claims that were run, with their verdicts before and after the rule changed.

    Args:
        judged: As :func:`table` gives it.
    """
    run = judged.loc[judged["verdict"] != "not run", ["claim", "column", "before", "verdict"]]
    names = {"column": "sets", "before": "above one deviation", "verdict": "interval, Holm"}
    return run.rename(columns=names).set_index("claim")


def html(judged: pd.DataFrame) -> str:
    """The verdicts as an HTML table, a line for each claim, with links to the ablations' pages.

    Args:
        judged: As :func:`table` gives it.
    """
    titles = list(judged["column"].unique())
    head = "".join(f"<th>{title}</th>" for title in ("claim", "source", *titles))
    body = []
    for (claim, ablation), rows in judged.groupby(["claim", "ablation"], sort=False):
        cells = []
        said = rows.set_index("column")[["verdict", "shown"]].reindex(titles, fill_value="")
        for verdict, shown in said.itertuples(index=False):
            cells.append(
                f"<td><b>{verdict}</b><br>{shown}</td>" if shown else f"<td>{verdict}</td>"
            )
        source = f'<a href="ablation_{ablation}.html">{SOURCES[ablation]}</a>'
        body.append(f"<tr><td>{claim}</td><td>{source}</td>{''.join(cells)}</tr>")
    return (
        '<table class="dataframe words">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )
