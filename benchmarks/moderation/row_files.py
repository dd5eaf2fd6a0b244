"""Rows of the free judge's training files: reading and making them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
RECIPES = Path(__file__).parent / "recipes"
OWN_EXCHANGES = RECIPES / "own_exchanges.jsonl"
OWN_TOPICS = RECIPES / "own_topics.jsonl"


def read_lines(path: Path) -> list[Row]:
    """Returns the objects of a JSONL file."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def make_row(
    kind: str,
    prompt: str,
    response: str | None,
    harmful: bool,
    *,
    expect: str | None = None,
    refused: bool | None = None,
    category: Iterable[str] = (),
) -> Row:
    """Returns a `file:` row; labels that are None are left out."""
    row: Row = {"prompt": prompt, "response": response, "harmful": harmful}
    if response is None:
        del row["response"]
    labels = {"expect": expect, "refused": refused, "category": list(category) or None}
    row |= {name: value for name, value in labels.items() if value is not None}
    content = json.dumps([kind, prompt, response]).encode()
    return {"id": f"{kind}-{hashlib.sha256(content).hexdigest()[:10]}", **row}
