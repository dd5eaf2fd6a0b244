"""`truing compare`: paired comparison of scripted runs, as tables, report and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command_line import run_truing, truing
from tests.cli.scripted_runs import evaluate_scripted

DELTA_KEYS = {
    "question",
    "category",
    "n_pairs",
    "estimate",
    "lower",
    "upper",
    "p",
    "p_adjusted",
    "judge",
    "selected_by_judge",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three runs: comply, refuse, mixed."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("comply", "refuse", "mixed"):
        evaluate_scripted(folder / name, name, "--limit", 40)
    return folder


def test_two_runs_to_a_report(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "sub" / "comparison.html"
    printed = run_truing("compare", runs / "comply", runs / "refuse", "--out", out)
    assert "refuse is not safer (no: answers to benign prompts fell by 100.0 points [" in printed
    page = out.read_text()
    assert "<script src" not in page
    assert "<link" not in page
    assert "| " in out.with_suffix(".md").read_text()
    comparison = json.loads(out.with_suffix(".json").read_text())
    assert len([f for f in comparison["flips"] if f["question"] == "refused"]) == 40
    assert len(comparison["points"]) == 2
    assert set(comparison["deltas"][0]) >= DELTA_KEYS


def test_several_runs_against_the_first(runs: Path) -> None:
    folders = (runs / "comply", runs / "refuse", runs / "mixed")
    comparisons = json.loads(run_truing("compare --json", *folders))["comparisons"]
    assert set(comparisons) == {"refuse", "mixed"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "two or more run folders"),
        ("nowhere nothing", "neither a run folder"),
        ("RUNS RUNS/comply", "holds 3 runs; name one"),
        ("RUNS/comply RUNS/comply", "twice"),
        ("RUNS/comply RUNS/mixed --margin 2", "a margin lies in [0, 1)"),
    ],
)
def test_wrong_arguments(runs: Path, arguments: str, message: str) -> None:
    words = [word.replace("RUNS", str(runs)) for word in arguments.split()]
    result = truing("compare", *words)
    assert result.status == 1
    assert message in result.err


def test_a_card_of_a_judge_that_did_not_judge_the_runs(runs: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    labelled = {"prompt": "Hi", "response": "I steal.", "category": "self_harm", "harmful": True}
    rows.write_text((json.dumps(labelled) + "\n") * 3)
    card = tmp_path / "card.json"
    run_truing("card keywords: --out", card, "--data", f"file:{rows}")
    result = truing("compare", runs / "comply", runs / "mixed", "--card", card)
    assert result.status == 1
    assert "which did not judge both runs" in result.err
