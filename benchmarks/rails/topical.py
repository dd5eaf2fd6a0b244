"""Accuracy of canonical forms by embedding on banking77, against the nearest example (NeMo).

    TRUING_DATA=... python benchmarks/rails/topical.py [--seeds 100 101 ...]

The train file of banking77 alone, split by us: 10 texts per intent are classified, examples are
drawn from the others; each seed draws both. Both methods get the same draws and the same vectors.
The three constants of `truing.rails.runtime.intents` were chosen on seeds 0-9; the figures are from
other seeds. A second table is the risk-coverage curve: the share of messages that may skip the LLM,
and the accuracy on them.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

import numpy as np

from truing.hf.sentence_encoder import shared_encoder
from truing.rails.runtime.intents import IntentClassifier


class PrecomputedEncoder:
    """An encoder that looks its vectors up."""

    def __init__(self, texts: list[str], rows: np.ndarray) -> None:
        self._rows = dict(zip(texts, rows, strict=True))

    def encode(self, texts: list[str]) -> np.ndarray:
        """Returns one row per text."""
        return np.stack([self._rows[t] for t in texts])


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", nargs="*", type=int, default=list(range(100, 110)))
    seeds = parser.parse_args().seeds
    path = Path(os.environ["TRUING_DATA"]) / "banking77" / "train.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [(r["text"], r["category"].replace("_", " ")) for r in csv.DictReader(stream)]
    texts_by_intent: dict[str, list[str]] = {}
    for text, intent in rows:
        texts_by_intent.setdefault(intent, []).append(text)
    texts = list(dict.fromkeys([*(t for t, _ in rows), *texts_by_intent]))
    encoder = PrecomputedEncoder(texts, np.asarray(shared_encoder().encode(texts)))
    margins: list[np.ndarray] = []
    rights: list[np.ndarray] = []
    print(
        "| examples an intent | nearest example (NeMo's way) | truing | draws |\n|---|---|---|---|"
    )
    for k in (None, 10, 3, 1):
        ours, nearest = [], []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            queries, examples = [], {}
            for intent, intent_texts in texts_by_intent.items():
                order = rng.permutation(len(intent_texts))
                queries += [(intent_texts[i], intent) for i in order[:10]]
                examples[intent] = [intent_texts[i] for i in order[10:][:k]]
            vectors = encoder.encode([t for t, _ in queries])
            truth = np.array([i for _, i in queries])
            # Cosine similarity: the vectors are unit vectors.
            flat = [(t, i) for i, ts in examples.items() for t in ts]
            nearest_index = (vectors @ encoder.encode([t for t, _ in flat]).T).argmax(1)
            nearest.append(float((np.array([i for _, i in flat])[nearest_index] == truth).mean()))
            intents = IntentClassifier(encoder, examples)  # type: ignore[arg-type]
            scores = intents.scores(vectors)
            right = np.array(intents.names)[scores.argmax(1)] == truth
            ours.append(float(right.mean()))
            if k == 3:
                top = np.sort(scores, axis=1)
                margins.append(top[:, -1] - top[:, -2])
                rights.append(right)
        cells = (f"{np.mean(x):.3f} ± {np.std(x):.3f}" for x in (nearest, ours))
        print(f"| {k or 'all'} | {' | '.join(cells)} | {len(seeds)} |")
    margin, right = np.concatenate(margins), np.concatenate(rights)
    print(
        "\n| margin, 3 examples an intent | messages that skip the LLM | right among them |"
        "\n|---|---|---|"
    )
    for limit in (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3):
        sure = margin >= limit
        print(f"| {limit:.2f} | {sure.mean():.3f} | {right[sure].mean():.3f} |")


if __name__ == "__main__":
    main()
