"""Weights of micro-batches, mismatched answers of KTO, the teacher's logits, scores of answers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.train.builders import make_example, make_settings
from tests.train.test_supervised import add_teacher_prompt

from truing.core.errors import PlanError
from truing.train.batches import EncodedExample, ExampleEncoder, collate_examples
from truing.train.losses import DPO_KINDS, dpo_loss, sft_loss, token_log_probs
from truing.train.objectives import (
    _logits_at_answers,
    _mismatched_answers,
    _teacher_logits,
    batch_weight,
    cache_teacher_prefix,
    dpo_objective,
    kto_objective,
    score_answers,
    sft_objective,
)
from truing.train.settings import LOSSES, REFERENCE_FREE_LOSSES, SMOOTHED_LOSSES
from truing.train.trainable_model import build_trainable_model, find_base_model

CPU = torch.device("cpu")


def make_encoded(prompt: tuple[int, ...], *answers: tuple[int, ...]) -> EncodedExample:
    return EncodedExample(make_example(0), prompt, answers)


def test_sft_weighs_learned_tokens_and_the_others_rows() -> None:
    batch = [make_encoded((1, 2), (3, 4, 5)), make_encoded((), (6, 7))]
    # The second row begins with its answer, whose first token has no prediction.
    assert batch_weight(make_settings("sft", "out", "base"), batch) == 3 + 1
    assert batch_weight(make_settings("dpo", "out", "base"), batch) == 2


def test_kto_crosses_each_prompt_with_the_next_answer() -> None:
    batch = [make_encoded((1,), (2, 3)), make_encoded((4, 5), (6,))]
    crossed = _mismatched_answers(batch, pad_id=0)
    assert crossed.ids.tolist() == [[1, 6, 0, 0], [4, 5, 2, 3]]
    assert crossed.answer_mask.tolist() == [[0, 1, 0, 0], [0, 0, 1, 1]]


def test_the_logits_at_answers_are_those_before_their_tokens() -> None:
    logits = torch.arange(2 * 5 * 1, dtype=torch.float32).reshape(2, 5, 1)
    at_answers = _logits_at_answers(logits, starts=[1, 3], lengths=[3, 2])
    assert at_answers[0].flatten().tolist() == [0, 1, 2]
    assert at_answers[1, :2].flatten().tolist() == [7, 8]


def test_the_cached_teacher_prefix_changes_no_logits(base: str) -> None:
    settings = make_settings("distil", "out", base)
    trainable = build_trainable_model(settings, find_base_model(base), CPU)
    encoder = ExampleEncoder(trainable.tokenizer, settings, wrap=add_teacher_prompt)
    batch = [encoder.encode(make_example(k)) for k in range(3)]
    with pytest.raises(PlanError, match="needs a prompted teacher"):
        _teacher_logits(trainable, batch)
    cache_teacher_prefix(trainable, batch)
    assert trainable.teacher_cache is not None and len(trainable.teacher_cache[0]) > 5
    teacher = _teacher_logits(trainable, batch)
    for row, example in enumerate(batch):
        answer = example.answers[0]
        ids = torch.tensor([[*example.teacher, *answer]])
        with trainable.reference() as model:
            expected = model(ids).logits[0, len(example.teacher) - 1 : -1]
        torch.testing.assert_close(teacher[row, : len(answer)], expected, rtol=1e-4, atol=1e-5)


def test_kto_refuses_the_losses_of_dpo(base: str) -> None:
    settings = make_settings("kto", "out", base, loss="sigmoid")
    trainable: Any = type("Trainable", (), {"settings": settings})()
    with pytest.raises(PlanError, match="kto has no loss 'sigmoid'"):
        kto_objective(trainable, [])


def test_log_probs_of_answers_are_those_of_whole_rows(base: str) -> None:
    settings = make_settings("dpo", "out", base)
    trainable = build_trainable_model(settings, find_base_model(base), CPU)
    batch = [
        make_encoded(tuple(range(5, 25)), (7, 8), (9, 10, 11)),
        make_encoded(tuple(range(5, 17)), (7,), (9, 12)),
    ]
    rows = collate_examples(batch, trainable.pad_id)
    whole = trainable.logits(trainable.model, rows)
    logps = trainable.answer_logps(trainable.model, rows)
    expected = token_log_probs(whole, rows.ids) * rows.answer_mask[:, 1:]
    torch.testing.assert_close(logps, expected)
    loss, _ = sft_objective(trainable, batch)
    labels = torch.where(rows.answer_mask.bool(), rows.ids, torch.full_like(rows.ids, -100))
    torch.testing.assert_close(loss, sft_loss(whole, labels))


def test_an_answer_without_a_prompt_has_no_first_log_prob(base: str) -> None:
    settings = make_settings("sft", "out", base)
    trainable = build_trainable_model(settings, find_base_model(base), CPU)
    rows = collate_examples([make_encoded((), (7, 8, 9))], trainable.pad_id)
    assert trainable.answer_logps(trainable.model, rows).shape == (1, 2)


def test_the_settings_name_the_losses_that_exist() -> None:
    assert LOSSES["dpo"] == (*DPO_KINDS, *REFERENCE_FREE_LOSSES)


@pytest.mark.parametrize("loss", DPO_KINDS)
def test_smoothing_changes_exactly_the_smoothed_losses(loss: str) -> None:
    logps, ref = torch.tensor([[-1.0], [-2.0], [-3.0], [-1.5]]), torch.full((4, 1), -1.2)
    plain, smoothed = (
        float(dpo_loss(logps, ref, kind=loss, label_smoothing=s)) for s in (0.1, 0.2)
    )
    assert (plain != smoothed) is (loss in SMOOTHED_LOSSES)


def test_exo_pair_trains_with_default_settings(base: str) -> None:
    """Before the first step policy and reference are one: the margin is 0, as written out here."""
    settings = make_settings("dpo", "out", base, loss="exo_pair").checked()
    trainable = build_trainable_model(settings, find_base_model(base), CPU)
    encoder = ExampleEncoder(trainable.tokenizer, settings)
    loss, _ = dpo_objective(trainable, [encoder.encode(make_example(k)) for k in range(2)])
    smoothing = settings.smoothing
    expected = math.log(0.5) - (math.log1p(-smoothing) + math.log(smoothing)) / 2
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_the_weights_of_kto_scale_the_answers_of_their_label(base: str) -> None:
    losses = {}
    for weights in ((1.0, 1.0), (3.0, 1.0), (1.0, 3.0)):
        settings = make_settings(
            "kto", "out", base, desirable_weight=weights[0], undesirable_weight=weights[1]
        ).checked()
        trainable = build_trainable_model(settings, find_base_model(base), CPU)
        encoder = ExampleEncoder(trainable.tokenizer, settings)
        items = [make_example(k, answers=("Slowly.",), desirable=k == 0) for k in range(2)]
        batch = [encoder.encode(item) for item in items]
        losses[weights] = float(kto_objective(trainable, batch)[0].detach())
    # The adapters start at 0, so policy and reference agree and every answer has the loss 1/2.
    assert losses == pytest.approx({(1.0, 1.0): 0.5, (3.0, 1.0): 1.0, (1.0, 3.0): 1.0}, abs=1e-6)


def test_scores_come_in_the_order_of_the_rows(base: str) -> None:
    trainable = build_trainable_model(
        make_settings("reward", "out", base), find_base_model(base), CPU
    )
    rows = [(5, 6, 7, 8, 9), (5,), (6, 7, 8)]
    model = trainable.model.eval()
    together = score_answers(model, rows, pad_id=0, batch=2)
    alone = [score_answers(model, [row], pad_id=0)[0] for row in rows]
    assert together == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("loss", ["simpo", "orpo"])
def test_losses_without_a_reference_never_ask_for_it(base: str, loss: str) -> None:
    settings = make_settings("dpo", "out", base, loss=loss, beta=2.0, lora=0)
    trainable = build_trainable_model(settings, find_base_model(base), CPU)
    batch = [make_encoded((5, 6), (7, 8, 9), (10, 2)), make_encoded((5,), (3,), (4, 11, 12))]

    def no_reference() -> Any:
        raise AssertionError("the reference model was used")

    trainable.reference = no_reference  # type: ignore[method-assign]
    value, metrics = dpo_objective(trainable, batch)
    rows = collate_examples(batch, trainable.pad_id)
    logps = trainable.answer_logps(trainable.model, rows).detach()
    means = logps.sum(-1) / rows.answer_mask[:, 1:].sum(-1)
    assert metrics["margin"] == pytest.approx(float(2.0 * (means[:2] - means[2:]).mean()), rel=1e-4)
    assert bool(torch.isfinite(value))


def test_the_anchor_adds_the_likelihood_of_the_chosen_answers(base: str) -> None:
    batch = [make_encoded((5, 6), (7, 8, 9), (10, 2)), make_encoded((5,), (3,), (4, 11, 12))]
    losses = []
    for weight in (0.0, 2.0):
        settings = make_settings("dpo", "out", base, sft_weight=weight, lora=0)
        trainable = build_trainable_model(settings, find_base_model(base), CPU)
        losses.append(float(dpo_objective(trainable, batch)[0].detach()))
    rows = collate_examples(batch, trainable.pad_id)
    logps = trainable.answer_logps(trainable.model, rows).detach()
    nll = -(logps.sum(-1) / rows.answer_mask[:, 1:].sum(-1))[:2].mean()
    assert losses[1] - losses[0] == pytest.approx(2.0 * float(nll), rel=1e-4)
