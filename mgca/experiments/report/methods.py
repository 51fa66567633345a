"""Every method of a scale in one table: its overview, its best line, and what exceeds what."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd

from mgca.evaluation.evaluate import SECONDS
from mgca.experiments.grid import grid
from mgca.experiments.report.tables import (
    Difference,
    difference,
    group_means,
    judge,
    mean_and_std,
    once,
    with_group_means,
)
from mgca.experiments.report.words import relabelled, worded

if TYPE_CHECKING:
    from mgca.experiments.scale import Scale

#: Titles of the units.
UNITS = {"pixel": "pixel", "36": "36 units"}
#: TCL under its own rule for the background: one more line.
OWN = "tcl, its own background"
_OWN_RULE = "miou_sigmoid"  # its metric
_TITLES = {
    "voc21": "VOC21",
    "coco81": "COCO, 81",
    "voc20": "VOC20",
    "coco80": "COCO, 80",
    "camvid": "CamVid",
}


@dataclass(frozen=True)
class Methods:
    """The methods of a scale that were run.

    Attributes:
        setting: The scale.
        table: Its results table of all methods.
    """

    setting: "Scale"
    table: pd.DataFrame

    @property
    def file(self) -> str:
        """The table's file below ``results``."""
        return f"{self.setting.name}/benchmarks.csv"

    @property
    def groups(self) -> list[str]:
        """The groups of sets."""
        return list(self.setting.groups)

    @property
    def times(self) -> pd.DataFrame:
        """The rows of the table that are seconds per image."""
        return self.table[self.table["metric"] == SECONDS]

    @cached_property
    def lines(self) -> pd.DataFrame:
        """The table without times, TCL's own rule as a line of its own."""
        measured = self.table.drop(self.times.index)
        own = measured["metric"] == _OWN_RULE
        return pd.concat([measured[~own], measured[own].assign(metric="miou", variant=OWN)])

    @cached_property
    def means(self) -> pd.DataFrame:
        """The means over the groups of sets, seed by seed, as a results table."""
        return group_means(self.lines, self.setting.groups)

    @cached_property
    def miou(self) -> pd.DataFrame:
        """Of the means, mIoU."""
        return self.means[self.means["metric"] == "miou"]

    @property
    def names(self) -> list[str]:
        """The methods in the order of the grid."""
        there = set(self.means["variant"])
        return [v.name for v in grid("benchmarks", self.setting) if v.name in there]

    def overview(self) -> pd.DataFrame:
        """mIoU of all methods, by set and by group of sets, and seconds per image."""
        groups = self.setting.groups
        shown = self.lines[self.lines["metric"] == "miou"]
        shown = mean_and_std(once(with_group_means(shown, groups)))
        several = [group for group, sets in groups.items() if len(sets) > 1]
        order = [variant.name for variant in grid("benchmarks", self.setting)]
        order.insert(order.index("tcl") + 1, OWN)
        wanted = [(variant, unit) for variant in order for unit in UNITS]
        shown = shown.reindex(index=wanted, columns=[*self.setting.datasets, *several])
        shown = shown.fillna("not run")
        background = ("with background", *groups["with background"])
        shown.loc[OWN, [column for column in shown if column not in background]] = "–"
        taken = self.times.groupby(["variant", "unit"])["value"].mean()
        if len(taken):
            shown["s per image"] = [f"{taken[i]:.3f}" if i in taken else "–" for i in shown.index]
        titles = _TITLES | {name: f"mean {name}" for name in several}
        shown = shown.rename(index=UNITS, columns=titles).rename_axis(columns=None)
        return relabelled(shown, self.setting.name)

    def other_measures(self) -> pd.DataFrame:
        """Accuracy, boundary IoU and components, by group of sets."""
        lines = self.means[self.means["variant"] != OWN]
        metrics = {"accuracy": 1, "boundary_iou": 1, "components": 2}
        titles = {"boundary_iou": "boundary IoU"}
        parts = {
            titles.get(metric, metric): mean_and_std(once(lines), metric, digits)
            for metric, digits in metrics.items()
        }
        shown = pd.concat(parts, axis=1).rename(index=UNITS).rename_axis(columns=[None, None])
        return relabelled(shown, self.setting.name)

    def word(self, name: str) -> str:
        """The name of a method as readers see it."""
        return worded(name, self.setting.name)

    def notes(self) -> str:
        """The best line of each group of sets, where MGCA as in its paper stands, and which
        methods have fewer seeds: a list in Markdown."""
        text = [f"* {self._ranking(group)}." for group in self.groups]
        seeds = self.table.groupby("variant")["seed"].nunique()
        if seeds.min() < seeds.max():
            few = seeds[seeds < seeds.max()]
            fewer = ", ".join(f"{self.word(variant)} ({n})" for variant, n in few.items())
            text.append(f"* Fewer than {seeds.max()} seeds so far: {fewer}.")
        return "\n".join(text)

    def _ranking(self, group: str) -> str:
        chosen = self.miou[self.miou["dataset"] == group]
        value = chosen.groupby(["variant", "unit"])["value"].mean().sort_values(ascending=False)
        (variant, unit), best = value.index[0], value.iloc[0]
        name = self.word(variant)
        text = f"{group.capitalize()}: best is **{name}**, {UNITS[unit]}, with {best:.1f}"
        ours = ("mgca", "36")
        if ours in value.index and (variant, unit) != ours:
            text += (
                f"; MGCA as in its paper, with 36 units, has {value[ours]:.1f} and is number "
                f"{value.index.get_loc(ours) + 1} of {len(value)} lines"
            )
        return text

    def gain(self, more: tuple[str, str], less: tuple[str, str], group: str) -> Difference | None:
        """By how much one line, (variant, unit), exceeds another, in points of mIoU; None where
        one was not run."""
        try:
            return difference(self.means, more, less, group)
        except KeyError:
            return None

    def helped(self, group: str) -> str:
        """How many methods 36 units surely help in a group of sets, and which they do not."""
        gains = {name: self.gain((name, "36"), (name, "pixel"), group) for name in self.names}
        gains = {name: found for name, found in gains.items() if found}
        judged = dict(zip(gains, judge(list(gains.values())), strict=True))
        rest = [
            f"{self.word(name)} ({found}: {found.verdict})"
            for name, found in judged.items()
            if found.verdict != "holds"
        ]
        text = f"{len(gains) - len(rest)} of {len(gains)} methods gain."
        return text + (f" The others: {', '.join(rest)}." if rest else "")

    def gains_by_seed(self) -> pd.DataFrame:
        """36 units less the pixel, of every method, group and seed, as ``gain``."""
        chosen = once(self.miou[self.miou["variant"] != OWN])
        by = ["variant", "dataset", "seed"]
        wide = chosen.pivot_table(index=by, columns="unit", values="value", sort=False)
        gains = (wide["36"] - wide["pixel"]).rename("gain").reset_index()
        return relabelled(gains, self.setting.name)

    def on_other_blocks(self) -> list[tuple[str, ...]]:
        """MGCA's decoder on other last blocks: line, sets, unit, and its verdict against the
        frozen block and against MGCA on the values."""
        lines = [
            (both, group, unit)
            for both in self.names
            if both.endswith("+mgca")
            for group in self.groups
            for unit in UNITS
        ]
        said = _said(
            [
                self.gain((both, unit), (less, unit), group)
                for both, group, unit in lines
                for less in (both.removesuffix("+mgca"), "mgca")
            ]
        )
        return [
            (self.word(both), group, UNITS[unit], next(said), next(said))
            for both, group, unit in lines
        ]

    def against_tcl(self) -> list[tuple[str, ...]]:
        """TCL's objective and MGCA's: the difference, scale, sets, and the verdict of each unit."""
        with_own = set(self.means.loc[self.means["variant"] == OWN, "dataset"])
        frozen = "maskclip" if "maskclip" in self.names else "clip"
        pairs = [("mgca", "tcl"), ("tcl", frozen), ("mgca", OWN), (OWN, "tcl")]
        lines = [
            (more, less, group)
            for more, less in pairs
            if "tcl" in self.names
            for group in self.groups
            if OWN not in (more, less) or group in with_own
        ]
        said = _said(
            [
                self.gain((more, unit), (less, unit), group)
                for more, less, group in lines
                for unit in UNITS
            ]
        )
        return [
            (
                f"{self.word(more)} minus {self.word(less)}",
                self.setting.name,
                group,
                *(next(said) for _ in UNITS),
            )
            for more, less, group in lines
        ]

    @property
    def decoders(self) -> dict[str, str]:
        """By frozen last block, the line with MGCA's decoder on top of it."""
        return {
            block: "mgca" if block == "maskclip" else f"{block}+mgca"
            for block in self.setting.frozen
            if block in self.names
        }

    def changes(self) -> list[float]:
        """By how much mIoU per pixel changes with a decoder on top of a last block, of each that
        was run and each group of sets."""
        pixel = self.miou[self.miou["unit"] == "pixel"]
        mean = pixel.groupby(["dataset", "variant"])["value"].mean()
        return [
            mean[group, trained] - mean[group, frozen]
            for group in self.groups
            for frozen, trained in self.decoders.items()
            if (group, trained) in mean
        ]


def _said(differences: list[Difference | None]) -> Iterator[str]:
    """Differences with their verdicts, as one family, or that they were not run."""
    judged = iter(judge([found for found in differences if found]))
    for found in differences:
        said = next(judged) if found else None
        yield f"{said}, {said.verdict}" if said else "not run"


def count(cells: pd.Series) -> str:
    """How many of some verdicts hold."""
    run = cells[cells != "not run"]
    return f"{run.str.endswith(', holds').sum()} of {len(run)}"
