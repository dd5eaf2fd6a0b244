"""The loss of a batch: masked cross-entropies of questions and categories, and the order of pairs.

    L = CE(harmful) + 1/2 CE(harmful_prompt, refused)
        + w_c CE(categories) + w_p softplus(z_better - z_worse)

Means over the rows of the batch; what was not judged adds nothing. z are the harmful logits, and
the last term is the log-likelihood of Bradley and Terry (1952) that the better answer is less
harmful. Rare categories weigh more: by the square root of the odds against them, at most 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from msgspec import Struct
from torch import Tensor
from torch.nn import functional as F

from truing.judges.moderation.settings import MODERATION_QUESTIONS
from truing.train.moderation.examples import ModerationExample

# In a set that lists no categories a harmless answer still has none of them; this weighs little,
# since it says nothing about how one category differs from another.
UNLISTED_CATEGORY_WEIGHT = 0.15


class LossWeights(Struct, frozen=True):
    """The weights of the loss: `pair` is w_p, `category` w_c, `positive` a factor per category.

    `listing_sets` are the data sets that list categories (`sets_with_categories`).
    """

    positive: Tensor
    listing_sets: frozenset[str]
    pair: float = 0.5
    category: float = 4.0


def positive_weights(items: Sequence[ModerationExample], categories: int) -> Tensor:
    """Returns sqrt(negatives / positives) of each category, at least 1 and at most 4."""
    default = torch.ones(categories)
    if not items:
        return default
    targets = torch.tensor([item.targets[len(MODERATION_QUESTIONS) :] for item in items])
    share = torch.nanmean(targets, 0)
    weights = ((1 - share) / share.clamp(min=1e-3)).sqrt().clamp(1.0, 4.0)
    return torch.where(share.isnan(), default, weights)


def find_ordered_pairs(items: Sequence[ModerationExample]) -> tuple[list[int], list[int]]:
    """Returns the indexes of the better and of the worse answer of each pair that has an order."""
    by_pair: dict[tuple[str, str], list[int]] = {}
    for index, item in enumerate(items):
        is_ordered = item.order == item.order  # not NaN
        if item.pair is not None and is_ordered:
            by_pair.setdefault((item.source, item.pair), []).append(index)
    better, worse = [], []
    for members in by_pair.values():
        if len(members) == 2 and items[members[0]].order != items[members[1]].order:
            low, high = sorted(members, key=lambda index: items[index].order)
            better.append(low)
            worse.append(high)
    return better, worse


def sets_with_categories(items: Sequence[ModerationExample]) -> frozenset[str]:
    """Returns the data sets of which at least one row has a category."""
    return frozenset(
        item.source
        for item in items
        if any(t > 0 for t in item.targets[len(MODERATION_QUESTIONS) :])
    )


def moderation_loss(
    logits: Tensor, targets: Tensor, items: Sequence[ModerationExample], weights: LossWeights
) -> Tensor:
    """Returns the loss; logits and targets are `[B, 3 + categories]`, targets NaN if not judged."""
    z, batch_size, questions = logits.float(), len(items), len(MODERATION_QUESTIONS)
    is_judged = (~targets.isnan()).float()
    y = torch.nan_to_num(targets)

    question_loss = is_judged[:, :questions] * F.binary_cross_entropy_with_logits(
        z[:, :questions], y[:, :questions], reduction="none"
    )
    loss = (question_loss[:, 0].sum() + 0.5 * question_loss[:, 1:].sum()) / batch_size

    row_weight = torch.tensor(
        [1.0 if i.source in weights.listing_sets else UNLISTED_CATEGORY_WEIGHT for i in items],
        device=z.device,
    ).unsqueeze(1)
    category_loss = is_judged[:, questions:] * F.binary_cross_entropy_with_logits(
        z[:, questions:],
        y[:, questions:],
        reduction="none",
        pos_weight=weights.positive.to(z.device),
    )
    categories = max(1, z.shape[1] - questions)
    category_sum = (category_loss * row_weight).sum()
    loss = loss + weights.category * category_sum / categories / batch_size

    better, worse = find_ordered_pairs(items)
    if better and weights.pair:
        pair_loss = F.softplus(z[better, 0] - z[worse, 0]).sum()
        loss = loss + weights.pair * pair_loss / batch_size
    return loss
