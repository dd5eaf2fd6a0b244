"""Cards as files: written by `truing card`, and those that ship with a classifier."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.gates.gate_rules import make_rules

from truing.analysis.card_files import read_card
from truing.core.errors import DataError
from truing.core.types import Lineage
from truing.gates.gate import gate_run
from truing.judges.shipped_classifiers import find_shipped_folder

RESEARCH = find_shipped_folder("research")
assert RESEARCH is not None
SHIPPED = RESEARCH / "card.json"


def test_a_shipped_card_is_read_like_any_other() -> None:
    card = read_card(SHIPPED)
    harmful = card.questions["harmful"]
    assert card.judge == "moderation:research"
    assert harmful.n_positive < harmful.n == 695
    assert harmful.sensitivity is not None and 0.8 < harmful.sensitivity.estimate < 0.95
    assert card.kappa == harmful.kappa


def test_what_is_no_card_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text('{"judge": "j"}')
    with pytest.raises(DataError, match=r"card\.json: no judge's card"):
        read_card(path)


def test_a_gate_finds_the_card_that_ships_with_a_judge(make_run, prompts, tmp_path: Path) -> None:
    card = read_card(SHIPPED)
    name = card.judge
    lineages = {name: Lineage(name=name, hash=card.judge_hash)}
    verdicts = {f"harmful@{name}": [[False]] * 300}
    run = make_run("r", prompts(300), verdicts, lineages=lineages)
    (outcome,) = gate_run(run, make_rules("harm.upper < 0.05")).outcomes
    assert outcome.status == "passed", outcome.reason
    assert "errors that its card leaves open" in outcome.reason
    # Given as a file, it is the same card.
    given = tmp_path / "given.json"
    shutil.copy(SHIPPED, given)
    assert gate_run(run, make_rules("harm.upper < 0.05", cards=[given])).exit == 0
