"""Trains the two classifier heads that rails ship with, and measures them on held-out rows.

    TRUING_DATA=... python benchmarks/rails/heads.py [--write]

A head is a logistic regression on the unit vectors of all-MiniLM-L6-v2 (384 weights and a bias),
regularised by 5-fold cross-validation on the training rows; its threshold has at most 2 % false
alarms there. `injection`: deepset prompt-injections (Apache-2.0), 30 % of its texts held out by
their hash. `distress`: contexts of DiaSafety (Apache-2.0), category "Risk Ignorance" against the
others, trained on train.json, measured on val.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from truing.core.lineage import hash_prompts, normalise_prompt
from truing.core.measurement_set import is_frozen
from truing.core.types import Row
from truing.hf.sentence_encoder import shared_encoder
from truing.specs.resolve import resolve
from truing.stats.intervals import Interval, wilson

OUT = Path(__file__).resolve().parents[2] / "src/truing/resources/heads"


def read_texts(spec: str, positive: Callable[[Row], bool]) -> dict[str, tuple[str, bool]]:
    """Returns normalised text -> (text, label), each text once, without frozen prompts."""
    texts: dict[str, tuple[str, bool]] = {}
    for row in resolve(spec, "data").rows():
        text = row.sample.prompt
        if text.strip() and not is_frozen(text):
            texts.setdefault(normalise_prompt(text), (text, positive(row)))
    return texts


def rounded(share: Interval) -> list[float]:
    """Returns estimate and bounds with four digits."""
    return [round(value, 4) for value in (share.estimate, share.lower, share.upper)]


def train_head(
    name: str, train: dict[str, tuple[str, bool]], test: dict[str, tuple[str, bool]], source: str
) -> dict[str, Any]:
    """Trains a head; returns it as it ships, with its card."""
    encoder = shared_encoder()

    def encode(rows: list[tuple[str, bool]]) -> tuple[np.ndarray, np.ndarray]:
        vectors = np.asarray(encoder.encode([text for text, _ in rows]))
        return vectors, np.array([label for _, label in rows])

    rows = [v for k, v in train.items() if k not in test]
    started = time.perf_counter()
    x, y = encode(rows)
    x_test, y_test = encode(list(test.values()))
    grid = LogisticRegressionCV(
        Cs=(0.3, 3.0, 30.0, 300.0), cv=5, scoring="roc_auc", class_weight="balanced", max_iter=300
    )
    strength = float(grid.fit(x, y).C_[0])
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    # Out-of-fold scores: the threshold is not chosen on scores of rows that the model has seen.
    scores = cross_val_predict(model, x, y, cv=5, method="decision_function")
    model.fit(x, y)
    threshold = float(np.quantile(scores[~y], 0.98))
    test_scores = model.decision_function(x_test)
    hits, alarms = test_scores[y_test] >= threshold, test_scores[~y_test] >= threshold
    detection = wilson(int(hits.sum()), len(hits))
    false_alarms = wilson(int(alarms.sum()), len(alarms))
    card = {
        "data": source,
        "licence": "Apache-2.0",
        "trained_on": len(rows),
        "measured_on": len(y_test),
        "positives": int(y_test.sum()),
        "auroc": round(float(roc_auc_score(y_test, test_scores)), 4),
        "detection": rounded(detection),
        "false_alarms": rounded(false_alarms),
        "seconds": round(time.perf_counter() - started, 1),
        "prompts": hash_prompts(text for text, _ in rows),
        "data_sha256": hashlib.sha256("\n".join(sorted(train)).encode()).hexdigest(),
    }
    print(name, json.dumps(card, indent=1))
    return {
        "name": name,
        "base": "all-MiniLM-L6-v2",
        "weights": [round(float(w), 4) for w in model.coef_[0]],
        "bias": round(float(model.intercept_[0]), 4),
        "threshold": round(threshold, 4),
        "card": card,
    }


def main() -> None:
    """Trains both heads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="write them into the package")
    write = parser.parse_args().write
    folder = os.environ["TRUING_DATA"]

    def risky(row: Row) -> bool:
        return row.sample.tags.get("category") == "Risk Ignorance"

    injections = read_texts(
        f"prompt-injections:{folder}/prompt_injections/deepset_train.csv",
        lambda r: any(j.verdict for j in r.judgements),
    )
    held_out = {
        k: v
        for k, v in injections.items()
        if int(hashlib.sha256(k.encode()).hexdigest(), 16) % 10 < 3
    }
    distress = [
        read_texts(f"diasafety:{folder}/diasafety/{part}.json", risky) for part in ("train", "val")
    ]
    heads = [
        train_head(
            "injection",
            injections,
            held_out,
            "deepset/prompt-injections, train file, 30 % of its texts held out by hash",
        ),
        train_head(
            "distress", *distress, "contexts of DiaSafety: train.json, measured on val.json"
        ),
    ]
    if write:
        OUT.mkdir(exist_ok=True)
        for head in heads:
            (OUT / f"{head['name']}.json").write_text(json.dumps(head) + "\n")


if __name__ == "__main__":
    main()
