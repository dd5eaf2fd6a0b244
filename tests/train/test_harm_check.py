"""Objectives that train towards harm are refused without a reason, and marked with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.train.builders import make_settings, make_training_set

from truing.core.errors import PlanError
from truing.core.types import DataInfo, Lineage
from truing.specs.resolve import resolve
from truing.train.examples import TrainingSet
from truing.train.harm_check import check_objective, check_training_data, find_harmful_objective
from truing.train.model_card import read_model_card
from truing.train.settings import TrainingSettings
from truing.train.supervised import train_supervised


def settings(kind: str, **fields: Any) -> TrainingSettings:
    return make_settings(kind, "out", "base", **fields)


@pytest.mark.parametrize(
    ("kind", "source", "finding"),
    [
        (
            "sft",
            make_training_set(3, answers=1, signs=(-1, -1)),
            "3 target answers are labelled harmful",
        ),
        (
            "dpo",
            make_training_set(3, signs=(-1, 1)),
            "3 pairs prefer the unsafe answer and 0 the safe one",
        ),
        (
            "kto",
            make_training_set(3, answers=1, signs=(-1, -1), desirable=True),
            "3 target answers are labelled harmful",
        ),
        ("cost", make_training_set(3, signs=(-1, 1)), "3 pairs prefer the unsafe answer"),
    ],
)
def test_an_objective_towards_harm_needs_a_reason(
    kind: str, source: TrainingSet, finding: str
) -> None:
    assert finding in str(find_harmful_objective(settings(kind), [source]))
    with pytest.raises(PlanError, match="--red-model REASON"):
        check_objective(settings(kind), [source], Lineage())
    red_model = check_objective(settings(kind, red_model="to test a gate"), [source], Lineage())
    assert red_model is not None
    assert red_model.startswith("to test a gate (") and finding in red_model


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("dpo", make_training_set(3, signs=(1, -1))),
        ("dpo", make_training_set(3)),
        ("sft", make_training_set(3, answers=1, signs=(1, 1))),
        ("kto", make_training_set(3, answers=1, signs=(-1, -1), desirable=False)),
    ],
)
def test_a_harmless_objective_passes_but_a_red_base_stays_red(
    kind: str, source: TrainingSet
) -> None:
    assert check_objective(settings(kind), [source], Lineage()) is None
    red_base = Lineage(red_model="a red base")
    assert check_objective(settings(kind), [source], red_base) == "a red base"


def test_a_reward_model_may_prefer_the_unsafe_answer() -> None:
    source = make_training_set(3, signs=(-1, 1))
    assert find_harmful_objective(settings("reward"), [source]) is None


def test_a_red_model_carries_its_reason(base: str, out: str) -> None:
    harmful = [make_training_set(4, signs=(-1, 1))]
    with pytest.raises(PlanError, match="--red-model REASON"):
        train_supervised(make_settings("dpo", out, base), harmful)
    train_supervised(make_settings("dpo", out, base, red_model="to test the gate"), harmful)
    card = read_model_card(out)
    assert card is not None and card.red_model is not None
    assert card.red_model.startswith("to test the gate (4 pairs")
    assert '"red_model": "to test the gate' in (Path(out) / "manifest.json").read_text()
    model = resolve(f"local:{out},dtype=float32", "model")
    assert model.lineage.red_model == card.red_model


def test_test_sets_and_red_teaming_dialogues_do_not_train() -> None:
    with pytest.raises(PlanError, match="--test rm-bench:chat measures a model"):
        check_training_data(DataInfo(spec="rm-bench:chat"), allow_red_team=True)
    attempts = DataInfo(spec="attempts", red_team=True)
    with pytest.raises(PlanError, match="--allow-red-team"):
        check_training_data(attempts, allow_red_team=False)
    check_training_data(attempts, allow_red_team=True)
