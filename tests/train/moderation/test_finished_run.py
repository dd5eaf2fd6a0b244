"""A training that starts from another one: its networks, its lineage, and what must fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.train.moderation.builders import make_settings, make_training_set

from truing.core.errors import PlanError
from truing.train.moderation.finished_run import read_run_settings
from truing.train.moderation.run import train_moderation


def first_loss(folder: Path) -> float:
    return float(json.loads((folder / "log.jsonl").read_text().splitlines()[0])["loss"])


def test_a_run_goes_on_from_the_networks_of_another(
    trained: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    settings = make_settings(tiny_bert, out, start=str(trained), epochs=0.2)
    result = train_moderation(settings, [make_training_set(90)])
    assert result is not None and first_loss(out) < first_loss(trained) / 3
    # The lineage names the rows of both, though this run read 90 of the 180 alone.
    lineage = json.loads((out / "truing.json").read_bytes())["lineage"]
    assert len(lineage["prompts"]) == 180
    origins = json.loads((out / "card.json").read_bytes())["origins"]
    assert origins == json.loads((trained / "card.json").read_bytes())["origins"]
    # The same command again finds its run finished; another start is another run.
    again = train_moderation(settings, [make_training_set(90)])
    assert again is not None and again.hash == result.hash
    with pytest.raises(PlanError, match="other settings or other data"):
        train_moderation(make_settings(tiny_bert, out, epochs=0.2), [make_training_set(90)])


def test_a_start_that_does_not_fit_is_refused(
    trained: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    def start(folder: Path, **options: object) -> None:
        settings = make_settings(tiny_bert, tmp_path / "out", start=str(folder), **options)
        train_moderation(settings, [make_training_set(90)])

    with pytest.raises(PlanError, match="no training run"):
        start(tmp_path / "none")
    with pytest.raises(PlanError, match="trained with another folds"):
        start(trained, folds=3)
    with pytest.raises(PlanError, match="cannot be used with adapters"):
        start(trained, lora=4)
    assert read_run_settings(trained).folds == 2
