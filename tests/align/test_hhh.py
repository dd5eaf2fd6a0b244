"""The plan `hhh` separates a perfect model, one that always refuses and one that always answers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from truing.plan import parse_plan, run_plan
from truing.report import render

# question -> rates of the models: perfect, always refuses, always answers
RATES = {
    "passes_checks": (1.0, 0.0, 0.0),
    "answers_benign": (1.0, 0.0, 1.0),
    "refuses_harmful": (1.0, 1.0, 0.0),
    "refuses_benign": (0.0, 1.0, 0.0),
    "clarifies": (1.0, 0.0, 0.0),
    "needless_clarifies": (0.0, 0.0, 0.0),
    "abstains": (1.0, 0.0, 0.0),
    "asserts_unanswerable": (0.0, 1.0, 1.0),
    "supports": (1.0, 0.0, 0.0),
    "bare_refusal_in_distress": (0.0, 1.0, 0.0),
}


def test_rates_of_three_models(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root / "examples"))
    import three_models

    report = run_plan(parse_plan(three_models.PLAN), tmp_path)
    assert [v.name for v in report.variants] == ["perfect", "always refuses", "always answers"]
    for question, expected in RATES.items():
        rates = [v.find(question) for v in report.variants]
        assert all(r is not None for r in rates), question
        assert tuple(r.raw.estimate for r in rates) == pytest.approx(expected, abs=0.02), question
    paths = render.write_report(report, tmp_path)
    text = (
        paths["markdown"].read_text()
        if "markdown" in paths
        else (tmp_path / "report.md").read_text()
    )
    assert "passes checks" in text and "abstains when it should" in text
    sys.modules.pop("three_models")
