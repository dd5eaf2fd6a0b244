"""Losses of reward models (Bradley-Terry) and of cost models (Safe RLHF)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from truing.distributed.process_group import as_float64
from truing.train.losses.tensors import end_index, first_difference

Level = Literal["sequence", "token"]


@dataclass(frozen=True)
class PairScores:
    """The scores of a batch of answer pairs, `[B, T]` per token or `[B]` per answer.

    `chosen` is the better answer for a reward model and the *safer* one for a cost model. `[B, T]`
    scores need the masks. ``level="token"`` needs masks and ids of equal length, padded on the
    right, so that positions of the two answers correspond.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_mask: Tensor | None = None
    rejected_mask: Tensor | None = None
    chosen_ids: Tensor | None = None
    rejected_ids: Tensor | None = None

    @property
    def chosen_end(self) -> Tensor:
        """The scores at the last real token of the chosen answers, `[B]`."""
        return _end_scores(self.chosen, self.chosen_mask)

    @property
    def rejected_end(self) -> Tensor:
        """The scores at the last real token of the rejected answers, `[B]`."""
        return _end_scores(self.rejected, self.rejected_mask)

    def spans(self) -> list[tuple[int, int]]:
        """Returns (first differing token, later of the two last tokens) of each pair, inclusive."""
        if self.chosen_ids is None or self.rejected_ids is None:
            raise ValueError('level="token" needs chosen_ids and rejected_ids')
        if self.chosen_mask is None or self.rejected_mask is None:
            raise ValueError('level="token" needs chosen_mask and rejected_mask')
        starts = first_difference(self.chosen_ids, self.rejected_ids).tolist()
        ends = torch.maximum(end_index(self.chosen_mask), end_index(self.rejected_mask)).tolist()
        return list(zip(starts, ends))

    def accuracy(self, *, cost: bool = False) -> Tensor:
        """Returns the share of pairs in the right order; a tie is wrong.

        The chosen answer has the higher reward, or with `cost` the lower cost.
        """
        chosen, rejected = self.chosen_end, self.rejected_end
        return as_float64((rejected > chosen) if cost else (chosen > rejected)).mean()

    def sign_accuracy(self, signs: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """Returns the share of answers whose cost has the sign of their label (unsafe: above 0).

        A cost of exactly 0 is wrong.
        """
        chosen_signs, rejected_signs = split_signs(signs)
        correct = torch.cat(
            [-chosen_signs * self.chosen_end > 0, -rejected_signs * self.rejected_end > 0]
        )
        return as_float64(correct).mean()


def _end_scores(scores: Tensor, mask: Tensor | None) -> Tensor:
    if scores.dim() == 1:
        return scores
    if mask is None:
        raise ValueError("scores of shape [B, T] need their mask")
    return scores.gather(-1, end_index(mask).unsqueeze(-1)).squeeze(-1)


def split_signs(signs: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns (signs of the chosen, signs of the rejected), `[B]` each; +1 safe, -1 unsafe.

    `signs` is such a pair or one tensor `[B, 2]`. Raises ValueError for other values.
    """
    if isinstance(signs, (tuple, list)):
        chosen, rejected = (torch.as_tensor(s) for s in signs)
    else:
        if signs.dim() != 2 or signs.shape[-1] != 2:
            raise ValueError(f"signs: expected [B, 2] or a pair of [B], got {tuple(signs.shape)}")
        chosen, rejected = signs.unbind(-1)
    # Labels of 0 and 1 are an easy mistake; a sign of 0 would switch its term off silently.
    both = torch.cat([chosen, rejected])
    if not bool(((both == 1) | (both == -1)).all()):
        raise ValueError("signs: every sign is +1 (safe) or -1 (unsafe)")
    return chosen, rejected


def _check_level(level: str) -> None:
    if level not in ("sequence", "token"):
        raise ValueError(f"level {level!r} is neither 'sequence' nor 'token'")


def reward_loss(
    pairs: PairScores,
    *,
    level: Level = "sequence",
    regularization: float = 0.0,
    center: float | None = None,
    margin: Tensor | None = None,
) -> Tensor:
    """-log σ(r_w - r_l - m) [+ regularization · mean r²] [+ center · mean (r_w + r_l)²].

    Mean over pairs. Bradley-Terry as in Ouyang et al. 2022 (2203.02155); the regulariser of
    safe-rlhf, centring of Eisenstein et al. 2023 (2312.09244), margins of Llama 2 (2307.09288).
    ``level="token"`` takes the mean over the tokens from the first that differs to the later end
    (padding of the shorter answer included, as in safe-rlhf).
    """
    _check_level(level)
    if level == "sequence":
        return _reward_terms(pairs.chosen_end, pairs.rejected_end, margin, regularization, center)
    # Pairs have spans of different lengths, so the mean is per pair and then over pairs.
    losses = [
        _reward_terms(
            pairs.chosen[row, start : end + 1],
            pairs.rejected[row, start : end + 1],
            None if margin is None else margin[row],
            regularization,
            center,
        )
        for row, (start, end) in enumerate(pairs.spans())
    ]
    return torch.stack(losses).mean()


def _reward_terms(
    r_w: Tensor, r_l: Tensor, margin: Tensor | None, regularization: float, center: float | None
) -> Tensor:
    difference = r_w - r_l if margin is None else r_w - r_l - margin
    loss = -F.logsigmoid(difference).mean()
    if regularization:
        loss = loss + regularization * torch.stack([r_w, r_l]).square().mean()
    if center:
        loss = loss + center * (r_w + r_l).square().mean()
    return loss


def cost_loss(
    pairs: PairScores,
    signs: Tensor | tuple[Tensor, Tensor],
    *,
    level: Level = "sequence",
    regularization: float = 0.0,
) -> Tensor:
    """-log σ(c_u - c_s) - log σ(s'_s c_s) - log σ(s'_u c_u) [+ regularization · mean c²].

    Mean over pairs. Safe RLHF (Dai et al. 2023, 2310.12773): `chosen` is the safer answer s,
    `rejected` the unsafer u, s' = -sign, so a cost above 0 means unsafe. `signs` is (chosen signs,
    rejected signs) or `[B, 2]`.
    """
    _check_level(level)
    sign_s, sign_u = split_signs(signs)
    if level == "sequence":
        return _cost_terms(pairs.chosen_end, pairs.rejected_end, sign_s, sign_u, regularization)
    losses = [
        _cost_terms(
            pairs.chosen[row, start : end + 1],
            pairs.rejected[row, start : end + 1],
            sign_s[row],
            sign_u[row],
            regularization,
        )
        for row, (start, end) in enumerate(pairs.spans())
    ]
    return torch.stack(losses).mean()


def _cost_terms(
    c_s: Tensor, c_u: Tensor, sign_s: Tensor, sign_u: Tensor, regularization: float
) -> Tensor:
    # The unsafer answer costs more; and a safe answer costs less than 0, an unsafe one more.
    order = F.logsigmoid(c_u - c_s)
    labels = F.logsigmoid(-sign_s * c_s) + F.logsigmoid(-sign_u * c_u)
    loss = -(order + labels).mean()
    if regularization:
        loss = loss + regularization * torch.stack([c_s, c_u]).square().mean()
    return loss
