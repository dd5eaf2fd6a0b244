"""One objective a kind of training: the loss of a micro-batch, its weight in the step, and what is logged.

The weight is the number of answer tokens (sft) or of rows (the others): the loop adds up loss × weight over
micro-batches and processes and divides by the whole step's weight, so that accumulation gives the big batch's loss
(trl #3021, #5619). Kinds that look across a batch (kto's KL, aot, aot_unpaired) see their own micro-batch.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from truing.core.errors import PlanError, did_you_mean
from truing.hf.loading import ScalarModel, position_ids
from truing.train import losses as L
from truing.train.batches import Encoded, Rows, collate, collate_answers
from truing.train.settings import Settings

Step = tuple[Tensor, dict[str, float]]


@dataclass
class Trained:
    """The model in training: `model` is called (it may be wrapped for several processes), `plain` is the bare one."""

    model: Any
    plain: Any
    tokenizer: Any
    settings: Settings
    device: Any
    frozen: Any = None  # the reference where there are no adapters to switch off
    prefix_cache: tuple[tuple[int, ...], Any] | None = None

    @property
    def fill(self) -> int:
        """The padding id; any id does, since masks come from lengths."""
        return int(self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0)

    @contextlib.contextmanager
    def reference(self) -> Iterator[Any]:
        """The model as it was before training, without gradients: adapters off, or a frozen copy."""
        with torch.no_grad():
            if self.frozen is not None:
                yield self.frozen
            else:
                with self.plain.disable_adapter():
                    yield self.plain

    def logits(self, model: Any, rows: Rows) -> Tensor:
        """`[B, T, V]`."""
        out = model(
            input_ids=rows.ids,
            attention_mask=rows.mask,
            position_ids=position_ids(rows.mask),
            use_cache=False,
        )
        return out.logits

    def answer_logps(self, model: Any, rows: Rows) -> Tensor:
        """Log-probabilities of the answers' tokens, 0 elsewhere; `[B, T-1]`."""
        return L.token_log_probs(self.logits(model, rows), rows.ids) * rows.answer[:, 1:]


def freeze_copy(model: Any) -> Any:
    """A frozen copy for full fine-tuning, where no adapter can be switched off."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def weight_of(settings: Settings, batch: Sequence[Encoded]) -> float:
    """The weight of rows in a step."""
    if settings.kind == "sft":
        # the first token of a row has no prediction, so a row that is all answer has one target fewer
        return float(sum(sum(e.mark()[1:]) for e in batch))
    return float(len(batch))


def sft(t: Trained, batch: Sequence[Encoded]) -> Step:
    """Cross-entropy of the assistant's tokens, mean over tokens."""
    rows = collate_answers(batch, t.fill).to(t.device)
    labels = torch.where(rows.answer.bool(), rows.ids, torch.full_like(rows.ids, -100))
    return L.sft_loss(t.logits(t.model, rows), labels), {}


def dpo(t: Trained, batch: Sequence[Encoded]) -> Step:
    """Any of the fifteen kinds, against the model as it was."""
    s = t.settings
    rows = collate_answers(batch, t.fill).to(t.device)
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


def kto(t: Trained, batch: Sequence[Encoded]) -> Step:
    """Unpaired answers; the KL comes from prompts with another row's answer."""
    s = t.settings
    rows = collate_answers(batch, t.fill).to(t.device)
    other = [(*e.prompt, *batch[(k + 1) % len(batch)].answers[0]) for k, e in enumerate(batch)]
    marks = [
        (*(0 for _ in e.prompt), *(1 for _ in batch[(k + 1) % len(batch)].answers[0]))
        for k, e in enumerate(batch)
    ]
    crossed = collate(other, marks, t.fill).to(t.device)
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


def _pair_scores(t: Trained, batch: Sequence[Encoded]) -> L.PairScores:
    rows = collate_answers(batch, t.fill).to(t.device)
    chosen, rejected = t.model(rows.ids, rows.mask).float().chunk(2)
    (m_w, m_l), (i_w, i_l) = rows.mask.chunk(2), rows.ids.chunk(2)
    return L.PairScores(chosen, rejected, m_w, m_l, i_w, i_l)


def reward(t: Trained, batch: Sequence[Encoded]) -> Step:
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


def cost(t: Trained, batch: Sequence[Encoded]) -> Step:
    """Pairwise plus sign terms: a cost above 0 means unsafe."""
    s = t.settings
    pairs = _pair_scores(t, batch)
    signs = torch.tensor([e.item.signs for e in batch], device=t.device)
    loss = L.cost_loss(pairs, signs, level=s.level, regularization=s.regularization)
    return loss, {
        "accuracy": float(pairs.accuracy(cost=True)),
        "sign_accuracy": float(pairs.sign_accuracy(signs)),
    }


def distil(t: Trained, batch: Sequence[Encoded]) -> Step:
    """KL from the prompted self, over sampled continuations."""
    rows = collate_answers(batch, t.fill).to(t.device)
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


def _teacher_logits(t: Trained, batch: Sequence[Encoded]) -> Tensor:
    """The teacher reads the prefix that all rows share once, and keeps its keys and values for the whole run."""
    with t.reference() as model:
        if t.prefix_cache is None:
            raise PlanError(
                "distil needs a prompted teacher: --prompt hhh, a file, or --system TEXT"
            )
        prefix, cache = t.prefix_cache
        n = len(prefix)
        tails = [(*e.teacher[n:], *e.answers[0]) for e in batch]
        rows = collate(tails, tails, t.fill).to(t.device)
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


def make_prefix_cache(t: Trained, rows: Sequence[Encoded]) -> None:
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


OBJECTIVES: dict[str, Callable[[Trained, Sequence[Encoded]], Step]] = {
    "sft": sft,
    "distil": distil,
    "reward": reward,
    "cost": cost,
    "dpo": dpo,
    "kto": kto,
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
        padded = collate([rows[k] for k in some], [rows[k] for k in some], fill).to(device)
        ends = model.last_token_values(model(padded.ids, padded.mask), padded.mask)
        for k, value in zip(some, ends.float().tolist()):
            scores[k] = value
    return scores
