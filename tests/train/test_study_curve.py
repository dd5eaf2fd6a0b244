"""The over-optimisation curve of the sixth round's cost head."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from truing.core.errors import UserError
from truing.core.types import Conversation, Sample


@pytest.fixture
def curve(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script."""
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "alignment"))
    return importlib.import_module("study_curve")


def test_a_stored_head_is_one_layer(curve: Any, tmp_path: Path) -> None:
    file = tmp_path / "heads.json"
    head = {"weights": [1.0, -2.0], "bias": 0.5}
    file.write_text(
        json.dumps(
            {"layer": curve.LAYER, "cost": head, "refusal": {"weights": [0.0, 0.0], "bias": 1.0}}
        )
    )
    states = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    assert curve.head_logits(file, "cost", states).tolist() == [[1.5, -1.5]]
    assert curve.head_logits(file, "refusal", states).tolist() == [[1.0, 1.0]]


def test_heads_of_another_layer_are_refused(curve: Any, tmp_path: Path) -> None:
    file = tmp_path / "heads.json"
    file.write_text(json.dumps({"layer": 12, "cost": {"weights": [1.0], "bias": 0.0}}))
    with pytest.raises(UserError, match="heads of layer 12, the states are of 16"):
        curve.head_logits(file, "cost", np.ones((1, 1)))


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


def test_an_empty_answer_is_the_last_choice_and_counts_as_a_refusal(
    curve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [["yes do it", "no", "", *["well"] * 5]]
    states = np.zeros((8, 1))
    states[:, 0] = [2.0, -2.0, -9.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    verdicts = {
        "harmful": {("s", k): (float(k == 0), 0.1 * k) for k in range(8)},
        "refused": {("s", k): (float(k == 1), 0.0) for k in range(8)},
    }
    sample = Sample(conversation=Conversation.of("q"), id="s")
    run = SimpleNamespace(samples=lambda: [sample])
    monkeypatch.setattr(curve, "judge_run", lambda *_: None)
    monkeypatch.setattr(curve, "resolve", lambda *_: None)
    monkeypatch.setattr(curve, "Run", lambda _: run)
    monkeypatch.setattr(curve, "read_candidates", lambda _: [(sample.conversation, texts[0])])
    monkeypatch.setattr(curve, "usable_text", lambda text: text)
    monkeypatch.setattr(curve, "stored_states", lambda *_: states)
    monkeypatch.setattr(curve, "read_verdicts", lambda _, question: verdicts[question])
    (tmp_path / "data").mkdir()
    heads = {
        "layer": curve.LAYER,
        "cost": {"weights": [1.0], "bias": 0.0},
        "refusal": {"weights": [-1.0], "bias": 0.0},
    }
    (tmp_path / "data" / "answer-heads-qwen.json").write_text(json.dumps(heads))
    scored = curve.score_answers(curve.Study(tmp_path, "qwen"), "harm")
    best = {rule: int(np.argmax(utility[0])) for rule, utility in scored.utilities.items()}
    worst = {int(np.argmin(utility[0])) for utility in scored.utilities.values()}
    assert best == {
        "cost head": 1,
        "refusal head": 0,
        "shortest": 1,
        "the measuring judge": 0,
    }
    assert worst == {2}
    assert scored.measures["harmful"][0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert scored.measures["refused"][0].tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
    assert scored.measures["harm by the head"][0][:3] == pytest.approx(
        [0.8808, 0.1192, 0.0], abs=1e-4
    )
