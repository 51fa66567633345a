"""``mgca reproduce``: the paper's Tables 1 to 4, from shards, benchmarks and an encoder."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mgca.cli.declare import flag, option
from mgca.cli.loading import AsJson, echo_json, examples, seeds_of
from mgca.cli.verbosity import is_quiet, notice

EXAMPLES = examples(
    "mgca reproduce --example > my.toml",
    "mgca reproduce --config my.toml --dry-run",
    "mgca reproduce --config my.toml --tables 3 --seeds 0,1,2",
)


def reproduce(
    config: Annotated[
        Path | None, option("FILE", "TOML file that describes the scale.", show_default=False)
    ] = None,
    tables: Annotated[str, option("NUMBERS", "Tables of the paper, in this order.")] = "1,2,3,4",
    seeds: Annotated[str, option("NUMBERS", "One run of each line per seed.")] = "0",
    dry_run: Annotated[
        bool, flag("--dry-run", "Say what it takes and what is missing, and end.")
    ] = False,
    probe: Annotated[bool, typer.Option(help="Time some steps and images for the plan.")] = True,
    example: Annotated[bool, flag("--example", "Print a file to fill in, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fill the paper's Tables 1 to 4 beside its own numbers: train what is missing, and measure.

    The plan comes first. What is measured already is not measured again; an interrupted call goes
    on, and several at once share the runs.
    """
    if example:
        from importlib import resources

        typer.echo((resources.files("mgca.experiments") / "paper.toml").read_text("utf-8"))
        return
    if config is None:
        raise typer.BadParameter("give --config FILE; --example prints one to fill in")
    numbers = _numbers(tables)
    from mgca.experiments.paper import PaperScale
    from mgca.experiments.paper_file import read_paper_file
    from mgca.experiments.paper_tables import TABLES, write_tables
    from mgca.experiments.plan import make_plan
    from mgca.experiments.runner import AblationError, run_ablation
    from mgca.utils.files import write_text

    scale, chosen = PaperScale(read_paper_file(config)), seeds_of(seeds)
    ablations = list(dict.fromkeys(TABLES[number] for number in numbers))
    plan = make_plan(ablations, scale, chosen, probe=probe)
    if dry_run:
        if as_json:
            echo_json(plan.to_dict())
        else:
            typer.echo(plan)
        return
    if not as_json and not is_quiet():
        typer.echo(plan)
    if needed := [each for each in plan.missing if each.needed and plan.to_measure]:
        raise ValueError(
            "nothing is started: " + "; ".join(f"{each.what} ({each.command})" for each in needed)
        )
    # At the start rather than hours in: where results cannot be written, nothing is computed.
    write_text(scale.results / "plan.json", json.dumps(plan.to_dict(), indent=1) + "\n")
    found, failed, made = {}, [], {}
    for number in numbers:
        ablation = TABLES[number]
        try:
            if ablation not in found:
                found[ablation] = run_ablation(ablation, scale, chosen, **scale.places)
        except AblationError as error:  # the other tables go on
            failed.append(f"Table {number}: {error}")
            continue
        made |= write_tables(scale, [number], found)
        if not as_json:
            lost = [name for name in scale.datasets if name not in scale.present([name])]
            notice(f"Table {number}: {scale.results / f'table{number}.csv'}")
            typer.echo(made[number].to_string(index=False, na_rep="–"))
            if lost:
                typer.echo(f"not at hand, and empty: {', '.join(lost)}")
    if as_json:
        echo_json(
            {number: json.loads(table.to_json(orient="records")) for number, table in made.items()}
        )
    if failed:
        raise AblationError("\n".join(failed))


def _numbers(text: str) -> list[int]:
    numbers = [int(part) if part.strip().isdigit() else 0 for part in text.split(",")]
    if not all(1 <= number <= 4 for number in numbers) or len(set(numbers)) < len(numbers):
        raise typer.BadParameter(f"--tables are numbers from 1 to 4, such as 1,2, not {text!r}")
    return numbers
