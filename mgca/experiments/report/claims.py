"""The paper's claims on its ablations as data.

Each claim is a line of ``CLAIMS``: its sentence, the ablation that it is about, and which line
of that table exceeds which. The page of an ablation and the page of what held print the same
sentence, judged by the same rule, that of :mod:`mgca.experiments.report.judging`.
"""

import pandas as pd

from mgca.experiments.grid import ALPHA_NEG, K_NEG, META_POINTS
from mgca.experiments.report.judging import Claim, Column


class _LessSpan(Claim):
    """A curve that spans less than another: ``more`` and ``less`` are their variants' patterns."""

    def _spans(self, column: Column) -> list[pd.Series]:
        curves = (column.curve(self.ablation, name) for name in (self.more, *self.less))
        return [curve.max(axis=1) - curve.min(axis=1) for curve in curves]

    def differences(self, column: Column) -> dict[str, pd.Series]:
        full, reduced = self._spans(column)
        return {"": (reduced - full).dropna()}

    def beside(self, column: Column, against: str) -> str:
        full, reduced = (span.mean() for span in self._spans(column))
        return f"{full:.2f} with it, {reduced:.2f} without"


class _OwnIsBest(Claim):
    """A curve that is highest at the scale's own value of ``more``."""

    def differences(self, column: Column) -> dict[str, pd.Series]:
        own, curve = getattr(column.own, self.more), _values(self, column)
        return {
            f"{self.more}={value:g}": curve[own] - curve[value] for value in curve if value != own
        }


class _Between(Claim):
    """The best value between the ends of a curve, against both."""

    def _best(self, column: Column) -> float:
        return float(_values(self, column).iloc[:, 1:-1].mean().idxmax())

    def differences(self, column: Column) -> dict[str, pd.Series]:
        curve, best = _values(self, column), self._best(column)
        ends = curve.columns[[0, -1]]
        return {f"{self.more}={end:g}": curve[best] - curve[end] for end in ends}

    def picked_from(self, column: Column) -> int:
        return len(_values(self, column).columns) - 2

    def beside(self, column: Column, against: str) -> str:
        return f"{self.more}={self._best(column):g} against {against}"


def _values(claim: Claim, column: Column) -> pd.DataFrame:
    """The curve over the values of a claim's parameter."""
    return column.curve(claim.ablation, rf"^{claim.more}=([\d.]+)$")


class _EachStep(Claim):
    """Fewer units that are better at every step, from the pixel down to 36."""

    def differences(self, column: Column) -> dict[str, pd.Series]:
        down = ["pixel", *map(str, sorted((n for n in META_POINTS if n and n >= 36), reverse=True))]
        return {
            f"{more} less": column.gain(self.ablation, ("all", less), ("all", more))
            for more, less in zip(down, down[1:], strict=False)
        }

    def beside(self, column: Column, against: str) -> str:
        steps = self.differences(column)
        rises = sum(step.mean() > 0 for step in steps.values())
        return f"from {against.removesuffix(' less')} down, {rises} of {len(steps)} steps rise"


class _Marginal(Claim):
    """25 and 16 units that gain less than half of what 36 gain on the pixel."""

    def differences(self, column: Column) -> dict[str, pd.Series]:
        first = column.gain(self.ablation, ("all", "36"), ("all", "pixel"))
        return {
            f"{n} units": first / 2 - column.gain(self.ablation, ("all", n), ("all", "36"))
            for n in ("25", "16")
        }

    def beside(self, column: Column, against: str) -> str:
        return f"half the gain of 36 units less the further gain of {against}"


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
