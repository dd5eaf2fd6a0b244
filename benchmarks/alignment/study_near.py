"""Lists our training prompts that lie near a frozen prompt, by the cosine of MiniLM's embeddings.

    TRUING_DATA=... python benchmarks/alignment/study_near.py

A row at 0.75 or more is dropped from `data/`, with its twin. The exit status is 1 if there is one.
"""

from __future__ import annotations

import sys

import numpy as np
from study_prompts import TRAINING_FILES, read_training_rows

from truing.core.measurement_set import is_frozen
from truing.hf.sentence_encoder import shared_encoder
from truing.specs.resolve import resolve

LIMIT = 0.75
MEASURING_SPECS = (
    "beavertails,part=evaluation,distinct=true",
    "strongreject",
    "xstest",
    "jailbreakbench",
    *(f"builtin:{name},half=report" for name in ("safety", "helpful", "honest", "support")),
)


def embed(texts: list[str]) -> np.ndarray:
    """Returns unit vectors."""
    vectors = np.asarray(shared_encoder().encode(texts))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> int:
    """Prints the rows at or above the limit, by file and line, and the highest cosine."""
    frozen = [row.sample.prompt for spec in MEASURING_SPECS for row in resolve(spec, "data").rows()]
    frozen = [prompt for prompt in frozen if is_frozen(prompt)]
    frozen_vectors = embed(frozen)
    found = 0
    for name in TRAINING_FILES:
        prompts = [row["prompt"] for row in read_training_rows(name)]
        highest = (embed(prompts) @ frozen_vectors.T).max(axis=1)
        near = np.flatnonzero(highest >= LIMIT)
        for index in near:
            print(f"{name}.jsonl line {index + 1}: {highest[index]:.2f}")
        found += len(near)
        print(f"{name}: {len(prompts)} prompts, the nearest at {highest.max():.2f}")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
