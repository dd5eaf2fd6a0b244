"""Settings of a supervised run: all faults at once, and the digest that resuming relies on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from truing.core.errors import PlanError
from truing.train.settings import TrainingSettings

DEFAULTS = TrainingSettings(kind="dpo", out="runs/a")


def changed(**fields: Any) -> TrainingSettings:
    return msgspec.structs.replace(DEFAULTS, **fields)


def test_all_faults_are_reported_together() -> None:
    with pytest.raises(PlanError) as caught:
        changed(batch=0, lr=-1.0, dtype="float16", warmup=1.0, steps=0).checked()
    assert len(caught.value.faults) == 5
    assert "batch = 0: must be at least 1" in caught.value.faults


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"kind": "dpi"}, "kind 'dpi' is unknown; did you mean 'dpo'?"),
        ({"lr": float("nan")}, "lr = nan: must be above 0"),
        ({"epochs": 0.0}, "epochs = 0.0: must be above 0"),
        ({"kind": "kto", "micro": 1}, "batch and micro must be at least 2"),
    ],
)
def test_a_fault_names_the_setting(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(PlanError) as caught:
        changed(**fields).checked()
    assert fault in str(caught.value)


def test_settings_without_faults_are_returned() -> None:
    settings = changed(kind="kto", micro=1, loss="apo_zero_unpaired")
    assert settings.checked() is settings


def test_the_digest_covers_what_decides_the_weights() -> None:
    same = changed(out="runs/b", micro=1, keep=9, save_every=7, checkpointing=True)
    assert same.digest() == DEFAULTS.digest()
    for fields in ({"lr": 1e-3}, {"seed": 1}, {"batch": 16}, {"kind": "kto"}):
        assert changed(**fields).digest() != DEFAULTS.digest()


def test_the_digest_is_that_of_older_versions() -> None:
    # A checkpoint of an older version can only be resumed if its digest stays the same.
    assert DEFAULTS.digest() == "87442be62dd10c97"


def test_scalar_kinds() -> None:
    assert [k for k in ("sft", "reward", "cost") if changed(kind=k).scalar] == ["reward", "cost"]
