"""Consent, opt-outs, exposure points and budget, breaks, demographics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.annotation.conftest import ManualClock

from truing.annotation import people, wellbeing
from truing.annotation.store import RequestRejected, Store, Transaction
from truing.annotation.study import Study
from truing.annotation.tables import Demographic, Person


def _person(tx: Transaction, id_: str) -> Person:
    return tx.session.get_one(Person, id_)


def test_admission_needs_consent(store: Store, study: Study) -> None:
    token = store.write(lambda tx: people.create_invitation(tx, ["rater"], by=None))
    person_id = store.write(lambda tx: people.accept_invitation(tx, token, "keen-egret", "h"))
    with pytest.raises(RequestRejected) as caught:
        store.read(lambda tx: wellbeing.check_admission(tx, _person(tx, person_id), study))
    assert caught.value.kind == "consent"
    with pytest.raises(RequestRejected, match="no category"):
        store.write(
            lambda tx: wellbeing.record_consent(
                tx, _person(tx, person_id), ["gossip"], unsorted=False, study=study
            )
        )
    store.write(
        lambda tx: wellbeing.record_consent(
            tx, _person(tx, person_id), ["self_harm"], unsorted=False, study=study
        )
    )
    store.read(lambda tx: wellbeing.check_admission(tx, _person(tx, person_id), study))
    opt_outs = store.read(lambda tx: wellbeing.load_opt_outs(tx, person_id))
    assert "self_harm" not in opt_outs and len(opt_outs) == 13


@pytest.mark.parametrize(
    ("categories", "worst_grade", "expected"),
    [
        ((), 1, 0.2),
        ((), 5, 1.0),
        (("child_abuse",), 5, 3.0),
        (("self_harm", "animal_abuse"), 3, 2.5 * 0.6),
        (("privacy_violation",), 2, 0.4),
    ],
)
def test_exposure_points_by_hand(
    study: Study, categories: tuple[str, ...], worst_grade: int, expected: float
) -> None:
    assert wellbeing.exposure_points(study, categories, worst_grade) == pytest.approx(expected)


def test_a_break_starts_after_enough_points_since_the_last_pause(
    store: Store, manual_clock: ManualClock, add_person: Callable[..., str]
) -> None:
    study = Study(break_after=5, break_minutes=10, exposure_budget=100)
    person_id = add_person("vivid-pipit")

    def add(points: float) -> None:
        store.write(lambda tx: wellbeing.add_exposure(tx, _person(tx, person_id), points, study))

    def status() -> wellbeing.ExposureStatus:
        return store.read(lambda tx: wellbeing.exposure_status(tx, _person(tx, person_id), study))

    add(4)
    manual_clock.seconds += 601  # longer than a break: counts as one
    add(4)
    assert status().reason == ""
    add(1)
    assert status().reason == "break" and status().pause_until == pytest.approx(store.clock() + 600)
    with pytest.raises(RequestRejected) as caught:
        store.read(lambda tx: wellbeing.check_admission(tx, _person(tx, person_id), study))
    assert caught.value.kind == "break"
    manual_clock.seconds += 601
    assert status().reason == ""


def test_the_budget_frees_up_when_points_are_a_day_old(
    store: Store, manual_clock: ManualClock, add_person: Callable[..., str]
) -> None:
    study = Study(break_after=1000, exposure_budget=10)
    person_id = add_person("noble-kestrel")
    for _ in range(4):  # 3 points at 0, 100, 200, 300 s
        store.write(lambda tx: wellbeing.add_exposure(tx, _person(tx, person_id), 3.0, study))
        manual_clock.seconds += 100
    status = store.read(lambda tx: wellbeing.exposure_status(tx, _person(tx, person_id), study))
    # 12 used of 10: without the first row 9 < 10, so it opens when that row is a day old
    assert (status.used, status.reason) == (12.0, "budget")
    assert status.pause_until == pytest.approx(1_800_000_000.0 + wellbeing.DAY_SECONDS)
    manual_clock.seconds = wellbeing.DAY_SECONDS + 1
    assert (
        store.read(lambda tx: wellbeing.exposure_status(tx, _person(tx, person_id), study)).reason
        == ""
    )


def test_demographics_hide_groups_under_ten(store: Store, add_person: Callable[..., str]) -> None:
    ids = [add_person(f"person-{n:02d}") for n in range(21)]
    for n, id_ in enumerate(ids):
        answers = {
            "age": "18-29" if n < 11 else "30-44",
            "gender": "woman" if n < 12 else "man",
            "shoe": "44",
            "region": "Mars",
        }
        store.write(lambda tx, i=id_, a=answers: wellbeing.save_demographics(tx, _person(tx, i), a))
    counts = store.read(wellbeing.count_demographics)
    assert counts == {"age": {"18-29": 11, "30-44": 10}}  # only nine men
    assert store.read(lambda tx: wellbeing.load_demographics(tx, ids[0])) == {
        "age": "18-29",
        "gender": "woman",
    }
    store.write(lambda tx: wellbeing.save_demographics(tx, _person(tx, ids[0]), {}))
    assert store.read(lambda tx: tx.session.get(Demographic, (ids[0], "age"))) is None
