"""What another value of each open choice of the paper changes."""

import pandas as pd

from mgca.experiments.report import figures
from mgca.experiments.report.ablation import AblationPage
from mgca.experiments.report.tables import difference, group_means

_CHOSEN = "chosen"
#: Choice, value, table, the line with that value, the line with the chosen one. Names may hold the
#: scale's own values.
VALUES = (
    ("D1", "last block as trained", "benchmarks", "clip+mgca", "mgca"),
    ("D1", "last block as in SCLIP", "benchmarks", "sclip+mgca", "mgca"),
    ("D1", "last block as in ClearCLIP", "benchmarks", "clearclip+mgca", "mgca"),
    ("D1", "last block as in NACLIP", "benchmarks", "naclip+mgca", "mgca"),
    ("D2", "nearest upsampling", "choices", "upsample=nearest", _CHOSEN),
    ("D3", "cosine similarity", "choices", "measure=cosine", _CHOSEN),
    ("D4", "weights without gradient", "choices", "detach_weights=True", _CHOSEN),
    ("D5", "images against texts only", "choices", "direction=image", _CHOSEN),
    ("D5", "texts against images only", "choices", "direction=text", _CHOSEN),
    ("D6", "the easiest positive, k = 0", "k", "k=0", "k={k:g}"),
    ("D6", "the hardest positive, k = 1", "k", "k=1", "k={k:g}"),
    ("D7", "a softer negative, k_neg = 1", "k", "k_neg=1", "k_neg=0"),
    ("D8", "pixel level of weight 0", "granularity", "object+region", "all"),
    ("D8", "object level alone", "granularity", "object", "all"),
    ("D9", "Adam", "choices", "optimizer=adam", _CHOSEN),
    ("D10", "captions as they are", "choices", "captions=original", _CHOSEN),
    ("D10", "generated texts only", "choices", "captions=nouns", _CHOSEN),
    ("D11", "meta-points to the edge", "choices", "placement=corner", _CHOSEN),
    ("D12", "mean of directions", "choices", "average=normalised", _CHOSEN),
)
_UNITS = ("pixel", "36")


def changes(page: AblationPage) -> pd.DataFrame:
    """By how much mIoU changes with another value, those that were run at the scale of a page.

    Returns:
        Columns ``choice``, ``instead`` (the value), ``sets``, ``unit``, ``mean`` and ``std``.
    """
    groups, own = page.setting.groups, vars(page.setting.training.loss)
    tables = {name: page.read(f"{page.scale}/{name}.csv") for _, _, name, *_ in VALUES}
    tables["choices"] = page.table
    means = {name: group_means(table, groups) for name, table in tables.items() if len(table)}
    lines = []
    for choice, value, source, other, chosen in VALUES:
        for group in groups if source in means else ():
            for unit in _UNITS:
                more, less = ((name.format_map(own), unit) for name in (other, chosen))
                try:
                    found = difference(means[source], more, less, group)
                except KeyError:  # not run
                    continue
                lines.append((choice, value, group, unit, found.mean, found.std))
    table = pd.DataFrame(lines, columns=["choice", "instead", "sets", "unit", "mean", "std"])
    # A difference that is the same for every seed, as that of equal decoders, has no spread.
    return table.assign(std=table["std"].fillna(0))


def show_table(page: AblationPage, table: pd.DataFrame) -> None:
    """Show the changes, a line for each value and a column for each group of sets and unit, and
    say which were not run.

    Args:
        page: The page.
        table: As :func:`changes` gives it.
    """
    from IPython.display import Markdown, display

    if len(table):
        shown = table.assign(
            points=[
                f"{m:+.2f} ± {s:.2f}" for m, s in zip(table["mean"], table["std"], strict=True)
            ],
            column=table["sets"] + ", " + table["unit"].replace({"36": "36 units"}),
        )
        wide = shown.pivot(index=["choice", "instead"], columns="column", values="points")
        order = list(dict.fromkeys(table[["choice", "instead"]].itertuples(index=False, name=None)))
        figures.table(
            wide.loc[order].fillna("not run"),
            caption="Another value in place of the chosen one: change of mIoU in points, mean ± "
            f"standard deviation over {page.table['seed'].nunique()} seeds. Below 0: the chosen "
            "value is the better.",
            results=page.file,
        )
    missing = [value for _, value, *_ in VALUES if value not in set(table["instead"])]
    if missing:
        display(Markdown(f"**Not run** at this scale: {'; '.join(missing)}."))


def which_matter(table: pd.DataFrame) -> str:
    """Which changes are larger than their spread over the seeds, a line of Markdown per choice.

    Args:
        table: As :func:`changes` gives it.
    """
    lines = []
    for choice, rows in table.groupby("choice", sort=False):
        clear = rows[(rows["mean"].abs() > rows["std"]) & (rows["mean"].abs() > 0.005)]
        parts = []
        for word, moved in (("gains", clear["mean"] > 0), ("loses", clear["mean"] < 0)):
            for value, own in clear[moved].groupby("instead", sort=False):
                low, high = own["mean"].abs().min(), own["mean"].abs().max()
                span = f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
                every = (rows["instead"] == value).sum()
                parts.append(f"*{value}* {word} {span} in {len(own)} of {every} columns")
        lines.append(f"* **{choice}**: {'; '.join(parts) or 'nothing beyond the spread'}.")
    return "\n".join(lines) or "Not run."
