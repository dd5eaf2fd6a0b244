"""The scores of the answers of a step.

Judges (the signals) score them; answers that no judge reads get a score that the settings declare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from truing.core.errors import RunError
from truing.core.types import Sample
from truing.distributed.process_group import ProcessGroup, as_float64
from truing.train.rl.reward_signals import GlobalScores, RewardSignals, RolloutScores
from truing.train.rl.rollout import Rollout
from truing.train.rl.settings import RLSettings


class AnswerScorer:
    """Scores rollouts by the signals and the answer contract of the settings.

    An empty answer, and one with special tokens, gets the reward that the settings declare: a
    number, or `lowest`, the lowest reward of the run so far, which works in any unit. The cost of
    an empty answer is the mean cost of the other answers of its step (or the threshold if there are
    none), so that empty answers neither move λ nor help to meet a constraint.
    """

    def __init__(
        self,
        settings: RLSettings,
        signals: RewardSignals,
        processes: ProcessGroup,
        device: torch.device,
    ) -> None:
        self.settings = settings
        self.signals = signals
        self.processes = processes
        self.device = device
        self.limits = settings.all_constraints(costs=bool(signals.costs))
        self.lowest_reward = math.nan

    def score(
        self, rollout: Rollout, samples: Sequence[Sample], *, step: int
    ) -> tuple[RolloutScores, GlobalScores]:
        """Returns the scores of this process's answers, and those of all processes.

        `samples` are the prompts of the answers of all processes, `step` counts from 1. Raises
        RunError if more answers than `max_unscored` have no score.
        """
        local = self.signals.score_rollout(rollout)
        special = rollout.special or (False,) * len(rollout.texts)
        columns = [
            local.reward,
            *local.costs.values(),
            local.scored,
            torch.tensor([not text for text in rollout.texts]),
            torch.tensor(special),
            torch.tensor([not ended for ended in rollout.ended]),
        ]
        table = torch.stack([as_float64(column, self.device) for column in columns], 1)
        count = self.settings.answers_per_step
        gathered = self.processes.gather_rows(table, rollout.global_rows, count).cpu()
        reward, *costs, scored, empty, special_tokens, cut = gathered.unbind(1)
        applies = {
            limit.name: torch.tensor([limit.applies_to(sample) for sample in samples])
            for limit in self.limits
            if limit.category or limit.expect
        }
        # The table is in float64; its columns of 0 and 1 become masks again.
        measured = GlobalScores(
            reward, dict(zip(local.costs, costs)), scored > 0.5, applies, cut > 0.5
        )
        scores = self._declare(measured, empty > 0.5, special_tokens > 0.5)
        # A redraw (dynamic sampling, one process) has answers to some prompts only.
        answers = count if self.processes.size > 1 else len(rollout.texts)
        self._check_unscored(scores, local, (answers, int(empty.sum())), step)
        return local, scores

    def _declare(self, measured: GlobalScores, empty: Tensor, special: Tensor) -> GlobalScores:
        """Returns the scores, with the declared ones for empty and special answers."""
        settings = self.settings
        if bool(measured.scored.any()):
            lowest = float(measured.reward[measured.scored].min())
            self.lowest_reward = min(lowest, self.lowest_reward) if self._has_lowest else lowest
        reward, scored, costs = measured.reward.clone(), measured.scored.clone(), measured.costs
        special_score = self._declared(settings.special_token_score)
        if special_score is not None:
            reward[special & scored] = special_score
        empty_score = self._declared(settings.empty_answer_score)
        if empty_score is not None:
            reward[empty] = empty_score
            scored = scored | empty
            costs = {
                limit.name: costs[limit.name].masked_fill(
                    empty, mean_cost(measured, limit.name, limit.threshold)
                )
                for limit in self.limits
            }
        return replace(measured, reward=reward, costs=costs, scored=scored)

    @property
    def _has_lowest(self) -> bool:
        return not math.isnan(self.lowest_reward)

    def _declared(self, setting: float | str) -> float | None:
        """Returns the reward that a setting declares; None if it declares none.

        In a run in which no answer has been scored so far, `lowest` is 0.
        """
        if not isinstance(setting, str):
            return setting
        if setting != "lowest":
            return None
        return self.lowest_reward if self._has_lowest else 0.0

    def _check_unscored(
        self, scores: GlobalScores, local: RolloutScores, counts: tuple[int, int], step: int
    ) -> None:
        """Raises RunError if a larger share of the answers than `max_unscored` has no score.

        `counts` are the numbers of all answers and of empty ones.
        """
        settings = self.settings
        count, empty = counts
        unscored = count - int(scores.scored.sum())
        if unscored <= settings.max_unscored * count:
            return
        unscored_empty = empty if settings.empty_answer_score == "unscored" else 0
        reasons = [f"{n} × {reason}" for reason, n in local.failure_reasons.most_common(3)]
        advice = []
        if unscored_empty:
            reasons.insert(0, f"{unscored_empty} × an empty answer (the end token came first)")
            advice.append("give empty answers a score (empty_answer_score)")
        if unscored > unscored_empty:
            advice.append("repair what scores them")
        raise RunError(
            f"step {step}: {unscored} of {count} answers have no score "
            f"({'; '.join(reasons) or 'on another process'}). An unscored answer never counts as "
            f"safe, so the run stops above a share of max_unscored = {settings.max_unscored}. "
            f"Before you give the same command again, {' and '.join(advice)}, or let the run go on "
            f"without them: --max-unscored {math.ceil(100 * unscored / count) / 100:g}"
        )

    def state_dict(self) -> dict[str, float]:
        """Returns what a resumed run needs."""
        return {"lowest_reward": self.lowest_reward}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.lowest_reward = float(state["lowest_reward"])


def mean_cost(scores: GlobalScores, name: str, default: float) -> float:
    """Returns the mean cost of the answers that count for a constraint; `default` without any."""
    costs = scores.costs[name][scores.counted(name)]
    return float(costs.mean()) if len(costs) else default


def cut_penalty(settings: RLSettings, scores: GlobalScores) -> float:
    """Returns what is subtracted from the reward of a cut answer.

    By default it is one standard deviation of the step's rewards: large enough, in any unit, that
    an answer that ends is better than one that is cut. A convention of this project.
    """
    if not isinstance(settings.truncation_penalty, str):
        return settings.truncation_penalty
    rewards = scores.reward[scores.scored]
    return float(rewards.std(correction=0)) if len(rewards) else 0.0


def overlong_share(settings: RLSettings, rollout: Rollout) -> Tensor:
    """Returns which share of the penalty for cut answers each answer gets, `[B]`.

    1 for an answer that was cut at `max_new`. With `overlong_buffer` it rises linearly over the
    last tokens before the limit (DAPO, Yu et al. 2025, 2503.14476, equation 13).
    """
    cut = torch.tensor([not ended for ended in rollout.ended], dtype=torch.float64)
    buffer = settings.overlong_buffer
    if not buffer:
        return cut
    over = as_float64(rollout.answer_lengths).cpu() - (settings.max_new - buffer)
    return torch.maximum(cut, (over / buffer).clamp(0, 1))
