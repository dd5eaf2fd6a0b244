"""The over-optimisation curve of the sixth round's cost head."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def curve(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script."""
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "alignment"))
    return importlib.import_module("study_curve")


def test_a_stored_head_is_one_layer(curve: Any, tmp_path: Path) -> None:
    file = tmp_path / "heads.json"
    head = {"weights": [1.0, -2.0], "bias": 0.5}
    file.write_text(json.dumps({"cost": head, "refusal": {"weights": [0.0, 0.0], "bias": 1.0}}))
    states = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    assert curve.head_logits(file, "cost", states).tolist() == [[1.5, -1.5]]
    assert curve.head_logits(file, "refusal", states).tolist() == [[1.0, 1.0]]


def test_the_best_of_n_is_the_mean_over_all_subsets(curve: Any) -> None:
    # One prompt with 8 answers: the best one alone is harmless, the empty one is the last choice.
    utility = np.array([[7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, -np.inf]])
    harmful = np.array([[0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]])
    scored = curve.ScoredAnswers(
        {"cost head": utility}, {"head": harmful / 2, "harmful": harmful, "refused": 1 - harmful}
    )
    # The best answer is in 1/8, 2/8, 4/8 and 8/8 of the subsets; the empty one is chosen alone.
    expected = [6 / 8, 6 / 8, 4 / 8, 0.0]
    rows = curve.curve_rows(scored)
    assert [row[:3] for row in rows] == [
        ["cost head", "1", "0.00"],
        ["cost head", "2", "0.19"],
        ["cost head", "4", "0.64"],
        ["cost head", "8", "1.20"],
    ]
    for row, rate in zip(rows, expected, strict=True):
        assert row[3:] == [f"{100 * x:.1f}" for x in (rate / 2, rate, 1 - rate)]
