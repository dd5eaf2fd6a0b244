"""Canonical forms by embedding, better than the nearest example where examples are few.

The score of a form is a mix of its prototype (the mean of its examples and, as so many more, its own name: "ask about card
arrival" says what it is) and the smooth maximum over its examples; the more examples, the more the latter counts. Vectors
are centred on the mean of all, since sentence embeddings share a common direction (Mu and Viswanath 2018,
arXiv:1702.01417); prototypes after Snell et al. 2017 (arXiv:1703.05175). The three constants were set on banking77, draws of
seeds 0-9, and are measured on other draws in benchmarks/rails/topical.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from truing.rails.runtime.example_index import Vectors

NAME_WEIGHT = 1.5  # so many examples the name stands for
EXAMPLES_HALF = 6.0  # with so many examples prototype and nearest count alike
SHARPNESS = 20.0  # of the smooth maximum


class Intents:
    """All canonical forms of a configuration with their examples; the matrices are computed when first asked."""

    def __init__(self, vectors: Vectors, examples: Mapping[str, Sequence[str]]) -> None:
        self.vectors = vectors
        self.names = [name for name, texts in examples.items() if texts]
        self._texts = [(at, text) for at, name in enumerate(self.names) for text in examples[name]]
        self._built: tuple[Any, ...] | None = None

    def _build(self) -> tuple[Any, ...]:
        import numpy as np

        rows = self.vectors.many([t for _, t in self._texts])
        names = self.vectors.many([n.replace("_", " ") for n in self.names])
        center = (
            np.concatenate([rows, names]).mean(0)
            if len(self.names) > 1
            else np.zeros(rows.shape[1], dtype=rows.dtype)
        )
        rows, names = _unit(rows - center), _unit(names - center)
        owner = np.array([at for at, _ in self._texts])
        starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
        counts = np.diff(np.r_[starts, len(owner)]).astype(rows.dtype)
        prototypes = _unit(np.add.reduceat(rows, starts) + NAME_WEIGHT * names)
        return center, rows, starts, counts / (counts + EXAMPLES_HALF), prototypes

    def scores(self, vectors: Any) -> Any:
        """`[n, forms]` scores (about a cosine) of `[n, dim]` unit vectors."""
        import numpy as np

        if self._built is None:
            self._built = self._build()
        center, rows, starts, weight, prototypes = self._built
        q = _unit(np.atleast_2d(vectors) - center)
        near = np.exp(SHARPNESS * (q @ rows.T - 1.0))
        smooth = np.log(np.add.reduceat(near, starts, axis=1)) / SHARPNESS + 1.0
        return (1 - weight) * (q @ prototypes.T) + weight * smooth

    async def rank(self, text: str) -> list[tuple[float, str]]:
        """(score, form), best first; empty without forms."""
        if not self.names:
            return []
        vector = await self.vectors.one(text)
        if self._built is None:
            self._built = await asyncio.to_thread(self._build)
        found = self.scores(vector)[0]
        return sorted(zip(map(float, found), self.names, strict=True), key=lambda pair: -pair[0])


def _unit(rows: Any) -> Any:
    import numpy as np

    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    norms[norms == 0] = 1.0
    return rows / norms
