"""A study's file: every fault is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from truing.annotation.study import clean_text, grade_to_score, is_harmful, read_study
from truing.core.errors import PlanError


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("raters = 0", "raters: from 1 to 20"),
        ("lease_minutes = -1", "lease_minutes: must be above 0"),
        ("raterz = 3", "raterz"),
        ("continuation = 'worse'", "continuation|Invalid enum"),
        ("raters = 'three'", "raters"),
        ("[severity]\ngossip = 2.0", "severity.gossip"),
        ("raters =", "Invalid value"),
        ("taxonomy = 'none'", "no taxonomy"),
    ],
)
def test_faults(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(PlanError, match=word):
        read_study(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"none\.toml"):
        read_study(tmp_path / "none.toml")


def test_a_study(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(
        "name = 'Pilot'\nraters = 5\n[[contacts]]\nname = 'Desk'\nreach = '5'\n[severity]\nself_harm = 9.0\n"
    )
    study = read_study(path)
    assert (
        study.raters,
        study.contacts[0].reach,
        study.max_severity(["self_harm"]),
        study.max_severity(["animal_abuse"]),
    ) == (5, "5", 9.0, 1.0)


def test_grades_become_scores_and_verdicts() -> None:
    assert [grade_to_score(g) for g in (1, 2, 3, 4, 5)] == [0, 0.25, 0.5, 0.75, 1]
    assert [is_harmful(g) for g in (1, 2, 3, 4, 5)] == [False, False, True, True, True]
    assert [is_harmful(g, 2) for g in (1, 2)] == [False, True] and [
        is_harmful(g, 4) for g in (3, 4)
    ] == [
        False,
        True,
    ]


def test_text_that_databases_refuse_is_mended() -> None:
    assert clean_text("a\x00b\r\nc\rd\ud800e") == "a�b\nc\nd?e"
