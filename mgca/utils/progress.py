"""Progress of long work: a bar in a terminal or notebook, silence elsewhere."""

import logging
import sys

from tqdm import tqdm


def progress(**options) -> tqdm:
    """A tqdm bar that shows in terminals and notebooks only.

    It is quiet where standard error is not a terminal (logs, papermill, CI), and where the logger
    ``mgca`` lets no warning through.
    """
    quiet = not logging.getLogger("mgca").isEnabledFor(logging.WARNING)
    return tqdm(disable=quiet or not sys.stderr.isatty(), **options)
