"""What earlier checks passed, and the hashes that a set brings along."""

import json
import logging
from pathlib import Path

from mgca.data.benchmarks.files import require_writable
from mgca.data.masks import DataError
from mgca.utils.files import write_text

log = logging.getLogger(__name__)

STAMPS = ".mgca-check.json"
MANIFEST = "MANIFEST.sha256"
_VERSION = 2  # of the rules of the check: what passed under others does not count


def read_manifest(file: Path) -> dict[str, str]:
    """SHA-256 by path relative to the manifest, as ``sha256sum`` writes them.

    Raises:
        DataError: If a line is not a hash and the path of a file below.
    """
    hashes = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        digest, _, name = line.partition(" ")
        name = name.lstrip(" *")
        inside = name and not Path(name).is_absolute() and ".." not in Path(name).parts
        if len(digest) != 64 or not inside:
            raise DataError(f"{file}, line {number}: not a hash and a path below")
        hashes[name] = digest.lower()
    return hashes


def stat_of(path: Path) -> list[int]:
    """Size and time of change: what tells whether a file was touched.

    Raises:
        OSError: If there is no such file.
    """
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


class Stamps:
    """What earlier checks passed, by benchmark; a damaged or foreign file counts as none."""

    def __init__(self, root: Path) -> None:
        self.path = root / STAMPS
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            valid = content.pop("version") == _VERSION
            self.content = {k: v for k, v in content.items() if valid and isinstance(v, dict)}
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            self.content = {}
        self.before = json.dumps(self.content)

    def section(self, name: str) -> dict[str, list]:
        """The stamps of one benchmark, to be changed in place."""
        return self.content.setdefault(name, {})

    def save(self) -> None:
        """Write them, if something changed; a root that cannot be written to is only logged."""
        text = json.dumps(self.content)
        if text == self.before:
            return
        try:
            require_writable(self.path.parent)
            write_text(self.path, json.dumps({"version": _VERSION, **self.content}))
        except OSError as error:
            log.warning("the next check will look at everything again: %s", error)
