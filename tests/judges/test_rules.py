"""`rules:NAME` specs."""

from __future__ import annotations

import pytest

from truing.core.errors import SpecError
from truing.judges.checks import CHECKS
from truing.judges.degenerate import DegenerateRule
from truing.judges.refusal import RefusalRule
from truing.specs.resolve import resolve


def test_each_rule_has_its_name_and_question() -> None:
    refusal, degenerate = (resolve(f"rules:{n}", "judge") for n in ("refusal", "degenerate"))
    assert isinstance(refusal, RefusalRule) and refusal.question == "refused"
    assert isinstance(degenerate, DegenerateRule) and degenerate.question == "degenerate"
    for name in CHECKS:
        judge = resolve(f"rules:{name}", "judge")
        assert judge.name == f"rules:{name}" and judge.lineage.data == ()


def test_cut_answers_are_degenerate_unless_told_otherwise() -> None:
    default, strict, lenient = (
        resolve(f"rules:degenerate{options}", "judge")
        for options in ("", ",cut=true", ",cut=false")
    )
    assert default.lineage.hash == strict.lineage.hash != lenient.lineage.hash


def test_unknown_rules_and_arguments() -> None:
    with pytest.raises(SpecError, match="no rule 'refusl'.*did you mean 'refusal'"):
        resolve("rules:refusl", "judge")
    with pytest.raises(SpecError, match="unknown argument 'cut'"):
        resolve("rules:refusal,cut=true", "judge")
