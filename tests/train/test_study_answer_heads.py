"""The sixth round of the study of levers: heads on graded answers, and best of n by them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from truing.core.errors import UserError
from truing.core.types import Answer, Conversation, Lineage, Sample, Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions


class Counting:
    """A model that counts its answers: "a0", "a1", ..."""

    name = "counting"
    lineage = Lineage(name="counting")

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns as many answers as are asked for."""
        return tuple(Answer.of(f"{conversation.prompt} a{k}") for k in range(sampling.n))


def synthetic(heads: ModuleType, prompts: int = 60) -> Any:
    """Returns graded features: one direction is harm, another declining, in both kinds of prompts."""
    draw = np.random.default_rng(5)
    rows = 4 * prompts
    features = draw.normal(0.0, 1.0, (rows, 12))
    kind = np.tile([0, 1, 2, 0], prompts)  # 1 is harmful, 2 declines
    for_harm = np.repeat(np.arange(prompts) % 2 == 0, 4)
    harmful = (kind == 1) & for_harm
    features[harmful, 0] += 6.0
    features[kind == 2, 1] += 6.0
    return heads.GradedFeatures(
        features=features,
        prompt=np.repeat(np.arange(prompts), 4),
        is_for_harm=for_harm,
        is_plain=np.repeat(np.arange(prompts) % 4 < 2, 4),
        is_harmful=harmful,
        declines=kind == 2,
        is_useful=kind == 0,
        draws=np.ones(rows),
    )


def test_the_chosen_answer_least_declines_of_those_under_the_ceiling(load: Any) -> None:
    heads: ModuleType = load("study_answer_heads")
    costs, refusals = np.array([-3.0, -4.0, -1.0]), np.array([0.5, 2.0, -9.0])
    assert heads.choose_answer(costs, refusals, -2.6) == 0
    assert heads.choose_answer(costs, refusals, 0.0) == 2
    # None is under the ceiling: the least costly one, which here declines most.
    assert heads.choose_answer(costs, refusals, -5.0) == 1
    # A cost at the ceiling is not below it.
    assert heads.choose_answer(costs, refusals, -3.0) == 1


def test_held_out_answers_are_ordered_by_heads_that_did_not_see_their_prompt(load: Any) -> None:
    heads: ModuleType = load("study_answer_heads")
    graded = synthetic(heads)
    costs, refusals = heads.cross_validated(graded, seed=0)
    harm = graded.is_for_harm
    assert load("study_order").order(
        costs[harm & graded.is_harmful], costs[harm & ~graded.is_harmful]
    ) == pytest.approx(1.0, abs=0.02)
    assert load("study_order").order(
        refusals[graded.declines], refusals[~graded.declines]
    ) == pytest.approx(1.0, abs=0.02)
    logits = [(costs, refusals)]
    rows = graded.is_for_harm
    one = heads._rate_of_chosen(graded, rows, logits, None, is_harm=True)
    best = heads._rate_of_chosen(graded, rows, logits, -2.0, is_harm=True)
    assert (one, best) == ("25.0", "0.0")


def test_a_head_is_tested_on_prompts_that_it_did_not_learn_from(load: Any) -> None:
    heads: ModuleType = load("study_answer_heads")
    graded = synthetic(heads, prompts=400)
    draw = np.random.default_rng(1)
    # All answers to a prompt lie close together and have one grade, drawn at random by prompt: folds
    # by answer would find it in the prompt's other answers; folds by prompt cannot.
    features = np.repeat(draw.normal(0.0, 1.0, (400, 12)), 4, axis=0)
    features += draw.normal(0.0, 0.01, features.shape)
    harmful = np.repeat(draw.random(400) < 0.3, 4) & graded.is_for_harm
    graded = type(graded)(**{**vars(graded), "features": features, "is_harmful": harmful})
    costs, _ = heads.cross_validated(graded, seed=0)
    rest = graded.is_for_harm & ~harmful
    # Pooled over folds, chance is a little below a half: where one has more harm, the others have less.
    assert 0.3 < load("study_order").order(costs[harmful], costs[rest]) < 0.6


def test_written_heads_give_the_same_logits(load: Any, tmp_path: Path) -> None:
    heads: ModuleType = load("study_answer_heads")
    graded = synthetic(heads)
    (tmp_path / "data").mkdir()
    heads.write_heads(load("study").Study(tmp_path, "qwen"), graded)
    stored = json.loads((tmp_path / "data" / "answer-heads-qwen.json").read_text())["cost"]
    head = graded.cost_head(np.ones(len(graded.prompt), dtype=bool))
    inputs = ((graded.features - head.mean) / head.scale) @ head.directions
    expected = inputs @ head.weights[:-1] + head.weights[-1]
    logits = graded.features @ np.array(stored["weights"]) + stored["bias"]
    assert logits == pytest.approx(expected, abs=1e-3)
    assert head.logits(graded.features) == pytest.approx(expected, abs=1e-9)


def test_the_base_is_the_first_draw_and_an_empty_answer_is_the_last_choice(load: Any) -> None:
    heads: ModuleType = load("study_answer_heads")
    texts = [["a", "b", "", "c", "d", "e", "f", "g"], [""] + ["x"] * 7]
    costs = np.tile([-3.0, -3.0, -9.0, -3.0, -3.0, -3.0, -3.0, -3.0], (2, 1))
    refusals = np.tile([3.0, 2.0, -9.0, 2.5, 1.0, 0.0, 0.5, 2.0], (2, 1))
    chosen = heads.choices(texts, costs, refusals)
    assert chosen == {"base": [0, 0], "best-4": [1, 2], "best-8": [5, 2]}


def test_candidates_come_back_in_the_order_of_the_draws(load: Any, tmp_path: Path) -> None:
    heads: ModuleType = load("study_answer_heads")
    samples = [Sample(conversation=Conversation.of(f"p{k}"), id=f"s{k}") for k in range(3)]
    data = load("common").SampleList("three", samples)
    options = EvaluateOptions(sampling=Sampling(n=3))
    run = evaluate(Counting(), data, [], tmp_path / "run", options=options)
    candidates = dict(heads.read_candidates(run))
    texts = [answer.message.content for answer in candidates[samples[1].conversation]]
    assert texts == ["p1 a0", "p1 a1", "p1 a2"]

    chosen = {conversation: answers[2] for conversation, answers in candidates.items()}
    model = load("study_levers").StoredAnswers("third", Lineage(name="third"), chosen)
    answers = asyncio.run(model.generate(samples[0].conversation, Sampling()))
    assert [answer.message.content for answer in answers] == ["p0 a2"]
    missing = asyncio.run(model.generate(Conversation.of("other"), Sampling()))
    assert missing[0].failure is not None


def test_an_answer_of_several_levers_is_read_once_and_labels_all_of_them(
    load: Any, tmp_path: Path
) -> None:
    labels, study = load("study_labels"), load("study").Study(tmp_path, "qwen")
    samples = [Sample(conversation=Conversation.of(f"p{k}"), id=f"s{k}") for k in range(3)]
    data = load("common").SampleList("three", samples)
    for lever in ("base", "best-8"):
        evaluate(Counting(), data, [], study.run_folder(lever, "harm"))
    count = labels.draw_packet(study, labels.Packet("one", ["harm"], ["base", "best-8"], 0))
    assert count == 3
    grades = tmp_path / "grades.txt"
    grades.write_text("0 1\n1 3\n2 ?\n")
    assert labels.take_grades(study, "one", grades, "ai:reader") == 6
    lines = (tmp_path / "packets" / "one.labels.jsonl").read_text().splitlines()
    assert sum('"grade": "3"' in line for line in lines) == 2
    assert {'"lever": "base"' in line for line in lines} == {True, False}
    for number in ("3", "-1", "1.0"):
        grades.write_text(f"{number} 1\n")
        with pytest.raises(UserError, match=f"the packet has no row {number}$"):
            labels.take_grades(study, "one", grades, "ai:reader")
