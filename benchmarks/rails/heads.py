"""Trains the two small heads that rails ship with, and measures them on rows that did not train them.

    TRUING_DATA=... python benchmarks/rails/heads.py [--write]

A head is a logistic regression on the unit vectors of all-MiniLM-L6-v2 (384 numbers and a bias), regularised by 5-fold
cross-validation on the training rows; its threshold is the one with at most 2 % false alarms there. `injection`: deepset
prompt-injections (Apache-2.0), 30 % of its texts held out by their hash. `distress`: contexts of DiaSafety (Apache-2.0), category
"Risk Ignorance" against the others, trained on train.json, measured on val.json.
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

from truing.core.lineage import normalise_prompt
from truing.core.types import Row
from truing.hf.sentence_encoder import shared_encoder
from truing.specs.resolve import resolve
from truing.stats.intervals import wilson

OUT = Path(__file__).resolve().parents[2] / "src/truing/resources/heads"


def texts_of(spec: str, positive: Callable[[Row], bool]) -> dict[str, tuple[str, bool]]:
    """Normalised text -> (text, label): each text once."""
    found: dict[str, tuple[str, bool]] = {}
    for row in resolve(spec, "data").rows():
        text = row.sample.prompt
        if text.strip():
            found.setdefault(normalise_prompt(text), (text, positive(row)))
    return found


def fit(
    name: str, train: dict[str, tuple[str, bool]], test: dict[str, tuple[str, bool]], source: str
) -> dict[str, Any]:
    """The head as it ships, with its card."""
    rows = [v for k, v in train.items() if k not in test]
    enc = shared_encoder()
    began = time.perf_counter()
    x, y = np.asarray(enc.encode([t for t, _ in rows])), np.array([label for _, label in rows])
    xt, yt = (
        np.asarray(enc.encode([t for t, _ in test.values()])),
        np.array([label for _, label in test.values()]),
    )
    grid = LogisticRegressionCV(
        Cs=(0.3, 3.0, 30.0, 300.0), cv=5, scoring="roc_auc", class_weight="balanced", max_iter=300
    )
    strength = float(grid.fit(x, y).C_[0])
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    scores = cross_val_predict(model, x, y, cv=5, method="decision_function")
    model.fit(x, y)
    threshold = float(np.quantile(scores[~y], 0.98))
    out = model.decision_function(xt)
    hit, alarm = out[yt] >= threshold, out[~yt] >= threshold
    found, false = wilson(int(hit.sum()), len(hit)), wilson(int(alarm.sum()), len(alarm))
    card = {
        "data": source,
        "licence": "Apache-2.0",
        "trained_on": len(rows),
        "measured_on": len(yt),
        "positives": int(yt.sum()),
        "auroc": round(float(roc_auc_score(yt, out)), 4),
        "detection": [round(found.estimate, 4), round(found.lower, 4), round(found.upper, 4)],
        "false_alarms": [round(false.estimate, 4), round(false.lower, 4), round(false.upper, 4)],
        "seconds": round(time.perf_counter() - began, 1),
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
    """Both heads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="write them into the package")
    write = parser.parse_args().write
    folder = os.environ["TRUING_DATA"]

    def risky(row: Row) -> bool:
        return row.sample.tags.get("category") == "Risk Ignorance"

    injections = texts_of(
        f"prompt-injections:{folder}/prompt_injections/deepset_train.csv",
        lambda r: any(j.verdict for j in r.judgements),
    )
    held = {
        k: v
        for k, v in injections.items()
        if int(hashlib.sha256(k.encode()).hexdigest(), 16) % 10 < 3
    }
    distress = [
        texts_of(f"diasafety:{folder}/diasafety/{part}.json", risky) for part in ("train", "val")
    ]
    made = [
        fit(
            "injection",
            injections,
            held,
            "deepset/prompt-injections, train file, 30 % of its texts held out by hash",
        ),
        fit("distress", *distress, "contexts of DiaSafety: train.json, measured on val.json"),
    ]
    if write:
        OUT.mkdir(exist_ok=True)
        for head in made:
            (OUT / f"{head['name']}.json").write_text(json.dumps(head) + "\n")


if __name__ == "__main__":
    main()
