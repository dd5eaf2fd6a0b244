"""Plain words for what goes wrong in RL runs: what is seen, why it happens, what to do."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from truing.train.rl.settings import RLSettings

_KEPT = 20  # steps that a trend is read from
_QUIET = 20  # steps before the same warning is given again

WORDS = {
    "kl_top_p": (
        "the KL estimate k1 has been negative for five steps ({k1:.3g}; k3 says {k3:.3g}): top_p = {top_p} draws from "
        "a narrower distribution than the one whose log-probabilities are compared. A negative KL is rewarded, so the "
        "policy runs away from the reference; set top_p 1, or kl_place loss (k3)"
    ),
    "kl_off_policy": (
        "the KL estimate k1 has been negative for five steps ({k1:.3g}; k3 says {k3:.3g}): answers are not drawn from "
        "the policy whose log-probabilities are compared. Does the generator have the newest weights, and the same "
        "arithmetic?"
    ),
    "same": (
        "every answer of the step is the same: the policy has collapsed onto one text; raise kl, lower lr, or go back "
        "to an earlier checkpoint"
    ),
    "entropy": "entropy fell to {entropy:.3g} from {first:.3g}: little is left to explore; raise kl or lower lr",
    "truncated": (
        "{truncated:.0%} of the answers are cut off at max_new = {max_new}: their scores are those of torsos; raise "
        "max_new or set truncation_penalty"
    ),
    "clip": "{clipped:.0%} of the ratios are clipped: the steps are too large; lower lr or epochs",
    "critic": (
        "the {critic} has explained less than nothing for 20 steps: raise critic_lr, or use a group method (rloo, "
        "grpo), which needs none"
    ),
    "flat": (
        "all rewards of the step are equal, so there is nothing to learn from; does the judge give a value or a "
        "score, and not a verdict alone?"
    ),
    "unscored": (
        "{unscored:.0%} of the answers could not be scored; they taught nothing, and count as neither safe nor "
        "harmful"
    ),
    "length": (
        "answers have grown {grown:.1f}-fold, and reward follows length (r = {r:.2f}): the reward may be paying for "
        "words; look at the samples, add a judge that length does not sway, or set truncation_penalty"
    ),
    "bound": (
        "λ stands at its bound ({lam:.3g}) and the cost is still {over:.3g} above the threshold: λ can no longer "
        "answer; raise lambda_max, or the threshold asks for what this policy cannot reach"
    ),
    "above": (
        "the cost has been above the threshold for 20 steps and does not fall (λ = {lam:.3g}): raise lambda_lr or "
        "lambda_init, or see whether the cost depends on the answer at all"
    ),
    "below": (
        "the cost has been below the threshold for 20 steps and λ falls ({lam:.3g}): the constraint does not bind; "
        "threshold = {threshold} asks for nothing"
    ),
    "hacking": (
        "reward rose from {r0:.3g} to {r1:.3g} while the judge that had no part in the training finds more harm "
        "({h0:.0%} → {h1:.0%}): the reward is being gamed"
    ),
}
"""Every warning: what is seen, why, what to do."""

Told = Iterator[tuple[str, dict[str, Any]]]


class Watch:
    """Hears each line of the log, and says what looks wrong; the same thing again after twenty steps, then ever more."""

    def __init__(self, settings: RLSettings) -> None:
        self.settings = settings
        self.rows: deque[dict[str, float]] = deque(maxlen=_KEPT)
        self.measured: list[dict[str, float]] = []
        self.first: dict[str, float] = {}
        self.said: dict[str, int] = {}
        self.step = 0

    def hear(self, row: Mapping[str, object]) -> list[str]:
        """Warnings after this line."""
        self.step += 1
        seen = {
            k: float(v) for k, v in row.items() if isinstance(v, (int, float)) and math.isfinite(v)
        }
        self.rows.append(seen)
        if "measured_harmful" in seen:
            self.measured.append(seen)
        for key, value in seen.items():
            self.first.setdefault(key, value)
        told = []
        for finder in (self._policy, self._answers, self._constraint, self._hacking):
            for key, values in finder(seen):
                last = self.said.get(key)
                if last is None or self.step >= max(last + _QUIET, 2 * last):
                    self.said[key] = self.step
                    told.append(WORDS[key].format(**values))
        return told

    def _mean(self, key: str, last: int = 5) -> float:
        """The mean of the last lines; NaN (which compares as false) before there are as many."""
        known = [r[key] for r in list(self.rows)[-last:] if key in r]
        return math.fsum(known) / len(known) if len(known) == last else math.nan

    def _policy(self, row: dict[str, float]) -> Told:
        s = self.settings
        k1, k3 = self._mean("kl_k1"), self._mean("kl_k3")
        if k1 < -0.02 and k1 < -0.1 * k3:
            yield (
                "kl_top_p" if s.top_p < 1 else "kl_off_policy",
                {"k1": k1, "k3": k3, "top_p": s.top_p},
            )
        if row.get("distinct", 1.0) * s.answers < 1.5 and s.answers > 3:
            yield "same", {}
        elif self._mean("entropy") < 0.1 * self.first.get("entropy", 0.0):
            yield "entropy", {"entropy": row.get("entropy", 0.0), "first": self.first["entropy"]}
        if self._mean("clip_fraction") > 0.4:
            yield "clip", {"clipped": row.get("clip_fraction", 0.0)}
        for name in ("reward_critic", "cost_critic"):
            if self._mean(f"{name}_explained", _KEPT) < 0:
                yield "critic", {"critic": name.replace("_", " ")}

    def _answers(self, row: dict[str, float]) -> Told:
        if self._mean("truncated") > 0.5:
            yield (
                "truncated",
                {"truncated": row.get("truncated", 0.0), "max_new": self.settings.max_new},
            )
        if row.get("reward_std", 1.0) < 1e-9 and row.get("unscored", 0.0) < 1:
            yield "flat", {}
        if row.get("unscored", 0.0) > 0:
            yield "unscored", {"unscored": row["unscored"]}
        grown, r = (
            self._mean("length") / self.first.get("length", math.inf),
            self._mean("length_reward"),
        )
        if grown > 1.3 and r > 0.5:
            yield "length", {"grown": grown, "r": r}

    def _constraint(self, row: dict[str, float]) -> Told:
        if "lambda" not in row:
            return
        lam, over = row["lambda"], row.get("violation", 0.0)
        if over > 0:
            self.first["broken"] = 1.0  # once broken, a constraint that λ now holds is no idle one
        bound = bool(row.get("lambda_at_bound")) and over > 0
        if bound:
            yield "bound", {"lam": lam, "over": over}
        known = [r["violation"] for r in self.rows if "violation" in r]
        if len(known) < _KEPT:
            return
        if min(known) > 0 and known[-1] >= 0.98 * known[0] and not bound:
            yield "above", {"lam": lam}
        if max(known) < 0 and "broken" not in self.first:
            yield "below", {"lam": lam, "threshold": self.settings.threshold}

    def _hacking(self, _: dict[str, float]) -> Told:
        """Reward up while the judge that had no part in training sees it get worse."""
        if len(self.measured) < 2:
            return
        a, b = self.measured[0], self.measured[-1]
        if (
            b["reward_mean"] > a["reward_mean"]
            and b["measured_harmful"] > a["measured_harmful"] + 0.05
        ):
            yield (
                "hacking",
                {
                    "r0": a["reward_mean"],
                    "r1": b["reward_mean"],
                    "h0": a["measured_harmful"],
                    "h1": b["measured_harmful"],
                },
            )

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "rows": list(self.rows),
            "measured": self.measured,
            "first": self.first,
            "said": self.said,
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up where `state_dict` left off."""
        self.rows, self.measured = deque(state["rows"], maxlen=_KEPT), list(state["measured"])
        self.first, self.said, self.step = (
            dict(state["first"]),
            dict(state["said"]),
            int(state["step"]),
        )
