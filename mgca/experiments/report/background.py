"""The threshold of the background and its temperature: curves, what one pair costs each line."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from mgca.evaluation.results import read_run
from mgca.evaluation.thresholds import choose
from mgca.experiments.report import charts, figures
from mgca.experiments.report.methods import UNITS
from mgca.experiments.report.page import Page, open_page
from mgca.experiments.report.words import relabelled
from mgca.experiments.thresholds import COLUMNS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Thresholds:
    """Curves of a scale and the pair that its tables use.

    Attributes:
        curves: mIoU by line, unit, threshold and temperature.
        threshold: The threshold in use.
        temperature: The temperature in use.
    """

    curves: pd.DataFrame
    threshold: float
    temperature: float

    @property
    def near(self) -> float:
        """The temperature that has curves nearest to the one in use."""
        return min(self.curves["temperature"].unique(), key=lambda t: abs(t - self.temperature))

    @property
    def where(self) -> str:
        """The pair, and which curves stand for it."""
        text = f"threshold {self.threshold:g}, temperature {self.temperature:.3g}"
        if f"{self.near:.3g}" == f"{self.temperature:.3g}":
            return text
        return f"{text}, for which the curves of {self.near:g} stand here"

    def lines(self) -> pd.DataFrame:
        """By line and unit: mIoU at the pair, the line's own best, and what is lost."""
        rows = []
        for (variant, unit), curve in self.curves.groupby(["variant", "unit"], sort=False):
            at = curve[curve["temperature"] == self.near].set_index("threshold")["miou"]
            used = at[at.index[abs(at.index - self.threshold).argmin()]]
            best = curve.loc[curve["miou"].idxmax()]
            close = at[at >= at.max() - 1].index
            rows.append(
                {
                    "line": variant,
                    "unit": UNITS[unit],
                    "chosen pair": used,
                    "own best": best["miou"],
                    "at threshold": best["threshold"],
                    "and temperature": best["temperature"],
                    "lost": best["miou"] - used,
                    "within a point of the best": f"{close.min():.2f} to {close.max():.2f}",
                }
            )
        return pd.DataFrame(rows).set_index(["line", "unit"])

    def temperatures(self) -> pd.DataFrame:
        """By temperature: the best threshold for all lines together, and their mean mIoU."""
        mean = self.curves.groupby(["temperature", "threshold"])["miou"].mean()
        best = mean.groupby("temperature").idxmax()
        return pd.DataFrame(
            {"best threshold": [pair[1] for pair in best], "mean mIoU": mean[best].to_numpy()},
            index=best.index,
        )

    def cost(self) -> str:
        """Whether the pair is the best of all, and what it costs, in words."""
        lines, by_temperature = self.lines(), self.temperatures()["mean mIoU"]
        threshold, temperature, most = choose(self.curves)
        agrees = (
            "which is the best mean over the lines"
            if (round(threshold, 6), temperature) == (self.threshold, self.temperature)
            else "where the best mean over the lines is at threshold "
            f"{threshold:g} and temperature {temperature:g}, with {most:.1f} against "
            f"{lines['chosen pair'].mean():.1f}"
        )
        near = abs(self.curves["threshold"] - self.threshold)
        fixed = self.curves[near == near.min()].groupby("temperature")["miou"].mean()
        return (
            f"{self.where}, {agrees}. It costs the lines between {lines['lost'].min():.1f} and "
            f"{lines['lost'].max():.1f} points against a pair of their own. With the best "
            f"threshold for each, the {len(by_temperature)} temperatures differ by "
            f"{by_temperature.max() - by_temperature.min():.1f} points in the mean; with the "
            f"threshold of the pair, they differ by {fixed.max() - fixed.min():.1f}."
        )

    def draw(self) -> "Figure":
        """Small multiples of the curves, with the pair in use."""
        return charts.threshold_curves(self.curves, UNITS, self.threshold, self.near)


def thresholds(page: Page) -> Thresholds | None:
    """The curves of the scale of a page; None where they were not drawn.

    Raises:
        ValueError: If the file of the curves has other columns.
    """
    path = page.results / "background.csv"
    if not path.is_file():
        return None
    curves = pd.read_csv(path, dtype={"unit": str, "run": str})
    if list(curves.columns) != COLUMNS:
        raise ValueError(f"{path} holds no curves: its columns are {list(curves.columns)}")
    scale = page.setting
    # The scenes take the temperature that their small CLIP has learned.
    own = getattr(scale, "temperature", None) or scale.published_backbone().temperature
    return Thresholds(relabelled(curves, page.scale), scale.threshold, own)


def show(scale: str) -> None:
    """Show curves, tables and finding of a scale, or that it was not run.

    Args:
        scale: Name of the scale.
    """
    from IPython.display import Markdown, display

    page = open_page("background", scale)
    chosen = thresholds(page)
    if chosen is None:
        display(Markdown(f"**Not run**: `mgca experiment thresholds --scale {scale}`."))
        return
    file = f"{scale}/background.csv"
    run = read_run(page.results, chosen.curves["run"].iloc[0])
    dataset, _, images = run["config"]["set"]
    figures.show(
        chosen.draw(),
        caption=f"mIoU over the threshold on `{dataset}`, {images} images; the dot is the pair in "
        f"use: {chosen.cost()}",
        alt="Line charts, one for each method and unit: mIoU against the threshold, a line for "
        "each temperature, with a dot at the pair in use.",
        name=f"fig-background-{scale}",
        results=file,
    )
    lines = chosen.lines()
    for column in ("chosen pair", "own best", "lost"):
        lines[column] = lines[column].map("{:.1f}".format)
    figures.table(lines, caption="What the one pair costs each line.", results=file)
    temperatures = chosen.temperatures().rename(index="{:g}".format)
    figures.table(
        temperatures.round({"best threshold": 2, "mean mIoU": 1}),
        caption="Each temperature with its best threshold.",
        results=file,
    )
