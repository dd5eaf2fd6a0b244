"""`truing show`: the rates of a run and of a folder of runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from msgspec.structs import replace
from tests.cli.command_line import run_truing, truing
from tests.cli.scripted_runs import evaluate_scripted

from truing.analysis.summary import summarise
from truing.cli.show import _rate_cell
from truing.runs.folder import Run


def test_a_run_by_category(mixed_run: Path) -> None:
    printed = run_truing("show --category", mixed_run)
    assert "answers benign prompts" in printed
    assert "refusals" in printed
    assert "Animal abuse" in printed
    assert "Animal abuse" not in run_truing("show", mixed_run)
    assert f"next:\n  truing report {mixed_run} --out {mixed_run}-report" in printed


def test_json_of_one_run_is_its_summary_and_of_several_an_object(tmp_path: Path) -> None:
    first = evaluate_scripted(tmp_path / "runs" / "a", "comply", "--limit", 6)
    assert json.loads(run_truing("show --json", tmp_path / "runs"))["model"] == "scripted:comply"
    second = evaluate_scripted(tmp_path / "runs" / "b", "refuse", "--limit", 6)
    summaries = json.loads(run_truing("show --json", tmp_path / "runs"))
    assert set(summaries) == {str(first), str(second)}


def test_a_rate_selected_by_its_judge_is_struck(mixed_run: Path) -> None:
    rate = summarise(Run(mixed_run)).find("refused")
    assert rate is not None
    cell = _rate_cell(rate)
    assert _rate_cell(replace(rate, selected_by_judge=True)) == f"[strike]{cell}[/strike] struck"
    assert _rate_cell(None) == "–"


def test_no_run(tmp_path: Path) -> None:
    result = truing("show", tmp_path)
    assert result.status == 1
    assert "neither a run folder" in result.err


def test_a_run_that_is_not_complete_is_said_to_be(mixed_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"  # others read the shared one
    shutil.copytree(mixed_run, run)
    manifest = run / "manifest.json"
    assert "not complete" not in run_truing("show", run)
    content = json.loads(manifest.read_text("utf-8"))
    manifest.write_text(json.dumps({**content, "complete": False}), "utf-8")
    assert "not complete" in run_truing("show", run)
