"""The page of an ablation: its table, the paper's, what holds, pictures, and the runs behind."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from mgca.evaluation.evaluate import CLASS_IOU
from mgca.experiments.intervals import read_intervals
from mgca.experiments.report import claims, figures, judging, verdicts, words
from mgca.experiments.report.page import Page, open_page
from mgca.experiments.report.parameters import one
from mgca.experiments.report.pictures import models_at_hand, pictures
from mgca.experiments.report.tables import (
    differences,
    group_means,
    mean_and_std,
    provenance_table,
    with_group_means,
)
from mgca.experiments.runner import folders, run_ablation

_LEVELS = ["object", "region", "pixel"]
_ALONE = {
    f"{level}, over {name}": (level, line)
    for level in _LEVELS
    for name, line in ((words.PLAIN, "baseline"), (words.MASKCLIP, "maskclip"))
}
#: What each level adds, to both models that it can be held against, and to one another.
LEVELS = {
    **_ALONE,
    "object + region, over region alone": ("object+region", "region"),
    "all three, over region alone": ("all", "region"),
}
_PAPER = {"avg_with_bg": "mean with background", "avg_without_bg": "mean without"}
_PAPER |= {"semantic_unit": "unit", "meta_points": "meta-points"}


@dataclass(frozen=True)
class AblationPage(Page):
    """An ablation at a scale, as its notebook shows it.

    Attributes:
        jobs: Runs at a time; None: as :func:`mgca.experiments.runner.run_ablations` has it.
    """

    jobs: int | None = None

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows of the seeds, with the columns of a results table. What is missing is computed
        first, or all with ``FRESH=1``."""
        options = {"jobs": self.jobs, "fresh": self.fresh}
        return run_ablation(self.name, self.setting, self.seeds, **options, **self.folders)

    @cached_property
    def folders(self) -> dict[str, Path]:
        """Where the runs are read and written, as :func:`mgca.experiments.runner.folders` says, or
        the scale itself."""
        own = dict(self.setting.places)
        return own or folders(self.scale, fresh=self.fresh, project=self.project)

    @property
    def work(self) -> Path:
        """Folder of the decoders and checkpoints of the scale."""
        return self.folders["work"]

    @property
    def file(self) -> str:
        """The table's file below ``results``, as :func:`mgca.experiments.report.figures.show`
        takes it."""
        return f"{self.scale}/{self.name}.csv"

    def said(self, caption: str) -> str:
        """A caption, with what the scale has to say beside every number."""
        lost = [name for name in self.setting.datasets if not self.setting.present([name])]
        said = [self.setting.note.capitalize()] if self.setting.note else []
        if lost:
            said.append(f"Not at hand: {', '.join(lost)}; means are over the other sets")
        return " ".join([*(f"**{each}.**" for each in said), caption])

    @property
    def groups(self) -> list[str]:
        """The groups of sets that means are taken over."""
        return list(self.setting.groups)

    @cached_property
    def means(self) -> pd.DataFrame:
        """The means over the groups of sets, seed by seed, as a results table."""
        return group_means(self.table, self.setting.groups)

    @cached_property
    def pixel(self) -> pd.DataFrame:
        """Of the means, mIoU with the pixel as the unit."""
        return self.means[(self.means["unit"] == "pixel") & (self.means["metric"] == "miou")]

    def parameters(self, pattern: str) -> pd.DataFrame:
        """:attr:`pixel` with what the names of its variants hold.

        Args:
            pattern: Regular expression with a name for each group, which is that of a column;
                ``share`` becomes a number.
        """
        held = self.pixel["variant"].str.extract(pattern)
        return self.pixel.assign(**held.assign(share=held["share"].astype(float)))

    @cached_property
    def columns(self) -> list[judging.Column]:
        """The groups of sets, as claims are judged on them: all claims of a scale are one family,
        whose other tables are those of ``results``."""
        tables = {name: self.read(f"{self.scale}/{name}.csv") for name in claims.SOURCES}
        tables |= {self.name: self.table}
        return judging.columns_of(self.setting, tables, read_intervals(self.results))

    def show_table(
        self,
        caption: str,
        metric: str = "miou",
        *,
        measured: str = "mIoU in percent, pixel unit",
        digits: int = 1,
        lines: Any = None,
        rows: tuple[str, str] | None = None,
    ) -> None:
        """Show the table: mean ± standard deviation over the seeds, by set and by group of sets.

        Args:
            caption: What the table shows, without a full stop.
            metric: The metric shown.
            measured: The metric in words, and the unit.
            digits: Digits after the point.
            lines: Units of the only variant; None for variants with the pixel as the unit.
            rows: What varies in the rows, and the pattern of the names of the variants shown,
                whose group is the value; None for all variants.
        """
        table = with_group_means(self.table, self.setting.groups)
        if lines is not None:
            shown = mean_and_std(table, metric, digits).droplevel("variant").loc[lines]
        elif rows is None:
            shown = mean_and_std(table[table["unit"] == "pixel"], metric, digits)
            shown = words.relabelled(shown.droplevel("unit"), self.scale)
        else:
            head, pattern = rows
            table = table.assign(variant=table["variant"].str.extract(pattern, expand=False))
            table = table[table["variant"].notna() & (table["unit"] == "pixel")]
            shown = mean_and_std(table, metric, digits).droplevel("unit").rename_axis(head)
        # A set that is not at hand has an empty column.
        columns = dict.fromkeys([*self.setting.datasets, *shown.columns])
        shown = shown.reindex(columns=list(columns))
        caption = self.said(f"{caption}: {measured}, mean ± standard deviation over the seeds.")
        figures.table(shown, caption=caption, results=self.file)

    def beside(self, scale: str) -> "AblationPage | None":
        """The same ablation at another scale, with the seeds that ``results`` has; None if it has
        none. Nothing is computed."""
        table = self.read(f"{scale}/{self.name}.csv")
        if scale == self.scale or table.empty:
            return None
        seeds = tuple(sorted(table["seed"].unique()))
        other = dataclasses.replace(self, scale=scale, seeds=seeds, given_config="")
        vars(other)["table"] = table  # where it would be kept once computed
        return other

    def show_photographs(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        """Show what came out on photographs: the tables, and how many of the claims held.

        Args:
            tables: Options of :meth:`show_table` by caption.
        """
        from IPython.display import Markdown, display

        other = self.beside("photos")
        if other is None:
            display(Markdown("Another scale is shown here already, or they were **not run**."))
            return
        seeds = f"{len(other.seeds)} seed{'s' * (len(other.seeds) > 1)}"
        for caption, options in tables.items():
            other.show_table(f"{caption}, on photographs, {seeds}", **options)
        other.show_verdict()

    def show_differences(self, pairs: Mapping[str, tuple[str, str]], caption: str) -> None:
        """Show by how much lines exceed others, seed by seed, on every set.

        Args:
            pairs: The variant that is more and the one that is less, by title.
            caption: What the table shows.
        """
        shown = differences(with_group_means(self.table, self.setting.groups), pairs)
        figures.table(shown, caption=self.said(caption), results=self.file)

    def show_verdict(self) -> None:
        """Show how many of the paper's claims on this ablation held, and which did not."""
        from IPython.display import Markdown, display

        judged = verdicts.table(self.columns)
        display(Markdown(verdicts.in_short(judged[judged["ablation"] == self.name])))

    def show_paper(self, number: int) -> None:
        """Show a table of the paper.

        Args:
            number: 3, with a line for each combination of levels, or 4, with one for each unit.
        """
        paper = self.paper(f"table{number}.csv").rename(columns=_PAPER)
        if number == 3:
            levels = paper[_LEVELS].astype(bool).to_numpy()
            paper["levels"] = [
                " + ".join(level for level, there in zip(_LEVELS, line, strict=True) if there)
                or words.PLAIN
                for line in levels
            ]
            paper = paper.drop(columns=_LEVELS).set_index("levels")
        else:
            paper = paper.set_index(["unit", "meta-points"])
        caption = f"Table {number} of the paper: mIoU in percent, CLIP ViT-B/16, CC3M, eight "
        caption += "benchmarks"
        if self.setting.name != "paper":
            caption += ". On other data and with another encoder: only the order compares"
        figures.table(
            pd.concat({"paper": paper}, axis=1),
            caption=f"{caption}.",
            results=f"paper/table{number}.csv",
        )

    def show_classes(self) -> None:
        """Show the IoU of every class, by variant, a table for each set."""
        chosen = self.table["metric"].str.startswith(CLASS_IOU) & (self.table["unit"] == "pixel")
        classes = self.table[chosen]
        classes = classes.assign(**{"class": classes["metric"].str.removeprefix(CLASS_IOU)})
        for dataset, rows in classes.groupby("dataset", sort=False):
            wide = rows.pivot_table(index="class", columns="variant", values="value", sort=False)
            wide = wide[self.pixel["variant"].unique()].round(1)
            figures.table(
                words.relabelled(wide, self.scale),
                caption=self.said(
                    f"{dataset}: IoU of each class in percent, pixel unit, mean over the seeds."
                ),
                results=self.file,
            )

    def show(self, figure: Any, caption: str, *, alt: str, name: str = "") -> None:
        """Show a figure of this ablation's numbers.

        Args:
            figure: A figure of matplotlib.
            caption: What the figure shows.
            alt: What is drawn, for those who do not see it.
            name: Label of the figure; empty: that of the ablation.
        """
        name = name or f"fig-{self.name.replace('_', '-')}"
        figures.show(figure, caption=self.said(caption), alt=alt, name=name, results=self.file)

    def show_claims(self) -> None:
        """Show whether the claims on this ablation hold, group by group of sets."""
        from IPython.display import Markdown, display

        display(Markdown(self.said(verdicts.sentences(self.name, self.columns))))

    def show_pictures(self, columns: Mapping[str, tuple[str, int | None]], caption: str) -> None:
        """Show what the variants make of the first images, those whose decoders are at hand.

        Args:
            columns: Variant and unit by title.
            caption: What the figure shows.
        """
        from IPython.display import Markdown, display

        first = self.seeds[0]
        try:
            models = models_at_hand(self.name, dict(columns), self.setting, first, self.work)
            if models:
                figures.show(
                    pictures(self.setting.sets()[0], models),
                    caption=self.said(caption),
                    alt="A grid. Columns: three images of the first evaluation set. Rows: the "
                    f"image, its true classes, and the prediction of {', '.join(models)}, in the "
                    "classes' colours.",
                    name=f"fig-{self.name.replace('_', '-')}-pictures",
                )
        except FileNotFoundError as error:
            display(Markdown(f"No pictures: {error}."))
            return
        absent = [title for title in columns if title not in models]
        if absent:
            display(
                Markdown(
                    f"Left out, because their decoders are not at hand: {', '.join(absent)}. To "
                    f"train them: `mgca experiment run {self.name} --scale "
                    f"{self.setting.name} --seeds {first} --fresh`."
                )
            )

    def show_runs(self) -> None:
        """Show the run behind each line of the table, and where its record is."""
        from IPython.display import Markdown, display

        runs = provenance_table(self.table, self.folders["out"], self.results)
        figures.table(
            words.relabelled(runs, self.scale),
            caption=self.said("The run behind each line: commit, device and seconds."),
            results=self.file,
        )
        display(
            Markdown(
                f"`results/{self.scale}/runs/<run>.json` holds a run's configuration, environment, "
                "digests of the data, and everything that was measured. A run that stands in "
                "several tables was computed once."
            )
        )


def open_ablation(
    name: str,
    scale: str,
    seeds: Any,
    *,
    data: str | os.PathLike | None = "",
    jobs: Any = None,
    project: str | os.PathLike | None = None,
    config: str | os.PathLike | None = "",
) -> AblationPage:
    """Open the notebook of an ablation, and compute what is missing of it, or all with ``FRESH=1``.

    Args:
        name: Name of the ablation.
        scale: Name of the scale.
        seeds: Numbers, as :func:`mgca.experiments.report.parameters.whole_numbers` reads them;
            None: 0, 1 and 2, the published ones.
        data: Folder of the real data sets; empty: as
            :attr:`mgca.experiments.report.page.Page.data` has it.
        jobs: Runs at a time; None: as :func:`mgca.experiments.runner.run_ablations` has it.
        project: Folder of the project; None: as
            :func:`mgca.experiments.report.page.find_project` finds it.
        config: File of the scale ``"paper"``; empty for the others.

    Raises:
        ValueError: For seeds that are no different whole numbers, or an unknown scale or ablation.
        FileNotFoundError: If runs are missing and so is the scale's data.
        mgca.experiments.runner.AblationError: If runs failed.
    """
    opened = open_page(
        name,
        scale,
        (0, 1, 2) if one(seeds) is None else seeds,
        data=data,
        project=project,
        config=config,
    )
    jobs = None if one(jobs) is None else int(jobs)
    page = AblationPage(**vars(opened), jobs=jobs)
    _ = page.table  # what cannot be computed is said here
    return page
