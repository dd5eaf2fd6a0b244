"""Preference losses without a reward model: DPO in the fifteen kinds of TRL, SimPO, ORPO, KTO."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Pair: TypeAlias = Tensor | tuple[Tensor, Tensor]


@dataclass(frozen=True)
class _PairLogProbs:
    """The inputs of a DPO loss, one entry per pair. y_w = chosen, y_l = rejected.

    `y_w` and `y_l` are the policy's log-probabilities of whole answers, `ref_w` and `ref_l` the
    reference's; `answer_w` are the policy's token log-probabilities of the chosen answers.
    """

    y_w: Tensor
    y_l: Tensor
    ref_w: Tensor
    ref_l: Tensor
    lengths: tuple[Tensor, Tensor] | None
    answer_w: Tensor
    beta: float
    smoothing: float
    tau: float

    @property
    def log_ratio_w(self) -> Tensor:
        return self.y_w - self.ref_w

    @property
    def log_ratio_l(self) -> Tensor:
        return self.y_l - self.ref_l

    @property
    def margin(self) -> Tensor:
        """log(π/π_ref) of the chosen minus that of the rejected answer."""
        return self.log_ratio_w - self.log_ratio_l

    @property
    def tokens(self) -> tuple[Tensor, Tensor]:
        if self.lengths is None:
            raise ValueError(
                "this kind of DPO divides by the answer's length: pass token log-probabilities or "
                "a mask"
            )
        return self.lengths


def _smoothed(delta: Tensor, p: _PairLogProbs) -> Tensor:
    """Cross-entropy with labels of 1 - smoothing and smoothing (conservative DPO)."""
    correct, flipped = F.logsigmoid(p.beta * delta), F.logsigmoid(-p.beta * delta)
    return -(1 - p.smoothing) * correct - p.smoothing * flipped


def _sigmoid(p: _PairLogProbs) -> Tensor:  # Rafailov et al. 2023, 2305.18290
    return -F.logsigmoid(p.beta * p.margin)


def _hinge(p: _PairLogProbs) -> Tensor:  # SLiC, 2305.10425
    return torch.relu(1 - p.beta * p.margin)


def _ipo(p: _PairLogProbs) -> Tensor:  # Azar et al. 2023, 2310.12036, over mean token log-ratios
    n_w, n_l = p.tokens
    return (p.log_ratio_w / n_w - p.log_ratio_l / n_l - 1 / (2 * p.beta)).square()


def _robust(p: _PairLogProbs) -> Tensor:  # Chowdhury et al. 2024, 2403.00409
    correct, flipped = F.logsigmoid(p.beta * p.margin), F.logsigmoid(-p.beta * p.margin)
    return (-(1 - p.smoothing) * correct + p.smoothing * flipped) / (1 - 2 * p.smoothing)


def _exo_pair(p: _PairLogProbs) -> Tensor:  # Ji et al. 2024, 2402.00856
    if not 0 < p.smoothing < 1:
        raise ValueError("exo_pair needs label_smoothing between 0 and 1 (1e-3 is the paper's)")
    x = p.beta * p.margin
    log_w, log_l = math.log1p(-p.smoothing), math.log(p.smoothing)
    return x.sigmoid() * (F.logsigmoid(x) - log_w) + (-x).sigmoid() * (F.logsigmoid(-x) - log_l)


def _nca_pair(p: _PairLogProbs) -> Tensor:  # Chen et al. 2024, 2402.05369
    r_w, r_l = p.beta * p.log_ratio_w, p.beta * p.log_ratio_l
    return -F.logsigmoid(r_w) - 0.5 * F.logsigmoid(-r_w) - 0.5 * F.logsigmoid(-r_l)


def _bco_pair(p: _PairLogProbs) -> Tensor:  # Jung et al. 2024, 2404.04656
    # Without the paper's reward shift, as in TRL.
    return -F.logsigmoid(p.beta * p.log_ratio_w) - F.logsigmoid(-p.beta * p.log_ratio_l)


def _sppo_hard(p: _PairLogProbs) -> Tensor:  # Wu et al. 2024, 2405.00675
    return (p.log_ratio_w - 0.5 / p.beta).square() + (p.log_ratio_l + 0.5 / p.beta).square()


def _apo_zero(p: _PairLogProbs) -> Tensor:  # D'Oosterlinck et al. 2024, 2408.06266
    return 1 - torch.sigmoid(p.beta * p.log_ratio_w) + torch.sigmoid(p.beta * p.log_ratio_l)


def _apo_down(p: _PairLogProbs) -> Tensor:  # D'Oosterlinck et al. 2024, 2408.06266
    return torch.sigmoid(p.beta * p.log_ratio_w) + 1 - torch.sigmoid(p.beta * p.margin)


def _aot(p: _PairLogProbs) -> Tensor:  # Melnyk et al. 2024, 2406.05882
    # Optimal transport in one dimension: the sorted values are compared, not those of one pair.
    policy, reference = (p.y_w - p.y_l).sort(0).values, (p.ref_w - p.ref_l).sort(0).values
    return _smoothed(policy - reference, p)


def _aot_unpaired(p: _PairLogProbs) -> Tensor:  # Melnyk et al. 2024, 2406.05882
    return _smoothed(p.log_ratio_w.sort(0).values - p.log_ratio_l.sort(0).values, p)


def _sft(p: _PairLogProbs) -> Tensor:  # cross-entropy of the chosen answers, mean over all tokens
    return -p.answer_w.sum() / p.tokens[0].sum()


def _sigmoid_norm(p: _PairLogProbs) -> Tensor:  # SimPO's length normalisation, 2405.14734
    # Unlike SimPO with a reference.
    n_w, n_l = p.tokens
    return -F.logsigmoid(p.beta * (p.log_ratio_w / n_w - p.log_ratio_l / n_l))


def _discopop(p: _PairLogProbs) -> Tensor:  # Lu et al. 2024, 2406.08414
    x = p.beta * p.margin
    modulation = torch.sigmoid(x / p.tau)
    return -F.logsigmoid(x) * (1 - modulation) + torch.exp(-x) * modulation


_LOSSES: dict[str, Callable[[_PairLogProbs], Tensor]] = {
    "sigmoid": _sigmoid,
    "hinge": _hinge,
    "ipo": _ipo,
    "robust": _robust,
    "exo_pair": _exo_pair,
    "nca_pair": _nca_pair,
    "bco_pair": _bco_pair,
    "sppo_hard": _sppo_hard,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "aot": _aot,
    "aot_unpaired": _aot_unpaired,
    "sft": _sft,
    "sigmoid_norm": _sigmoid_norm,
    "discopop": _discopop,
}
DPO_KINDS: tuple[str, ...] = tuple(_LOSSES)


def _split_pair(x: Pair) -> tuple[Tensor, Tensor]:
    """Returns (chosen, rejected) of a pair of tensors, or of one with the chosen rows first."""
    if isinstance(x, (tuple, list)):
        return x[0], x[1]
    if x.shape[0] % 2:
        raise ValueError(
            f"{x.shape[0]} rows are no pairs: pass the chosen rows first, then as many rejected "
            f"ones"
        )
    chosen, rejected = x.chunk(2, dim=0)
    return chosen, rejected


def _sum_tokens(x: Tensor) -> Tensor:
    """Returns the log-probabilities of whole answers, `[B]`."""
    return x if x.dim() == 1 else x.sum(-1)


def _answer_masks(logps: Pair, ref_logps: Pair, mask: Pair | None) -> tuple[Tensor, Tensor] | None:
    """Returns the masks of the chosen and rejected answers' tokens.

    The given mask (without its first column where the log-probabilities are shifted by one), else
    the tokens with a non-zero log-probability. None for sums: their lengths are unknown.
    """
    if mask is not None:
        (logps_w, logps_l), (mask_w, mask_l) = _split_pair(logps), _split_pair(mask)
        return _shift_mask(mask_w, logps_w), _shift_mask(mask_l, logps_l)
    masks = []
    for row, ref in zip(_split_pair(logps), _split_pair(ref_logps)):
        if row.dim() == 1:
            return None
        masks.append((row != 0) | (ref != 0) if ref.shape == row.shape else row != 0)
    return masks[0], masks[1]


def _shift_mask(mask: Tensor, logps: Tensor) -> Tensor:
    is_unshifted = logps.dim() == mask.dim() == 2 and mask.shape[1] == logps.shape[1] + 1
    return mask[:, 1:] if is_unshifted else mask


def dpo_loss(
    logps: Pair,
    ref_logps: Pair,
    *,
    kind: str = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    mask: Pair | None = None,
    tau: float = 0.05,
) -> Tensor:
    """Direct preference optimisation, mean over pairs.

    `kind` is one of `DPO_KINDS` (TRL's names and definitions). `logps` and `ref_logps` hold the
    policy's and the reference's log-probabilities of the answers' tokens, 0 outside the answer:
    `[2B, T]` with the chosen rows first, a pair of `[B, T]`, or sums `[2B]`. `mask` gives the
    answers' lengths to the kinds that divide by them (ipo, sigmoid_norm, sft); without it, tokens
    with a non-zero log-probability are counted. `label_smoothing` is used by robust, exo_pair, aot
    and aot_unpaired alone (as in TRL), `tau` by discopop.
    """
    if kind not in _LOSSES:
        raise ValueError(f"dpo kind {kind!r} is none of {', '.join(DPO_KINDS)}")
    (y_w, y_l), (ref_w, ref_l) = _split_pair(logps), _split_pair(ref_logps)
    masks = _answer_masks(logps, ref_logps, mask)
    lengths, answer_w = None, y_w
    if masks is not None:
        n_w, n_l = (_sum_tokens(m).to(y_w.dtype).clamp(min=1) for m in masks)
        lengths = n_w, n_l
        if y_w.dim() == masks[0].dim() == 2:
            answer_w = y_w * masks[0].to(y_w.dtype)
    pairs = _PairLogProbs(
        y_w=_sum_tokens(y_w),
        y_l=_sum_tokens(y_l),
        ref_w=_sum_tokens(ref_w),
        ref_l=_sum_tokens(ref_l),
        lengths=lengths,
        answer_w=answer_w,
        beta=beta,
        smoothing=label_smoothing,
        tau=tau,
    )
    return _LOSSES[kind](pairs).mean()


def direct_rewards(logps: Pair, ref_logps: Pair, *, beta: float = 0.1) -> tuple[Tensor, Tensor]:
    """Returns DPO's implicit rewards β(log π - log π_ref) of (chosen, rejected), `[B]` each.

    Without a gradient.
    """
    (y_w, y_l), (ref_w, ref_l) = _split_pair(logps), _split_pair(ref_logps)
    chosen = beta * (_sum_tokens(y_w) - _sum_tokens(ref_w)).detach()
    rejected = beta * (_sum_tokens(y_l) - _sum_tokens(ref_l)).detach()
    return chosen, rejected


def chosen_nll(logps: Pair, mask: Pair) -> Tensor:
    """-log π(y_w) / |y_w|, mean over pairs: what anchors DPO to the chosen answers.

    RPO (Pang et al. 2024, 2404.19733) adds it with a weight to the DPO loss, which alone may lower
    the probability of both answers. `logps` and `mask` are as in `dpo_loss`.
    """
    return -_mean_log_probs(logps, mask)[0].mean()


def simpo_loss(logps: Pair, mask: Pair, *, beta: float = 2.0, margin: float = 1.0) -> Tensor:
    """-log σ(β(log π(y_w)/|y_w| - log π(y_l)/|y_l|) - γ), mean over pairs; `margin` is γ.

    SimPO (Meng et al. 2024, 2405.14734): no reference model; γ is a target margin of the rewards.
    """
    chosen, rejected = _mean_log_probs(logps, mask)
    return -F.logsigmoid(beta * (chosen - rejected) - margin).mean()


def orpo_loss(logps: Pair, mask: Pair, *, beta: float = 0.1) -> Tensor:
    """-log π(y_w)/|y_w| - β·log σ(log odds(y_w) - log odds(y_l)), mean over pairs.

    ORPO (Hong et al. 2024, 2403.07691): supervised learning of the chosen answer and a penalty on
    the odds P/(1 - P) of the rejected one, P the geometric mean of its tokens' probabilities. No
    reference model.
    """
    chosen, rejected = _mean_log_probs(logps, mask)
    log_odds_ratio = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    return (-chosen - beta * F.logsigmoid(log_odds_ratio)).mean()


def _mean_log_probs(logps: Pair, mask: Pair) -> tuple[Tensor, Tensor]:
    """Returns the mean log-probability of the tokens of (chosen, rejected) answers, `[B]` each."""
    means = []
    for row_logps, row_mask in zip(_split_pair(logps), _split_pair(mask)):
        weight = _shift_mask(row_mask, row_logps)
        answered = torch.where(weight.bool(), row_logps, torch.zeros_like(row_logps))
        means.append(answered.sum(-1) / weight.sum(-1).clamp(min=1))
    return means[0], means[1]


def _log1mexp(log_p: Tensor) -> Tensor:
    """Returns log(1 - p) of log p < 0 without losing digits (Mächler 2012)."""
    # A probability of exactly 1 has infinite odds; the bound keeps the gradient finite.
    log_p = log_p.clamp(max=-1e-6)
    return torch.where(
        log_p > -math.log(2), torch.log(-torch.expm1(log_p)), torch.log1p(-torch.exp(log_p))
    )


def kto_loss(
    logps: Tensor,
    ref_logps: Tensor,
    labels: Tensor,
    kl_logps: Tensor | None = None,
    ref_kl_logps: Tensor | None = None,
    *,
    kind: Literal["kto", "apo_zero_unpaired"] = "kto",
    beta: float = 0.1,
    weights: tuple[float, float] = (1.0, 1.0),
) -> Tensor:
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, 2402.01306), mean over answers.

    `labels` is true for desirable answers; `kl_logps` and `ref_kl_logps` are log-probabilities of
    *mismatched* answers, from which the reference point KL = max(0, batch mean) is estimated,
    without a gradient (`kind="kto"` alone needs them). All are `[B, T]` (0 outside the answer) or
    sums `[B]`; `weights` = (desirable, undesirable).
    """
    log_ratio = _sum_tokens(logps) - _sum_tokens(ref_logps)
    desirable = labels.bool()
    if kind == "kto":
        if kl_logps is None or ref_kl_logps is None:
            raise ValueError(
                "kto needs kl_logps and ref_kl_logps (log-probabilities of mismatched answers)"
            )
        kl = kto_kl(kl_logps, ref_kl_logps)
        value = torch.where(desirable, beta * (log_ratio - kl), beta * (kl - log_ratio))
        losses = 1 - torch.sigmoid(value)
    elif kind == "apo_zero_unpaired":
        probability = torch.sigmoid(beta * log_ratio)
        losses = torch.where(desirable, 1 - probability, probability)
    else:
        raise ValueError(f"kto kind {kind!r} is neither 'kto' nor 'apo_zero_unpaired'")
    desirable_weight = torch.full_like(log_ratio, weights[0])
    undesirable_weight = torch.full_like(log_ratio, weights[1])
    return (torch.where(desirable, desirable_weight, undesirable_weight) * losses).mean()


def kto_kl(kl_logps: Tensor, ref_kl_logps: Tensor) -> Tensor:
    """Returns KTO's reference point: max(0, mean log-ratio of mismatched answers), detached."""
    return (_sum_tokens(kl_logps) - _sum_tokens(ref_kl_logps)).mean().clamp(min=0).detach()
