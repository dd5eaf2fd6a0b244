"""Reward and cost models: Bradley-Terry, and the cost model of Safe RLHF with its two sign terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from truing.train.losses.tensors import end_index, first_difference

Level = Literal["sequence", "token"]


@dataclass(frozen=True)
class PairScores:
    """The scores of a batch of pairs: `[B, T]` for each token, or `[B]` at the end of each answer.

    `chosen` is the better answer for a reward model and the *safer* one for a cost model. Masks are needed for `[B,
    T]`, ids for ``level="token"``; both sides are right-padded to one length there, so that positions correspond.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_mask: Tensor | None = None
    rejected_mask: Tensor | None = None
    chosen_ids: Tensor | None = None
    rejected_ids: Tensor | None = None

    @property
    def chosen_end(self) -> Tensor:
        """The score at the last real token of each chosen answer; `[B]`."""
        return _at_end(self.chosen, self.chosen_mask)

    @property
    def rejected_end(self) -> Tensor:
        """The score at the last real token of each rejected answer; `[B]`."""
        return _at_end(self.rejected, self.rejected_mask)

    def spans(self) -> list[tuple[int, int]]:
        """For each pair, first differing token and the later of the two ends (inclusive)."""
        if self.chosen_ids is None or self.rejected_ids is None:
            raise ValueError('level="token" needs chosen_ids and rejected_ids')
        if self.chosen_mask is None or self.rejected_mask is None:
            raise ValueError('level="token" needs chosen_mask and rejected_mask')
        starts = first_difference(self.chosen_ids, self.rejected_ids).tolist()
        ends = torch.maximum(end_index(self.chosen_mask), end_index(self.rejected_mask)).tolist()
        return list(zip(starts, ends))

    def accuracy(self, *, cost: bool = False) -> Tensor:
        """Share of pairs in the right order, strictly: a tie is wrong. For a cost model the safer one costs less."""
        left, right = self.chosen_end, self.rejected_end
        return ((right > left) if cost else (left > right)).double().mean()

    def sign_accuracy(self, signs: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """Share of answers whose cost has the sign of their label (unsafe > 0); a cost of exactly 0 is wrong."""
        safe, unsafe = split_signs(signs)
        right = torch.cat([-safe * self.chosen_end > 0, -unsafe * self.rejected_end > 0])
        return right.double().mean()


def _at_end(scores: Tensor, mask: Tensor | None) -> Tensor:
    if scores.dim() == 1:
        return scores
    if mask is None:
        raise ValueError("scores of shape [B, T] need their mask")
    return scores.gather(-1, end_index(mask).unsqueeze(-1)).squeeze(-1)


def split_signs(signs: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(signs of the chosen, signs of the rejected) from a pair of `[B]` or one `[B, 2]`; +1 safe, -1 unsafe."""
    if isinstance(signs, (tuple, list)):
        left, right = (torch.as_tensor(s) for s in signs)
    else:
        if signs.dim() != 2 or signs.shape[-1] != 2:
            raise ValueError(f"signs: expected [B, 2] or a pair of [B], got {tuple(signs.shape)}")
        left, right = signs.unbind(-1)
    both = torch.cat([left, right])
    if not bool(((both == 1) | (both == -1)).all()):
        raise ValueError("signs: every sign is +1 (safe) or -1 (unsafe)")
    return left, right


def reward_loss(
    pairs: PairScores,
    *,
    level: Level = "sequence",
    regularization: float = 0.0,
    center: float | None = None,
    margin: Tensor | None = None,
) -> Tensor:
    """-log σ(r_w - r_l - m) [+ regularization · mean r²] [+ center · mean (r_w + r_l)²], mean over pairs.

    Bradley-Terry as in Ouyang et al. 2022 (2203.02155); the regulariser of safe-rlhf, centring of Eisenstein et al.
    2023 (2312.09244), margins of Llama 2 (2307.09288). ``level="token"`` takes the mean over the tokens from the
    first that differs to the later end (padding of the shorter answer included, as in safe-rlhf).
    """
    if level not in ("sequence", "token"):
        raise ValueError(f"level {level!r} is neither 'sequence' nor 'token'")
    if level == "sequence":
        return _reward_terms(pairs.chosen_end, pairs.rejected_end, margin, regularization, center)
    losses = [
        _reward_terms(
            pairs.chosen[i, a : e + 1],
            pairs.rejected[i, a : e + 1],
            None if margin is None else margin[i],
            regularization,
            center,
        )
        for i, (a, e) in enumerate(pairs.spans())
    ]
    return torch.stack(losses).mean()


def _reward_terms(
    r_w: Tensor, r_l: Tensor, margin: Tensor | None, reg: float, center: float | None
) -> Tensor:
    gap = r_w - r_l if margin is None else r_w - r_l - margin
    loss = -F.logsigmoid(gap).mean()
    if reg:
        loss = loss + reg * torch.stack([r_w, r_l]).square().mean()
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
    """-log σ(c_u - c_s) - log σ(s'_s c_s) - log σ(s'_u c_u) [+ regularization · mean c²], mean over pairs.

    Safe RLHF (2310.12773): `chosen` is the safer answer s, `rejected` the unsafer u, s' = -sign, so a cost above 0
    means unsafe. `signs` is (chosen signs, rejected signs) or `[B, 2]`.
    """
    if level not in ("sequence", "token"):
        raise ValueError(f"level {level!r} is neither 'sequence' nor 'token'")
    safe, unsafe = split_signs(signs)
    if level == "sequence":
        return _cost_terms(pairs.chosen_end, pairs.rejected_end, safe, unsafe, regularization)
    losses = [
        _cost_terms(
            pairs.chosen[i, a : e + 1],
            pairs.rejected[i, a : e + 1],
            safe[i],
            unsafe[i],
            regularization,
        )
        for i, (a, e) in enumerate(pairs.spans())
    ]
    return torch.stack(losses).mean()


def _cost_terms(s: Tensor, u: Tensor, sign_s: Tensor, sign_u: Tensor, reg: float) -> Tensor:
    loss = -(F.logsigmoid(u - s) + F.logsigmoid(-sign_s * s) + F.logsigmoid(-sign_u * u)).mean()
    if reg:
        loss = loss + reg * torch.stack([s, u]).square().mean()
    return loss
