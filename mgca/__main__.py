"""``python -m mgca``: the command ``mgca``."""

import sys

from mgca.cli import main

sys.exit(main())
