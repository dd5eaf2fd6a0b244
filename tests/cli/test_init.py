"""`truing init`: from a model to a plan, rules and a workflow that work as written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command_line import run_truing, truing

from truing.cli.init import describe_estimate
from truing.evaluation.cost_estimate import CostEstimate

JUDGES = "--judge rules:refusal --judge rules:degenerate"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_files_take_a_model_from_a_report_to_a_gate_that_passes() -> None:
    text = run_truing(f"init --model scripted:echo {JUDGES}")
    assert "86 calls to the model" in text
    run_truing("run plan.toml --out runs/ci")
    assert Path("runs/ci/report.html").is_file()
    result = truing("gate runs/ci/echo/safety gate.toml")
    assert result.status == 0, result.out
    assert "truing gate runs/ci/echo/safety gate.toml" in text


def test_prices_give_the_money() -> None:
    Path("prices.toml").write_text("[comply]\ninput = 0\noutput = 1000\n")
    content = json.loads(
        run_truing(f"init --model scripted:comply {JUDGES} --prices prices.toml --json")
    )
    assert content["estimate"]["money"] == pytest.approx(86 * 256 / 1000)
    assert content["files"] == ["plan.toml", "gate.toml", ".github/workflows/safety.yml"]


def test_existing_files_are_kept() -> None:
    Path("plan.toml").write_text("mine")
    result = truing(f"init --model scripted:comply {JUDGES}")
    assert (result.status, Path("plan.toml").read_text()) == (1, "mine")
    assert "plan.toml exists; --force overwrites it" in result.err
    assert not Path("gate.toml").exists()
    run_truing(f"init --model scripted:comply {JUDGES} --force")
    assert "scripted:comply" in Path("plan.toml").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("init", "give --model SPEC"),
        ("init --model gpt-4o", "openai:gpt-4o"),
        ("init --model scripted:fail", "does not answer"),
        ("init --model scripted:comply --data nothing:x", "no data of kind 'nothing'"),
        ("init --model scripted:comply --prices prices.toml", "prices.toml"),
    ],
)
def test_wrong_arguments_write_nothing(words: str, message: str) -> None:
    result = truing(f"{words} --judge rules:refusal")
    assert (result.status, message in result.err) == (1, True), result.err
    assert list(Path().iterdir()) == []


def test_a_model_that_is_down_gets_its_files_without_the_check() -> None:
    run_truing(f"init --model scripted:fail {JUDGES} --no-check")
    assert Path("plan.toml").is_file()


def test_an_estimate_in_words() -> None:
    estimate = CostEstimate(
        calls=1200, judge_calls=0, input_tokens=5, output_tokens=10, seconds=600, money=1.5
    )
    assert describe_estimate(estimate) == (
        "the plan needs about 1,200 calls to the model, 15 tokens (at most 10 of them answers), "
        "up to 10 min, 1.50 in the currency of the prices"
    )
