"""``mgca ablate``: the notebook of an ablation, with other parameters, executed and kept."""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgca.cli.declare import argument, flag, option
from mgca.cli.loading import RESULTS, AsJson, Config, echo_json, examples, seeds_of
from mgca.cli.verbosity import is_quiet, is_verbose, notice
from mgca.utils.files import write_text

if TYPE_CHECKING:
    from nbformat import NotebookNode

EXAMPLES = examples(
    "mgca ablate granularity",
    "mgca ablate areas k --scale photos --seeds 0 -p data=/data --out pages",
    "mgca ablate granularity --scale paper --config my.toml --dry-run",
)
PREFIX = "ablation_"
# As `make book` has it: the same sets and dictionaries in every run, deterministic products of
# matrices on a GPU, and the kernel of this environment.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "JUPYTER_PREFER_ENV_PATH": "1",
}


class NotebookFailed(ValueError):
    """A notebook did not run to its end with the parameters given."""


def notebooks() -> dict[str, Path]:
    """The notebooks of a clone by the name of their ablation; empty without a clone."""
    folder = Path(__file__).resolve().parents[2] / "notebooks"
    return {path.stem.removeprefix(PREFIX): path for path in sorted(folder.glob(f"{PREFIX}*.py"))}


def _names() -> list[str]:
    return list(notebooks())


def ablate(
    names: Annotated[
        list[str],
        argument(
            "ABLATION...",
            "granularity, areas, k, meta_points ...; several for one after the other.",
            autocompletion=_names,
        ),
    ],
    scale: Annotated[
        str,
        option(
            "NAME",
            "scenes, photos, or paper with --config.",
            autocompletion=lambda: ["scenes", "photos", "paper"],
        ),
    ] = "scenes",
    seeds: Annotated[str, option("NUMBERS", "One run of each variant per seed.")] = "0,1,2",
    config: Config = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            "-p",
            metavar="NAME=VALUE",
            help="Another parameter of the notebook, such as jobs=2 or data=/data; its value as "
            "JSON, or else as text.",
        ),
    ] = None,
    out: Annotated[
        Path, option("DIR", "Folder of the executed notebooks, ablation_<name>.ipynb.", RESULTS)
    ] = Path("_build/ablations"),
    fresh: Annotated[
        bool,
        flag(
            "--fresh", "Compute again what results/ of the clone holds: minutes to hours.", RESULTS
        ),
    ] = False,
    dry_run: Annotated[
        bool, flag("--dry-run", "Of the scale paper: say what it takes, and end.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the notebooks of ablations: tables, figures, and whether the paper's claims hold.

    What results/ of the clone holds is read, what it lacks is computed and kept in
    _build/experiments. An interrupted call goes on. `mgca experiment run` computes without
    notebooks.
    """
    known = notebooks()
    if not known:
        raise FileNotFoundError(
            "the notebooks are not part of the installed package: run this in a clone of the "
            "repository, installed with pip install --editable '.[book]'"
        )
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(f"no ablation {unknown[0]!r}, only {', '.join(known)}")
    given = _parameters(parameters or []) | {"scale": scale, "seeds": seeds_of(seeds)}
    if given.get("data"):
        given["data"] = os.path.abspath(given["data"])  # the notebook runs in a folder of its own
    if config is not None:
        given["config"] = os.path.abspath(config)
    if dry_run:
        show_plan(names, scale, config, given["seeds"], as_json)
        return
    _check_scale(scale, given.get("data"), config)
    prepared = {name: _prepared(known[name], given) for name in names}
    out.mkdir(parents=True, exist_ok=True)  # what cannot be written is not computed
    done = []
    for name, notebook in prepared.items():
        path = out / f"{PREFIX}{name}.ipynb"
        began = time.perf_counter()
        if not as_json:
            notice(f"{name} on {scale}, seeds {seeds}: {known[name].name}")
        failed = out / f"{PREFIX}{name}.failed.ipynb"
        write_text(path, _execute(notebook, given, known[name], fresh, failed))
        seconds = time.perf_counter() - began
        done.append({"ablation": name, "notebook": str(path), "seconds": round(seconds, 1)})
        if not as_json:
            notice(f"{path}, after {seconds:.0f} s")
    if as_json:
        echo_json({"scale": scale, "seeds": given["seeds"], "done": done})


def _parameters(given: list[str]) -> dict[str, Any]:
    """Values as JSON where they are, and else as text, by name."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"expected NAME=VALUE, such as jobs=2, not {text!r}")
        if name in ("scale", "seeds", "config"):
            raise typer.BadParameter(f"give --{name} instead of -p {name}=...")
        try:
            # A folder may have a number for a name.
            found[name] = value if name == "data" else json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def show_plan(
    names: list[str], scale: str, config: Path | None, seeds: list[int], as_json: bool
) -> None:
    """Print what tables of the paper's scale take.

    Raises:
        typer.BadParameter: For another scale.
    """
    from mgca.experiments import load_scale
    from mgca.experiments.paper import PaperScale
    from mgca.experiments.plan import make_plan

    chosen = load_scale(scale, config=config)
    if not isinstance(chosen, PaperScale):
        raise typer.BadParameter("--dry-run is for --scale paper: the others take minutes")
    plan = make_plan(names, chosen, seeds)
    if as_json:
        echo_json(plan.to_dict())
    else:
        typer.echo(plan)


def _check_scale(scale: str, data: str | None, config: Path | None) -> None:
    """Fail now and not in the kernel where there is no such scale, or no folder of that name."""
    from mgca.experiments import load_scale

    load_scale(scale, data=data or None, config=config)


def _prepared(source: Path, given: dict[str, Any]) -> "NotebookNode":
    """The notebook of a source, once it is known to have the parameters given.

    Raises:
        ImportError: Without the extra ``book``.
        typer.BadParameter: For a parameter that the notebook does not have.
    """
    try:
        import ipykernel  # noqa: F401, which papermill starts
        import jupytext
        import papermill
    except ImportError as error:
        raise ImportError(
            f'executing a notebook needs more packages ({error}): pip install "mgca[book]"'
        ) from error
    notebook = jupytext.read(source)
    known = papermill.inspect_notebook(notebook)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise typer.BadParameter(
            f"{source.name} has no parameter {unknown[0]!r}, only {', '.join(known)}"
        )
    return notebook


def _execute(
    notebook: "NotebookNode", given: dict[str, Any], source: Path, fresh: bool, failed: Path
) -> str:
    """The executed notebook, as text. It runs in the folder of its source.

    Args:
        notebook: The notebook.
        given: Values of its parameters by name.
        source: File that it was made of.
        fresh: Whether everything is computed again.
        failed: File in which a notebook is left that did not come to its end.

    Raises:
        NotebookFailed: If a cell fails, or the kernel dies.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.INFO if is_verbose() else logging.WARNING)
    try:
        with _environment(ENVIRONMENT | ({"FRESH": "1"} if fresh else {})):
            done = papermill.execute_notebook(
                notebook,
                failed,  # papermill writes it after every cell
                given,
                kernel_name="python3",
                cwd=str(source.parent),
                log_output=is_verbose(),
                progress_bar=not is_quiet() and sys.stderr.isatty(),
            )
    except papermill.PapermillExecutionError as error:
        raise NotebookFailed(
            f"{source.name}: {error.ename}: {error.evalue}; {failed} shows how far it came"
        ) from error
    except DeadKernelError as error:
        raise NotebookFailed(
            f"{source.name}: its kernel died, perhaps for lack of memory; {failed} shows how far "
            "it came"
        ) from error
    failed.unlink(missing_ok=True)
    return nbformat.writes(done)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for the time of a block: a kernel inherits them."""
    # The kernel runs in a folder of its own, where a relative path would mean another.
    paths = {name: os.environ.get(name) for name in ("MGCA_DATA", "MGCA_CACHE")}
    values = values | {name: os.path.abspath(path) for name, path in paths.items() if path}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
