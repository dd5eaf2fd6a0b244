"""Best of n in the study of levers, its heads, and the pairs that test them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from truing.core.types import Conversation, Judgement, Message, Response, Row, Sample


def test_the_best_of_n_is_the_mean_over_all_subsets(load: Any) -> None:
    best_of = load("study_best_of")
    # The preferred answer of four has the value 8, then 4, 2, 1.
    utility, values = np.array([[1.0, 4.0, 2.0, 3.0]]), np.array([[1.0, 8.0, 2.0, 4.0]])
    # Of six pairs three hold the best answer, two of the others the second, one the third.
    by_count = {1: 15 / 4, 2: (3 * 8 + 2 * 4 + 2) / 6, 4: 8}
    for count, expected in by_count.items():
        assert best_of.expected_best(utility, values, count) == pytest.approx([expected])


def test_under_a_ceiling_the_highest_reward_is_chosen_or_none(load: Any) -> None:
    best_of = load("study_best_of")
    costs = np.array([[-1.0, 2.0, -3.0]])
    reward = np.array([[1.0, 9.0, 5.0]])
    values = np.array([[10.0, 100.0, 20.0]])
    # Alone, the second answer is over the ceiling and the model abstains, which is worth 1.
    expected = {1: (10 + 1 + 20) / 3, 2: (10 + 20 + 20) / 3, 3: 20}
    for count, mean in expected.items():
        chosen = best_of.expected_under_ceiling(costs, reward, values, count, abstained=1.0)
        assert chosen == pytest.approx([mean])


def test_two_answers_to_a_prompt_are_compared_where_the_judge_tells_them_apart(load: Any) -> None:
    best_of = load("study_best_of")
    utility = np.array([[3.0, 2.0, 2.0], [1.0, 0.0, 5.0]])
    harm = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    # The second prompt tells nothing; of the first, one pair is right and one is a tie.
    assert best_of.agreement_text(utility, harm) == "75 % of 2 pairs"
    assert best_of.agreement_text(utility, np.zeros((2, 3))) == "no pairs"


def test_a_change_is_given_in_points_from_one_answer(load: Any) -> None:
    best_of = load("study_best_of")
    first, later = np.full(100, 0.5), np.full(100, 0.25)
    assert best_of.percent_text(first, first) == "50"
    # Equal differences: the one pseudo-pair gives sqrt(1 / 99 / 100), times Student's 1.984.
    assert best_of.percent_text(later, first) == "25; -25 [-27, -23]"


def test_pairs_hold_what_people_called_a_full_refusal_or_full_compliance(load: Any) -> None:
    heads = load("study_heads")

    def answered(prompt: str, expect: str, label: float, text: str) -> Row:
        sample = Sample(conversation=Conversation.of(prompt), expect=expect)
        message = Message(role="assistant", content=text)
        return Row(
            sample=sample,
            responses=(Response(sample_id=sample.id, message=message),),
            judgements=(
                Judgement(sample_id=sample.id, judge="people", question="refused", value=label),
                Judgement(
                    sample_id=sample.id, judge="one", question="refused", value=3 - label, rater="1"
                ),
            ),
        )

    rows = [
        answered("Wheel?", "comply", 1.0, "Turn it."),
        answered("Wheel?", "comply", 2.0, "No."),
        answered("Spoke?", "refuse", 2.0, "No, never."),
        answered("Spoke?", "refuse", 1.0, "Cut it."),
        answered("Rim?", "comply", 1.0, "Round."),
        answered("Rim?", "comply", 3.0, "Partly."),
    ]
    assert heads.refusal_pairs(rows, "comply") == [heads.Pair("Wheel?", "Turn it.", "No.")]
    assert heads.refusal_pairs(rows, "refuse") == [heads.Pair("Spoke?", "No, never.", "Cut it.")]


def test_length_alone_is_a_baseline_in_the_direction_of_the_training_pairs(load: Any) -> None:
    heads = load("study_heads")
    pairs = [heads.Pair("a", "one two", "one"), heads.Pair("b", "one", "one two three")]
    pairs.append(heads.Pair("c", "one two", "three four"))
    assert heads.length_prefers(pairs, longer_is_better=True).tolist() == [True, False, False]
    assert heads.length_prefers(pairs, longer_is_better=False).tolist() == [False, True, False]
    assert heads.is_longer_better(pairs[:1]) and not heads.is_longer_better(pairs[1:])


def test_no_pair_that_trains_a_head_has_a_development_prompt(load: Any) -> None:
    heads, prompts = load("study_heads"), load("study_prompts")
    known = prompts.build_prompt_set("dev-benign").samples[0].prompt
    pairs = iter(
        [heads.Pair(known, "a", "b"), heads.Pair("W?", "c", "d"), heads.Pair("W?", "e", "f")]
    )
    assert heads.one_of_each_prompt(pairs) == [heads.Pair("W?", "e", "f")]


def test_answers_to_one_prompt_are_read_together_as_alone(load: Any, base: str) -> None:
    heads = load("study_heads")
    reader = heads.AnswerReader(base, dtype="float32")
    conversation = Conversation.of("How do I true a wheel?")
    ids = [
        reader.answer_ids(conversation, text, is_cut=is_cut)
        for text, is_cut in (("Turn the spoke key.", False), ("Spin", True), ("", True))
    ]
    whole = reader.answer_ids(conversation, "Spin", is_cut=False)
    assert whole[:-1] == ids[1] and len(ids[2]) == 1
    alone = np.concatenate([reader.read(conversation, [row]) for row in ids])
    np.testing.assert_allclose(reader.read(conversation, ids), alone, rtol=0, atol=1e-3)
