"""Classifies user messages into intents (canonical forms) by embeddings, from few examples.

The score of an intent mixes two similarities to the message: with its prototype (the mean of its
examples and of its own name, which counts as 1.5 examples: "ask about card arrival" says what the
intent is), and the smooth maximum over its examples. The more examples, the more the second counts.
Vectors are centred on the mean of all, since sentence embeddings share a common direction (Mu and
Viswanath 2018, arXiv:1702.01417); prototypes are those of Snell et al. 2017 (arXiv:1703.05175). The
three constants were chosen on banking77 with the draws of seeds 0-9; benchmarks/rails/topical.py
measures on other draws.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from truing.rails.runtime.embeddings import EmbeddingCache

NAME_WEIGHT = 1.5  # the intent's name counts as this many examples in the prototype
EXAMPLES_FOR_HALF_WEIGHT = 6.0  # with this many examples, prototype and nearest example count alike
SHARPNESS = 20.0  # of the smooth maximum (log-sum-exp); larger is closer to the maximum


class _IntentVectors(NamedTuple):
    """Centred unit vectors: n examples, grouped by intent, of m intents."""

    center: Any  # [dim], the mean that was subtracted
    examples: Any  # [n, dim]
    starts: Any  # [m], the index of each intent's first example
    example_weight: Any  # [m], the weight of the smooth maximum against the prototype
    prototypes: Any  # [m, dim]


class IntentClassifier:
    """All intents of a configuration with their examples; the vectors are computed at first use."""

    def __init__(self, embeddings: EmbeddingCache, examples: Mapping[str, Sequence[str]]) -> None:
        self.embeddings = embeddings
        self.names = [name for name, texts in examples.items() if texts]
        self._examples = [
            (index, text) for index, name in enumerate(self.names) for text in examples[name]
        ]
        self._vectors: _IntentVectors | None = None
        self._lock = threading.Lock()

    def _load_vectors(self) -> _IntentVectors:
        """Returns the vectors; of many first callers one computes them, and the others wait."""
        with self._lock:
            if self._vectors is None:
                self._vectors = self._compute_vectors()
            return self._vectors

    def _compute_vectors(self) -> _IntentVectors:
        import numpy as np

        examples = self.embeddings.encode([text for _, text in self._examples])
        names = self.embeddings.encode([name.replace("_", " ") for name in self.names])
        # With a single intent the mean would be the intent itself, and nothing would remain.
        if len(self.names) > 1:
            center = np.concatenate([examples, names]).mean(0)
        else:
            center = np.zeros(examples.shape[1], dtype=examples.dtype)
        examples, names = _normalise(examples - center), _normalise(names - center)
        intent_of_example = np.array([index for index, _ in self._examples])
        starts = np.flatnonzero(np.r_[True, intent_of_example[1:] != intent_of_example[:-1]])
        counts = np.diff(np.r_[starts, len(intent_of_example)]).astype(examples.dtype)
        prototypes = _normalise(np.add.reduceat(examples, starts) + NAME_WEIGHT * names)
        example_weight = counts / (counts + EXAMPLES_FOR_HALF_WEIGHT)
        return _IntentVectors(center, examples, starts, example_weight, prototypes)

    def scores(self, vectors: Any) -> Any:
        """Returns the scores (about a cosine) of unit vectors: `[n, dim]` -> `[n, intents]`."""
        import numpy as np

        center, examples, starts, example_weight, prototypes = self._load_vectors()
        queries = _normalise(np.atleast_2d(vectors) - center)
        # log-sum-exp around 1, the largest cosine, so that exp never overflows.
        exponentials = np.exp(SHARPNESS * (queries @ examples.T - 1.0))
        smooth_max = np.log(np.add.reduceat(exponentials, starts, axis=1)) / SHARPNESS + 1.0
        return (1 - example_weight) * (queries @ prototypes.T) + example_weight * smooth_max

    async def rank(self, text: str) -> list[tuple[float, str]]:
        """Returns (score, intent) of all intents, best first; empty without intents."""
        if not self.names:
            return []
        vector = await self.embeddings.embed(text)
        if self._vectors is None:
            await asyncio.to_thread(self._load_vectors)
        scores = map(float, self.scores(vector)[0])
        return sorted(zip(scores, self.names, strict=True), key=lambda pair: -pair[0])


def _normalise(rows: Any) -> Any:
    import numpy as np

    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    norms[norms == 0] = 1.0
    return rows / norms
