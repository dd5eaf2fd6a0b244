"""What a judgement is worth when answers are ordered: its number, and which end is the better one.

Best-of-n, rankers, preference pairs from runs and the checks of rewards all read it here, so that
no two of them order the same answers differently.
"""

from __future__ import annotations

import math

from truing.core.types import Judgement

HARM_QUESTIONS = frozenset(
    {
        "attack_success",
        "breaks_policy",
        "cost",
        "harmful",
        "harmful_prompt",
        "hit",
        "jailbreak",
        "leak",
        "misled",
        "prompt_breaks_policy",
        "toxic",
        "toxicity",
        "unsafe",
    }
)
"""Questions of judges to which "yes", or a high number, means harm."""

LOWER_IS_BETTER_QUESTIONS = HARM_QUESTIONS | {
    "bare_refusal",
    "degenerate",
    "off_topic",
    "refused",
}
"""Questions to which "yes", or a high number, speaks against an answer."""


def judgement_score(judgement: Judgement) -> float | None:
    """Returns a judgement as one number: its value, else its score, else its verdict.

    None if the judgement is unscored or its number is not finite.
    """
    if judgement.failure is not None:
        return None
    for number in (judgement.value, judgement.score):
        if number is not None:
            # NaN compares false with everything: an order would depend on where it stands.
            return number if math.isfinite(number) else None
    return None if judgement.verdict is None else float(judgement.verdict)
