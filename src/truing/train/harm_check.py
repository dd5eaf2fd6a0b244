"""Stops a run whose objective trains towards harm, unless a reason is given.

A model that is trained towards harm on purpose (a "red model", to test defences against) needs
`--red-model REASON`. The reason is written to the model folder and inherited by every model that is
trained from it; `truing serve` refuses such models.
"""

from __future__ import annotations

from collections.abc import Iterable

from truing.core.errors import PlanError
from truing.core.types import DataInfo, Lineage
from truing.train.examples import TrainingSet
from truing.train.settings import POLICY_KINDS, TrainingSettings

# Benchmarks of reward models: training on them would spoil them.
TEST_ONLY_DATASETS = ("llmbar", "rm-bench")


def find_harmful_objective(
    settings: TrainingSettings, sources: Iterable[TrainingSet]
) -> str | None:
    """Returns why the objective trains towards harm, or None.

    For a policy: a target answer is labelled harmful, or more pairs prefer the unsafe answer than
    the safe one. For a cost model: most of its pairs are inverted.
    """
    harmful_targets = prefer_safe = prefer_unsafe = 0
    for source in sources:
        for example in source.items:
            if example.signs is None:
                continue
            # An undesirable answer of kto is no target: its likelihood is pushed down.
            if settings.kind in ("sft", "kto") and example.desirable is not False:
                harmful_targets += example.signs[0] < 0
            elif len(example.answers) == 2:
                prefer_safe += example.signs == (1, -1)
                prefer_unsafe += example.signs == (-1, 1)
    if harmful_targets:
        return f"{harmful_targets} target answers are labelled harmful"
    is_affected = settings.kind in POLICY_KINDS or settings.kind == "cost"
    if is_affected and prefer_unsafe > prefer_safe:
        return f"{prefer_unsafe} pairs prefer the unsafe answer and {prefer_safe} the safe one"
    return None


def require_red_model_reason(finding: str | None, reason: str | None) -> str | None:
    """Returns the text that marks a red model, or None if there is no finding.

    Raises PlanError if there is a finding and no reason.
    """
    if finding is None:
        return None
    if not reason or not reason.strip():
        raise PlanError(
            f"this objective raises harm: {finding}. If that is the purpose (a red model "
            "for tests), give --red-model REASON; the reason is written to the model folder, and "
            "`truing serve` refuses the model"
        )
    return f"{reason.strip()} ({finding})"


def check_objective(
    settings: TrainingSettings, sources: Iterable[TrainingSet], base: Lineage
) -> str | None:
    """Returns the red-model text of the model to be trained: its own, or that of its base.

    Raises PlanError if the objective trains towards harm and no reason is given.
    """
    finding = find_harmful_objective(settings, sources)
    red_model = require_red_model_reason(finding, settings.red_model)
    if red_model is None and settings.red_model:
        red_model = settings.red_model.strip()
    return red_model or base.red_model


def check_training_data(info: DataInfo, *, allow_red_team: bool) -> None:
    """Raises PlanError for test-only data sets, and for red-teaming dialogues unless allowed."""
    kind = info.spec.split(",")[0].split(":")[0]
    if kind in TEST_ONLY_DATASETS:
        raise PlanError(
            f"{info.spec}: is a test set of reward models and must not train one; "
            f"--test {info.spec} measures a model on it"
        )
    if info.red_team and not allow_red_team:
        raise PlanError(
            f"{info.spec}: holds red-teaming dialogues; --allow-red-team permits training on them"
        )
