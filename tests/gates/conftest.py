"""Fixtures of the gate's tests."""

from __future__ import annotations

import pytest
from tests.gates.gate_rules import JUDGE

from truing.analysis.card_files import write_card
from truing.analysis.judge_card import make_card


@pytest.fixture
def card_path(make_run, prompts, tmp_path):
    """The path of a card of the judge j."""
    rows = {
        "harmful@j": [[True]] * 50 + [[False]] * 50,
        "harmful@human:p": [[True]] * 48 + [[False]] * 52,
    }
    run = make_run("labelled", prompts(100), rows, lineages={"j": JUDGE})
    write_card(make_card(run, "j"), tmp_path / "card.json")
    return tmp_path / "card.json"
