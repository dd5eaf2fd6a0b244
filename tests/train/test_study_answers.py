"""The sixth round of the study of levers: whole answers that readers grade."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from truing.core.types import Conversation, Sample


@pytest.fixture
def answers(root: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script of the round."""
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "alignment"))
    monkeypatch.setenv("TRUING_DATA", str(data_dir))
    return importlib.import_module("study_answers")


def graded(answers: ModuleType, cell_name: str, grades: dict[str, str]) -> Any:
    """Returns a prompt of a cell with graded answers."""
    cell = next(cell for cell in answers.CELLS if cell.name == cell_name)
    sample = Sample(conversation=Conversation.of("request"), id="s1")
    parsed = {text: answers.Grade.parse(grade) for text, grade in grades.items()}
    return answers.GradedPrompt(sample, cell, parsed)


@pytest.mark.parametrize(
    ("text", "declines", "harm", "use"),
    [("R", True, 1, 0), ("3", False, 3, 0), ("5", False, 5, 0), ("12", False, 1, 2)],
)
def test_a_grade_says_harm_and_use(
    answers: ModuleType, text: str, declines: bool, harm: int, use: int
) -> None:
    grade = answers.Grade.parse(text)
    assert (grade.declines, grade.harm, grade.use) == (declines, harm, use)
    assert grade.is_harmful == (harm >= 3)


@pytest.mark.parametrize("text", ["", "1", "13", "32", "6", "r", "RR"])
def test_what_is_no_grade_is_refused(answers: ModuleType, text: str) -> None:
    assert answers.Grade.parse("?") is None
    with pytest.raises(ValueError, match="is no grade"):
        answers.Grade.parse(text)


def test_a_harmless_answer_is_better_than_a_harmful_one_and_declining_is_the_last_resort(
    answers: ModuleType,
) -> None:
    prompt = graded(
        answers, "refuse-plain", {"bad": "4", "poor": "20", "no": "R", "fair": "12", "?": "?"}
    )
    assert list(answers.preference_pairs(prompt)) == [("harmless over harmful", "fair", "bad")]
    without = graded(answers, "refuse-plain", {"bad": "3", "no": "R"})
    assert list(answers.preference_pairs(without)) == [("refusal over harmful", "no", "bad")]
    all_bad = graded(answers, "refuse-plain", {"bad": "3", "worse": "5"})
    assert list(answers.preference_pairs(all_bad)) == []


def test_of_a_benign_request_an_answer_is_better_than_a_refusal(answers: ModuleType) -> None:
    prompt = graded(
        answers, "comply-role-play", {"no": "R", "fair": "12", "never": "R", "bad": "3"}
    )
    assert list(answers.preference_pairs(prompt)) == [
        ("answer over refusal", "fair", "no"),
        ("answer over refusal", "fair", "never"),
        ("harmless over harmful", "fair", "bad"),
    ]
    assert list(answers.preference_pairs(graded(answers, "comply-plain", {"no": "R"}))) == []


def test_the_second_mix_has_more_harmful_answers_a_refusal_over_one_and_fewer_benign_prompts(
    answers: ModuleType,
) -> None:
    second = answers.MIXES["better2"]
    prompt = graded(answers, "refuse-plain", {"a": "3", "b": "4", "c": "3", "no": "R", "ok": "11"})
    assert list(answers.preference_pairs(prompt, second)) == [
        ("harmless over harmful", "ok", "a"),
        ("harmless over harmful", "ok", "b"),
        ("harmless over harmful", "ok", "c"),
        ("refusal over harmful", "no", "c"),
    ]
    benign = [graded(answers, "comply-plain", {"no": "R", "ok": "11"}) for _ in range(60)]
    for number, one in enumerate(benign):
        one.sample = Sample(conversation=Conversation.of(f"request {number}"), id=str(number))
    kept = sum(1 for one in benign for _ in answers.preference_pairs(one, second))
    assert 12 <= kept <= 36


def test_imitation_leaves_harmful_answers_and_needless_refusals_out(answers: ModuleType) -> None:
    grades = {"bad": "3", "no": "R", "poor": "10", "fair": "12"}
    assert answers.imitated_answers(graded(answers, "comply-plain", grades)) == ["fair", "poor"]
    # In the order of the draws: as often as the base declines.
    assert answers.imitated_answers(graded(answers, "refuse-plain", grades)) == ["no", "poor"]


def test_each_request_stands_in_one_cell_and_what_ships_has_no_published_prompt(
    answers: ModuleType,
) -> None:
    written = {pair[side] for pair in answers.written_pairs() for side in ("harmful", "benign")}
    for target, cells in answers.COUNTS.items():
        samples = [s for cell in answers.CELLS for s in answers.cell_samples(target, cell)]
        assert len(samples) == sum(c.written + c.published for c in cells.values())
        requests = [answers.request_of(sample.prompt) for sample in samples]
        assert len(set(requests)) == len(requests)
        assert (set(requests) <= written) == (target == "smol")


def test_grades_are_read_by_number_and_the_last_one_counts(
    answers: ModuleType, tmp_path: Path
) -> None:
    study = answers.Study(tmp_path, "qwen")
    (tmp_path / "packets").mkdir()
    answers.keys_file(study).write_text(json.dumps([["s1", ["a", "b"]], ["s2", ["c"]]]))
    first, second = tmp_path / "1.txt", tmp_path / "2.txt"
    first.write_text("0.0 R\n0.1 20\n\n")
    second.write_text("1.0 3\n0.1 ?\n")
    assert answers.take_grades(study, [first, second]) == {"R": 1, "3": 1, "?": 1}
    rows = [json.loads(line) for line in answers.grades_file(study).read_text().splitlines()]
    assert rows[1] == {"id": "s1", "answer": "b", "grade": "?"}
    first.write_text("0.0 6\n")
    with pytest.raises(ValueError, match="'6' is no grade"):
        answers.take_grades(study, [first])
