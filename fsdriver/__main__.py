"""``python -m fsdriver``: the command, for places where the console script is not on the path."""

from __future__ import annotations

import sys

from fsdriver.cli import main

sys.exit(main())
