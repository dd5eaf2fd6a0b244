"""Flags and settings are the same: names, defaults, and no setting without a flag."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from truing.cli.train import DPOFlags, KTOFlags
from truing.cli.train_judges import PairFlags
from truing.cli.train_moderation import ModerationFlags
from truing.cli.train_rl_flags import ConstraintFlags, PolicyFlags, RLRunFlags, SampleFlags
from truing.cli.training import TrainingFlags
from truing.plan.training_plan import RLInputs, SupervisedInputs
from truing.train.moderation.settings import ModerationTrainingSettings
from truing.train.rl.settings import RLSettings
from truing.train.settings import TrainingSettings

# Flags that are read by the commands; they are neither settings nor inputs of a step.
_OF_COMMANDS = {"workers", "max_steps", "max_minutes", "plan_memory", "limit"}
RL_FLAGS = (RLRunFlags, PolicyFlags, ConstraintFlags, SampleFlags)


def defaults_of_flags(*classes: type) -> dict[str, Any]:
    return {field.name: field.default for cls in classes for field in dataclasses.fields(cls)}


def defaults_of_settings(*classes: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field.default for cls in classes for field in msgspec.structs.fields(cls)}


@pytest.mark.parametrize(
    ("flags", "settings", "other_defaults"),
    [
        ((TrainingFlags, PairFlags), (TrainingSettings, SupervisedInputs), {"weight"}),
        # The default of n is that of the method; lists are None on the command line.
        (
            RL_FLAGS,
            (RLSettings, RLInputs),
            {"n", "cost", "cost_weight", "cost_limit", "reward_weight", "ptx_data"},
        ),
        ((ModerationFlags,), (ModerationTrainingSettings,), {"languages"}),
    ],
)
def test_flags_have_the_names_and_defaults_of_settings(
    flags: tuple[type, ...], settings: tuple[type[msgspec.Struct], ...], other_defaults: set[str]
) -> None:
    of_settings = defaults_of_settings(*settings)
    for name, default in defaults_of_flags(*flags).items():
        if name in _OF_COMMANDS:
            continue
        assert name in of_settings, f"--{name} is no setting"
        if name not in other_defaults:
            assert of_settings[name] == default, name


def test_every_rl_setting_has_a_flag() -> None:
    without = set(defaults_of_settings(RLSettings)) - set(defaults_of_flags(*RL_FLAGS))
    assert without <= {
        "method",
        "out",
        "constraints",  # --cost-limit
        "score_micro",
        "weight_decay",
        "kl_horizon",
        "clip_score",
        "ptx_batch",
    }


def test_every_supervised_setting_has_a_flag() -> None:
    flags = defaults_of_flags(TrainingFlags, PairFlags, DPOFlags, KTOFlags)
    without = set(defaults_of_settings(TrainingSettings)) - set(flags)
    # Parameters of single commands.
    assert without <= {
        "kind",
        "out",
        "turns",
        "label_smoothing",
        "center",
        "temperature",
        "teacher",
    }
