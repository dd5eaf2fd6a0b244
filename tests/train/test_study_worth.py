"""The eighth round of the study of levers: best of 8 by what an answer is worth."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tests.train.test_study_answer_heads import synthetic

from truing.core.errors import UserError
from truing.core.types import Answer, Conversation, Lineage, Sample, Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.runs.folder import Run


def test_use_counts_for_an_answer_and_harm_and_refusal_against_it(load: Any) -> None:
    worth: ModuleType = load("study_worth")
    logits = worth.Logits(np.array([-2.0, 1.0]), np.array([3.0, -4.0]), np.array([0.5, 2.0]))
    assert logits.worth(1.0, 0.0).tolist() == [2.5, 1.0]
    assert logits.worth(0.0, 0.5).tolist() == pytest.approx([0.5, 1.0])


def test_heads_that_did_not_see_a_prompt_choose_for_it(
    load: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    worth, heads = load("study_worth"), load("study_answer_heads")
    graded = synthetic(heads)
    one = worth.outcome(graded, None)
    # One answer in four of a harmful request is harmful, one in four declines, the others are useful.
    assert one.harmful == (0.25, 0.25) and one.declined == (0.25, 0.25)
    chosen = worth.outcome(graded, [worth.cross_validated(graded, 0).worth(0.3, 0.1)])
    assert chosen.harmful == (0.0, 0.0) and chosen.passes(one) and not one.passes(one)
    assert min(chosen.useful) > max(one.useful)

    worth.print_fit(graded)
    lines = capsys.readouterr().out.splitlines()
    name, _, area = lines[0].rpartition(": ")
    assert name == "harmful above harmless" and float(area) == pytest.approx(1.0, abs=0.02)
    n_weights = len(worth.USE_WEIGHTS) * len(worth.REFUSAL_WEIGHTS)
    assert len([line for line in lines if line.startswith("| ")]) == n_weights + 2
    assert lines[-1].startswith("by the rule: (")


@pytest.mark.parametrize(
    ("harmful", "declined", "passes"),
    [
        ((0.06, 0.08), (0.2, 0.1), True),
        ((0.06, 0.081), (0.2, 0.1), False),
        ((0.01, 0.01), (0.21, 0.0), False),
    ],
)
def test_the_rule_asks_for_both_forms(
    load: Any, harmful: tuple[float, float], declined: tuple[float, float], passes: bool
) -> None:
    worth: ModuleType = load("study_worth")
    one = worth.Outcome((0.09, 0.12), (0.2, 0.1), (0.5, 0.5))
    assert worth.Outcome(harmful, declined, (0.0, 0.0)).passes(one) == passes


def test_the_base_is_the_first_answer_and_the_lever_the_one_that_is_worth_most(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worth, heads = load("study_worth"), load("study_answer_heads")
    study = load("study").Study(tmp_path, "qwen")
    data = load("common").SampleList(
        "two", [Sample(conversation=Conversation.of(f"p{k}"), id=f"s{k}") for k in range(2)]
    )

    class Drawing:
        """A model whose second answer is empty."""

        name = "drawing"
        lineage = Lineage(name="drawing")

        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            """Returns eight answers, the second of them empty."""
            return tuple(Answer.of("" if k == 1 else f"a{k}") for k in range(8))

    options = EvaluateOptions(sampling=Sampling(n=8))
    evaluate(Drawing(), data, [], worth.candidate_folder(study, "harm"), options=options)
    graded = synthetic(heads)
    # Harm lies in the first direction: the second answer would be the best, and is empty.
    states = np.zeros((16, graded.features.shape[1]))
    states[:, 0] = np.tile([4.0, -9.0, 3.0, 2.0, 0.0, 1.0, 3.0, 2.0], 2)
    monkeypatch.setattr(worth, "stored_states", lambda *arguments: states)
    monkeypatch.setattr(worth, "read_prompts", lambda name: data)
    monkeypatch.setattr(worth, "JUDGES", ())
    worth.write_chosen(study, "harm", load("study").Request(), graded)
    for lever, text in (("base", "a0"), ("best-8b", "a4")):
        run = Run(study.run_folder(lever, "harm"))
        assert [response.text for response in run.responses()] == [text, text]
    # A base whose answers were drawn otherwise is refused: it would not be the first of these.
    evaluate(Drawing(), data, [], study.run_folder("base", "harm-2"))
    shutil.copytree(worth.candidate_folder(study, "harm"), worth.candidate_folder(study, "harm-2"))
    with pytest.raises(UserError, match="base of harm-2"):
        worth.write_chosen(study, "harm-2", load("study").Request(), graded)
    with pytest.raises(UserError, match="2 prompts have candidates, 1 are asked for"):
        worth.write_chosen(study, "harm", load("study").Request(limit=1), graded)


def test_a_pair_is_of_the_most_and_the_least_worthy_answer_and_close_ones_are_left_out(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worth, heads, answers = load("study_worth"), load("study_answer_heads"), load("study_answers")
    graded = synthetic(heads, prompts=4)
    cell = next(cell for cell in answers.CELLS if cell.name == "refuse-plain")
    prompts = [
        answers.GradedPrompt(
            Sample(conversation=Conversation.of(f"p{k}"), id=f"s{k}"),
            cell,
            {f"{k} a{j}": answers.Grade() for j in range(4)},
        )
        for k in range(4)
    ]
    prompts[0].cut.add("0 a2")
    worths = np.array(
        [[0.0, 1.0, 5.0, -1.0], [0.0, 0.1, 0.2, 0.3], [2.0, 0.0, 1.0, 0.5], [9, 0, 0, 0]]
    )
    monkeypatch.setattr(worth, "GROUPS", ("first",))
    monkeypatch.setattr(worth, "graded_prompts", lambda study, draws: prompts)
    flat = worth.Logits(-worths.ravel(), np.zeros(16), np.zeros(16))
    monkeypatch.setattr(worth, "logits_of", lambda *arguments: flat)
    (tmp_path / "data").mkdir()
    assert worth.write_pairs(load("study").Study(tmp_path, "qwen"), graded) == 3
    lines = (tmp_path / "data" / "worth-pairs-qwen.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(r["chosen"], r["rejected"], r["cut"]) for r in rows] == [
        ("0 a2", "0 a3", True),
        ("2 a0", "2 a1", False),
        ("3 a0", "3 a1", False),
    ]

    # SFT imitates the answer that is worth most of those that no reader calls harmful.
    harmful = np.zeros(16, dtype=bool)
    harmful[[2, 12, 13, 14, 15]] = True
    graded = replace(graded, is_harmful=harmful)
    assert worth.write_targets(load("study").Study(tmp_path, "qwen"), graded, use=1.3) == 3
    lines = (tmp_path / "data" / "worth-targets-qwen.jsonl").read_text().splitlines()
    assert [json.loads(line)["completion"] for line in lines] == ["0 a1", "1 a3", "2 a0"]


def test_the_heads_as_one_layer_give_the_same_logits(load: Any, tmp_path: Path) -> None:
    worth, heads = load("study_worth"), load("study_answer_heads")
    graded = synthetic(heads)
    everything = np.ones(len(graded.prompt), dtype=bool)
    logits = worth.logits_of(graded, everything, graded.features)
    (tmp_path / "data").mkdir()
    stored = json.loads(
        worth.write_heads(load("study").Study(tmp_path, "qwen"), graded).read_text()
    )
    assert stored["layer"] == heads.LAYER
    for name, expected in (
        ("harm", logits.harm),
        ("refusal", logits.refusal),
        ("use", logits.use),
    ):
        head = stored[name]
        found = graded.features @ np.array(head["weights"]) + head["bias"]
        assert found == pytest.approx(expected, abs=1e-3)


def test_use_is_compared_on_what_both_have_answered(
    load: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    worth: ModuleType = load("study_worth")
    grades = {"base": ["R", "10", "12", "11"], "best-8b": ["11", "22", "12", "3"]}
    lines = [
        json.dumps({"lever": lever, "request": f"r{k // 2}", "set": f"f{k % 2}", "grade": grade})
        for lever, of_lever in grades.items()
        for k, grade in enumerate(of_lever)
    ]
    lines.append(json.dumps({"lever": "base", "request": "r9", "set": "f0", "grade": "12"}))
    worth.print_use(lines)
    # The first request gains both forms, the second loses one: (1 - 1/2) / 2.
    said = capsys.readouterr().out
    assert said.startswith("useful: base 2, best-8b 3 of 4; +25 [")
    # The requests differ by +2 and -1. Whatever their signs, the sum is 1 or more: two-sided p is 1.
    assert "p that it rises 0.5" in said and "by Holm over 5 1.000" in said
