"""Attack specs."""

from __future__ import annotations

import pytest

from truing.core.errors import SpecError
from truing.specs.resolve import resolve


def test_chain_and_attacked_specs() -> None:
    assert resolve("chain:role-play+base64,seed=3", "attack").name == "role-play+base64"
    data = resolve("attacked:shuffle,tries=3,of=(builtin:safety,limit=4)", "data")
    assert data.info.spec.startswith("attacked:shuffle,tries=3")
    with pytest.raises(SpecError, match="did you mean 'role-play'"):
        resolve("chain:roleplay", "attack")
    with pytest.raises(SpecError, match="tries=0"):
        resolve("attacked:shuffle,tries=0,of=(builtin:safety)", "data")
    with pytest.raises(SpecError, match="by=\\(...\\) is missing"):
        resolve("pair,model=(scripted:echo)", "attack")


def test_budget_of_a_search_is_checked() -> None:
    with pytest.raises(SpecError, match="queries, turns: at least 1"):
        resolve("tap,queries=0,turns=0,model=(scripted:echo),by=(rules:refusal)", "attack")
