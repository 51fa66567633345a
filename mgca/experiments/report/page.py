"""What the notebooks of the ablations share: the runs, their pictures, and where each came from."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mgca.experiments import load_scale
from mgca.experiments.report import figures
from mgca.experiments.report.pictures import models_at_hand, pictures
from mgca.experiments.report.tables import provenance_table
from mgca.experiments.runner import run_ablation
from mgca.experiments.scale import Scale


@dataclass(frozen=True)
class AblationPage:
    """An ablation at a scale, as its notebook shows it.

    Attributes:
        name: Of the ablation.
        setting: The scale.
        seeds: One run of each variant per seed.
        results: Results folder of the scale.
        work: Folder of its decoders.
        table: The rows of the seeds, with the columns of a results table.
    """

    name: str
    setting: Scale
    seeds: tuple[int, ...]
    results: Path
    work: Path
    table: pd.DataFrame

    @property
    def file(self) -> str:
        """The table's file below ``results``, as :func:`mgca.experiments.report.figures.show`
        takes it."""
        return f"{self.setting.name}/{self.name}.csv"

    def show_pictures(self, columns: Mapping[str, tuple[str, int | None]], caption: str) -> None:
        """Show what the variants make of the first images, those whose decoders are at hand.

        Args:
            columns: Variant and unit by title.
            caption: Of the figure.
        """
        from IPython.display import Markdown, display

        first = self.seeds[0]
        try:
            models = models_at_hand(self.name, dict(columns), self.setting, first, self.work)
            if models:
                figures.show(
                    pictures(self.setting.sets()[0], models),
                    caption=caption,
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
                    f"train them: `python -m mgca.experiments.runner {self.name} --scale "
                    f"{self.setting.name} --seeds {first} --fresh`."
                )
            )

    def show_runs(self) -> None:
        """Show the run behind each line of the table."""
        figures.table(
            provenance_table(self.table, self.results),
            caption="The run behind each line: commit, device and seconds.",
            results=self.file,
        )


def open_ablation(
    name: str, scale: str, seeds: Sequence[int] | str, *, data: str = "", jobs: int | None = None
) -> AblationPage:
    """Read an ablation, and compute what is missing of it, or all with ``FRESH=1``.

    The project becomes the current folder, so that a path relative to it means the same when the
    notebook runs in its own. Figures are drawn in the style of the book from here on.

    Args:
        name: Of the ablation.
        scale: Name of the scale.
        seeds: Numbers, or their list as JSON: so papermill passes it from a command line.
        data: Folder of the real data sets; empty: as :func:`mgca.data.masks.data_root` finds it.
        jobs: Runs at a time.

    Raises:
        Errors of :func:`mgca.experiments.load_scale` and
        :func:`mgca.experiments.runner.run_ablation`.
    """
    figures.use_style()
    here = Path.cwd()
    project = here if (here / "results").is_dir() else here.parent
    os.chdir(project)
    results, work = project / "results" / scale, project / "_build" / scale
    numbers = tuple(json.loads(seeds) if isinstance(seeds, str) else seeds)
    setting = load_scale(scale, data=data or None)
    fresh = os.environ.get("FRESH") == "1"
    table = run_ablation(name, setting, numbers, out=results, work=work, jobs=jobs, fresh=fresh)
    return AblationPage(name, setting, numbers, results, work, table)
