"""The page that says where every number of the book comes from: the files of results, and the runs
behind them."""

import csv
import io
import json
import zipfile
from html import escape
from pathlib import Path
from typing import Any

from publish import REPOSITORY, label

_SHOWN = ("commit", "data", "date", "device", "environment", "seconds", "seed", "threads")
_LONG = ("measured",)  # a run's own numbers, which the tables have
ARCHIVE = "results.zip"


def provenance(root: Path) -> str:
    """Every table below ``results``, with its runs, in Markdown: a section each, with a label."""
    results = root / "results"
    parts = []
    for scale in sorted(path.name for path in results.iterdir() if path.is_dir()):
        parts.append(f"## {scale}")
        runs = _runs(results / scale)
        of_run: dict[str, list[str]] = {}
        for path in sorted((results / scale).rglob("*.csv")):
            name = path.relative_to(results).as_posix()
            parts.append(_section(name, path, runs, of_run))
        if runs:
            parts.append(f"### Runs of {scale}\n\n{_run_table(runs, of_run)}")
    return "\n\n".join(parts) + "\n"


def archive(root: Path) -> bytes:
    """A ZIP file of ``results``; equal results give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for path in sorted((root / "results").rglob("*")):
            if path.suffix in (".csv", ".json", ".md"):
                entry = zipfile.ZipInfo(path.relative_to(root).as_posix())
                # An entry has its own, whatever the file is opened with.
                packed.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()


def _runs(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("runs/*.json"))
    }


def _section(
    name: str, path: Path, runs: dict[str, dict[str, Any]], of_run: dict[str, list[str]]
) -> str:
    """The section of one table; ``of_run`` collects which tables a run stands in."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns, rows = reader.fieldnames or (), list(reader)
    lines = [
        f"({label(name)})=",
        f"### {name.split('/', 1)[1]}",
        f"{{download}}`{name} <../results/{name}>`: {len(rows):,} rows of "
        + ", ".join(f"`{column}`" for column in columns)
        + ".",
    ]
    if name.startswith("paper/"):
        lines.append("Published figures, copied for comparison; none was measured by this project.")
    elif path.parent.name == "runs":
        run = path.stem[:12]
        lines.append(f"The curve of run {_link(run, runs)}.")
    elif rows:
        named = list(dict.fromkeys(row["run"] for row in rows))
        for run in named:
            of_run.setdefault(run, []).append(path.name)
        links = ", ".join(_link(run, runs) for run in named)
        count = "1 run" if len(named) == 1 else f"{len(named)} runs"
        # Folded where it is long.
        lines.append(
            f"From {count}: {links}."
            if len(named) <= 6
            else f"<details><summary>From {count}</summary><p>{links}</p></details>"
        )
    return "\n\n".join(lines)


def _link(run: str, runs: dict[str, dict[str, Any]]) -> str:
    if run not in runs:
        return f"<code>{escape(run)}</code> (no record)"
    return f'<a href="#run-{run}"><code>{run}</code></a>'


def _run_table(runs: dict[str, dict[str, Any]], of_run: dict[str, list[str]]) -> str:
    """The runs of a scale as an HTML table, what they share told once."""
    environments = list(dict.fromkeys(_environment(record) for record in runs.values()))
    data = list(dict.fromkeys(_data(record) for record in runs.values()))
    heads = (
        "run",
        "tables",
        "seed",
        "commit",
        "date (UTC)",
        "seconds",
        "environment",
        "data",
        "more",
    )
    rows = "\n".join(
        f'<tr id="run-{run}">'
        + "".join(
            f"<td>{cell}</td>"
            for cell in (
                f"<code>{run}</code>",
                escape(", ".join(of_run.get(run, ()))),
                record["seed"],
                _commit(record["commit"]),
                record["date"].replace("T", " ")[:16],
                f"{record['seconds']:.0f}",
                environments.index(_environment(record)) + 1,
                data.index(_data(record)) + 1,
                _more(record),
            )
        )
        + "</tr>"
        for run, record in runs.items()
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    # MyST reads up to the first empty line as HTML: there is none.
    return (
        f"<details><summary>{len(runs)} runs, by the hash of their configuration</summary>\n"
        '<div class="mgca-scroll"><table class="sortable mgca-runs">\n'
        f"<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody></table></div></details>\n\n"
        + f"Environments of {_ordered(environments)}\n\nData of {_ordered(data)}"
    )


def _ordered(texts: list[str]) -> str:
    items = "".join(f"<li>{text}</li>" for text in texts)
    return f"these runs:\n\n<ol>{items}</ol>"


def _environment(record: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in record["environment"].items())
    return escape(f"{record['device']}, {record['threads']} threads; {packages}")


def _data(record: dict[str, Any]) -> str:
    """The sets and the digests of their manifests."""
    sets = [f"{escape(name)} <code>{digest}</code>" for name, digest in record["data"].items()]
    return ", ".join(sets) or "none"


def _commit(commit: str) -> str:
    """A link to a commit; the mark of a changed tree stays beside it."""
    name, changed, _ = commit.partition("-modified")
    if not name.isalnum() or name == "unknown":
        return escape(commit)
    link = f'<a href="{REPOSITORY}/commit/{name}"><code>{name[:12]}</code></a>'
    return f"{link}, modified" if changed else link


def _more(record: dict[str, Any]) -> str:
    """Configuration, and what some kinds of runs record beside it, folded."""
    rest = {key: value for key, value in record.items() if key not in (*_SHOWN, *_LONG)}
    text = escape(json.dumps(rest, sort_keys=True, separators=(", ", ": ")), quote=False)
    return f"<details><summary>configuration</summary><code>{text}</code></details>"
