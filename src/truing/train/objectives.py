"""One objective a kind of training: the loss of a micro-batch, its weight in the step, and what is logged.

The weight is the number of answer tokens (sft) or of rows (the others): the loop adds up loss × weight over
micro-batches and processes and divides by the whole step's weight, so that accumulation gives the big batch's loss
(trl #3021, #5619). Kinds that look across a batch (kto's KL, aot, aot_unpaired) see their own micro-batch.
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
from truing.train.batches import EncodedExample, collate_examples, pad_batch
from truing.train.settings import TrainingSettings
from truing.train.trainable_model import TrainableModel

LossAndMetrics = tuple[Tensor, dict[str, float]]


def batch_weight(settings: TrainingSettings, batch: Sequence[EncodedExample]) -> float:
    """The weight of rows in a step."""
    if settings.kind == "sft":
        # the first token of a row has no prediction, so a row that is all answer has one target fewer
        return float(sum(sum(e.mark()[1:]) for e in batch))
    return float(len(batch))


def sft_objective(t: TrainableModel, batch: Sequence[EncodedExample]) -> LossAndMetrics:
    """Cross-entropy of the assistant's tokens, mean over tokens."""
    rows = collate_examples(batch, t.fill).to(t.device)
    labels = torch.where(rows.answer.bool(), rows.ids, torch.full_like(rows.ids, -100))
    return L.sft_loss(t.logits(t.model, rows), labels), {}


def dpo_objective(t: TrainableModel, batch: Sequence[EncodedExample]) -> LossAndMetrics:
    """Any of the fifteen kinds, against the model as it was."""
    s = t.settings
    rows = collate_examples(batch, t.fill).to(t.device)
    logps = t.answer_logps(t.model, rows)
    with t.reference() as model:
        ref = t.answer_logps(model, rows)
    loss = L.dpo_loss(
        logps,
        ref,
        kind=s.loss or "sigmoid",
        beta=s.beta,
        label_smoothing=s.label_smoothing,
        mask=rows.answer,
    )
    w, l = L.direct_rewards(logps, ref, beta=s.beta)  # noqa: E741
    return loss, {
        "accuracy": float((w > l).float().mean()),
        "margin": float((w - l).mean()),
        "chosen": float(w.mean()),
        "rejected": float(l.mean()),
    }


def kto_objective(t: TrainableModel, batch: Sequence[EncodedExample]) -> LossAndMetrics:
    """Unpaired answers; the KL comes from prompts with another row's answer."""
    s = t.settings
    rows = collate_examples(batch, t.fill).to(t.device)
    other = [(*e.prompt, *batch[(k + 1) % len(batch)].answers[0]) for k, e in enumerate(batch)]
    marks = [
        (*(0 for _ in e.prompt), *(1 for _ in batch[(k + 1) % len(batch)].answers[0]))
        for k, e in enumerate(batch)
    ]
    crossed = pad_batch(other, marks, t.fill).to(t.device)
    logps = t.answer_logps(t.model, rows)
    with torch.no_grad():
        kl = t.answer_logps(t.plain, crossed)
    with t.reference() as model:
        ref, ref_kl = t.answer_logps(model, rows), t.answer_logps(model, crossed)
    good = torch.tensor([bool(e.item.desirable) for e in batch], device=t.device)
    kind = s.loss or "kto"
    if kind not in ("kto", "apo_zero_unpaired"):
        raise PlanError(
            f"kto has no loss {kind!r}{did_you_mean(kind, ('kto', 'apo_zero_unpaired'))}"
        )
    loss = L.kto_loss(logps, ref, good, kl, ref_kl, kind=kind, beta=s.beta)  # type: ignore[arg-type]
    gain = s.beta * (logps.detach().sum(-1) - ref.sum(-1))
    shown = {"kl": float((kl.sum(-1) - ref_kl.sum(-1)).mean().clamp(min=0))}
    for name, which in (("desirable", good), ("undesirable", ~good)):
        if bool(which.any()):
            shown[name] = float(gain[which].mean())
    return loss, shown


def _pair_scores(t: TrainableModel, batch: Sequence[EncodedExample]) -> L.PairScores:
    rows = collate_examples(batch, t.fill).to(t.device)
    chosen, rejected = t.model(rows.ids, rows.mask).float().chunk(2)
    (m_w, m_l), (i_w, i_l) = rows.mask.chunk(2), rows.ids.chunk(2)
    return L.PairScores(chosen, rejected, m_w, m_l, i_w, i_l)


def reward_objective(t: TrainableModel, batch: Sequence[EncodedExample]) -> LossAndMetrics:
    """Bradley-Terry."""
    s = t.settings
    pairs = _pair_scores(t, batch)
    margins = [e.item.margin for e in batch]
    margin = None
    if any(m is not None for m in margins):
        margin = torch.tensor([m or 0.0 for m in margins], device=t.device)
    loss = L.reward_loss(
        pairs,
        level=s.level,
        regularization=s.regularization,
        center=s.center or None,
        margin=margin,
    )
    ends = pairs.chosen_end.detach(), pairs.rejected_end.detach()
    return loss, {
        "accuracy": float(pairs.accuracy()),
        "margin": float((ends[0] - ends[1]).mean()),
        "score": float(torch.cat(ends).mean()),
    }


def cost_objective(t: TrainableModel, batch: Sequence[EncodedExample]) -> LossAndMetrics:
    """Pairwise plus sign terms: a cost above 0 means unsafe."""
    s = t.settings
    pairs = _pair_scores(t, batch)
    signs = torch.tensor([e.item.signs for e in batch], device=t.device)
    loss = L.cost_loss(pairs, signs, level=s.level, regularization=s.regularization)
    return loss, {
        "accuracy": float(pairs.accuracy(cost=True)),
        "sign_accuracy": float(pairs.sign_accuracy(signs)),
    }


def distillation_objective(t: TrainableModel, batch: Sequence[EncodedExample]) -> LossAndMetrics:
    """KL from the prompted self, over sampled continuations."""
    rows = collate_examples(batch, t.fill).to(t.device)
    student = _at_answers(
        t.logits(t.model, rows), [len(e.prompt) for e in batch], [len(e.answers[0]) for e in batch]
    )
    teacher = _teacher_logits(t, batch)
    lengths = torch.tensor([len(e.answers[0]) for e in batch], device=t.device)
    mask = torch.arange(student.shape[1], device=t.device) < lengths.unsqueeze(-1)
    kind: Literal["forward", "reverse"] = "reverse" if t.settings.loss == "reverse" else "forward"
    return L.distillation_loss(
        student, teacher, mask, kind=kind, temperature=t.settings.temperature
    ), {}


def _at_answers(logits: Tensor, starts: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """The logits that predict each answer's tokens, `[B, A, V]`; what is behind an answer's end is masked by the caller."""
    widest = max(lengths)
    at = torch.arange(widest, device=logits.device)
    where = (torch.tensor(starts, device=logits.device).unsqueeze(-1) - 1 + at).clamp(
        max=logits.shape[1] - 1
    )
    return logits.gather(1, where.unsqueeze(-1).expand(-1, -1, logits.shape[-1]))


def _teacher_logits(t: TrainableModel, batch: Sequence[EncodedExample]) -> Tensor:
    """The teacher reads the prefix that all rows share once, and keeps its keys and values for the whole run."""
    with t.reference() as model:
        if t.prefix_cache is None:
            raise PlanError(
                "distil needs a prompted teacher: --prompt hhh, a file, or --system TEXT"
            )
        prefix, cache = t.prefix_cache
        n = len(prefix)
        tails = [(*e.teacher[n:], *e.answers[0]) for e in batch]
        rows = pad_batch(tails, tails, t.fill).to(t.device)
        mask = torch.cat(
            [torch.ones(len(batch), n, dtype=rows.mask.dtype, device=t.device), rows.mask], dim=1
        )
        past = copy.deepcopy(cache)
        past.batch_repeat_interleave(len(batch))
        out = model(
            input_ids=rows.ids,
            attention_mask=mask,
            position_ids=position_ids(mask)[:, n:],
            past_key_values=past,
        )
        return _at_answers(
            out.logits, [len(e.teacher) - n for e in batch], [len(e.answers[0]) for e in batch]
        )


def cache_teacher_prefix(t: TrainableModel, rows: Sequence[EncodedExample]) -> None:
    """Reads the tokens that all teachers' prompts begin with, once."""
    shared = list(rows[0].teacher[:-1])
    for e in rows:
        k = 0
        while k < min(len(shared), len(e.teacher) - 1) and shared[k] == e.teacher[k]:
            k += 1
        del shared[k:]
    if not shared:
        raise PlanError("the teacher's prompts share no beginning: is there a prefix at all?")
    with t.reference() as model:
        ids = torch.tensor([shared], device=t.device)
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
    t.prefix_cache = (tuple(shared), out.past_key_values)


OBJECTIVES: dict[str, Callable[[TrainableModel, Sequence[EncodedExample]], LossAndMetrics]] = {
    "sft": sft_objective,
    "distil": distillation_objective,
    "reward": reward_objective,
    "cost": cost_objective,
    "dpo": dpo_objective,
    "kto": kto_objective,
}


@torch.no_grad()
def score_answers(
    model: ScalarModel, rows: Sequence[Sequence[int]], *, fill: int, batch: int = 16
) -> list[float]:
    """The scores at the ends of token rows, in their order; rows of similar length are read together."""
    scores = [0.0] * len(rows)
    ordered = sorted(range(len(rows)), key=lambda k: len(rows[k]))
    device = next(model.parameters()).device
    for at in range(0, len(ordered), batch):
        some = ordered[at : at + batch]
        padded = pad_batch([rows[k] for k in some], [rows[k] for k in some], fill).to(device)
        ends = model.last_token_values(model(padded.ids, padded.mask), padded.mask)
        for k, value in zip(some, ends.float().tolist()):
            scores[k] = value
    return scores
