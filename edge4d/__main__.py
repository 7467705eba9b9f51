"""`python -m edge4d` is the command line."""

from __future__ import annotations

import sys

from edge4d.cli import main

if __name__ == "__main__":
    sys.exit(main())
