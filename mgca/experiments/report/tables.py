"""Read results: means over sets and seeds, differences between variants, provenance, pictures."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from mgca.evaluation.intervals import ALPHA, holm, student_interval, student_p
from mgca.evaluation.results import COLUMNS, read_run, summary
from mgca.experiments.report.figures import html_table

if TYPE_CHECKING:
    from IPython.display import HTML


def group_means(table: pd.DataFrame, groups: dict[str, tuple[str, ...]]) -> pd.DataFrame:
    """A results table of the means over groups of sets, seed by seed.

    Args:
        groups: The sets of each group; its name takes the place of theirs.
    """
    key = [column for column in COLUMNS if column not in ("dataset", "value")]
    parts = [
        table[table["dataset"].isin(sets)]
        .groupby(key, sort=False)["value"]
        .mean()
        .reset_index()
        .assign(dataset=name)
        for name, sets in groups.items()
    ]
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def with_group_means(table: pd.DataFrame, groups: dict[str, tuple[str, ...]]) -> pd.DataFrame:
    """A results table, followed by the means over those groups that have several sets."""
    several = {name: sets for name, sets in groups.items() if len(sets) > 1}
    return pd.concat([table, group_means(table, several)]) if several else table


def once(table: pd.DataFrame) -> pd.DataFrame:
    """Lines whose seeds all agree, because nothing is trained, with one seed: they have no ±."""
    line = table.groupby(["variant", "unit", "dataset", "metric"])["value"]
    return table[(line.transform("nunique") > 1) | (line.cumcount() == 0)]


def mean_over_sets(table: pd.DataFrame) -> pd.DataFrame:
    """Mean mIoU over all sets of each run: mean and deviation over the seeds, by variant, unit."""
    each = table[table["metric"] == "miou"].groupby(["variant", "unit", "seed"])["value"].mean()
    return each.groupby(["variant", "unit"]).agg(["mean", "std"])


def signed(values: pd.Series) -> str:
    """Differences with their signs, each after its name."""
    return ", ".join(f"{name} {value:+.1f}" for name, value in values.items())


def measured_here(table: pd.DataFrame, names: Collection[str], sets: Mapping[str, str]) -> str:
    """What ``mgca evaluate`` has measured of a model, or that it was not run.

    Args:
        table: The rows of ``results/evaluation/evaluation.csv``.
        names: Names that the model may have in it.
        sets: Title of each set by its name.

    Returns:
        The sets with their mIoU, of the unit that has most; or ``"not run"``.
    """
    rows = table[table["variant"].isin(names) & (table["metric"] == "miou")]
    best = rows.groupby("dataset")["value"].max()
    found = [f"{title} {best[name]:.1f}" for name, title in sets.items() if name in best]
    return ", ".join(found) or "not run"


def mean_and_std(table: pd.DataFrame, metric: str = "miou", digits: int = 1) -> pd.DataFrame:
    """Mean ± standard deviation over the seeds as text, (variant, unit) by data set, in the order
    of the table. With one seed, the number alone."""
    means = summary(table, metric)
    means["shown"] = [
        f"{mean:.{digits}f}" + (f" ± {std:.{digits}f}" if std == std else "")
        for mean, std in zip(means["mean"], means["std"], strict=True)
    ]
    shown = means.pivot(index=["variant", "unit"], columns="dataset", values="shown")
    rows = table[["variant", "unit"]].drop_duplicates().itertuples(index=False, name=None)
    return shown.reindex(index=list(rows), columns=list(table["dataset"].unique()))


def best_of_each(
    table: pd.DataFrame, column: str, *, over: str | None = None, marked: bool = False
) -> str:
    """Which line has the most in each group of sets, in words.

    Args:
        table: Rows of a results table, of one metric, whose ``dataset`` is a group of sets.
        column: Column that names the lines.
        over: The line that the best is compared with; None for none.
        marked: Whether the best is set in bold.
    """
    found = []
    for group, rows in table.groupby("dataset", sort=False):
        mean = rows.groupby(column)["value"].mean()
        best = f"**{mean.idxmax()}**" if marked else mean.idxmax()
        text = f"{group.capitalize()}: best is {best} with {mean.max():.1f}"
        found.append(text + (f", {mean.max() - mean[over]:+.1f} over the {over}" if over else ""))
    return ". ".join(found)


class Difference(NamedTuple):
    """By how much one line of a table exceeds another, over seeds.

    Attributes:
        mean: Mean of the seeds' own differences.
        std: Standard deviation of the seeds' own differences; NaN with one seed.
        seeds: Number of seeds that both lines have.
    """

    mean: float
    std: float
    seeds: int

    @classmethod
    def of(cls, differences: pd.Series) -> "Difference":
        """The difference of the seeds' own differences."""
        return cls(float(differences.mean()), float(differences.std()), len(differences))

    def __str__(self) -> str:
        return f"{self.mean:+.2f}" + (f" ± {self.std:.2f}" if self.std == self.std else "")

    @property
    def above_spread(self) -> bool:
        """Whether it exceeds one standard deviation of the seeds' own differences."""
        return self.mean > (self.std if self.std == self.std else 0)

    @property
    def p(self) -> float:
        """The two-sided p of no difference, as :func:`mgca.evaluation.intervals.student_p`."""
        return student_p(*self)

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Low and high end, as :func:`mgca.evaluation.intervals.student_interval`."""
        return student_interval(*self, alpha)


class Judged(NamedTuple):
    """What a difference says when it is one of a family.

    Attributes:
        verdict: ``"holds"`` if it is surely above 0, ``"does not hold"`` if surely below, else
            ``"undecided"``.
        difference: The difference.
        low: Low end of its interval, at the level of its place in the family.
        high: High end of it.
    """

    verdict: str
    difference: Difference
    low: float
    high: float

    def __str__(self) -> str:
        seeds = self.difference.seeds
        if self.low == -float("inf"):
            return f"{self.difference.mean:+.2f}, one seed"
        ends = f"[{self.low:+.2f}, {self.high:+.2f}]"
        return f"{self.difference.mean:+.2f} {ends}, {seeds} seeds"


def judge(
    family: Sequence[Difference],
    *,
    times: Sequence[int] | None = None,
    images: Sequence[float] | None = None,
) -> list[Judged]:
    """What each difference of a family says, with Holm's correction over the family.

    The interval over the seeds excludes 0 exactly where they decide.

    Args:
        family: The differences.
        times: Of how many each was picked for being the clearest; 1 each if None.
        images: The p of each over images; 0 each if None, which leaves it to the seeds.
    """
    times = times or [1] * len(family)
    images = images or [0.0] * len(family)
    own = [min(1.0, one.p * n) for one, n in zip(family, times, strict=True)]
    both = [max(pair) for pair in zip(own, images, strict=True)]
    found = []
    for one, n, p, level in zip(family, times, both, holm(both), strict=True):
        low, high = one.interval(level / n)
        sure = "holds" if one.mean > 0 else "does not hold"
        found.append(Judged(sure if p < level else "undecided", one, low, high))
    return found


def difference(
    table: pd.DataFrame,
    more: tuple[str, str],
    less: tuple[str, str],
    dataset: str,
    metric: str = "miou",
) -> Difference:
    """The difference between two lines of a results table, (variant, unit) each.

    Raises:
        KeyError: If the table has no such line of that set and metric, for the same seeds.
    """
    chosen = table[(table["dataset"] == dataset) & (table["metric"] == metric)]
    values = chosen.set_index(["variant", "unit", "seed"])["value"].sort_index()
    differences = (values.loc[more] - values.loc[less]).dropna()
    if differences.empty:
        raise KeyError(f"{more} and {less} have no seed in common")
    return Difference.of(differences)


def differences(
    table: pd.DataFrame,
    pairs: Mapping[str, tuple[str, str]],
    unit: str = "pixel",
    metric: str = "miou",
) -> pd.DataFrame:
    """By how much lines of a results table exceed others, on every set.

    Args:
        table: A results table.
        pairs: The line that is more and the one that is less, by what the comparison is called.
        unit: The unit of both.
        metric: The metric that is compared.

    Returns:
        Texts, a row for each pair and a column for each set; "not run" where one was not.
    """

    def shown(more: str, less: str, dataset: str) -> str:
        try:
            return str(difference(table, (more, unit), (less, unit), dataset, metric))
        except KeyError:
            return "not run"

    sets = table["dataset"].unique()
    rows = {title: {name: shown(*pair, name) for name in sets} for title, pair in pairs.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("difference")


def provenance_table(
    table: pd.DataFrame, *places: str | os.PathLike, more: Sequence[str] = ()
) -> pd.DataFrame:
    """Where each number of a results table comes from: run, commit, device and seconds.

    Args:
        table: A results table.
        places: Results folders of the scale, which hold ``runs``; a run is in one of them.
        more: ``"torch"``, its version; ``"minutes"``, in place of the seconds; ``"date"``.
    """
    left_out = {"torch", "minutes", "date"} - set(more)
    left_out |= {"seconds"} if "minutes" in more else set()
    rows = []
    for (variant, seed, run), _ in table.groupby(["variant", "seed", "run"], sort=False):
        there = [place for place in places if Path(place, "runs", f"{run}.json").is_file()]
        record = read_run((there or places)[0], run)
        known = {"commit": record["commit"][:12], "torch": record["environment"]["torch"]}
        known |= {"device": record["device"], "seconds": record["seconds"]}
        known |= {"minutes": round(record["seconds"] / 60, 1), "date": record["date"][:10]}
        shown = {key: value for key, value in known.items() if key not in left_out}
        rows.append({"variant": variant, "seed": seed, "run": run} | shown)
    return pd.DataFrame(rows).set_index(["variant", "seed"])


def sortable(table: pd.DataFrame) -> "HTML":
    """A table that a reader of the book sorts by a click on the head of a column.

    Args:
        table: As for :func:`mgca.experiments.report.figures.html_table`. Where it has a caption,
            :func:`mgca.experiments.report.figures.table` shows both.
    """
    from IPython.display import HTML

    return HTML(html_table(table))
