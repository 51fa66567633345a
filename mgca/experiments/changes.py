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
    """Files of this code that git knows another way: changed since the last commit, or committed
    since the clone's ``origin``. None outside git."""
    for base in (["--merge-base", "origin/HEAD"], ["HEAD"]):
        words = ["git", "-C", str(PACKAGE), "diff", "--name-only", "--relative", *base]
        try:
            found = subprocess.run([*words, "--", *PARTS], capture_output=True, text=True)
        except OSError:
            return []
        if not found.returncode:
            return found.stdout.split()
    return []


def warn_of_changes(records: Iterable[dict[str, Any]]) -> None:
    """Say how many of the runs that are read lack what was changed in the code.

    Args:
        records: As :func:`mgca.evaluation.results.read_run` gives them. A run that keeps the digest
            of its code has the changes if this is the present one.
    """
    changed = changed_files()
    if not changed:
        return
    here = code_digest()
    commits = [record["commit"] for record in records if record.get("code") != here]
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
