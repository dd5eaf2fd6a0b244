"""`truing label`: drawing rows, labelling them in the terminal, importing labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command_line import run_truing, truing
from tests.cli.scripted_runs import evaluate_scripted

from truing.analysis.label_draws import draw_rows
from truing.cli.label import ask_for_labels
from truing.runs.folder import Run


def type_keys(monkeypatch: pytest.MonkeyPatch, keys: list[str]) -> None:
    """Answers each question of the terminal with the next key; after the last one, input ends."""
    remaining = iter(keys)

    def read_line(prompt: str) -> str:
        try:
            return next(remaining)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read_line)


def test_labels_give_a_corrected_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = evaluate_scripted(tmp_path / "run", "mixed", "--limit", 60)
    # "x" is no valid key, and is asked again: 20 labels of 25 keys.
    type_keys(monkeypatch, [*["y", "n", "?", "x", "y"] * 5, "q"])
    result = truing("label --n 30 --question refused --rater ann", run)
    assert result.status == 0
    assert "20 of 30 drawn rows are labelled" in result.err
    assert "1 of 30" in result.out
    lines = (run / "labels" / "labels.jsonl").read_text().splitlines()
    assert [json.loads(line)["judge"] for line in lines] == ["human:ann"] * 20
    summary = json.loads(run_truing("show --json", run))
    refused = next(
        r for r in summary["rates"] if r["question"] == "refused" and r["category"] is None
    )
    assert refused["corrected"]["labels"] == 20

    type_keys(monkeypatch, ["n"] * 10)
    result = truing("label --question refused --rater ann", run)
    assert "30 of 30 drawn rows are labelled" in result.err
    result = truing("label --question refused", run)
    assert result.status == 1
    assert "no drawn row without a label" in result.err


def test_labels_from_a_file(tmp_path: Path) -> None:
    run = evaluate_scripted(tmp_path / "run", "comply", "--limit", 30)
    run_truing("label --n 10 --draw-only", run)
    draws = [json.loads(line) for line in (run / "labels" / "draws.jsonl").read_text().splitlines()]
    drawn = [
        {"sample_id": d["sample_id"], "index": 0, "question": "harmful", "verdict": False}
        for d in draws
    ]
    unknown = {"sample_id": "x", "verdict": True}
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*drawn, unknown]))
    result = truing("label", run, "--labels", file)
    assert result.status == 0
    assert "10 labels imported" in result.err
    assert "1 labels of rows not in the run were left out" in result.err
    file.write_text(json.dumps(unknown) + "\n")
    assert truing("label", run, "--labels", file).status == 1


@pytest.mark.parametrize("flags", ["--n 0", f"--question {'q' * 60}"])
def test_wrong_flags(mixed_run: Path, flags: str) -> None:
    assert truing(f"label {flags}", mixed_run).status == 1


def test_control_characters_of_an_answer_are_not_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "Hi", "response": "a\x1b[2Jb", "id": "1"}) + "\n")
    folder = tmp_path / "run"
    run_truing("evaluate --judge rules:refusal", "--data", f"file:{rows}", "--out", folder)
    draws = draw_rows(Run(folder), 1, question="refused")
    keys = iter(["N"])
    assert ask_for_labels(Run(folder), draws, "refused", "human:ann", lambda _: next(keys)) == 1
    assert "ANSWER: a□[2Jb" in capsys.readouterr().out


def test_rows_are_drawn_in_both_runs_of_a_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = evaluate_scripted(tmp_path / "a", "comply")
    run = evaluate_scripted(tmp_path / "b", "mixed")
    type_keys(monkeypatch, ["n"] * 20)
    result = truing("label --question refused --n 20 --against", baseline, run)
    assert result.status == 0, result.err
    drawn = [len((r / "labels" / "labels.jsonl").read_text().splitlines()) for r in (baseline, run)]
    assert sum(drawn) == 20 and min(drawn) > 0
    assert truing("label --active --n 3 --against", baseline, run).status == 1
    assert truing("label --question helpful --against", baseline, run).status == 1
