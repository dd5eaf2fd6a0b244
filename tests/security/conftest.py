"""The modules of `benchmarks/security`, which the tests run in small."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "security"))
