"""The JSON files of a folder: checked before anything is loaded; the blend by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from truing.core.errors import UserError
from truing.judges.moderation.settings import (
    BlendWeights,
    ClassifierSettings,
    ClassifierThresholds,
    read_blend,
    read_settings,
    read_thresholds,
    write_json,
)

SETTINGS = ClassifierSettings(
    kind="moderation", base="tiny", base_sha256="0", categories=("a", "b"), members=("one", "two")
)


def write(path: Path, value: Any, **changes: Any) -> None:
    write_json(path, value)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"kind": "reward"}, "not 'moderation'"),
        ({"categories": []}, "at least one"),
        ({"categories": ["a", "a"]}, "distinct"),
        ({"prompt_tokens": 2}, r"8\.\.4096"),
        ({"form": "zip"}, "form"),
        ({"members": ["../elsewhere"]}, "names of subfolders"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    write(tmp_path / "truing.json", SETTINGS)
    assert read_settings(tmp_path) == SETTINGS
    write(tmp_path / "truing.json", SETTINGS, **changes)
    with pytest.raises(UserError, match=fault):
        read_settings(tmp_path)


def test_a_folder_without_settings_is_no_moderation_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing, so this is no moderation folder"):
        read_settings(tmp_path)


def test_all_faults_of_thresholds_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    write(
        path,
        ClassifierThresholds(),
        categories={"jaywalking": 0.5, "a": 2.0},
        harmful={"pair": 1.5, "prompt": 0.5},
        temperature={"pair": 0.0, "prompt": 1.0, "response": 1.0},
    )
    with pytest.raises(UserError) as caught:
        read_thresholds(tmp_path, SETTINGS)
    faults = [fault.removeprefix(f"{path}: ") for fault in caught.value.faults]
    assert faults == [
        "categories.jaywalking: no such category",
        "harmful.response: missing",
        "temperature.pair: must be positive",
        "harmful.pair: 1.5 is no probability",
        "a: 2.0 is no probability",
    ]
    path.write_bytes(b"\xff{")
    with pytest.raises(UserError, match=r"thresholds\.json"):
        read_thresholds(tmp_path, SETTINGS)


def test_a_category_without_a_threshold_gets_one_half() -> None:
    thresholds = ClassifierThresholds(categories={"a": 0.2})
    assert [thresholds.for_category(name) for name in ("a", "b")] == [0.2, 0.5]


def test_the_blend_by_hand() -> None:
    blend = BlendWeights(
        weights=((1.0, 1.0, 1.0, 2.0), (0.5, 0.0, 0.0, 1.0)), gate=(0.1,), bias=(1.0, 0, 0, -1.0)
    )
    one, two = np.array([[2.0, 3.0, 4.0, 5.0]]), np.array([[4.0, 9.0, 9.0, 1.0]])
    # harmful: 2 + 0.5 * 4 + 1; category: 2 * 5 + 1 - 1 + 0.1 * 2
    assert blend.apply([one, two])[0].tolist() == pytest.approx([5.0, 3.0, 4.0, 10.2])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"bias": [0.0]}, "must hold 2 rows of 5 weights, 5 biases and 2 gates"),
        ({"weights": [[0.0] * 5]}, "must hold 2 rows"),
        ({"gate": [0.0, 1e999]}, "finite|JSON"),
    ],
)
def test_a_blend_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], fault: str
) -> None:
    blend = BlendWeights(weights=((0.0,) * 5,) * 2, gate=(0.0, 0.0), bias=(0.0,) * 5)
    write(tmp_path / "blend.json", blend)
    assert read_blend(tmp_path, SETTINGS) == blend
    write(tmp_path / "blend.json", blend, **changes)
    with pytest.raises(UserError, match=fault):
        read_blend(tmp_path, SETTINGS)
