"""The paper's claims on its ablations as data, and whether they hold.

Each claim is a line of ``CLAIMS``: its sentence, the ablation that it is about, and which line
of that table exceeds which. The page of an ablation and the page of what held print the same
sentence, judged by the same rule.

A claim holds if the difference it speaks of, taken seed by seed, is positive by more than its
standard deviation over the seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from mgca.experiments.grid import ALPHA_NEG, K_NEG, META_POINTS
from mgca.experiments.report.tables import Difference, difference, group_means

if TYPE_CHECKING:
    from mgca.experiments.scale import Scale
    from mgca.losses import LossConfig


class Verdict(NamedTuple):
    """Whether a claim holds.

    Attributes:
        held: Whether it does.
        numbers: The numbers that say so.
        beside: What they stand beside, such as the line that comes nearest; may be empty.
        difference: The difference that was judged; None where the claim is none.
    """

    held: bool
    numbers: str
    beside: str = ""
    difference: Difference | None = None


@dataclass(frozen=True)
class Column:
    """A group of sets at a scale, on which claims are judged.

    Attributes:
        title: What it is called.
        group: Name of the group.
        tables: Tables of group means by the name of the ablation; those that were run.
        own: The scale's own values.
    """

    title: str
    group: str
    tables: Mapping[str, pd.DataFrame]
    own: "LossConfig"

    def mean(self, ablation: str, line: tuple[str, str], metric: str = "miou") -> float:
        """The mean of a line, (variant, unit), over the seeds."""
        return float(self._values(ablation, metric).loc[line])

    def gain(
        self,
        ablation: str,
        more: tuple[str, str],
        less: tuple[str, str],
        metric: str = "miou",
    ) -> Difference:
        """By how much one line, (variant, unit), exceeds another."""
        return difference(self.tables[ablation], more, less, self.group, metric)

    def curve(self, ablation: str, pattern: str) -> pd.Series:
        """Mean mIoU, pixel unit, of the variants that match a pattern, by its group, a number."""
        value = self._values(ablation, "miou").xs("pixel", level="unit")
        at = value.index.str.extract(pattern, expand=False).astype(float)
        return value.set_axis(at)[at.notna()].sort_index()

    def _values(self, ablation: str, metric: str) -> pd.Series:
        table = self.tables[ablation]
        chosen = table[(table["dataset"] == self.group) & (table["metric"] == metric)]
        return chosen.groupby(["variant", "unit"])["value"].mean()


def columns_of(scale: "Scale", tables: Mapping[str, pd.DataFrame]) -> list[Column]:
    """The groups of sets of a scale.

    Args:
        scale: The scale.
        tables: Results tables by the name of the ablation; empty ones were not run.
    """
    means = {name: group_means(table, scale.groups) for name, table in tables.items() if len(table)}
    name, own = scale.name.capitalize(), scale.training.loss
    return [Column(f"{name}, {group}", group, means, own) for group in scale.groups]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A line of a table that exceeds one or several others, the nearest of them.

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

    def judge(self, column: Column) -> Verdict:
        """Whether it holds.

        Raises:
            KeyError: If a line that it speaks of was not run.
        """
        table = column.tables[self.ablation]
        more = self.more.format_map(vars(column.own))
        less = [name.format_map(vars(column.own)) for name in self.less]
        less = less or [name for name in table["variant"].unique() if name != more]
        of, over = self.units
        gain, nearest = min(
            (column.gain(self.ablation, (more, of), (name, over), self.metric), name)
            for name in less
        )
        beside = f"against {nearest}" if len(less) > 1 else ""
        if self.metric != "miou":
            high, low = (
                column.mean(self.ablation, line, self.metric)
                for line in ((more, of), (nearest, over))
            )
            beside = f"{high:.2f} and {low:.2f}"
        return Verdict(gain.holds, str(gain), beside, gain)


class _LessSpan(Claim):
    """A curve that spans less than another: ``more`` and ``less`` are their variants' patterns."""

    def judge(self, column: Column) -> Verdict:
        spans = []
        for pattern in (self.more, *self.less):
            curve = column.curve(self.ablation, pattern)
            spans.append(curve.max() - curve.min())
        full, reduced = spans
        table = column.tables[self.ablation]
        own = (table["dataset"] == column.group) & (table["metric"] == "miou")
        rows = table[own & (table["unit"] == "pixel")]
        spread = rows.groupby("variant")["value"].std().median()
        numbers = f"{full:.2f} with it, {reduced:.2f} without"
        return Verdict(full < reduced, numbers, f"over the seeds a point has ± {spread:.2f}")


class _OwnIsBest(Claim):
    """A curve that is highest at the scale's own value of ``more``."""

    def judge(self, column: Column) -> Verdict:
        name, own = self.more, getattr(column.own, self.more)
        best = column.curve(self.ablation, rf"^{name}=([\d.]+)$").idxmax()
        gain = column.gain(
            self.ablation, (f"{name}={best:g}", "pixel"), (f"{name}={own:g}", "pixel")
        )
        return Verdict(bool(best == own), f"{best:g} minus the own {own:g}: {gain}")


class _Between(Claim):
    """The best value between the ends of a curve, against both."""

    def judge(self, column: Column) -> Verdict:
        curve = column.curve(self.ablation, rf"^{self.more}=([\d.]+)$")
        best = curve.iloc[1:-1].idxmax()
        lines = [f"{self.more}={value:g}" for value in (best, *curve.index[[0, -1]])]
        gains = [
            column.gain(self.ablation, (lines[0], "pixel"), (end, "pixel")) for end in lines[1:]
        ]
        over = ", ".join(f"{gain} over {end}" for gain, end in zip(gains, lines[1:], strict=True))
        return Verdict(all(gain.holds for gain in gains), over, lines[0])


def _gain(column: Column, more: str, less: str) -> Difference:
    """By how much one unit exceeds another."""
    return column.gain("meta_points", ("all", more), ("all", less))


class _EachStep(Claim):
    """Fewer units that are better at every step, from the pixel down to 36."""

    def judge(self, column: Column) -> Verdict:
        down = ["pixel", *map(str, sorted((n for n in META_POINTS if n and n >= 36), reverse=True))]
        rises = [_gain(column, b, a).mean > 0 for a, b in zip(down, down[1:], strict=False)]
        return Verdict(all(rises), f"{sum(rises)} of {len(rises)} steps")


class _Marginal(Claim):
    """25 and 16 units that gain less than half of what 36 gain on the pixel."""

    def judge(self, column: Column) -> Verdict:
        first, further = (
            _gain(column, "36", "pixel"),
            [_gain(column, n, "36") for n in ("25", "16")],
        )
        held = all(step.mean < first.mean / 2 for step in further)
        return Verdict(held, f"25: {further[0]}, 16: {further[1]}")


_ALONE = "The {} level alone improves on {}"
_SMALLEST, _LARGEST = "alpha_neg={alpha_neg:g},no pixel", f"alpha_neg={max(ALPHA_NEG):g},no pixel"

CLAIMS = (
    *(
        Claim(
            text=_ALONE.format(level, "plain CLIP"),
            ablation="granularity",
            more=level,
            less=("baseline",),
        )
        for level in ("object", "region", "pixel")
    ),
    *(
        Claim(
            text=_ALONE.format(level, "MaskCLIP"),
            ablation="granularity",
            more=level,
            less=("maskclip",),
            paper=False,
        )
        for level in ("object", "region", "pixel")
    ),
    Claim(
        text="The pixel level brings most of the three",
        ablation="granularity",
        more="pixel",
        less=("object", "region"),
    ),
    Claim(text="All three levels together are best", ablation="granularity"),
    Claim(
        text="Object and region level remove noisy patches (components, less is better)",
        ablation="granularity",
        more="baseline",
        less=("object+region",),
        metric="components",
    ),
    Claim(
        text="The pixel level makes masks more accurate (boundary IoU)",
        ablation="granularity",
        less=("object+region",),
        metric="boundary_iou",
    ),
    _LessSpan(
        text="The area of the hard negative matters less with the pixel level (span of the curve)",
        ablation="areas",
        more=r"^alpha_neg=([\d.]+)$",
        less=(r"^alpha_neg=([\d.]+),no pixel$",),
    ),
    Claim(
        text="Without the pixel level a small area beats a large one",
        ablation="areas",
        more=_SMALLEST,
        less=(_LARGEST,),
    ),
    _OwnIsBest(
        text="The scale's own area of the object, alpha, is the best of those tried",
        ablation="areas",
        more="alpha",
        paper=False,
    ),
    Claim(
        text="Semi-hard positives beat the most trustworthy, k = 0",
        ablation="k",
        more="k={k:g}",
        less=("k=0",),
    ),
    Claim(
        text="Semi-hard positives beat the hardest, k = 1",
        ablation="k",
        more="k={k:g}",
        less=("k=1",),
    ),
    _Between(
        text="The best value between beats both ends",
        ablation="k",
        more="k",
        paper=False,
    ),
    *(
        Claim(
            text=f"The hardest negative, k_neg = 0, beats k_neg = {rank:g}",
            ablation="k",
            more="k_neg=0",
            less=(f"k_neg={rank:g}",),
            paper=False,
        )
        for rank in K_NEG
        if rank
    ),
    Claim(
        text="36 units beat the pixel",
        ablation="meta_points",
        less=("all",),
        units=("36", "pixel"),
    ),
    _EachStep(text="Fewer units are better at each step down to 36", ablation="meta_points"),
    _Marginal(text="Below 36 units the returns are marginal", ablation="meta_points"),
    Claim(
        text="Units make predictions less over-segmented (components, less is better)",
        ablation="meta_points",
        less=("all",),
        units=("pixel", "36"),
        metric="components",
    ),
    Claim(
        text="The contours of 36 units are better than the pixel's (boundary IoU)",
        ablation="meta_points",
        less=("all",),
        units=("36", "pixel"),
        metric="boundary_iou",
        paper=False,
    ),
)
#: The paper's table or figure behind each ablation.
SOURCES = {
    "granularity": "Table 3, Fig. 5",
    "areas": "Fig. 7",
    "k": "Fig. 7",
    "meta_points": "Table 4",
}
