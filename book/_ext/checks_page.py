"""Parts of pages on what was verified, and on what all runs cost."""

import json
from pathlib import Path

from mgca.experiments.verify import as_page

# The rule that the page states.
WATTS_OF_A_CORE, WATTS_OF_A_GIB, OVERHEAD = 12, 0.3725, 1.67
CORES, MEMORY = 2, 23.5  # of the machine of the published runs


def verified(root: Path) -> str:
    """The published reports of ``mgca verify``, in Markdown."""
    paths = sorted((root / "results" / "verify").glob("*.json"))
    return as_page([json.loads(path.read_text(encoding="utf-8")) for path in paths])


def compute(root: Path) -> str:
    """Hours and energy of all published runs, a line for each scale, in Markdown."""
    lines = ["| results | runs | hours | kWh, estimated |", "|---|---|---|---|"]
    total = 0.0, 0
    for folder in sorted(path.parent for path in (root / "results").glob("*/runs")):
        records = [json.loads(path.read_text()) for path in folder.glob("runs/*.json")]
        hours = sum(record["seconds"] for record in records) / 3600
        total = total[0] + hours, total[1] + len(records)
        lines.append(f"| {folder.name} | {len(records)} | {hours:.2f} | {energy(hours):.2f} |")
    lines.append(f"| **all** | **{total[1]}** | **{total[0]:.2f}** | **{energy(total[0]):.2f}** |")
    return "\n".join(lines)


def energy(hours: float) -> float:
    """Kilowatt-hours of so many hours of the machine, by the rule that the page states."""
    return hours * (CORES * WATTS_OF_A_CORE + MEMORY * WATTS_OF_A_GIB) * OVERHEAD / 1000
