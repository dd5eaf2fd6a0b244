"""What the commands of supervised training share."""

from __future__ import annotations

import pytest

from truing.cli.training import _format_evaluation
from truing.plan.training_steps import spec_for_training


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("pku", "pku,conflicts=drop"),
        ("pku,conflicts=keep", "pku,conflicts=keep"),
        ("builtin:safety", "builtin:safety,half=train"),
        ("builtin:safety,half=test", "builtin:safety,half=test"),
        ("file:rows.jsonl", "file:rows.jsonl"),
    ],
)
def test_training_leaves_out_contradictions_and_the_prompts_of_reports(
    spec: str, expected: str
) -> None:
    assert spec_for_training(spec) == expected


def test_format_evaluation() -> None:
    accuracy = {"n": 40, "estimate": 0.75, "lower": 0.6, "upper": 0.86}
    measures = {
        "pairs": 40,
        "accuracy": accuracy,
        "sign_accuracy": {"n": 0},
        "length_only": 0.5,
        "ece_order": 0.0314,
    }
    assert _format_evaluation(measures) == (
        "40 pairs, order 75.0 % [60.0, 86.0], by length alone 50.0 %, calibration error 0.031"
    )
