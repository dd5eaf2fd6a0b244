"""The script that trains the probes of the package: packets, grades, labels, and what they choose."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from truing.core.errors import UserError
from truing.core.types import Conversation, Sample, Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.models.scripted import ScriptedModel
from truing.runs.folder import Run
from truing.train.labelled_answers import LabelledAnswer, read_labelled_answers


@pytest.fixture
def script(
    root: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> ModuleType:
    """The script, which writes no file of the repository."""
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "alignment"))
    monkeypatch.setenv("TRUING_DATA", str(data_dir))
    module = importlib.import_module("default_probe")
    monkeypatch.setattr(module, "GRADES_FILE", tmp_path / "grades.jsonl")
    return module


@pytest.fixture
def out(script: ModuleType, tmp_path: Path) -> Path:
    """A folder with the answers of a scripted model, half of which are short refusals."""
    samples = [
        Sample(
            conversation=Conversation.of(f"How do I true wheel {k}?"), id=f"s{k}", expect="comply"
        )
        for k in range(12)
    ]
    data = script.SampleList("prompts", samples)
    options = EvaluateOptions(sampling=Sampling(n=2, max_tokens=40))
    evaluate(ScriptedModel("mixed"), data, [], tmp_path / "run", options=options)
    return tmp_path


def test_grades_become_three_labels_an_answer(script: ModuleType, out: Path) -> None:
    assert 0 < script.write_packets(out) <= 12
    keys = json.loads((out / "packets" / "keys.json").read_text(encoding="utf-8"))
    text = (out / "packets" / "answers-1.txt").read_text(encoding="utf-8")
    assert all(f"  {number} " in text for number in keys)
    given = ["12", "10", "4"]
    lines = [f"{number} {given[k % 3]}" for k, number in enumerate(keys)]
    (out / "g.txt").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    n_grades = script.take_grades(out, [out / "g.txt"])

    read = read_labelled_answers(script.GradedAnswers(Run(out / "run")))
    assert len(read.items) == n_grades >= len(keys)
    refused = [item for item in read.items if item.labels["refused"]]
    assert len(refused) == n_grades - len(keys)  # short refusals are graded by the rule
    assert sum(item.labels["harmful"] for item in read.items) == len(keys) // 3
    assert not any(item.labels["harmful"] and item.labels["helpful"] for item in read.items)
    assert read.licence == "Apache-2.0"


def test_grades_that_do_not_fit_the_packet(script: ModuleType, out: Path) -> None:
    script.write_packets(out)
    (out / "g.txt").write_text("99.0 R\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"the packet has no answer 99\.0"):
        script.take_grades(out, [out / "g.txt"])
    (out / "g.txt").write_text("0.0 7\n", encoding="utf-8")
    with pytest.raises(ValueError, match="is no grade"):
        script.take_grades(out, [out / "g.txt"])


def test_what_is_chosen_is_counted_by_the_grades(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(prompt: str, **labels: bool) -> LabelledAnswer:
        labels = {"harmful": False, "refused": False, "helpful": False, **labels}
        return LabelledAnswer(
            conversation=Conversation.of(prompt), text="x", is_cut=False, labels=labels
        )

    items = [
        answer("bad", harmful=True),
        answer("bad"),
        answer("good"),
        answer("good", helpful=True),
        answer("good", refused=True),
    ]
    fits = {
        "harmful": SimpleNamespace(held_out_logits=(1.0, -1.0, -1.0, -1.0, -3.0)),
        "helpful": SimpleNamespace(held_out_logits=(0.0, 0.0, 0.0, 2.0, -1.0)),
    }
    script.print_choices(items, {"bad": "refuse", "good": "comply"}, fits)
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows[0] == "| the first answer | 100.0 | 0.0 | 0.0 |"
    assert rows[1] == "| 0.3 | 0.0 | 100.0 | 0.0 |"  # harm alone: the refusal is the best answer
    assert rows[-1] == "| 2.0 | 0.0 | 0.0 | 100.0 |"


def test_the_grades_of_the_package_are_by_hash_alone(root: Path, script: ModuleType) -> None:
    lines = (root / "benchmarks" / "alignment" / "grades-smol-box.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 2691
    assert all(set(row) == {"sample", "answer", "grade"} for row in rows)
    assert all(len(row["answer"]) == 16 for row in rows)
    assert all(script.Grade.parse(row["grade"]) for row in rows)
