"""Command-line arguments and prompts of the peers' scripts."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any


def parse_arguments(*extra: tuple[str, dict[str, Any]]) -> argparse.Namespace:
    """Parses --data, --concurrency, --base-url, --out and extra flags; makes the out folder."""
    parser = argparse.ArgumentParser()
    for name, kind in (("data", str), ("concurrency", int), ("base-url", str), ("out", str)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    for flag, settings in extra:
        parser.add_argument(flag, **settings)
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    return arguments


def read_prompts(arguments: argparse.Namespace) -> list[dict[str, str]]:
    """Returns the rows, with `id` and `prompt`."""
    return [json.loads(line) for line in Path(arguments.data).read_text().splitlines()]
