"""Preference without a reward model: DPO in the fifteen forms that TRL knows, and KTO."""

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
class _Parts:
    """What a form of the loss may look at, one entry a pair. y_w = chosen, y_l = rejected."""

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
    def gain_w(self) -> Tensor:
        return self.y_w - self.ref_w

    @property
    def gain_l(self) -> Tensor:
        return self.y_l - self.ref_l

    @property
    def gap(self) -> Tensor:
        return self.gain_w - self.gain_l

    @property
    def tokens(self) -> tuple[Tensor, Tensor]:
        if self.lengths is None:
            raise ValueError(
                "this kind of DPO divides by the answer's length: give token log-probabilities or a mask"
            )
        return self.lengths


def _smoothed(delta: Tensor, p: _Parts) -> Tensor:
    up, down = F.logsigmoid(p.beta * delta), F.logsigmoid(-p.beta * delta)
    return -(1 - p.smoothing) * up - p.smoothing * down


def _sigmoid(p: _Parts) -> Tensor:  # Rafailov et al. 2023, 2305.18290
    return -F.logsigmoid(p.beta * p.gap)


def _hinge(p: _Parts) -> Tensor:  # SLiC, 2305.10425
    return torch.relu(1 - p.beta * p.gap)


def _ipo(p: _Parts) -> Tensor:  # Azar et al. 2023, 2310.12036, over the mean log-ratio a token
    n_w, n_l = p.tokens
    return (p.gain_w / n_w - p.gain_l / n_l - 1 / (2 * p.beta)).square()


def _robust(p: _Parts) -> Tensor:  # Chowdhury et al. 2024, 2403.00409
    up, down = F.logsigmoid(p.beta * p.gap), F.logsigmoid(-p.beta * p.gap)
    return (-(1 - p.smoothing) * up + p.smoothing * down) / (1 - 2 * p.smoothing)


def _exo_pair(p: _Parts) -> Tensor:  # Ji et al. 2024, 2402.00856
    if not 0 < p.smoothing < 1:
        raise ValueError("exo_pair needs label_smoothing between 0 and 1 (1e-3 is the paper's)")
    x = p.beta * p.gap
    log_w, log_l = math.log1p(-p.smoothing), math.log(p.smoothing)
    return x.sigmoid() * (F.logsigmoid(x) - log_w) + (-x).sigmoid() * (F.logsigmoid(-x) - log_l)


def _nca_pair(p: _Parts) -> Tensor:  # Chen et al. 2024, 2402.05369
    r_w, r_l = p.beta * p.gain_w, p.beta * p.gain_l
    return -F.logsigmoid(r_w) - 0.5 * F.logsigmoid(-r_w) - 0.5 * F.logsigmoid(-r_l)


def _bco_pair(
    p: _Parts,
) -> Tensor:  # Jung et al. 2024, 2404.04656, without its reward shift (as TRL)
    return -F.logsigmoid(p.beta * p.gain_w) - F.logsigmoid(-p.beta * p.gain_l)


def _sppo_hard(p: _Parts) -> Tensor:  # Wu et al. 2024, 2405.00675
    return (p.gain_w - 0.5 / p.beta).square() + (p.gain_l + 0.5 / p.beta).square()


def _apo_zero(p: _Parts) -> Tensor:  # D'Oosterlinck et al. 2024, 2408.06266
    return 1 - torch.sigmoid(p.beta * p.gain_w) + torch.sigmoid(p.beta * p.gain_l)


def _apo_down(p: _Parts) -> Tensor:  # the same paper
    return torch.sigmoid(p.beta * p.gain_w) + 1 - torch.sigmoid(p.beta * p.gap)


def _aot(p: _Parts) -> Tensor:  # Melnyk et al. 2024, 2406.05882
    return _smoothed((p.y_w - p.y_l).sort(0).values - (p.ref_w - p.ref_l).sort(0).values, p)


def _aot_unpaired(p: _Parts) -> Tensor:  # the same paper
    return _smoothed(p.gain_w.sort(0).values - p.gain_l.sort(0).values, p)


def _sft(p: _Parts) -> Tensor:  # cross-entropy of the chosen answer, mean over all its tokens
    return -p.answer_w.sum() / p.tokens[0].sum()


def _sigmoid_norm(p: _Parts) -> Tensor:  # SimPO's length normalisation with a reference, 2405.14734
    n_w, n_l = p.tokens
    return -F.logsigmoid(p.beta * (p.gain_w / n_w - p.gain_l / n_l))


def _discopop(p: _Parts) -> Tensor:  # Lu et al. 2024, 2406.08414
    x = p.beta * p.gap
    mix = torch.sigmoid(x / p.tau)
    return -F.logsigmoid(x) * (1 - mix) + torch.exp(-x) * mix


_FORMS: dict[str, Callable[[_Parts], Tensor]] = {
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
DPO_KINDS: tuple[str, ...] = tuple(_FORMS)


def _halves(x: Pair) -> tuple[Tensor, Tensor]:
    if isinstance(x, (tuple, list)):
        return x[0], x[1]
    if x.shape[0] % 2:
        raise ValueError(
            f"{x.shape[0]} rows are no pairs: give the chosen rows first, then as many rejected ones"
        )
    left, right = x.chunk(2, dim=0)
    return left, right


def _sum(x: Tensor) -> Tensor:
    return x if x.dim() == 1 else x.sum(-1)


def _masks(logps: Pair, ref_logps: Pair, mask: Pair | None) -> tuple[Tensor, Tensor] | None:
    """Which tokens are the answers' own: the mask as given (without a first column that the shift drops), or
    non-zero ones.
    """
    made = []
    for at, (row, ref) in enumerate(zip(_halves(logps), _halves(ref_logps))):
        if mask is not None:
            half = _halves(mask)[at]
            made.append(
                half[:, 1:]
                if row.dim() == half.dim() == 2 and half.shape[1] == row.shape[1] + 1
                else half
            )
        elif row.dim() == 1:
            return None
        else:
            made.append((row != 0) | (ref != 0) if ref.shape == row.shape else row != 0)
    return made[0], made[1]


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
    """Direct preference optimisation, mean over pairs; `kind` is one of `DPO_KINDS` (TRL's names and definitions).

    `logps` and `ref_logps` hold the policy's and the reference's log-probabilities of the answers' tokens, 0 outside
    the answer: `[2B, T]` with the chosen rows first, a pair of `[B, T]`, or sums `[2B]`. `mask` gives the answers'
    lengths to the kinds that divide by them (ipo, sigmoid_norm, sft); without it, tokens with a non-zero
    log-probability are counted.
    `label_smoothing` acts in robust, exo_pair, aot and aot_unpaired alone (as in TRL); `tau` in discopop.
    """
    if kind not in _FORMS:
        raise ValueError(f"dpo kind {kind!r} is none of {', '.join(DPO_KINDS)}")
    (y_w, y_l), (ref_w, ref_l) = _halves(logps), _halves(ref_logps)
    masks = _masks(logps, ref_logps, mask)
    lengths = None if masks is None else tuple(_sum(m).to(y_w.dtype).clamp(min=1) for m in masks)
    answer = y_w * masks[0].to(y_w.dtype) if masks and y_w.dim() == masks[0].dim() == 2 else y_w
    parts = _Parts(
        _sum(y_w),
        _sum(y_l),
        _sum(ref_w),
        _sum(ref_l),
        (lengths[0], lengths[1]) if lengths else None,
        answer,
        beta,
        label_smoothing,
        tau,
    )
    return _FORMS[kind](parts).mean()


def direct_rewards(logps: Pair, ref_logps: Pair, *, beta: float = 0.1) -> tuple[Tensor, Tensor]:
    """The implicit rewards β(log π - log π_ref) of the chosen and of the rejected answers; `[B]` each, detached."""
    (y_w, y_l), (ref_w, ref_l) = _halves(logps), _halves(ref_logps)
    return beta * (_sum(y_w) - _sum(ref_w)).detach(), beta * (_sum(y_l) - _sum(ref_l)).detach()


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
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, 2402.01306) over unpaired answers, mean over rows.

    `labels` is true for desirable answers; `kl_logps` and `ref_kl_logps` are log-probabilities of *mismatched*
    answers, from which the reference point KL = max(0, batch mean) comes, without a gradient (`kind="kto"` alone
    needs them). All are `[B, T]` (0 outside the answer) or sums `[B]`; `weights` = (desirable, undesirable).
    """
    gain = _sum(logps) - _sum(ref_logps)
    good = labels.bool()
    if kind == "kto":
        if kl_logps is None or ref_kl_logps is None:
            raise ValueError(
                "kto needs kl_logps and ref_kl_logps (log-probabilities of mismatched answers)"
            )
        kl = kto_kl(kl_logps, ref_kl_logps)
        losses = 1 - torch.sigmoid(torch.where(good, beta * (gain - kl), beta * (kl - gain)))
    elif kind == "apo_zero_unpaired":
        losses = torch.where(good, 1 - torch.sigmoid(beta * gain), torch.sigmoid(beta * gain))
    else:
        raise ValueError(f"kto kind {kind!r} is neither 'kto' nor 'apo_zero_unpaired'")
    weight = torch.where(good, torch.full_like(gain, weights[0]), torch.full_like(gain, weights[1]))
    return (weight * losses).mean()


def kto_kl(kl_logps: Tensor, ref_kl_logps: Tensor) -> Tensor:
    """The reference point of KTO: max(0, mean log-ratio of mismatched answers), detached."""
    return (_sum(kl_logps) - _sum(ref_kl_logps)).mean().clamp(min=0).detach()
