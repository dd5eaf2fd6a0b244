"""No setting of a training is without a flag by accident."""

from __future__ import annotations

import dataclasses

import pytest
from msgspec import Struct

from truing.cli.train import DPOFlags, KTOFlags
from truing.cli.train_judges import PairFlags
from truing.cli.train_moderation import ModerationFlags
from truing.cli.train_rl_flags import ConstraintFlags, PolicyFlags, RLRunFlags, SampleFlags
from truing.cli.training import TrainingFlags
from truing.train.moderation.settings import ModerationTrainingSettings
from truing.train.rl.settings import RLSettings
from truing.train.settings import TrainingSettings


@pytest.mark.parametrize(
    ("settings", "flags", "without"),
    [
        (
            RLSettings,
            (RLRunFlags, PolicyFlags, ConstraintFlags, SampleFlags),
            # Given by the command; --cost-limit stands for the constraints.
            {"method", "out", "constraints"}
            | {"score_micro", "weight_decay", "kl_horizon", "clip_score", "ptx_batch"},
        ),
        (
            TrainingSettings,
            (TrainingFlags, PairFlags, DPOFlags, KTOFlags),
            # Given by the command, or parameters of single commands.
            {"kind", "out", "turns", "center", "temperature", "teacher"},
        ),
        (
            ModerationTrainingSettings,
            (ModerationFlags,),
            {"out", "data", "weights", "tenths", "languages", "head_lr", "layer_decay", "warmup"}
            | {"dropout", "prompt_dropout", "pair_weight", "category_weight"},
        ),
    ],
    ids=["rl", "supervised", "moderation"],
)
def test_every_setting_has_a_flag(
    settings: type[Struct], flags: tuple[type, ...], without: set[str]
) -> None:
    named = {field.name for cls in flags for field in dataclasses.fields(cls)}
    assert set(settings.__struct_fields__) - named == without
