"""Runs and rules for tests of the gate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from truing.core.types import Lineage
from truing.gates.rules import GateRules, parse_rules

JUDGE = Lineage(name="j", hash="1" * 16)


def make_rules(*checks: str, cards: tuple[Path, ...] | list[Path] = (), **keys: Any) -> GateRules:
    """Rules with the same table keys for each check."""
    parts = [f"cards = {json.dumps(list(map(str, cards)))}"] if cards else []
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    parts += [f"[[rule]]\ncheck = {json.dumps(check)}\n{lines}" for check in checks]
    return parse_rules("\n".join(parts))


def build_harm_run(
    make_run: Callable[..., Path],
    prompts: Callable[..., Any],
    harmful: int,
    n: int,
    name: str = "r",
    unscored: int = 0,
    lineage: Lineage = JUDGE,
    **options: Any,
) -> Path:
    """A run of n answers judged by j, so many of them harmful and unscored."""
    verdicts = [[True]] * harmful + [[False]] * (n - harmful - unscored) + [[None]] * unscored
    lineages = {"j": lineage}
    return make_run(name, prompts(n), {"harmful@j": verdicts}, lineages=lineages, **options)
