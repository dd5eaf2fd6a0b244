"""Small heads on the shared text encoder: a logistic regression of a few hundred numbers, shipped as JSON with its card.

How they were trained and measured: benchmarks/rails/heads.py. They need the `local` extra (the encoder's weights).
"""

from __future__ import annotations

import asyncio
import json
import math
from functools import cache
from importlib.resources import files
from typing import Any

from msgspec import Struct


class Head(Struct, frozen=True):
    """Weights over a unit vector of the encoder, a bias, the threshold on the log-odds, and where it was measured."""

    name: str
    base: str
    weights: tuple[float, ...]
    bias: float
    threshold: float
    card: dict[str, Any]

    def logit(self, vector: Any) -> float:
        """The log-odds for one vector."""
        return (
            float(sum(w * float(v) for w, v in zip(self.weights, vector, strict=True))) + self.bias
        )


@cache
def head(name: str) -> Head:
    """A head that ships: ``injection`` or ``distress``."""
    raw = json.loads(
        (files("truing") / "resources" / "heads" / f"{name}.json").read_text(encoding="utf-8")
    )
    return Head(**{**raw, "weights": tuple(raw["weights"])})


async def score(name: str, text: str) -> tuple[float, bool]:
    """The probability, and whether the text is over the head's threshold. For messages of people: both heads learned from
    short ones, and on pages of documents the injection head raises false alarms (docs/log)."""
    from truing.hf.sentence_encoder import shared_encoder

    found = head(name)
    best = found.logit((await asyncio.to_thread(lambda: shared_encoder().encode([text])))[0])
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, best)))), best >= found.threshold
