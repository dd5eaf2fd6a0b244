"""Classifier heads on the sentence encoder: logistic regressions, shipped with a model card.

Training and measurement: benchmarks/rails/heads.py. They need the `local` extra (the encoder's
weights).
"""

from __future__ import annotations

import asyncio
import json
import math
from functools import cache
from importlib.resources import files
from typing import Any

from msgspec import Struct

MAX_LOGIT = 60.0  # beyond it the probability is 0 or 1 in floating point, and exp could overflow


class ClassifierHead(Struct, frozen=True):
    """A logistic regression over the encoder's unit vectors.

    `threshold` is on the logit (log-odds); `base` names the encoder; `card` says on what the head
    was measured.
    """

    name: str
    base: str
    weights: tuple[float, ...]
    bias: float
    threshold: float
    card: dict[str, Any]

    def logit(self, vector: Any) -> float:
        """Returns the log-odds for one vector, `[len(weights)]`."""
        products = (w * float(v) for w, v in zip(self.weights, vector, strict=True))
        return float(sum(products)) + self.bias


@cache
def load_head(name: str) -> ClassifierHead:
    """Returns a shipped head: ``injection`` or ``distress``."""
    path = files("truing") / "resources" / "heads" / f"{name}.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    return ClassifierHead(**{**fields, "weights": tuple(fields["weights"])})


async def score_text(name: str, text: str) -> tuple[float, bool]:
    """Returns the head's probability for a text, and whether it is over the head's threshold.

    For messages of people: both heads were trained on short ones, and on pages of documents the
    injection head raises false alarms (docs/log).
    """
    from truing.hf.sentence_encoder import shared_encoder

    head = load_head(name)
    vectors = await asyncio.to_thread(lambda: shared_encoder().encode([text]))
    logit = head.logit(vectors[0])
    probability = 1 / (1 + math.exp(-max(-MAX_LOGIT, min(MAX_LOGIT, logit))))
    return probability, logit >= head.threshold
