"""Whether a folder holds the same run, and whether that is finished: one rule for all trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from truing.core.errors import PlanError, RunError
from truing.core.types import Lineage
from truing.train.checkpoint import CheckpointIdentity, write_checkpoint
from truing.train.model_card import CARD_FILE, TrainedModelCard
from truing.train.rl.settings import RLSettings
from truing.train.run_manifest import MANIFEST_FILE, find_finished, write_manifest
from truing.train.run_settings import RunSettings
from truing.train.settings import TrainingSettings

KINDS = ["dpo", "grpo"]


def settings_of(kind: str, out: Path, **changes: Any) -> RunSettings:
    if kind == "grpo":
        return RLSettings(method="grpo", out=str(out), **changes)
    return TrainingSettings(kind="dpo", out=str(out), **changes)


def identity_of(settings: Any, step: int, **changes: Any) -> CheckpointIdentity:
    values = {"kind": settings.kind, "digest": settings.digest(), "base_sha256": "b"}
    return CheckpointIdentity(step=step, **{**values, **changes})


def leave_run(settings: RunSettings, *, step: int, model: bool = True) -> None:
    """Writes what a run leaves after a step: manifest, checkpoint and card."""
    settings.folder.mkdir(exist_ok=True)
    write_manifest(settings.folder / MANIFEST_FILE, {"settings": msgspec.to_builtins(settings)})
    write_checkpoint(settings.out, identity_of(settings, step), {})
    if model:
        card = TrainedModelCard(kind="x", base="b", base_sha256="b", lineage=Lineage(name="done"))
        (settings.folder / CARD_FILE).write_bytes(msgspec.json.encode(card))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_finished_with_its_last_step_and_its_model(kind: str, tmp_path: Path) -> None:
    settings = settings_of(kind, tmp_path / "run")
    expected = identity_of(settings, 4)
    assert find_finished(settings, expected, "auto") is None
    leave_run(settings, step=2, model=False)
    assert find_finished(settings, expected, "auto") is None
    leave_run(settings, step=4, model=False)
    assert find_finished(settings, expected, "auto") is None
    leave_run(settings, step=4)
    card = find_finished(settings, expected, "auto")
    assert card is not None and card.lineage.name == "done"
    assert find_finished(settings, expected, "bfloat16") is None  # to be written again


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change", [{"save_every": 7}, {"keep": 9}, {"tensorboard": False}, {"device": "cpu"}]
)
def test_where_and_how_often_a_run_is_saved_is_free(
    kind: str, change: dict[str, Any], tmp_path: Path
) -> None:
    leave_run(settings_of(kind, tmp_path / "run"), step=4)
    changed = settings_of(kind, tmp_path / "run", **change)
    card = find_finished(changed, identity_of(changed, 4), "auto")
    assert card is not None and card.lineage.name == "done"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [2, 4])
def test_other_settings_are_named(kind: str, step: int, tmp_path: Path) -> None:
    leave_run(settings_of(kind, tmp_path / "run"), step=step, model=step == 4)
    changed = settings_of(kind, tmp_path / "run", lr=0.5, seed=3)
    with pytest.raises(PlanError, match=r"other settings \((seed, lr|lr, seed)\); repeat"):
        find_finished(changed, identity_of(changed, 4), "auto")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digest": "other"}, "other settings or other data"),
        ({"kind": "ppo"}, "belongs to a grpo run, this one is ppo"),
        ({"base_sha256": "c"}, "started from another base"),
    ],
)
def test_another_run_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    settings = settings_of("grpo", tmp_path / "run")
    leave_run(settings, step=4)
    with pytest.raises(PlanError, match=message):
        find_finished(settings, identity_of(settings, 4, **change), "auto")


def test_a_model_without_a_checkpoint_is_not_written_over(tmp_path: Path) -> None:
    settings = settings_of("dpo", tmp_path / "run")
    leave_run(settings, step=4)
    for path in (settings.folder / "checkpoint-4").iterdir():
        path.unlink()
    with pytest.raises(RunError, match="without a checkpoint"):
        find_finished(settings, identity_of(settings, 4), "auto")
