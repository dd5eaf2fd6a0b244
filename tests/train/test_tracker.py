"""Experiment trackers: an absent one is named before training; wandb writes offline."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.requirements import hide_package, require_package
from tests.train.builders import make_settings

from truing.core.errors import MissingExtra
from truing.train.tracker import open_tracker
from truing.train.training_log import TrainingLog


def test_without_a_tracker_nothing_is_opened(tmp_path: Path) -> None:
    assert open_tracker(make_settings("sft", str(tmp_path), "smollm2")) is None


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_an_absent_tracker_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_package(monkeypatch, name)
    settings = make_settings("sft", str(tmp_path), "smollm2", track=name)
    with pytest.raises(MissingExtra, match=rf"pip install 'truing\[{name}\]'"):
        open_tracker(settings)


def test_wandb_takes_the_numbers_of_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_package("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    settings = make_settings("sft", str(tmp_path / "run"), "smollm2", track="wandb")
    log = TrainingLog(settings.folder, tensorboard=False, tracker=open_tracker(settings))
    log.write(1, {"loss": 0.5, "text": "not sent", "bad": float("nan")})
    log.close()
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_the_tracker_does_not_change_the_identity_of_a_run() -> None:
    plain, tracked = (
        make_settings("sft", "out", "smollm2", track=name) for name in ("none", "wandb")
    )
    assert plain.digest() == tracked.digest()
