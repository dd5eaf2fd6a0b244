"""`truing card`: the error rates of a judge against people's labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command_line import run_truing, truing

from truing.cli.card import format_interval
from truing.stats.intervals import Interval

pytestmark = pytest.mark.usefixtures("published_data")

COMPLETIONS = "xstest,part=completions"


def test_card_of_a_rule(tmp_path: Path) -> None:
    out = tmp_path / "card.json"
    printed = run_truing(f"card rules:refusal --data {COMPLETIONS} --limit 150 --json --out", out)
    card = json.loads(printed)
    assert card == json.loads(out.read_text())
    assert card["n"] == 150
    assert card["questions"]["refused"]["sensitivity"]["estimate"] > 0.5


def test_card_as_a_table(tmp_path: Path) -> None:
    out = tmp_path / "card.json"
    printed = run_truing(f"card rules:refusal --data {COMPLETIONS} --limit 150 --out", out)
    assert "on xstest" in printed
    assert "refused: kappa with people" in printed
    assert f"card: {out}" in printed


def test_a_set_without_answers_or_labels_is_an_error(tmp_path: Path) -> None:
    out = tmp_path / "card.json"
    assert truing("card rules:refusal --data xstest --out", out).status == 1
    result = truing(f"card rules:degenerate --data {COMPLETIONS} --limit 5 --out", out)
    assert result.status == 1
    assert "nobody labelled 'degenerate'" in result.err
    assert not out.exists()


def test_format_interval() -> None:
    assert format_interval(Interval(0.923, 0.881, 0.949, "")) == "0.92 [0.88, 0.95]"
    assert format_interval(None) == "–"


def test_a_calibration_is_stored_in_the_card(tmp_path: Path) -> None:
    out = tmp_path / "card.json"
    wrong = truing(f"card rules:refusal --data {COMPLETIONS} --calibrate plat --out", out)
    assert wrong.status == 1 and "did you mean 'platt'" in wrong.err
    both = truing(
        f"card rules:refusal --data {COMPLETIONS} --calibrate platt --against refused --out", out
    )
    assert both.status == 1 and "calibrate nothing" in both.err
    # Nothing is tuned on the frozen measurement set, which holds all of XSTest.
    frozen = truing(f"card rules:refusal --data {COMPLETIONS} --calibrate platt --out", out)
    assert frozen.status == 1 and "of the frozen measurement set" in frozen.err
