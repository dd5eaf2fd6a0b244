"""The folder of an evaluation: named by what decides answers and verdicts, and by nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from truing.plan.evaluation import DataPlan, Plan, RunPlan
from truing.plan.step_cache import evaluation_folder

PLAN = Plan(models={"base": "scripted:comply"}, data={"held": DataPlan(spec="file:rows.jsonl")})


def folder_of(**run: Any) -> Path:
    return evaluation_folder(Path("out"), replace(PLAN, run=RunPlan(**run)))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("concurrency", 2),
        ("rate", 3.0),
        ("authorised", "the owner"),
        ("margin", 0.2),
        ("max_harm", 0.2),
    ],
)
def test_speed_authority_and_limits_of_the_report_leave_the_runs_where_they_are(
    option: str, value: object
) -> None:
    assert folder_of(**{option: value}) == folder_of()


@pytest.mark.parametrize(
    ("option", "value"),
    [("seed", 1), ("n", 2), ("max_tokens", 9), ("temperature", 1.0), ("judges", ("llm:harm",))],
)
def test_what_decides_the_results_gives_another_folder(option: str, value: object) -> None:
    assert folder_of(**{option: value}) != folder_of()


def test_models_and_the_looks_of_the_report_have_no_part_in_it() -> None:
    other = replace(PLAN, models={"new": "scripted:refuse"}, title="other", with_text=True)
    assert evaluation_folder(Path("out"), other) == folder_of()
