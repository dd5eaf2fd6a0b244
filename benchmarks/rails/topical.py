"""Topical accuracy of canonical forms by embedding on banking77, beside NeMo's way (the nearest example), and how sure it is.

    TRUING_DATA=... python benchmarks/rails/topical.py [--seeds 100 101 ...]

banking77's train file alone, split by us: 10 texts an intent are asked, examples are drawn from the others; each seed draws
both. Both ways see the same draws and the same vectors. The seeds 0-9 set the three constants of `truing.rails.runtime.intents`; the
figures are from other seeds. Then the risk-coverage curve: what share of messages may skip the LLM at which accuracy.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

import numpy as np

from truing.hf.sentence_encoder import shared_encoder
from truing.rails.runtime.intents import IntentClassifier


class Known:
    """Vectors that are already there, in the shape that the scorer asks."""

    def __init__(self, texts: list[str], rows: np.ndarray) -> None:
        self._rows = dict(zip(texts, rows, strict=True))

    def encode(self, texts: list[str]) -> np.ndarray:
        """Rows of texts."""
        return np.stack([self._rows[t] for t in texts])


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", nargs="*", type=int, default=list(range(100, 110)))
    seeds = parser.parse_args().seeds
    path = Path(os.environ["TRUING_DATA"]) / "banking77" / "train.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [(r["text"], r["category"].replace("_", " ")) for r in csv.DictReader(stream)]
    by: dict[str, list[str]] = {}
    for text, intent in rows:
        by.setdefault(intent, []).append(text)
    texts = list(dict.fromkeys([*(t for t, _ in rows), *by]))
    known = Known(texts, np.asarray(shared_encoder().encode(texts)))
    margins: list[np.ndarray] = []
    rights: list[np.ndarray] = []
    print(
        "| examples an intent | nearest example (NeMo's way) | truing | draws |\n|---|---|---|---|"
    )
    for k in (None, 10, 3, 1):
        ours, nearest = [], []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            asked, examples = [], {}
            for intent, all_ in by.items():
                order = rng.permutation(len(all_))
                asked += [(all_[i], intent) for i in order[:10]]
                examples[intent] = [all_[i] for i in order[10:][:k]]
            q, truth = known.encode([t for t, _ in asked]), np.array([i for _, i in asked])
            flat = [(t, i) for i, ts in examples.items() for t in ts]
            best = (q @ known.encode([t for t, _ in flat]).T).argmax(1)
            nearest.append(float((np.array([i for _, i in flat])[best] == truth).mean()))
            intents = IntentClassifier(known, examples)  # type: ignore[arg-type]
            scores = intents.scores(q)
            right = np.array(intents.names)[scores.argmax(1)] == truth
            ours.append(float(right.mean()))
            if k == 3:
                top = np.sort(scores, axis=1)
                margins.append(top[:, -1] - top[:, -2])
                rights.append(right)
        a, b = np.mean(nearest), np.mean(ours)
        print(
            f"| {k or 'all'} | {a:.3f} ± {np.std(nearest):.3f} | {b:.3f} ± {np.std(ours):.3f} | {len(seeds)} |"
        )
    margin, right = np.concatenate(margins), np.concatenate(rights)
    print(
        "\n| margin, 3 examples an intent | messages that skip the LLM | right among them |\n|---|---|---|"
    )
    for limit in (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3):
        sure = margin >= limit
        print(f"| {limit:.2f} | {sure.mean():.3f} | {right[sure].mean():.3f} |")


if __name__ == "__main__":
    main()
