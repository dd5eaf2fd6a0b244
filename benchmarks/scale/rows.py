"""Writes rows of mild words to moderate: the same for the same seed.

python benchmarks/scale/rows.py 2000000 rows.jsonl
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "asks",
    "how",
    "one",
    "might",
    "bake",
    "bread,",
    "mend",
    "a",
    "roof,",
    "read",
    "a",
    "map",
    "or",
    "write",
    "to",
    "an",
    "old",
    "friend",
    "with",
    "kind",
    "regards",
    "about",
    "weather",
    "trains",
    "gardens",
    "music",
    "and",
    "the",
    "price",
    "of",
    "tea",
]


def write_rows(path: Path, n: int, seed: int = 0) -> Path:
    """Writes `n` rows of JSON lines: lengths are log-normal, about 250 bytes in the middle."""
    source = random.Random(seed)
    with path.open("w") as stream:
        for number in range(n):
            length = max(3, min(400, int(source.lognormvariate(3.0, 0.8))))
            row = {
                "id": f"r{number}",
                "prompt": " ".join(source.choices(WORDS, k=10)),
                "response": " ".join(source.choices(WORDS, k=length)),
            }
            stream.write(json.dumps(row) + "\n")
    return path


if __name__ == "__main__":
    write_rows(Path(sys.argv[2]), int(sys.argv[1]))
