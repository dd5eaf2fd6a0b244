"""Every test here runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.annotation.databases import BACKENDS, database, drop_template

from truing.annotation import people, wellbeing
from truing.annotation.store import Clock, Store, Transaction, open_store
from truing.annotation.study import Study
from truing.annotation.tables import Person


class Hands:
    """Turns the clock by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture(scope="session", autouse=True)
def _no_template_left() -> Iterator[None]:
    yield
    drop_template()


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def store(url: str, hands: Hands) -> Iterator[Store]:
    made = open_store(url, clock=Clock(1_800_000_000.0, hands))
    yield made
    made.close()


@pytest.fixture
def study() -> Study:
    return Study(gold_every=0, exposure_budget=1000.0, break_after=500.0)


@pytest.fixture
def join(store: Store, study: Study) -> Callable[..., str]:
    """Makes a person who agreed to everything (or to all but `without`); gives the id."""

    def make(name: str, *roles: str, without: tuple[str, ...] = (), unsorted: bool = True) -> str:
        def work(tx: Transaction) -> str:
            token = people.create_invitation(tx, roles or ("rater",), by=None)
            made = people.accept_invitation(tx, token, name, "no hash")
            agreed = [c for c in study.categories().ids if c not in without]
            wellbeing.record_consent(
                tx, tx.session.get_one(Person, made), agreed, unsorted=unsorted, study=study
            )
            return made

        return store.write(work)

    return make
