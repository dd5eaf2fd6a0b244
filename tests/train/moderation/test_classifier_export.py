"""Mixed logits out of one head, thresholds of the three modes, and the words of the card."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.moderation.builders import make_settings

from truing.train.moderation.calibration import Calibration, LogitMix
from truing.train.moderation.classifier_export import (
    _describe_method,
    build_thresholds,
    fold_mix_into_head,
)
from truing.train.moderation.ngram_fit import NgramRegression


def make_calibration() -> Calibration:
    mix = LogitMix(
        a=np.array([2.0, 1, 1, 3, 4]),
        b=np.array([0.5, 1, 1, 2, 2]),
        gate=np.array([0.1, 0.2]),
        bias=np.array([1.0, 0, 0, -1, -2]),
    )
    return Calibration(mix, 0.4, 0.6, 0.5, np.array([0.2, 0.3]))


def test_the_head_gives_the_mixed_logits() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(7, 6)).astype(np.float32)
    ngram_features = rng.random((7, 4)).astype(np.float32)
    regression = NgramRegression(
        weight=rng.normal(size=(4, 5)).astype(np.float32),
        bias=rng.normal(size=5).astype(np.float32),
        idf=np.ones(4, np.float32),
    )
    head = torch.nn.Linear(6, 5)
    network: Any = SimpleNamespace(head=head)
    with torch.no_grad():
        encoder_logits = head(torch.from_numpy(features)).numpy().astype(np.float64)
    ngram_logits = ngram_features @ regression.weight + regression.bias
    calibration = make_calibration()
    expected = calibration.mix.apply(encoder_logits, ngram_logits)

    tensors = fold_mix_into_head(network, regression, calibration)
    with torch.no_grad():
        folded = head(torch.from_numpy(features)).numpy()
    weight = tensors["weight"].numpy().astype(np.float32) * tensors["scale"].numpy()
    assert folded + ngram_features @ weight == pytest.approx(expected, abs=0.05)
    assert tensors["idf"].dtype is torch.float16
    assert fold_mix_into_head(network, None, calibration) == {}


def test_a_text_of_unknown_role_gets_the_stricter_threshold() -> None:
    thresholds = build_thresholds(("a", "b"), make_calibration())
    assert thresholds.harmful == {"pair": 0.4, "prompt": 0.6, "response": 0.6}
    assert thresholds.categories == {"a": 0.2, "b": 0.3} and thresholds.refused == 0.5


def test_the_method_says_which_folds_were_measured() -> None:
    def method(**fields: Any) -> str:
        return _describe_method(make_settings(Path("base"), Path("out"), **fields))

    assert (
        method(folds=3)
        == "3 folds by normalised prompt; mix and thresholds chosen without the fold"
    )
    assert "2 of them measured" in method(folds=3, held=2, whole=True)
    text = method(folds=3, held=1, whole=True)
    assert "one of them measured" in text and text.endswith("was not measured itself")
