"""``python -m pandas_batch``: the command line, as ``pandas-batch``."""

from __future__ import annotations

import sys

from .shell import main

if __name__ == "__main__":
    sys.exit(main())
