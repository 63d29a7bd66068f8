"""`python -m edge`, and so `accelerate launch -m edge`: the command `edge`."""

from __future__ import annotations

import sys

from edge.cli import main

sys.exit(main())
