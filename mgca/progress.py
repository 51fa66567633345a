"""Progress of long work: a bar in a terminal or notebook, silence elsewhere."""

import sys

from tqdm import tqdm


def progress(**options) -> tqdm:
    """A tqdm bar that is quiet where standard error is not a terminal (logs, papermill, CI)."""
    return tqdm(disable=not sys.stderr.isatty(), **options)
