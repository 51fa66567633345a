"""``mgca verify``: compute published numbers again, and compare."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mgca.cli.declare import argument, flag, option
from mgca.cli.loading import RESULTS, AsJson, echo_json, examples
from mgca.cli.verbosity import notice

# A run that has every unit: one decoder, three sets.
DEFAULT = "scenes/meta_points/all/0"
EXAMPLES = examples(
    "mgca verify",
    "mgca verify scenes/k fig-alpha",
    "mgca verify --sample 20 --seed 7",
    "mgca verify --all --jobs 2",
    "mgca verify --records",
)


def verify(
    names: Annotated[
        list[str] | None,
        argument("NAME...", "Tables, rows by their path, runs or figures.", show_default=DEFAULT),
    ] = None,
    everything: Annotated[
        bool, flag("--all", "Every row that is not a time: hours, and goes on.")
    ] = False,
    sample: Annotated[int, option("N", "So many rows, drawn at random.", min=0)] = 0,
    seed: Annotated[int, option("N", "Of the drawing.", min=0)] = 0,
    records: Annotated[
        bool, flag("--records", "Hold tables against records only; seconds.")
    ] = False,
    jobs: Annotated[int, option("N", "Runs at a time, in processes.", min=1)] = 1,
    threads: Annotated[int, option("N", "Of a run; published runs have one.", min=1)] = 1,
    tolerance: Annotated[
        float | None,
        option(
            "POINTS",
            "Of mIoU, allowed on another kind of machine.",
            min=0,
            show_default="what was measured",
        ),
    ] = None,
    data: Annotated[Path | None, option("DIR", "Photographs.", show_default="$MGCA_DATA")] = None,
    results: Annotated[Path, option("DIR", "The published results.")] = Path("results"),
    publish: Annotated[
        bool, flag("--publish", "Keep the report in results/verify.", RESULTS)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compute published numbers again from nothing, and compare them. Exit code 1 if they differ.

    Tables are first held against the records of their runs. An interrupted call goes on.
    """
    from mgca.experiments import verify as checks
    from mgca.experiments.recompute import recompute, work_folder
    from mgca.experiments.rows import published_rows, select
    from mgca.experiments.rows import sample as drawn
    from mgca.utils.files import write_text

    if everything and (names or sample):
        raise typer.BadParameter("--all is of every row: give no names and no --sample with it")
    problems = checks.inconsistencies(results)
    if problems:
        raise checks.Mismatch(
            f"tables and records disagree in {len(problems)} places: {'; '.join(problems[:5])}"
        )
    rows = published_rows(results)
    if not as_json:
        notice(f"tables and records agree: {len(rows):,} rows")
    if records:
        if as_json:
            echo_json({"rows": len(rows), "problems": problems})
        return
    project = results.resolve().parent
    chosen = rows
    if not everything and (names or not sample):
        chosen = select(rows, names or [DEFAULT], project)
    if sample:
        chosen = drawn(chosen, sample, seed)
    asked = "all" if everything else " ".join(names or [] if sample else names or [DEFAULT])
    asked = f"{asked} --sample {sample} --seed {seed}".strip() if sample else asked
    work = work_folder(project, threads)
    report = checks.verify(
        results,
        chosen,
        lambda ways: recompute(ways, work, data=data, jobs=jobs, cores=threads),
        asked=asked,
        cores=threads,
    )
    text = json.dumps(report, indent=1, sort_keys=True) + "\n"
    write_text(work / "report.json", text)
    write_text(work / "report.md", checks.as_page([report]))
    if publish:
        kind = f"{report['machine']['instructions'].lower()}-{threads}"
        write_text(results / "verify" / f"{'all' if everything else 'part'}-{kind}.json", text)
    spread = checks.measured_spread(results) if tolerance is None else tolerance
    if as_json:
        echo_json(report)
    else:
        notice(work / "report.md")
    said = checks.judge(report, spread)
    if not as_json:
        typer.echo(said)
        for reason, number in report["left_out"].items():
            typer.echo(f"not compared, {number:,} rows: {reason}")
