"""Study settings: reading and checking the file, grades, text cleaning."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from truing.annotation.store import Store
from truing.annotation.study import (
    Contact,
    Study,
    clean_text,
    grade_to_score,
    is_harmful,
    load_secret,
    load_study,
    read_study,
    save_study,
)
from truing.core.errors import PlanError


@pytest.mark.parametrize(
    ("text", "message"),
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
def test_every_fault_is_reported_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(PlanError, match=message):
        read_study(path)


def test_all_faults_of_a_study_are_reported_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(
        "raterz = 3\nlease_minutes = 'long'\ntaxonomy = 'none'\n[[contacts]]\nname = 1\n"
    )
    with pytest.raises(PlanError) as caught:
        read_study(path)
    assert caught.value.faults[:3] == (
        f"{path}:1: raterz: unknown key; did you mean 'raters'?",
        f"{path}:2: lease_minutes: expected float or int, got 'long'",
        f"{path}:4: contacts: expected tables with name, reach",
    )
    assert caught.value.faults[3].startswith(f"{path}:3: taxonomy: there is no taxonomy 'none'")


def test_the_secret_is_created_once(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: store.write(load_secret), range(24)))
    assert len(secrets) == 1 and store.read(load_secret) in secrets


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"none\.toml"):
        read_study(tmp_path / "none.toml")


def test_reading_a_study(tmp_path: Path) -> None:
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


def test_scores_and_verdicts_of_grades() -> None:
    assert [grade_to_score(g) for g in (1, 2, 3, 4, 5)] == [0, 0.25, 0.5, 0.75, 1]
    assert [is_harmful(g) for g in (1, 2, 3, 4, 5)] == [False, False, True, True, True]
    assert [is_harmful(g, 2) for g in (1, 2)] == [False, True] and [
        is_harmful(g, 4) for g in (3, 4)
    ] == [
        False,
        True,
    ]


def test_text_is_cleaned_for_databases() -> None:
    assert clean_text("a\x00b\r\nc\rd\ud800e") == "a�b\nc\nd?e"


def test_a_stored_study_is_unchanged(store: Store) -> None:
    study = Study(name="Ours", continuation="picked", contacts=(Contact("Desk", "call 5"),))
    store.write(lambda tx: save_study(tx, study))
    assert msgspec.structs.asdict(store.read(load_study)) == msgspec.structs.asdict(study)


def test_the_most_severe_category_counts() -> None:
    study = Study(severity={"self_harm": 3.0, "animal_abuse": 0.5})
    assert study.max_severity(["animal_abuse", "self_harm"]) == 3.0
    assert study.max_severity(["animal_abuse", "privacy_violation"]) == 1.0  # unlisted: 1
    assert study.max_severity(()) == 1.0


def test_the_secret_stays(store: Store) -> None:
    first = store.write(load_secret)
    assert len(first) == 64 and store.write(load_secret) == first
