"""`truing report`: a report on runs that are on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command_line import run_truing, truing

from truing.cli.report import group_runs
from truing.core.errors import RunError


@pytest.fixture(scope="module")
def plan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    run_truing(
        "run --model scripted:comply --model scripted:refuse --judge rules:refusal --limit 20 --out",
        folder,
    )
    return folder


def test_the_runs_of_a_plan_make_the_same_report(plan_folder: Path, tmp_path: Path) -> None:
    paths = json.loads(run_truing("report --json --out", tmp_path, plan_folder))
    again = json.loads(Path(paths["json"]).read_text(encoding="utf-8"))
    original = json.loads((plan_folder / "report.json").read_text(encoding="utf-8"))
    assert again["comparisons"] == original["comparisons"]
    assert again["claims"] == original["claims"]


def test_single_runs_are_compared_with_the_first(plan_folder: Path, tmp_path: Path) -> None:
    runs = (plan_folder / "refuse" / "safety", plan_folder / "comply" / "safety")
    run_truing("report --out", tmp_path, *runs)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["baseline"] == "refuse/safety"
    assert list(report["comparisons"]) == ["comply/safety"]


def test_a_baseline_is_chosen_by_name(plan_folder: Path, tmp_path: Path) -> None:
    run_truing("report --baseline refuse --out", tmp_path, plan_folder)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["baseline"] == "refuse"


def test_runs_of_one_name_are_not_mixed(plan_folder: Path) -> None:
    with pytest.raises(RunError, match="same names"):
        group_runs((plan_folder, plan_folder))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("report", "at least one run folder"),
        ("report nowhere", "neither a run folder"),
        ("report {runs} --baseline comlpy", "did you mean 'comply'"),
        ("report {runs} --margin 2", "a margin lies in [0, 1)"),
        ("report {runs} --max-harm 0", "above 0 and below 1"),
    ],
)
def test_wrong_arguments_write_no_report(
    words: str, message: str, plan_folder: Path, tmp_path: Path
) -> None:
    result = truing(words.format(runs=plan_folder) + " --out", tmp_path)
    assert (result.status, message in result.err) == (1, True)
    assert list(tmp_path.iterdir()) == []
