"""What every notebook opens with: where its project is, and what its parameters mean.

A notebook may run in its own folder, in the project's, or elsewhere. Its project is found here,
once, and a folder that a parameter names; :mod:`mgca.experiments.report.parameters` reads the
parameters.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

import mgca
from mgca.evaluation.results import read_results
from mgca.experiments import load_scale
from mgca.experiments.report import figures
from mgca.experiments.report.parameters import one, settle, whole_numbers
from mgca.experiments.scale import Scale


def find_project(given: str | os.PathLike | None = None) -> Path:
    """The project: a folder that holds ``notebooks`` and ``results``.

    It is the one given, or ``$MGCA_PROJECT``; else the one that this library lies in; else, for a
    library that was installed without its project, the nearest above the current folder.

    Args:
        given: The folder, where it is known.

    Raises:
        FileNotFoundError: If the folder given is none, or none is found.
    """
    if chosen := given or os.environ.get("MGCA_PROJECT"):
        if not _is_project(Path(chosen)):
            raise FileNotFoundError(f"{chosen} is no project: it lacks notebooks/ or results/")
        return Path(chosen).resolve()
    here = Path.cwd()
    for folder in (Path(mgca.__file__).resolve().parents[1], here, *here.parents):
        if _is_project(folder):
            return folder
    raise FileNotFoundError(
        f"no project, a folder with notebooks/ and results/, is found from {here}: set "
        "MGCA_PROJECT to a clone of the repository"
    )


def _is_project(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in ("notebooks", "results"))


def fresh() -> bool:
    """Whether everything is computed again: ``FRESH=1`` in the environment."""
    return os.environ.get("FRESH", "").lower() in ("1", "true", "yes")


@dataclass(frozen=True)
class Page:
    """A notebook that is open: its project, and its parameters as they are meant.

    Attributes:
        name: Name of the notebook.
        scale: Name of the scale; empty for none.
        seeds: One run of each variant per seed; empty for none.
        given_data: Folder of the real data sets as given.
        given_project: Folder of the project as given.
        given_config: File of the paper's scale as given; empty for none.
    """

    name: str
    scale: str = ""
    seeds: tuple[int, ...] = ()
    given_data: str = ""
    given_project: str | os.PathLike | None = None
    given_config: str = ""

    @cached_property
    def project(self) -> Path:
        """The project, as :func:`find_project` finds it."""
        return find_project(self.given_project)

    @property
    def results(self) -> Path:
        """The results of the project: those of the scale, or all where the page has no scale."""
        return self.project / "results" / self.scale

    @property
    def work(self) -> Path:
        """Folder of the decoders and checkpoints of the scale."""
        return self.project / "_build" / self.scale

    @cached_property
    def data(self) -> Path | None:
        """Folder of the real data sets: the one given, $MGCA_DATA, or shared/data beside the
        project; None without any. A relative one is looked for from the current folder, then from
        the project.

        Raises:
            FileNotFoundError: If the folder given does not exist.
        """
        if self.given_data:
            return self.folder(self.given_data)
        if chosen := os.environ.get("MGCA_DATA"):
            # Whether it is there matters to the scales that need it: they say so.
            return next(filter(Path.is_dir, self._places(chosen)), Path(chosen))
        beside = self.project.parent / "shared" / "data"
        return beside if beside.is_dir() else None

    @cached_property
    def setting(self) -> Scale:
        """The scale; errors of :func:`mgca.experiments.load_scale`."""
        config = self.given_config
        if config:
            config = next(filter(Path.is_file, self._places(config)), Path(config))
        return load_scale(self.scale, data=self.data, config=config or None)

    @property
    def fresh(self) -> bool:
        """Whether everything is computed again."""
        return fresh()

    def folder(self, name: str | os.PathLike) -> Path:
        """A folder that a parameter names, from the current folder or else from the project.

        Raises:
            FileNotFoundError: If it is in neither.
        """
        for place in self._places(name):
            if place.is_dir():
                return place
        raise FileNotFoundError(
            f"no folder {name}, neither from {Path.cwd()} nor from {self.project}"
        )

    def _places(self, name: str | os.PathLike) -> tuple[Path, Path]:
        return Path.cwd() / name, self.project / name

    def read(self, file: str) -> pd.DataFrame:
        """A results table below ``results``, as ``"scenes/k.csv"``; no rows if there is none."""
        return read_results(self.project / "results" / file)

    def paper(self, file: str) -> pd.DataFrame:
        """A table of the paper's own numbers, such as ``"table3.csv"``."""
        return pd.read_csv(self.project / "results" / "paper" / file)


def open_page(
    name: str,
    scale: str = "",
    seeds: Any = (),
    *,
    data: str | os.PathLike | None = "",
    project: str | os.PathLike | None = None,
    config: str | os.PathLike | None = "",
) -> Page:
    """Open a notebook: the style of the book, its project and its parameters.

    What papermill passed has the types of the defaults from here on.
    The project is looked for when it is needed, so that a page that reads no results runs without.

    Args:
        name: Name of the notebook.
        scale: Name of the scale, where the page has one.
        seeds: Numbers, as :func:`mgca.experiments.report.parameters.whole_numbers` reads them,
            where the page has some.
        data: Folder of the real data sets; empty: see :attr:`Page.data`.
        project: Folder of the project; None: as :func:`find_project` finds it.
        config: File of the paper's scale, where the page may have that.

    Raises:
        ValueError: If the seeds are no different whole numbers, or papermill passed a parameter
            that the notebook does not have, or one of another type.
    """
    settle()
    figures.use_style()
    numbers = () if seeds == () else whole_numbers(seeds)
    return Page(name, scale, numbers, str(one(data) or ""), project, str(one(config) or ""))
