"""A guard on ourselves: a run whose objective raises harm or cost stops unless a reason is given, and is marked for good."""

from __future__ import annotations

from collections.abc import Iterable

from truing.core.errors import PlanError
from truing.core.types import DataInfo, Lineage
from truing.train.examples import TrainingSet
from truing.train.settings import POLICY_KINDS, TrainingSettings


def find_harmful_objective(
    settings: TrainingSettings, sources: Iterable[TrainingSet]
) -> str | None:
    """Why the objective raises harm or cost, or none.

    A policy is raised towards harm if an answer that people called harmful is a target, or if more pairs prefer the
    unsafe answer over the safe one than the other way round; a cost model, if its pairs are mostly turned round.
    """
    targets = forward = backward = 0
    for source in sources:
        for item in source.items:
            if (
                settings.kind in ("sft", "kto")
                and item.signs is not None
                and item.desirable is not False
            ):
                targets += item.signs[0] < 0
            elif len(item.answers) == 2 and item.signs is not None:
                forward += item.signs == (1, -1)
                backward += item.signs == (-1, 1)
    if targets:
        return f"{targets} target answers are labelled harmful"
    if backward > forward and (settings.kind in POLICY_KINDS or settings.kind == "cost"):
        return f"{backward} pairs prefer the unsafe answer and {forward} the safe one"
    return None


def require_red_model_reason(why: str | None, reason: str | None) -> str | None:
    """The mark of a red model; PlanError if one is needed and no reason is given."""
    if why is None:
        return None
    if not reason or not reason.strip():
        raise PlanError(
            f"this objective raises harm: {why}. If that is the purpose (a red model for testing), say so: "
            f"--red-model REASON; the reason goes into the model folder, and `serve` refuses it"
        )
    return f"{reason.strip()} ({why})"


def check_objective(
    settings: TrainingSettings, sources: Iterable[TrainingSet], base: Lineage
) -> str | None:
    """The mark that the trained folder carries: its own, or that of the base that it goes on from."""
    mark = require_red_model_reason(
        find_harmful_objective(settings, list(sources)), settings.red_model
    )
    if mark is None and settings.red_model:
        mark = settings.red_model.strip()
    return mark or base.red_model


TEST_ONLY_DATASETS = ("llmbar", "rm-bench")


def check_training_data(info: DataInfo, *, allow_red_team: bool) -> None:
    """Refuses sets that are there for testing alone, and red-teaming dialogues unless they are allowed by name."""
    if info.spec.split(",")[0].split(":")[0] in TEST_ONLY_DATASETS:
        raise PlanError(
            f"{info.spec}: is a test of reward models and trains none; --test {info.spec} measures one"
        )
    if info.red_team and not allow_red_team:
        raise PlanError(
            f"{info.spec}: red-teaming dialogues do not train a model unless --allow-red-team says so"
        )
