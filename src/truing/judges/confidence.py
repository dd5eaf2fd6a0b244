"""The confidence of answers, stated or from token probabilities, and its calibration against
correctness.

Stated confidence follows Lin et al. 2022 (arXiv 2205.14334): a probability in words or numbers.
Token confidence is the geometric mean of the tokens' probabilities (Malinin & Gales 2021, arXiv
2002.07650). The measures are reliability (Murphy & Winkler 1977), ECE (Guo et al. 2017), the Brier
score (1950) and selective accuracy (El-Yaniv & Wiener 2010).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from truing.core.types import Judgement, TokenLogprob
from truing.stats.calibration import (
    ReliabilityBin,
    SelectiveAccuracy,
    brier_score,
    ece,
    reliability_bins,
    selective_accuracy,
)

_PERCENT = re.compile(
    r"\b(?:confiden\w+|certain\w*|sure|probab\w+|likely|chance)\b\D{0,24}?"
    r"(\d{1,3}(?:\.\d+)?)\s?(%|percent|per cent)"
    r"|(\d{1,3}(?:\.\d+)?)\s?(?:%|percent|per cent)\s?(?:\w+ "
    r")?(?:confiden\w+|certain\w*|sure|likely|probab\w+|chance)"
    r"|\b(?:confiden\w+|probability|certainty)\s?(?:is|of|:|=)\s?(0?\.\d+|1(?:\.0+)?|0)(?![\d%])",
    re.I,
)
# Words for a probability with the medians that readers give them (Kent 1964; Mosteller & Youtz
# 1990).
WORDS: tuple[tuple[str, float], ...] = (
    (
        r"\b(?:not (?:at all )?sure|unsure|no idea|not certain|uncertain|i don't know|i do not "
        r"know)\b",
        0.2,
    ),
    (r"\b(?:just a guess|only a guess|wild guess)\b", 0.25),
    (
        r"\b(?:absolutely|completely|entirely|quite|very) (?:sure|certain|confident)\b|\bwithout "
        r"(?:a )?doubt\b",
        0.97,
    ),
    (r"\b(?:almost|nearly|virtually) (?:sure|certain)\b", 0.93),
    (r"\b(?:fairly|pretty|reasonably) (?:sure|certain|confident)\b|\bvery likely\b", 0.85),
    (r"\bi(?:'m| am) (?:sure|certain|confident)\b", 0.93),
    (r"\b(?:probably|likely|i believe|i think)\b", 0.7),
    (r"\b(?:perhaps|maybe|possibly|might be|could be)\b", 0.45),
)
_WORDS = tuple((re.compile(pattern, re.I), p) for pattern, p in WORDS)


def stated_confidence(text: str) -> float | None:
    """Returns the probability that an answer states for itself, in numbers or else in words; None
    without one.
    """
    normalised = text.replace("’", "'")
    match = _PERCENT.search(normalised)
    if match:
        percent, _, other, share = match.groups()
        value = float(share) if share is not None else float(percent or other) / 100
        return value if 0 <= value <= 1 else None
    # The order matters: "not sure" and "almost certain" stand before the words that they contain.
    return next((p for pattern, p in _WORDS if pattern.search(normalised)), None)


def token_confidence(logprobs: Sequence[TokenLogprob] | None) -> float | None:
    """Returns the geometric mean of the tokens' probabilities; None without token probabilities."""
    if not logprobs:
        return None
    mean = sum(t.logprob for t in logprobs) / len(logprobs)
    # Rounding may leave a log-probability slightly above 0.
    return min(1.0, math.exp(mean)) if math.isfinite(mean) else None


class ConfidenceCalibration(Struct, frozen=True):
    """Confidence against correctness over `n` answers."""

    n: int
    accuracy: float
    confidence: float
    brier: float
    ece: float
    reliability: tuple[ReliabilityBin, ...]
    selective: tuple[SelectiveAccuracy, ...]


def measure_calibration(
    confidence: Sequence[float], correct: Sequence[bool], *, bins: int = 10
) -> ConfidenceCalibration:
    """Returns the calibration of confidences in [0, 1] against outcomes.

    Raises ValueError for no rows, unequal lengths, or a confidence outside [0, 1].
    """
    outcomes = [float(c) for c in correct]
    return ConfidenceCalibration(
        n=len(outcomes),
        brier=brier_score(confidence, outcomes),
        ece=ece(confidence, outcomes, bins=bins),
        accuracy=sum(outcomes) / len(outcomes),
        confidence=sum(confidence) / len(outcomes),
        reliability=tuple(reliability_bins(confidence, outcomes, bins=bins)),
        selective=tuple(selective_accuracy(confidence, outcomes)),
    )


def match_confidence(
    confident: Iterable[Judgement], correct: Iterable[Judgement]
) -> tuple[list[float], list[bool]]:
    """Returns confidences (`value` of `rules:confidence`) and correctness (verdicts) of answers
    with both.
    """
    confidence_by_answer = {
        (j.sample_id, j.index): j.value for j in confident if j.value is not None
    }
    pairs = [
        (confidence_by_answer[k], j.verdict)
        for j in correct
        if j.verdict is not None and (k := (j.sample_id, j.index)) in confidence_by_answer
    ]
    return [p for p, _ in pairs], [c for _, c in pairs]
