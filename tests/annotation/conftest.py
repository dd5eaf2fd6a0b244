"""Fixtures of the annotation tests; each test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.annotation.databases import _drop_template as _drop_template
from tests.annotation.databases import url as url

from truing.annotation import people, wellbeing
from truing.annotation.store import Clock, Store, Transaction, open_store
from truing.annotation.study import Study
from truing.annotation.tables import Person


class ManualClock:
    """A monotonic clock that a test advances by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(url: str, manual_clock: ManualClock) -> Iterator[Store]:
    opened = open_store(url, clock=Clock(1_800_000_000.0, manual_clock))
    yield opened
    opened.close()


@pytest.fixture
def study() -> Study:
    return Study(gold_every=0, exposure_budget=1000.0, break_after=500.0)


@pytest.fixture
def add_person(store: Store, study: Study) -> Callable[..., str]:
    """Returns a function that adds a person who agreed to all categories but `without`; returns the id."""

    def add(name: str, *roles: str, without: tuple[str, ...] = (), unsorted: bool = True) -> str:
        def work(tx: Transaction) -> str:
            token = people.create_invitation(tx, roles or ("rater",), by=None)
            person_id = people.accept_invitation(tx, token, name, "no hash")
            agreed = [c for c in study.categories().ids if c not in without]
            wellbeing.record_consent(
                tx, tx.session.get_one(Person, person_id), agreed, unsorted=unsorted, study=study
            )
            return person_id

        return store.write(work)

    return add
