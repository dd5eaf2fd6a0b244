"""Warnings about RL runs in plain words: what is observed, why it happens, what to do."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from truing.train.rl.settings import RLSettings

_TREND_STEPS = 20  # steps that a trend is read from
_CYCLE_STEPS = 80  # steps in which an oscillation of λ is looked for
_QUIET_STEPS = 20  # steps before the same warning is given again

WARNINGS = {
    "kl_top_p": (
        "the KL estimate k1 has been negative for five steps ({k1:.3g}; k3 is {k3:.3g}): top_p = "
        "{top_p} draws from a narrower distribution than the one whose log-probabilities are "
        "compared. A negative KL is rewarded, so the policy runs away from the reference; set "
        "top_p 1, or kl_place loss (k3)"
    ),
    "kl_off_policy": (
        "the KL estimate k1 has been negative for five steps ({k1:.3g}; k3 is {k3:.3g}): the "
        "answers are not sampled from the policy whose log-probabilities are compared. Does the "
        "generator have the newest weights, and the same precision?"
    ),
    "same": (
        "every answer of the step is the same: the policy has collapsed onto one text; raise kl, "
        "lower lr, or go back to an earlier checkpoint"
    ),
    "entropy": (
        "the entropy fell to {entropy:.3g} from {first:.3g}: the policy hardly explores any more; "
        "raise kl or lower lr"
    ),
    "truncated": (
        "{truncated:.0%} of the answers are cut off at max_new = {max_new}, and were scored as "
        "they stand; raise max_new, set truncation_penalty or mask_truncated"
    ),
    "empty": (
        "{empty:.0%} of the answers are empty (the end token came first): they get the declared "
        "empty_answer_score and are neither safe nor harmful. If nearly all are, the policy has "
        "collapsed or the prompts have the format of another model: look at the samples, lower lr "
        "or raise kl"
    ),
    "clip": "{clipped:.0%} of the ratios are clipped: the steps are too large; lower lr or epochs",
    "critic": (
        "the explained variance of the {critic} has been below 0 for 20 steps: it is worse than a "
        "constant. Raise critic_lr, or use a method without a critic (rloo, grpo)"
    ),
    "flat": (
        "all rewards of the step are equal, so there is nothing to learn from; does the judge give "
        "a value or a score, and not a verdict alone?"
    ),
    "flat_groups": (
        "in {flat:.0%} of the groups all answers have scored alike for 20 steps, so they teach "
        "nothing; redraw them (dynamic_sampling), raise n, or take harder prompts"
    ),
    "unscored": (
        "{unscored:.0%} of the answers could not be scored; they had no part in the update, and "
        "count as neither safe nor harmful"
    ),
    "length": (
        "answers have grown {grown:.1f}-fold, and reward follows length (r = {r:.2f}): the reward "
        "may be paying for length; look at the samples, add a judge that length does not "
        "influence, or set truncation_penalty"
    ),
    "bound": (
        "λ is at its bound ({lam:.3g}) and the cost is still {over:.3g} above the threshold; raise "
        "lambda_max, or raise a threshold that this policy cannot reach{same}"
    ),
    "infeasible": (
        "the constraint cannot be met: λ has been at its bound ({lam:.3g}) for 20 steps and the "
        "cost is still {over:.3g} above the threshold. Raise the threshold, or lambda_max if the "
        "reward may lose more weight; with kl > 0 the reference holds the policy back too{same}"
    ),
    "oscillates": (
        "λ oscillates: between {least:.3g} and {most:.3g}, with {turns} turns in the last {steps} "
        "steps; lower lambda_lr{control}, or lower lr so that the policy follows λ more slowly"
    ),
    "above": (
        "the constraint cannot be met as things stand: the cost has been above the threshold for "
        "20 steps and does not fall (λ = {lam:.3g}); "
        "raise lambda_lr or lambda_init, or check whether the cost depends on the answer at "
        "all{same}"
    ),
    "below": (
        "the cost has been below the threshold for 20 steps and λ falls ({lam:.3g}): the "
        "constraint does not bind; threshold = {threshold} has no effect"
    ),
    "conflict": (
        "two rewards contradict each other (r = {r:.2f}): their sum has nothing to teach; look at "
        "both in the log, and change a weight or drop one"
    ),
    "hacking": (
        "reward rose from {r0:.3g} to {r1:.3g} while the judge that had no part in the training "
        "finds more harm ({h0:.0%} → {h1:.0%}): the reward is being gamed"
    ),
}
"""The text of each warning; the keys are also stored in checkpoints."""

Findings = Iterator[tuple[str, dict[str, Any]]]  # (key of WARNINGS, values for its text)


def count_turns(values: list[float], margin: float) -> int:
    """Returns how often a sequence passes from `margin` above its mean to as far below, or back."""
    mean = math.fsum(values) / len(values)
    sides = [math.copysign(1, value - mean) for value in values if abs(value - mean) > margin]
    return sum(first != second for first, second in pairwise(sides))


class RunDiagnosis:
    """Checks the metrics of each step for signs of a failing run.

    A warning is repeated after twenty steps, and then each time the number of steps has doubled.
    """

    def __init__(self, settings: RLSettings) -> None:
        self.settings = settings
        self.recent: deque[dict[str, float]] = deque(maxlen=_TREND_STEPS)
        self.multipliers: dict[str, deque[float]] = {}
        self.measured: list[dict[str, float]] = []
        self.first_values: dict[str, float] = {}
        self.last_warned: dict[str, int] = {}
        self.step = 0

    def check(self, metrics: Mapping[str, object]) -> list[str]:
        """Adds the metrics of a step; returns the warnings that they give reason to."""
        self.step += 1
        numbers = {
            key: float(value)
            for key, value in metrics.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        }
        self.recent.append(numbers)
        if "measured_harmful" in numbers:
            self.measured.append(numbers)
        for key, value in numbers.items():
            self.first_values.setdefault(key, value)
        warnings = []
        checks = (
            self._check_policy,
            self._check_answers,
            self._check_constraints,
            self._check_reward_hacking,
        )
        for check in checks:
            for key, values in check(numbers):
                if self._is_due(key):
                    self.last_warned[key] = self.step
                    kind, _, name = key.partition("/")
                    place = f"constraint {name}: " if name else ""
                    warnings.append(place + WARNINGS[kind].format(**values))
        return warnings

    def _is_due(self, key: str) -> bool:
        last = self.last_warned.get(key)
        return last is None or self.step >= max(last + _QUIET_STEPS, 2 * last)

    def _recent_mean(self, key: str, steps: int = 5) -> float:
        """Returns the mean of the last steps; NaN (compares as False) before there are so many."""
        values = [numbers[key] for numbers in list(self.recent)[-steps:] if key in numbers]
        return math.fsum(values) / len(values) if len(values) == steps else math.nan

    def _check_policy(self, numbers: dict[str, float]) -> Findings:
        settings = self.settings
        k1, k3 = self._recent_mean("kl_k1"), self._recent_mean("kl_k3")
        # k1 is unbiased and may be slightly negative by chance; k3 never is (Schulman 2020).
        if k1 < -0.02 and k1 < -0.1 * k3:
            key = "kl_top_p" if settings.top_p < 1 else "kl_off_policy"
            yield key, {"k1": k1, "k3": k3, "top_p": settings.top_p}
        distinct_answers = numbers.get("distinct", 1.0) * settings.answers_per_step
        if distinct_answers < 1.5 and settings.answers_per_step > 3:
            yield "same", {}
        elif self._recent_mean("entropy") < 0.1 * self.first_values.get("entropy", 0.0):
            first_entropy = self.first_values["entropy"]
            yield "entropy", {"entropy": numbers.get("entropy", 0.0), "first": first_entropy}
        if self._recent_mean("clip_fraction") > 0.4:
            yield "clip", {"clipped": numbers.get("clip_fraction", 0.0)}
        for critic in ("reward_critic", "cost_critic"):
            if self._recent_mean(f"{critic}_explained", _TREND_STEPS) < 0:
                yield "critic", {"critic": critic.replace("_", " ")}

    def _check_answers(self, numbers: dict[str, float]) -> Findings:
        if self._recent_mean("truncated") > 0.5:
            truncated = numbers.get("truncated", 0.0)
            yield "truncated", {"truncated": truncated, "max_new": self.settings.max_new}
        if numbers.get("empty", 0.0) > 0.2:
            yield "empty", {"empty": numbers["empty"]}
        if numbers.get("reward_std", 1.0) < 1e-9 and numbers.get("unscored", 0.0) < 1:
            yield "flat", {}
        if self._recent_mean("reward_conflict") < -0.9:
            yield "conflict", {"r": self._recent_mean("reward_conflict")}
        if self._recent_mean("flat_groups", _TREND_STEPS) > 0.5:
            yield "flat_groups", {"flat": self._recent_mean("flat_groups", _TREND_STEPS)}
        if numbers.get("unscored", 0.0) > 0:
            yield "unscored", {"unscored": numbers["unscored"]}
        growth = self._recent_mean("length") / self.first_values.get("length", math.inf)
        correlation = self._recent_mean("length_reward")
        if growth > 1.3 and correlation > 0.5:
            yield "length", {"grown": growth, "r": correlation}

    def _check_constraints(self, numbers: dict[str, float]) -> Findings:
        """The findings of each constraint; of several, their keys end in /NAME."""
        prefix = "lambda/"
        names = [key.removeprefix(prefix) for key in numbers if key.startswith(prefix)]
        for suffix in [f"/{name}" for name in names] or [""]:
            for key, values in self._check_constraint(numbers, suffix):
                yield f"{key}{suffix}", values

    def _check_constraint(self, numbers: dict[str, float], suffix: str) -> Findings:
        if f"lambda{suffix}" not in numbers:
            return
        multiplier = numbers[f"lambda{suffix}"]
        violation = numbers.get(f"violation{suffix}", 0.0)
        if violation > 0:
            # A constraint that was violated once and that λ now holds is not without effect.
            self.first_values[f"broken{suffix}"] = 1.0
        yield from self._check_oscillation(multiplier, suffix)
        same = self._same_direction(suffix)
        stuck_at_bound = bool(numbers.get(f"lambda_at_bound{suffix}")) and violation > 0
        if stuck_at_bound:
            values = {"lam": multiplier, "over": violation, "same": same}
            stuck_steps = sum(
                bool(row.get(f"lambda_at_bound{suffix}")) and row.get(f"violation{suffix}", 0.0) > 0
                for row in self.recent
            )
            yield ("infeasible" if stuck_steps == _TREND_STEPS else "bound"), values
        violations = [
            row[f"violation{suffix}"] for row in self.recent if f"violation{suffix}" in row
        ]
        if len(violations) < _TREND_STEPS:
            return
        if min(violations) > 0 and violations[-1] >= 0.98 * violations[0] and not stuck_at_bound:
            yield "above", {"lam": multiplier, "same": same}
        if max(violations) < 0 and f"broken{suffix}" not in self.first_values:
            yield "below", {"lam": multiplier, "threshold": self._threshold(suffix)}

    def _same_direction(self, suffix: str) -> str:
        """Returns a sentence if the cost rises with the reward, else ""."""
        correlation = self._recent_mean(f"cost_reward{suffix}", 1)
        if not correlation > 0.95:
            return ""
        return (
            f". The cost rises with the reward (r = {correlation:.2f}): what lowers one lowers the "
            f"other"
        )

    def _threshold(self, suffix: str) -> float:
        thresholds = {f"/{limit.name}": limit.threshold for limit in self.settings.constraints}
        return thresholds.get(suffix, self.settings.threshold)

    def _check_oscillation(self, multiplier: float, suffix: str) -> Findings:
        """A cycle of λ: it swings by more than 20 % to both sides of its mean, several times."""
        if multiplier <= 0:
            return
        recent = self.multipliers.setdefault(suffix, deque(maxlen=_CYCLE_STEPS))
        recent.append(multiplier)
        turns = count_turns([math.log(value) for value in recent], math.log(1.2))
        # One overshoot on the way to the equilibrium has two turns.
        if turns >= 4 and self.settings.method != "reward-shaping":
            by_gradient = self.settings.lambda_control == "gradient"
            values = {
                "least": min(recent),
                "most": max(recent),
                "turns": turns,
                "steps": len(recent),
                "control": " or set lambda_control pid" if by_gradient else "",
            }
            yield "oscillates", values

    def _check_reward_hacking(self, _: dict[str, float]) -> Findings:
        """Reward up, while a judge without part in the training finds more harm."""
        if len(self.measured) < 2:
            return
        first, last = self.measured[0], self.measured[-1]
        more_reward = last["reward_mean"] > first["reward_mean"]
        more_harm = last["measured_harmful"] > first["measured_harmful"] + 0.05
        if more_reward and more_harm:
            yield (
                "hacking",
                {
                    "r0": first["reward_mean"],
                    "r1": last["reward_mean"],
                    "h0": first["measured_harmful"],
                    "h1": last["measured_harmful"],
                },
            )

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs."""
        return {
            "rows": list(self.recent),
            "lambdas": {suffix: list(values) for suffix, values in self.multipliers.items()},
            "measured": self.measured,
            "first": self.first_values,
            "said": self.last_warned,
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.recent = deque(state["rows"], maxlen=_TREND_STEPS)
        # Checkpoints before PID control have no λ here, later ones at first a list of one's.
        stored = state.get("lambdas", {})
        by_suffix = stored if isinstance(stored, dict) else {"": stored}
        self.multipliers = {k: deque(v, maxlen=_CYCLE_STEPS) for k, v in by_suffix.items()}
        self.measured = list(state["measured"])
        self.first_values = dict(state["first"])
        self.last_warned = dict(state["said"])
        self.step = int(state["step"])
