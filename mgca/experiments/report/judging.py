"""Whether a claim on a table holds: what has to be above 0, seed by seed, and how sure it is.

A claim is one or several differences that all have to be above 0, taken seed by seed. It is judged
by the one of them that is least sure. It holds if that is above 0, and does not hold if it is
below, beyond what seeds and images leave open after Holm's correction over all claims of a scale;
else it is undecided. The paper's claims are one family, and our own lines another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from mgca.experiments.report.tables import Difference, Judged, group_means, judge

if TYPE_CHECKING:
    from mgca.experiments.scale import Scale
    from mgca.losses import LossConfig

#: A line of a table: variant and unit.
Line = tuple[str, str]


class OverImages(NamedTuple):
    """What other images of the same kind would say of a claim.

    Attributes:
        low: Low end of the interval of its least sure difference.
        high: High end of it.
        p: How surely the difference is not 0.
    """

    low: float
    high: float
    p: float


class Verdict(NamedTuple):
    """Whether a claim holds.

    Attributes:
        judged: What the seeds say, and with the images the verdict.
        beside: What the numbers stand beside, such as the line that comes nearest; may be empty.
        images: What images say; None where no images were counted one by one.
        above_spread: Whether every difference exceeds one standard deviation of the seeds' own, the
            rule of thumb that this one took the place of.
    """

    judged: Judged
    beside: str = ""
    images: OverImages | None = None
    above_spread: bool = False

    @property
    def numbers(self) -> str:
        """The difference with its interval, the number of seeds, and the interval over images."""
        text = str(self.judged)
        if self.images:
            text += f"; over images [{self.images.low:+.2f}, {self.images.high:+.2f}]"
        return text


@dataclass(frozen=True)
class Column:
    """A group of sets at a scale, on which claims are judged.

    Attributes:
        title: What it is called.
        group: Name of the group.
        tables: By the name of the ablation a table with a row for each seed, or whatever else was
            drawn, and columns (variant, unit, metric); those that were run.
        own: The scale's own values.
        images: What images say, by the text of the claim.
    """

    title: str
    group: str
    tables: Mapping[str, pd.DataFrame]
    own: "LossConfig"
    images: Mapping[str, OverImages] = field(default_factory=dict)

    def values(self, ablation: str, line: Line, metric: str = "miou") -> pd.Series:
        """A line's values, by seed.

        Raises:
            KeyError: If it was not run.
        """
        return self.tables[ablation][(*line, metric)].dropna()

    def gain(self, ablation: str, more: Line, less: Line, metric: str = "miou") -> pd.Series:
        """By how much one line exceeds another, by seed.

        Raises:
            KeyError: If one was not run, or they have no seed in common.
        """
        found = self.values(ablation, more, metric) - self.values(ablation, less, metric)
        found = found.dropna()
        if found.empty:
            raise KeyError(f"{more} and {less} have no seed in common")
        return found

    def variants(self, ablation: str) -> list[str]:
        """The variants of an ablation."""
        return list(self.tables[ablation].columns.unique(level=0))

    def curve(self, ablation: str, pattern: str) -> pd.DataFrame:
        """mIoU, pixel unit, of the variants that match a pattern: a column for each value of its
        group, a number, and a row for each seed that has all of them."""
        names = pd.Series(self.variants(ablation))
        at = names.str.extract(pattern, expand=False).astype(float)
        lines = {
            value: self.values(ablation, (name, "pixel"))
            for name, value in zip(names, at, strict=True)
            if value == value
        }
        return pd.DataFrame(lines).sort_index(axis=1).dropna()


def wide(table: pd.DataFrame, group: str) -> pd.DataFrame:
    """Group means as :class:`Column` holds them: a row for each seed.

    Args:
        table: As :func:`mgca.experiments.report.tables.group_means` gives it.
        group: The group whose rows are taken.
    """
    of_group = table[table["dataset"] == group]
    return of_group.pivot_table(
        index="seed", columns=["variant", "unit", "metric"], values="value", sort=False
    )


def columns_of(
    scale: "Scale",
    tables: Mapping[str, pd.DataFrame],
    images: Sequence[Mapping[str, Any]] = (),
) -> list[Column]:
    """The groups of sets of a scale.

    Args:
        scale: The scale.
        tables: Results tables by the name of the ablation; empty ones were not run.
        images: What images say, as :mod:`mgca.experiments.intervals` writes it.
    """
    means = {name: group_means(table, scale.groups) for name, table in tables.items() if len(table)}
    return [
        Column(
            f"{scale.name.capitalize()}, {group}",
            group,
            {name: wide(table, group) for name, table in means.items()},
            scale.training.loss,
            {
                one["claim"]: OverImages(one["low"], one["high"], one["p"])
                for one in images
                if one["group"] == group
            },
        )
        for group in scale.groups
    ]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A line of a table that exceeds one or several others.

    Names of variants may hold the scale's own values, as ``"k={k:g}"``.

    Attributes:
        text: The claim, a sentence without its full stop.
        ablation: The table, and the page that shows it.
        more: The variant that is more.
        less: Those that it exceeds; all others if empty.
        units: The units of ``more`` and of ``less``.
        metric: The metric that is compared.
        paper: Whether the paper claims it; the other lines are ours, on the ablation's page alone.
        sets: The groups of sets that it speaks of; all if empty.
    """

    text: str
    ablation: str
    more: str = "all"
    less: tuple[str, ...] = ()
    units: tuple[str, str] = ("pixel", "pixel")
    metric: str = "miou"
    paper: bool = True
    sets: tuple[str, ...] = ()

    @property
    def plotted(self) -> bool:
        """Whether it is a difference in mIoU."""
        return type(self) is Claim and self.metric == "miou"

    def applies(self, column: Column) -> bool:
        """Whether it speaks of the sets of a column."""
        return not self.sets or column.group in self.sets

    def lines(self, column: Column) -> tuple[Line, list[Line]]:
        """The line that is more, and those that it exceeds."""
        more = self.more.format_map(vars(column.own))
        less = [name.format_map(vars(column.own)) for name in self.less]
        less = less or [name for name in column.variants(self.ablation) if name != more]
        of, over = self.units
        return (more, of), [(name, over) for name in less]

    def differences(self, column: Column) -> dict[str, pd.Series]:
        """What has to be above 0, by seed, by what it is held against.

        Raises:
            KeyError: If a line that it speaks of was not run.
        """
        more, less = self.lines(column)
        return {
            name if len(less) > 1 else "": column.gain(
                self.ablation, more, (name, unit), self.metric
            )
            for name, unit in less
        }

    def picked_from(self, column: Column) -> int:
        """Of how many lines ``more`` was picked for being the highest."""
        return 1

    def beside(self, column: Column, against: str) -> str:
        """What the numbers stand beside.

        Args:
            column: The column that was judged.
            against: What the least sure difference is held against.
        """
        if self.metric == "miou":
            return f"against {against}" if against else ""
        more, less = self.lines(column)
        means = (column.values(self.ablation, one, self.metric).mean() for one in (more, less[0]))
        return " and ".join(f"{mean:.2f}" for mean in means)


def least_sure(differences: Mapping[str, pd.Series]) -> tuple[str, Difference]:
    """Of differences that all have to be above 0, the one that is least so, and its name."""
    found = {name: Difference.of(values) for name, values in differences.items()}

    def sureness(name: str) -> tuple[float, float]:
        one = found[name]
        return ((1 - one.p) * (1 if one.mean > 0 else -1), one.mean)

    name = min(found, key=sureness)
    return name, found[name]


def verdicts(claims: Sequence[Claim], columns: Sequence[Column]) -> dict[tuple[str, str], Verdict]:
    """Whether claims hold, by their text and the title of the column, those that were run.

    Holm's correction is over the paper's claims, and apart over ours, in all columns together:
    give all claims and all columns of a scale.
    """
    found: dict[tuple[str, str], Verdict] = {}
    for paper in (True, False):
        family = []
        for claim in (claim for claim in claims if claim.paper is paper):
            for column in (column for column in columns if claim.applies(column)):
                try:
                    differences = claim.differences(column)
                except KeyError:  # not run
                    continue
                against, one = least_sure(differences)
                picked = claim.picked_from(column) if one.mean > 0 else len(differences)
                above = all(Difference.of(own).above_spread for own in differences.values())
                family.append((claim, column, against, one, picked, above))
        images = [column.images.get(claim.text) for claim, column, *_ in family]
        judged = judge(
            [one for *_, one, _, _ in family],
            times=[picked for *_, picked, _ in family],
            images=[one.p if one else 0.0 for one in images],
        )
        for (claim, column, against, *_, above), one, over in zip(
            family, judged, images, strict=True
        ):
            said = Verdict(one, claim.beside(column, against), over, above)
            found[claim.text, column.title] = said
    return found
