"""Scores of a folder: independent of the batch, calibrated, the worse of two readings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from truing.core.errors import UserError
from truing.core.types import Failure
from truing.judges.moderation.inputs import ModerationInput
from truing.judges.moderation.scorer import (
    ModerationScore,
    ModerationScorer,
    find_classifier_folder,
    hash_classifier_folder,
)
from truing.judges.moderation.settings import ClassifierThresholds, write_json


def load(folder: Path) -> ModerationScorer:
    return ModerationScorer(folder, engine="torch", dtype="float32")


def score_all(scorer: ModerationScorer, inputs: Sequence[ModerationInput]) -> list[ModerationScore]:
    """Returns the scores of inputs, none of which may fail."""
    scores = scorer.score(inputs)
    assert not any(isinstance(score, Failure) for score in scores)
    return [score for score in scores if not isinstance(score, Failure)]


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def test_scores_do_not_depend_on_the_batch(folder: Path) -> None:
    scorer = load(folder)
    inputs = [
        ModerationInput((f"{'a ' * (k % 7)}word",), f"{'bad ' * (k % 5)}good") for k in range(40)
    ]
    together = [score.harmful for score in score_all(scorer, inputs)]
    alone = [score_all(scorer, [i])[0].harmful for i in inputs]
    assert np.abs(np.array(together) - alone).max() < 1e-4
    assert scorer.score([]) == []
    assert tuple(score_all(scorer, inputs[:1])[0].categories) == scorer.settings.categories


def test_a_score_is_calibrated_by_the_mode_of_its_input(folder: Path) -> None:
    category = "self_harm"
    thresholds = ClassifierThresholds(
        temperature={"pair": 2.0, "prompt": 1.0, "response": 1.0},
        bias={"pair": 0.5, "prompt": -0.5, "response": 0.0},
        harmful={"pair": 0.01, "prompt": 0.99, "response": 0.5},
        categories={category: 0.0},
    )
    write_json(folder / "thresholds.json", thresholds)
    scorer = load(folder)
    pair, prompt = ModerationInput(("a word",), "bad"), ModerationInput(("a word",))
    pair_logits, prompt_logits = scorer.logits([*scorer.rows(pair), *scorer.rows(prompt)])
    pair_score, prompt_score = score_all(scorer, [pair, prompt])
    assert pair_score.harmful == pytest.approx(sigmoid(pair_logits[0] / 2 + 0.5), abs=1e-6)
    assert pair_score.refused == pytest.approx(sigmoid(pair_logits[2]), abs=1e-6)
    assert prompt_score.harmful == pytest.approx(sigmoid(prompt_logits[1] - 0.5), abs=1e-6)
    assert pair_score.flagged and not prompt_score.flagged
    assert category in pair_score.flagged_categories


def test_a_text_alone_gets_the_worse_of_its_two_readings(folder: Path) -> None:
    scorer = load(folder)
    text = "a bad word"
    response = ModerationInput((), text)
    logits = scorer.logits(scorer.rows(response))
    (score,) = score_all(scorer, [response])
    assert score.mode == "response"
    assert score.harmful == pytest.approx(sigmoid(max(logits[0, 0], logits[1, 1])), abs=1e-6)
    worse = np.maximum(logits[0, 3:], logits[1, 3:])
    assert list(score.categories.values()) == pytest.approx([sigmoid(z) for z in worse], abs=1e-6)


def test_the_hash_covers_what_decides_a_score(folder: Path) -> None:
    before = hash_classifier_folder(folder)
    (folder / "card.json").write_text("{}")
    assert hash_classifier_folder(folder) == before
    write_json(folder / "thresholds.json", ClassifierThresholds(refused=0.6))
    assert hash_classifier_folder(folder) != before


def test_a_notice_is_logged_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = load(folder).settings
    write_json(folder / "truing.json", msgspec.structs.replace(settings, notice="research only"))
    load(folder)
    load(folder)
    assert [record.message.endswith("research only") for record in caplog.records] == [True]


def test_unknown_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder \(shipped: default, fast, research\)"):
        find_classifier_folder(str(tmp_path / "none"))
