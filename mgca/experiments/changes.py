"""Whether the code that trains is still that of the runs that are read."""

import hashlib
import logging
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]
#: Files and folders of the package that decide what a run learns.
PARTS = ("losses", "decoder.py", "units.py", "training")


def code_digest() -> str:
    """Digest of the code that decides what a run learns, to be kept in its record."""
    total = hashlib.sha256()
    for part in (PACKAGE / name for name in PARTS):
        for path in sorted(part.rglob("*.py")) if part.is_dir() else [part]:
            total.update(f"{path.relative_to(PACKAGE)}\n".encode() + path.read_bytes())
    return total.hexdigest()[:12]


def changed_files() -> list[str]:
    """Files of the code that trains that differ from what the clone's ``origin`` has.

    Without an ``origin`` those that differ from the last commit; none outside git.
    """
    for base in (["--merge-base", "origin/HEAD"], ["HEAD"]):
        words = ["git", "-C", str(PACKAGE), "diff", "--name-only", "--relative", *base]
        try:
            diff = subprocess.run([*words, "--", *PARTS], capture_output=True, text=True)
        except OSError:
            return []
        if not diff.returncode:
            return diff.stdout.split()
    return []


def warn_of_changes(records: Iterable[dict[str, Any]]) -> None:
    """Log a warning that says how many of the runs that are read lack changes in the code.

    Args:
        records: Records of the runs, as :func:`mgca.evaluation.results.read_run` gives them. A run
            that keeps the digest of its code has the changes if this is the present one.
    """
    changed = changed_files()
    if not changed:
        return
    digest = code_digest()
    commits = [record["commit"] for record in records if record.get("code") != digest]
    if commits:
        names = sorted({commit[:12] for commit in commits})
        several = len(commits) > 1
        log.warning(
            "%d run%s of commit %s, without the changes in %s; --fresh computes %s again",
            len(commits),
            "s are" if several else " is",
            ", ".join(names[:2]) + (" and others" if len(names) > 2 else ""),
            ", ".join(changed[:3]) + (" and others" if len(changed) > 3 else ""),
            "them" if several else "it",
        )
