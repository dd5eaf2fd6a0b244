"""Settings of a moderation run: all faults at once, and the digest that resuming relies on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.train.moderation.builders import make_settings

from truing.core.errors import PlanError
from truing.train.moderation.settings import ModerationTrainingSettings

BASE, OUT = Path("base"), Path("out")


def faults_of(**fields: Any) -> tuple[str, ...]:
    with pytest.raises(PlanError) as caught:
        make_settings(BASE, OUT, **fields).checked()
    return tuple(caught.value.faults)


def test_all_faults_are_reported_together() -> None:
    faults = faults_of(folds=0, lr=0.0, form="half", ngram_bits=3, weights=(0.0,))
    assert len(faults) == 5
    assert "folds = 0: must be at least 1" in faults


def test_settings_that_exclude_each_other() -> None:
    assert len(faults_of(folds=3, held=4, layers=1, frozen=2, lora=0)) == 3
    assert faults_of(folds=1, whole=True) == (
        "whole: needs folds = 2 or more; one fold is trained on every row already",
    )


def test_form_and_trained_folds() -> None:
    assert make_settings(BASE, OUT, form="64").checked().rank == 64
    assert make_settings(BASE, OUT, form="delta").rank is None
    assert make_settings(BASE, OUT, folds=3).trained_folds == 3
    assert make_settings(BASE, OUT, folds=3, held=1, whole=True).trained_folds == 1


def test_the_digest_covers_what_decides_the_weights() -> None:
    digest = make_settings(BASE, OUT).digest()
    assert make_settings(BASE, Path("elsewhere"), save_every=99).digest() == digest
    assert make_settings(BASE, OUT, seed=1).digest() != digest


def test_the_digest_is_that_of_older_versions() -> None:
    # A checkpoint of an older version can only be resumed if its digest stays the same.
    settings = ModerationTrainingSettings(
        data=("pku",), weights=(1.0,), tenths=((0, 9),), out="out"
    )
    assert settings.digest() == "6c0d5c99e6261a3f"
