"""One objective per kind of training: the loss of a micro-batch and the metrics to log.

Each micro-batch has a weight in its step: the number of learned tokens (sft), or of rows (the
others). The training loop sums loss x weight over micro-batches and processes and divides by the
weight of the whole step, so that gradient accumulation gives the loss of the whole batch (trl
#3021, #5619). Losses that look across a batch (the KL of kto; aot, aot_unpaired) see only their own
micro-batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from truing.core.errors import PlanError, did_you_mean
from truing.hf.loading import ScalarModel, position_ids
from truing.train import losses as L
from truing.train.batches import EncodedExample, TokenBatch, collate_examples, pad_batch
from truing.train.settings import REFERENCE_FREE_LOSSES, TrainingSettings
from truing.train.trainable_model import TrainableModel

LossAndMetrics = tuple[Tensor, dict[str, float]]
Objective = Callable[[TrainableModel, Sequence[EncodedExample]], LossAndMetrics]

# All metrics that the objectives may return, in the order in which the processes exchange them.
METRIC_NAMES = (
    "accuracy",
    "sign_accuracy",
    "margin",
    "score",
    "chosen",
    "rejected",
    "kl",
    "desirable",
    "undesirable",
)

_KTO_LOSSES = ("kto", "apo_zero_unpaired")


def batch_weight(settings: TrainingSettings, batch: Sequence[EncodedExample]) -> float:
    """Returns the weight of rows in a step: their learned tokens (sft), or their number."""
    if settings.kind == "sft":
        # The first token of a row has no prediction, so it counts in no mask.
        return float(sum(sum(e.answer_mask()[1:]) for e in batch))
    return float(len(batch))


def sft_objective(trainable: TrainableModel, batch: Sequence[EncodedExample]) -> LossAndMetrics:
    """Cross-entropy of the learned tokens, averaged over tokens."""
    rows = collate_examples(batch, trainable.pad_id).to(trainable.device)
    logps = trainable.answer_logps(trainable.model, rows)
    return -logps.sum() / rows.answer_mask[:, 1:].sum().clamp(min=1), {}


def dpo_objective(trainable: TrainableModel, batch: Sequence[EncodedExample]) -> LossAndMetrics:
    """DPO in any of its fifteen kinds, against the model before training; or SimPO or ORPO.

    `sft_weight` adds the likelihood of the chosen answers (RPO).
    """
    settings = trainable.settings
    rows = collate_examples(batch, trainable.pad_id).to(trainable.device)
    logps = trainable.answer_logps(trainable.model, rows)
    if settings.loss in REFERENCE_FREE_LOSSES:
        loss, (chosen, rejected) = _reference_free_loss(settings, logps, rows.answer_mask)
    else:
        with trainable.reference() as reference:
            ref_logps = trainable.answer_logps(reference, rows)
        loss = L.dpo_loss(
            logps,
            ref_logps,
            kind=settings.loss or "sigmoid",
            beta=settings.loss_beta,
            label_smoothing=settings.smoothing,
            mask=rows.answer_mask,
        )
        chosen, rejected = L.direct_rewards(logps, ref_logps, beta=settings.loss_beta)
    if settings.sft_weight:
        loss = loss + settings.sft_weight * L.chosen_nll(logps, rows.answer_mask)
    return loss, {
        "accuracy": float((chosen > rejected).float().mean()),
        "margin": float((chosen - rejected).mean()),
        "chosen": float(chosen.mean()),
        "rejected": float(rejected.mean()),
    }


def _reference_free_loss(
    settings: TrainingSettings, logps: Tensor, mask: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Returns the loss of SimPO or ORPO, and its rewards: β times the mean log-probabilities."""
    if settings.loss == "simpo":
        loss = L.simpo_loss(logps, mask, beta=settings.loss_beta, margin=settings.target_margin)
    else:
        loss = L.orpo_loss(logps, mask, beta=settings.loss_beta)
    lengths = mask[:, 1:].sum(-1).clamp(min=1)
    chosen, rejected = (settings.loss_beta * logps.detach().sum(-1) / lengths).chunk(2)
    return loss, (chosen, rejected)


def kto_objective(trainable: TrainableModel, batch: Sequence[EncodedExample]) -> LossAndMetrics:
    """KTO on single answers that are desirable or not.

    Its KL term is estimated on mismatched pairs: each prompt with the answer of the next row
    (Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1).
    """
    settings = trainable.settings
    kind = settings.loss or "kto"
    if kind not in _KTO_LOSSES:
        raise PlanError(f"kto has no loss {kind!r}{did_you_mean(kind, _KTO_LOSSES)}")
    rows = collate_examples(batch, trainable.pad_id).to(trainable.device)
    mismatched = _mismatched_answers(batch, trainable.pad_id).to(trainable.device)

    logps = trainable.answer_logps(trainable.model, rows)
    with torch.no_grad():
        kl_logps = trainable.answer_logps(trainable.model, mismatched)
    with trainable.reference() as reference:
        ref_logps = trainable.answer_logps(reference, rows)
        ref_kl_logps = trainable.answer_logps(reference, mismatched)
    desirable = torch.tensor([bool(e.item.desirable) for e in batch], device=trainable.device)
    loss = L.kto_loss(
        logps,
        ref_logps,
        desirable,
        kl_logps,
        ref_kl_logps,
        kind="kto" if kind == "kto" else "apo_zero_unpaired",
        beta=settings.loss_beta,
        weights=(settings.desirable_weight, settings.undesirable_weight),
    )

    kl = (kl_logps.sum(-1) - ref_kl_logps.sum(-1)).mean().clamp(min=0)
    metrics = {"kl": float(kl)}
    rewards = settings.loss_beta * (logps.detach().sum(-1) - ref_logps.sum(-1))
    for name, selected in (("desirable", desirable), ("undesirable", ~desirable)):
        if bool(selected.any()):
            metrics[name] = float(rewards[selected].mean())
    return loss, metrics


def _mismatched_answers(batch: Sequence[EncodedExample], pad_id: int) -> TokenBatch:
    """Returns each prompt with the answer of the next row (of the first, for the last row)."""
    rows: list[tuple[int, ...]] = []
    masks: list[tuple[int, ...]] = []
    for index, example in enumerate(batch):
        answer = batch[(index + 1) % len(batch)].answers[0]
        rows.append((*example.prompt, *answer))
        masks.append((0,) * len(example.prompt) + (1,) * len(answer))
    return pad_batch(rows, masks, pad_id)


def _pair_scores(trainable: TrainableModel, batch: Sequence[EncodedExample]) -> L.PairScores:
    rows = collate_examples(batch, trainable.pad_id).to(trainable.device)
    chosen, rejected = trainable.model(rows.ids, rows.mask).float().chunk(2)
    chosen_mask, rejected_mask = rows.mask.chunk(2)
    chosen_ids, rejected_ids = rows.ids.chunk(2)
    return L.PairScores(chosen, rejected, chosen_mask, rejected_mask, chosen_ids, rejected_ids)


def reward_objective(trainable: TrainableModel, batch: Sequence[EncodedExample]) -> LossAndMetrics:
    """Bradley-Terry loss of a reward model."""
    settings = trainable.settings
    pairs = _pair_scores(trainable, batch)
    margin = None
    if any(e.item.margin is not None for e in batch):
        margin = torch.tensor([e.item.margin or 0.0 for e in batch], device=trainable.device)
    loss = L.reward_loss(
        pairs,
        level=settings.level,
        regularization=settings.regularization,
        center=settings.center or None,
        margin=margin,
    )
    chosen, rejected = pairs.chosen_end.detach(), pairs.rejected_end.detach()
    return loss, {
        "accuracy": float(pairs.accuracy()),
        "margin": float((chosen - rejected).mean()),
        "score": float(torch.cat((chosen, rejected)).mean()),
    }


def cost_objective(trainable: TrainableModel, batch: Sequence[EncodedExample]) -> LossAndMetrics:
    """Pairwise and sign terms of a cost model, in which a cost above 0 means unsafe."""
    settings = trainable.settings
    pairs = _pair_scores(trainable, batch)
    signs = torch.tensor([e.item.signs for e in batch], device=trainable.device)
    loss = L.cost_loss(pairs, signs, level=settings.level, regularization=settings.regularization)
    return loss, {
        "accuracy": float(pairs.accuracy(cost=True)),
        "sign_accuracy": float(pairs.sign_accuracy(signs)),
    }


def distillation_objective(
    trainable: TrainableModel, batch: Sequence[EncodedExample]
) -> LossAndMetrics:
    """KL between the model and the same model behind the teacher's prompt, on sampled answers."""
    settings = trainable.settings
    rows = collate_examples(batch, trainable.pad_id).to(trainable.device)
    answer_lengths = [len(e.answers[0]) for e in batch]
    student = _logits_at_answers(
        trainable.logits(trainable.model, rows), [len(e.prompt) for e in batch], answer_lengths
    )
    teacher = _teacher_logits(trainable, batch)
    positions = torch.arange(student.shape[1], device=trainable.device)
    mask = positions < torch.tensor(answer_lengths, device=trainable.device).unsqueeze(-1)
    kind: Literal["forward", "reverse"] = "reverse" if settings.loss == "reverse" else "forward"
    loss = L.distillation_loss(student, teacher, mask, kind=kind, temperature=settings.temperature)
    return loss, {}


def _logits_at_answers(logits: Tensor, starts: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """Returns the logits that predict the answers' tokens, `[B, longest answer, V]`.

    Beyond the end of a shorter answer the values are arbitrary; the caller masks them.
    """
    offsets = torch.arange(max(lengths), device=logits.device)
    # The logits at position t predict token t + 1.
    positions = torch.tensor(starts, device=logits.device).unsqueeze(-1) - 1 + offsets
    positions = positions.clamp(max=logits.shape[1] - 1)
    return logits.gather(1, positions.unsqueeze(-1).expand(-1, -1, logits.shape[-1]))


def _teacher_logits(trainable: TrainableModel, batch: Sequence[EncodedExample]) -> Tensor:
    """Returns the teacher's logits at the answers; its prefix comes from the cache."""
    if trainable.teacher_cache is None:
        raise PlanError("distil needs a prompted teacher: --prompt hhh, a file, or --system TEXT")
    prefix, cache = trainable.teacher_cache
    prefix_length = len(prefix)
    # Only what follows the shared prefix is read here.
    suffixes = [(*e.teacher[prefix_length:], *e.answers[0]) for e in batch]
    rows = pad_batch(suffixes, suffixes, trainable.pad_id).to(trainable.device)
    prefix_mask = torch.ones(
        len(batch), prefix_length, dtype=rows.mask.dtype, device=trainable.device
    )
    mask = torch.cat([prefix_mask, rows.mask], dim=1)
    # The model appends to the cache it is given, so every call gets a copy.
    past_key_values = copy.deepcopy(cache)
    past_key_values.batch_repeat_interleave(len(batch))
    with trainable.reference() as model:
        output = model(
            input_ids=rows.ids,
            attention_mask=mask,
            position_ids=position_ids(mask)[:, prefix_length:],
            past_key_values=past_key_values,
        )
    return _logits_at_answers(
        output.logits,
        [len(e.teacher) - prefix_length for e in batch],
        [len(e.answers[0]) for e in batch],
    )


def cache_teacher_prefix(trainable: TrainableModel, rows: Sequence[EncodedExample]) -> None:
    """Computes the keys and values of the tokens that all teacher prompts begin with, once.

    Raises PlanError if the prompts share no beginning.
    """
    # At least one token of each prompt stays outside the prefix: its logits predict the answer.
    shared = list(rows[0].teacher[:-1])
    for row in rows:
        length = 0
        limit = min(len(shared), len(row.teacher) - 1)
        while length < limit and shared[length] == row.teacher[length]:
            length += 1
        del shared[length:]
    if not shared:
        raise PlanError("the teacher's prompts have no common beginning: is there a prompt at all?")
    with trainable.reference() as model:
        ids = torch.tensor([shared], device=trainable.device)
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
    trainable.teacher_cache = (tuple(shared), output.past_key_values)


OBJECTIVES: dict[str, Objective] = {
    "sft": sft_objective,
    "distil": distillation_objective,
    "reward": reward_objective,
    "cost": cost_objective,
    "dpo": dpo_objective,
    "kto": kto_objective,
}


@torch.no_grad()
def score_answers(
    model: ScalarModel, rows: Sequence[Sequence[int]], *, pad_id: int, batch: int = 16
) -> list[float]:
    """Returns the scores at the last tokens of token rows, in the order of the rows."""
    scores = [0.0] * len(rows)
    # Rows of similar length share a batch, so that little is padded.
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    device = next(model.parameters()).device
    for start in range(0, len(by_length), batch):
        indexes = by_length[start : start + batch]
        batch_rows = [rows[index] for index in indexes]
        padded = pad_batch(batch_rows, batch_rows, pad_id).to(device)
        values = model(padded.ids, padded.mask)
        last_values = model.last_token_values(values, padded.mask)
        for index, value in zip(indexes, last_values.float().tolist()):
            scores[index] = value
    return scores
