"""Settings of a supervised run: all faults at once, and the digest that resuming relies on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from truing.core.errors import PlanError
from truing.train.settings import LOSSES, SMOOTHED_LOSSES, TrainingSettings

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
        ({"label_smoothing": 0.1}, "label_smoothing = 0.1: dpo does not use it"),
        ({"label_smoothing": 0.1, "loss": "sigmoid"}, "sigmoid does not use it"),
        ({"label_smoothing": 0.1, "kind": "kto"}, "kto does not use it"),
        ({"label_smoothing": 0.5, "loss": "robust"}, "0 <= share < 0.5"),
        ({"label_smoothing": float("nan"), "loss": "robust"}, "0 <= share < 0.5"),
        ({"loss": "sigmod"}, "dpo has no loss 'sigmod'; did you mean 'sigmoid'?"),
        ({"kind": "kto", "loss": "sigmoid"}, "kto has no loss 'sigmoid'"),
        ({"kind": "sft", "loss": "sigmoid"}, "sft has no loss 'sigmoid'"),
        ({"kind": "distil", "loss": "revers"}, "did you mean 'reverse'?"),
        ({"lora_from": -1}, "lora_from = -1: must be at least 0"),
        ({"lora": 0, "lora_from": 3}, "lora_from = 3: there are no adapters with lora = 0"),
        ({"export_dtype": "int8"}, "export_dtype = 'int8': must be one of auto, float32"),
        ({"desirable_weight": 2.0}, "dpo does not use it; kto does"),
        ({"kind": "kto", "desirable_weight": -1.0}, "must be at least 0 and finite"),
        ({"kind": "kto", "undesirable_weight": float("inf")}, "must be at least 0 and finite"),
        (
            {"kind": "kto", "desirable_weight": 0.0, "undesirable_weight": 0.0},
            "both 0: nothing is learned",
        ),
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
    same = msgspec.structs.replace(same, device="cpu", export_dtype="float32")
    assert same.digest() == DEFAULTS.digest()
    for fields in (
        {"lr": 1e-3},
        {"seed": 1},
        {"batch": 16},
        {"kind": "kto"},
        {"desirable_weight": 2.0},
    ):
        assert changed(**fields).digest() != DEFAULTS.digest()


def test_the_digest_is_that_of_older_versions() -> None:
    # A checkpoint of an older version can only be resumed if its digest stays the same.
    assert DEFAULTS.digest() == "87442be62dd10c97"


def test_scalar_kinds() -> None:
    assert [k for k in ("sft", "reward", "cost") if changed(kind=k).scalar] == ["reward", "cost"]


@pytest.mark.parametrize("loss", LOSSES["dpo"])
def test_label_smoothing_is_used_or_refused(loss: str) -> None:
    settings = changed(loss=loss, label_smoothing=0.1)
    if loss in SMOOTHED_LOSSES:
        assert settings.checked().smoothing == 0.1
    else:
        with pytest.raises(PlanError, match=f"{loss} does not use it"):
            settings.checked()


def test_exo_pair_is_smoothed_by_default() -> None:
    assert changed(loss="exo_pair").checked().smoothing == 1e-3
    assert changed(loss="robust").checked().smoothing == 0


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("dpo", {"sft_weight": -1.0}, "sft_weight = -1.0: must be at least 0"),
        ("dpo", {"sft_weight": 1.0, "loss": "orpo"}, "this training does not"),
        ("kto", {"sft_weight": 1.0}, "dpo uses it"),
        ("dpo", {"target_margin": 0.5}, "dpo with loss simpo uses it"),
        ("dpo", {"label_smoothing": 0.1, "loss": "simpo"}, "simpo does not use it"),
    ],
)
def test_settings_of_losses_that_do_not_use_them_are_refused(
    kind: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        TrainingSettings(kind=kind, out="", **changes).checked()


def test_newer_settings_at_their_default_keep_the_digest() -> None:
    anchored = TrainingSettings(kind="dpo", out="", sft_weight=1.0)
    assert TrainingSettings(kind="dpo", out="", sft_weight=0.0).digest() != anchored.digest()
    assert {"sft_weight", "lora_from"} <= TrainingSettings.older_values.keys()
    older = msgspec.to_builtins(TrainingSettings(kind="sft", out="a"))
    del older["lora_from"]
    stored = msgspec.convert(older, TrainingSettings)
    assert stored.digest() == TrainingSettings(kind="sft", out="a").digest()
    assert stored.digest() != TrainingSettings(kind="sft", out="a", lora_from=4).digest()


@pytest.mark.parametrize(("loss", "beta"), [("", 0.1), ("ipo", 0.1), ("orpo", 0.1), ("simpo", 2.0)])
def test_the_default_beta_is_that_of_the_loss(loss: str, beta: float) -> None:
    settings = TrainingSettings(kind="dpo", out="runs/a", loss=loss)
    assert settings.beta is None and settings.loss_beta == beta
    assert settings.digest() == TrainingSettings(kind="dpo", out="a", loss=loss, beta=beta).digest()
    assert TrainingSettings(kind="dpo", out="a", loss=loss, beta=0.7).loss_beta == 0.7
    assert settings.result_settings()["beta"] == settings.used_settings()["beta"] == beta
    stored = msgspec.to_builtins(settings)
    assert msgspec.convert(stored, TrainingSettings) == settings
