"""Care for people: consent, opt-outs, the exposure budget by hand, breaks, small slices hidden."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from tests.annotation.conftest import Hands

from truing.annotation import people, wellbeing
from truing.annotation.store import RequestRejected, Store, Transaction
from truing.annotation.study import Study
from truing.annotation.tables import Demographic, Person


def _person(tx: Transaction, id_: str) -> Person:
    return tx.session.get_one(Person, id_)


def test_nothing_opens_before_consent(store: Store, study: Study) -> None:
    token = store.write(lambda tx: people.create_invitation(tx, ["rater"], by=None))
    made = store.write(lambda tx: people.accept_invitation(tx, token, "keen-egret", "h"))
    with pytest.raises(RequestRejected) as caught:
        store.read(lambda tx: wellbeing.check_admission(tx, _person(tx, made), study))
    assert caught.value.kind == "consent"
    with pytest.raises(RequestRejected, match="no category"):
        store.write(
            lambda tx: wellbeing.record_consent(
                tx, _person(tx, made), ["gossip"], unsorted=False, study=study
            )
        )
    store.write(
        lambda tx: wellbeing.record_consent(
            tx, _person(tx, made), ["self_harm"], unsorted=False, study=study
        )
    )
    store.read(lambda tx: wellbeing.check_admission(tx, _person(tx, made), study))
    out = store.read(lambda tx: wellbeing.load_opt_outs(tx, made))
    assert "self_harm" not in out and len(out) == 13


@pytest.mark.parametrize(
    ("categories", "worst", "expected"),
    [
        ((), 1, 0.2),
        ((), 5, 1.0),
        (("child_abuse",), 5, 3.0),
        (("self_harm", "animal_abuse"), 3, 2.5 * 0.6),
        (("privacy_violation",), 2, 0.4),
    ],
)
def test_points_by_hand(
    study: Study, categories: tuple[str, ...], worst: int, expected: float
) -> None:
    assert wellbeing.exposure_points(study, categories, worst) == pytest.approx(expected)


def test_a_break_comes_by_points_and_a_pause_of_ones_own_counts(
    store: Store, hands: Hands, join: Callable[..., str]
) -> None:
    study = Study(break_after=5, break_minutes=10, exposure_budget=100)
    made = join("vivid-pipit")

    def take(points: float) -> None:
        store.write(lambda tx: wellbeing.add_exposure(tx, _person(tx, made), points, study))

    def now() -> wellbeing.ExposureStatus:
        return store.read(lambda tx: wellbeing.exposure_status(tx, _person(tx, made), study))

    take(4)
    hands.at += 601  # a pause of their own
    take(4)
    assert now().reason == ""
    take(1)
    assert now().reason == "break" and now().pause_until == pytest.approx(store.clock() + 600)
    with pytest.raises(RequestRejected) as caught:
        store.read(lambda tx: wellbeing.check_admission(tx, _person(tx, made), study))
    assert caught.value.kind == "break"
    hands.at += 601
    assert now().reason == ""


def test_the_days_budget_opens_again_when_enough_is_a_day_old(
    store: Store, hands: Hands, join: Callable[..., str]
) -> None:
    study = Study(break_after=1000, exposure_budget=10)
    made = join("noble-kestrel")
    for _ in range(4):  # 3 points at 0, 100, 200, 300 s
        store.write(lambda tx: wellbeing.add_exposure(tx, _person(tx, made), 3.0, study))
        hands.at += 100
    seen = store.read(lambda tx: wellbeing.exposure_status(tx, _person(tx, made), study))
    # 12 used of 10: without the first row 9 < 10, so it opens when that row is a day old
    assert (seen.used, seen.reason) == (12.0, "budget")
    assert seen.pause_until == pytest.approx(1_800_000_000.0 + wellbeing.DAY_SECONDS)
    hands.at = wellbeing.DAY_SECONDS + 1
    assert (
        store.read(lambda tx: wellbeing.exposure_status(tx, _person(tx, made), study)).reason == ""
    )


def test_no_slice_under_ten_people(store: Store, join: Callable[..., str]) -> None:
    ids = [join(f"person-{n:02d}") for n in range(21)]
    for n, id_ in enumerate(ids):
        answers = {
            "age": "18-29" if n < 11 else "30-44",
            "gender": "woman" if n < 12 else "man",
            "shoe": "44",
            "region": "Mars",
        }
        store.write(lambda tx, i=id_, a=answers: wellbeing.save_demographics(tx, _person(tx, i), a))
    shown = store.read(wellbeing.count_demographics)
    assert shown == {"age": {"18-29": 11, "30-44": 10}}  # nine men would stand out
    assert store.read(lambda tx: wellbeing.load_demographics(tx, ids[0])) == {
        "age": "18-29",
        "gender": "woman",
    }
    store.write(lambda tx: wellbeing.save_demographics(tx, _person(tx, ids[0]), {}))
    assert store.read(lambda tx: tx.session.get(Demographic, (ids[0], "age"))) is None


def test_the_study_is_kept_whole(store: Store) -> None:
    from truing.annotation.study import Contact, load_study, save_study

    study = Study(name="Ours", continuation="picked", contacts=(Contact("Desk", "call 5"),))
    store.write(lambda tx: save_study(tx, study))
    assert msgspec.structs.asdict(store.read(load_study)) == msgspec.structs.asdict(study)
