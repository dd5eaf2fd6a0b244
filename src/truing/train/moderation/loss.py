"""The loss of a batch: masked cross-entropies of three questions and the categories, and the order of pairs.

    L = CE(harmful) + 1/2 CE(harmful_prompt, refused) + w_c CE(categories) + w_p softplus(z_safer - z_other)

Means over the rows of the batch; what was not judged adds nothing. Rare categories weigh more, by the square root of
the odds against them, up to 4. The pair term is Bradley and Terry's (1952) on the harmful logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from msgspec import Struct
from torch import Tensor
from torch.nn import functional as F

from truing.train.moderation.examples import ModerationExample

QUESTION_COUNT = 3


def positive_weights(items: Sequence[ModerationExample], categories: int) -> Tensor:
    """The weight of a positive label for each category: sqrt(negatives / positives), between 1 and 4."""
    made = torch.ones(categories)
    if not items:
        return made
    known = torch.tensor([i.targets[QUESTION_COUNT:] for i in items])
    share = torch.nanmean(known, 0)
    odds = ((1 - share) / share.clamp(min=1e-3)).sqrt().clamp(1.0, 4.0)
    return torch.where(share.isnan(), made, odds)


def find_ordered_pairs(items: Sequence[ModerationExample]) -> tuple[list[int], list[int]]:
    """Places in the batch of the safer and of the other answer of each pair that has an order."""
    where: dict[tuple[str, str], list[int]] = {}
    for at, item in enumerate(items):
        if item.pair is not None and item.order == item.order:
            where.setdefault((item.source, item.pair), []).append(at)
    safer, other = [], []
    for members in where.values():
        if len(members) == 2 and items[members[0]].order != items[members[1]].order:
            low, high = sorted(members, key=lambda k: items[k].order)
            safer.append(low)
            other.append(high)
    return safer, other


def sets_with_categories(items: Sequence[ModerationExample]) -> frozenset[str]:
    """The sets that list categories: at least one of their rows has one."""
    return frozenset(i.source for i in items if any(t > 0 for t in i.targets[QUESTION_COUNT:]))


class LossWeights(Struct, frozen=True):
    """What weighs how much: see the module's formula; `lists` are the sets that teach the categories."""

    positive: Tensor
    lists: frozenset[str]
    pair: float = 0.5
    category: float = 4.0


def moderation_loss(
    logits: Tensor, targets: Tensor, items: Sequence[ModerationExample], balance: LossWeights
) -> Tensor:
    """The loss of one batch; `targets` `[B, 3 + categories]` with NaN where nothing was judged."""
    z, n = logits.float(), len(items)
    known = (~targets.isnan()).float()
    wanted = torch.nan_to_num(targets)
    each = (
        F.binary_cross_entropy_with_logits(
            z[:, :QUESTION_COUNT], wanted[:, :QUESTION_COUNT], reduction="none"
        )
        * known[:, :QUESTION_COUNT]
    )
    loss = (each[:, 0].sum() + 0.5 * each[:, 1:].sum()) / n
    # that a harmless answer of a set without categories has none of them is known, but weighs little
    share = torch.tensor(
        [1.0 if i.source in balance.lists else 0.15 for i in items], device=z.device
    ).unsqueeze(1)
    positive = balance.positive.to(z.device)
    apart = F.binary_cross_entropy_with_logits(
        z[:, QUESTION_COUNT:], wanted[:, QUESTION_COUNT:], reduction="none", pos_weight=positive
    )
    loss = (
        loss
        + balance.category
        * (apart * known[:, QUESTION_COUNT:] * share).sum()
        / max(1, z.shape[1] - QUESTION_COUNT)
        / n
    )
    safer, other = find_ordered_pairs(items)
    if safer and balance.pair:
        loss = loss + balance.pair * F.softplus(z[safer, 0] - z[other, 0]).sum() / n
    return loss
