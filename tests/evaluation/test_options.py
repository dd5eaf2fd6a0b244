"""The options of an evaluation: their defaults, and that one value serves several runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import asdict, replace
from tests.model_stand_ins import EvenJudge, MemoryDataset, SeedModel

from truing.analysis.stopping_rule import parse_stopping_rule
from truing.core.errors import RunError
from truing.core.types import Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions, ProgressCallback, RunBudget, StoppingRule


def test_defaults() -> None:
    assert asdict(EvaluateOptions()) == {
        "sampling": Sampling(),
        "seed": 0,
        "limit": None,
        "sample": "random",
        "concurrency": 16,
        "until": None,
        "budget": RunBudget(),
        "price": None,
        "progress": None,
        "plan": {},
        "taxonomy": "beavertails",
        "retry_failures": None,
        "authorised": "",
        "rate": None,
    }


def test_options_cannot_be_changed_and_share_no_plan() -> None:
    first, second = EvaluateOptions(), EvaluateOptions()
    with pytest.raises(AttributeError):
        first.seed = 1  # type: ignore[misc]
    first.plan["model"] = "m"
    assert second.plan == {}
    assert (replace(first, seed=3).seed, first.seed) == (3, 0)


def test_options_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="Extra positional arguments"):
        EvaluateOptions(Sampling())  # type: ignore[misc]


def test_only_options_that_change_the_answers_belong_to_the_plan(tmp_path: Path) -> None:
    data = MemoryDataset.of_size(2)
    run = evaluate(SeedModel(), data, [], tmp_path / "run")
    changes_nothing = EvaluateOptions(concurrency=1, rate=9.0, authorised="nobody", limit=None)
    assert evaluate(SeedModel(), data, [], run.path, options=changes_nothing).path == run.path
    for options in (
        EvaluateOptions(seed=1),
        EvaluateOptions(limit=1),
        EvaluateOptions(sampling=Sampling(temperature=0.5)),
    ):
        with pytest.raises(RunError, match="another plan"):
            evaluate(SeedModel(), data, [], run.path, options=options)


def test_the_rules_of_until_are_stopping_rules() -> None:
    rule: StoppingRule = parse_stopping_rule("even(width<0.9)", [EvenJudge()])
    assert EvaluateOptions(until=rule).until is rule
    assert rule.question == "even"
    # 40 equal draws narrow the interval far below 0.9; the first one does not.
    stops = [rule.observe(f"s{i}", 1.0) for i in range(40)]
    assert (stops[0], stops[-1]) == (False, True)


def test_progress_is_called_with_three_counts(tmp_path: Path) -> None:
    reports: list[tuple[int, int, int]] = []

    def record(done: int, total: int, failures: int) -> None:
        reports.append((done, total, failures))

    progress: ProgressCallback = record
    options = EvaluateOptions(progress=progress, concurrency=1)
    evaluate(SeedModel(), MemoryDataset.of_size(2), [], tmp_path / "run", options=options)
    assert reports == [(0, 2, 0), (1, 2, 0), (2, 2, 0)]
