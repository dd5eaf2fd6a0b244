"""The arguments that every peer's script takes, and the rows."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any


def arguments(*extra: tuple[str, dict[str, Any]]) -> argparse.Namespace:
    """--data, --concurrency, --base-url, --out and a script's own."""
    p = argparse.ArgumentParser()
    for name, kind in (("data", str), ("concurrency", int), ("base-url", str), ("out", str)):
        p.add_argument(f"--{name}", type=kind, required=True)
    for flag, settings in extra:
        p.add_argument(flag, **settings)
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    return a


def prompts(a: argparse.Namespace) -> list[dict[str, str]]:
    """Rows of `id` and `prompt`."""
    return [json.loads(line) for line in Path(a.data).read_text().splitlines()]
