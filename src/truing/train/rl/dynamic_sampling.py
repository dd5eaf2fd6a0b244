"""Dynamic sampling of DAPO (Yu et al. 2025, 2503.14476): groups without a gradient are redrawn.

A group whose answers all have the same reward and costs has advantages of 0. Its answers are
replaced by answers to another prompt, in at most `dynamic_sampling` rounds; groups that are flat
after these stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from truing.train.rl.reward_signals import GlobalScores, RolloutScores
from truing.train.rl.rollout import Rollout
from truing.train.rl.settings import RLSettings


def flat_groups(settings: RLSettings, scores: GlobalScores) -> list[int]:
    """Returns the positions in the step of prompts whose scored answers all have equal scores.

    Prompts with fewer than two scored answers are among them. Rewards and costs are compared as
    they were scored, before penalties for length; the costs of a constraint only of answers that it
    is about, since those of others have no part in the gradient.
    """
    columns = [(scores.reward, scores.scored)]
    columns += [(cost, scores.counted(name)) for name, cost in scores.costs.items()]
    differs = torch.zeros(len(scores.scored) // settings.n, dtype=torch.bool)
    for column, mask in columns:
        values, counted = column.reshape(-1, settings.n), mask.reshape(-1, settings.n)
        highest = values.masked_fill(~counted, -torch.inf).amax(1)
        lowest = values.masked_fill(~counted, torch.inf).amin(1)
        differs |= highest > lowest
    return [int(position) for position in (~differs).nonzero().flatten()]


@dataclass(frozen=True)
class ScoredRollout:
    """A rollout with its scores; `redrawn` counts the groups that were sampled anew."""

    rollout: Rollout
    local_scores: RolloutScores
    scores: GlobalScores
    redrawn: int = 0

    def with_groups(
        self,
        settings: RLSettings,
        positions: Sequence[int],
        rollout: Rollout,
        scores: tuple[RolloutScores, GlobalScores],
    ) -> ScoredRollout:
        """Returns the rollout with the groups at `positions` replaced; works in one process only.

        `rollout` and the local ones of `scores` have the rows of these groups alone, the global
        scores those of the whole step.
        """
        rows = [p * settings.n + answer for p in positions for answer in range(settings.n)]
        index = torch.tensor(rows)
        new_local, new = scores

        def place(old: Tensor, values: Tensor) -> Tensor:
            return old.index_copy(0, index, values)

        local, old = self.local_scores, self.scores
        redrawn_local = RolloutScores(
            reward=place(local.reward, new_local.reward),
            costs={k: place(cost, new_local.costs[k]) for k, cost in local.costs.items()},
            scored=place(local.scored, new_local.scored),
            parts={k: place(part, new_local.parts[k]) for k, part in local.parts.items()},
            failure_reasons=Counter(local.failure_reasons) + new_local.failure_reasons,
        )
        merged = replace(
            old,
            reward=place(old.reward, new.reward[index]),
            costs={k: place(cost, new.costs[k][index]) for k, cost in old.costs.items()},
            scored=place(old.scored, new.scored[index]),
            applies={k: place(mask, new.applies[k][index]) for k, mask in old.applies.items()},
            cut=None if old.cut is None or new.cut is None else place(old.cut, new.cut[index]),
        )
        return ScoredRollout(
            self.rollout.with_rows(rows, rollout),
            redrawn_local,
            merged,
            self.redrawn + len(positions),
        )
