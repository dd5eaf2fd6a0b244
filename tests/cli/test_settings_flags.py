"""Flags are made from settings: names, types, defaults, and help from the settings' docstring."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec
import pytest
from cyclopts import App, CoercionError, UnknownOptionError
from msgspec import Struct

from truing.cli.settings_flags import describe_fields, fields_of, flags_of, setting_values
from truing.plan.step_inputs import RLInputs, SampledInputs, SupervisedInputs
from truing.train.moderation.settings import ModerationTrainingSettings
from truing.train.rl.settings import RLSettings
from truing.train.settings import TrainingSettings


class Base(Struct, frozen=True, kw_only=True):
    """A base.

    Attributes:
        seed: Seed of the draw.
    """

    seed: int = 0


class Drawing(Base, frozen=True, kw_only=True):
    """How rows are drawn.

    Attributes:
        share: Share of the rows,
            from 0 to 1.
        order: first or random.
        names: Names of the sets.
        log: Write a log.
        dry: Draw nothing.
    """

    share: float = 0.5
    order: Literal["first", "random"] = "random"
    names: tuple[str, ...] = ()
    log: bool = True
    dry: bool = False


@flags_of(fields_of(Drawing, without=("share",)), common=("order",), group=None)
class DrawingFlags:
    """How to draw."""

    rows: int = 3


def parse(*tokens: str) -> Any:
    app = App(result_action="return_value")

    @app.default
    def command(flags: DrawingFlags | None = None) -> DrawingFlags:
        return flags or DrawingFlags()

    return app(list(tokens), exit_on_error=False, print_error=False)


def test_flags_have_the_types_and_defaults_of_the_fields() -> None:
    assert vars(parse()) == {
        "seed": 0,
        "order": "random",
        "names": (),
        "log": True,
        "dry": False,
        "rows": 3,
    }
    flags = parse("--seed", "7", "--order", "first", "--names", "a", "b", "--no-log", "--dry")
    assert setting_values(flags, Drawing) == {
        "seed": 7,
        "order": "first",
        "names": ("a", "b"),
        "log": False,
        "dry": True,
    }
    assert msgspec.convert(setting_values(flags, Drawing), Drawing).names == ("a", "b")


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        (("--order", "last"), CoercionError, 'for --order. Choose from: "first", "random"'),
        (("--seed", "x"), CoercionError, 'for --seed: unable to convert "x" into int'),
        (("--share", "0.1"), UnknownOptionError, "Unknown option: --share."),
        (("--no-dry",), UnknownOptionError, "Unknown option: --no-dry."),
        (("--empty-names",), UnknownOptionError, "Unknown option: --empty-names."),
    ],
)
def test_what_is_no_value_or_no_flag_is_refused(
    tokens: tuple[str, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        parse(*tokens)


def test_descriptions_are_those_of_the_class_and_its_bases() -> None:
    assert describe_fields(Drawing) == {
        "seed": "Seed of the draw.",
        "share": "Share of the rows, from 0 to 1.",
        "order": "first or random.",
        "names": "Names of the sets.",
        "log": "Write a log.",
        "dry": "Draw nothing.",
    }
    undescribed = msgspec.defstruct("Undescribed", [("size", int, 1)])
    with pytest.raises(KeyError, match="size"):
        fields_of(undescribed)


@pytest.mark.parametrize(
    "settings",
    [TrainingSettings, RLSettings, ModerationTrainingSettings, SupervisedInputs, RLInputs],
)
def test_every_setting_of_a_training_is_described(settings: type[Struct]) -> None:
    described = describe_fields(settings)
    own = {"data", "weights", "tenths"} if settings is ModerationTrainingSettings else set()
    assert set(settings.__struct_fields__) - set(described) <= own
    assert all(len(text) > 10 and text.endswith(".") for text in described.values())


def test_inputs_of_sampled_steps_have_the_names_of_their_flags() -> None:
    from truing.cli.train_on_samples import BestOfFlags, PairFlags, TeacherFlags

    for flags in (BestOfFlags, PairFlags, TeacherFlags):
        assert set(flags.__annotations__) <= set(SampledInputs.__struct_fields__)
