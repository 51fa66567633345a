"""Which claims hold, as the pages of the ablations and the page of what held say it."""

from collections.abc import Sequence

import pandas as pd

from mgca.experiments.report.claims import CLAIMS, SOURCES, Column


def sentences(ablation: str, columns: Sequence[Column]) -> str:
    """The claims on an ablation as a list in Markdown, with their verdicts.

    Args:
        ablation: Name of the ablation.
        columns: Groups of sets of a scale.
    """
    lines = []
    for column in columns:
        lines.append(f"\n**{column.group.capitalize()}**\n")
        for claim in CLAIMS:
            if claim.ablation == ablation and claim.applies(column):
                try:
                    held, numbers, beside, _ = claim.judge(column)
                except KeyError:  # a line that this scale does not have
                    continue
                ours = "" if claim.paper else "Not a claim of the paper: "
                numbers += f", {beside}" if beside else ""
                said = f"**{'holds' if held else 'does not hold'}** ({numbers})"
                lines.append(f"* {ours}{claim.text}: {said}.")
    return "\n".join(lines)


def table(columns: Sequence[Column]) -> pd.DataFrame:
    """The paper's claims on groups of sets, each with its verdict.

    Returns:
        Columns ``claim``, ``ablation``, ``column`` (its title), ``held`` (None where not run),
        ``shown`` (the numbers, or "not run"), and ``mean`` and ``std`` of those that are
        differences in mIoU, else NaN.
    """
    rows = []
    for claim in (claim for claim in CLAIMS if claim.paper):
        for column in (column for column in columns if claim.applies(column)):
            row = {"claim": claim.text, "ablation": claim.ablation, "column": column.title}
            row |= {"held": None, "shown": "not run", "mean": float("nan"), "std": float("nan")}
            if claim.ablation in column.tables:
                judged = claim.judge(column)
                row |= {"held": judged.held, "shown": judged.numbers}
                if claim.plotted:
                    row |= judged.difference._asdict()
            rows.append(row)
    return pd.DataFrame(rows)


def in_short(verdicts: pd.DataFrame) -> str:
    """How many claims held, and which did not, a line of Markdown for each column.

    Args:
        verdicts: As :func:`table` gives it.
    """
    lines = []
    for title, rows in verdicts.groupby("column", sort=False):
        judged = rows[rows["held"].notna()]
        if judged.empty:
            lines.append(f"* **{title}**: not run.")
            continue
        failed = judged[~judged["held"].astype(bool)]["claim"]
        text = f"* **{title}**: {len(judged) - len(failed)} of {len(judged)} claims held."
        if len(judged) < len(rows):
            text += f" {len(rows) - len(judged)} were not run."
        if len(failed):
            short = [claim.split(" (")[0] for claim in failed]  # without the measure
            text += f" Did not hold: {'; '.join(short)}."
        lines.append(text)
    return "\n".join(lines)


def html(verdicts: pd.DataFrame) -> str:
    """The verdicts as an HTML table, a line for each claim, with links to the ablations' pages.

    Args:
        verdicts: As :func:`table` gives it.
    """
    titles = list(verdicts["column"].unique())
    head = "".join(f"<th>{title}</th>" for title in ("claim", "source", *titles))
    body = []
    for (claim, ablation), rows in verdicts.groupby(["claim", "ablation"], sort=False):
        cells = []
        for held, shown in rows.set_index("column")[["held", "shown"]].reindex(titles).to_numpy():
            said = "" if held is None else f"<b>{'held' if held else 'did not hold'}</b><br>"
            cells.append(f"<td>{said}{shown}</td>")
        source = f'<a href="ablation_{ablation}.html">{SOURCES[ablation]}</a>'
        body.append(f"<tr><td>{claim}</td><td>{source}</td>{''.join(cells)}</tr>")
    return (
        '<table class="dataframe words">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )
