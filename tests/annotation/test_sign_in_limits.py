"""Limits of password guesses: by browser, address and name, and under concurrency."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from tests.annotation.conftest import ManualClock

from truing.annotation.sign_in_limits import (
    GUESS_SECONDS,
    MAX_GUESSES,
    MAX_GUESSES_OF_NAME,
    NAME_SECONDS,
    release_guess,
    reserve_guess,
)
from truing.annotation.store import RequestRejected, Store
from truing.annotation.tables import SignInAttempt

OWNER_BROWSER = "0123456789abcdef"


def guess(
    store: Store, address: str, *, name: str = "calm-heron", browser: str | None = None
) -> str:
    """Returns "checked", or the kind of the rejection."""
    try:
        store.write(lambda tx: reserve_guess(tx, name, address, browser))
    except RequestRejected as error:
        return error.kind if 0 < error.retry_after <= NAME_SECONDS else "no time to wait"
    return "checked"


def test_concurrent_guesses_from_one_address(store: Store) -> None:
    with ThreadPoolExecutor(16) as pool:
        outcomes = Counter(pool.map(lambda _: guess(store, "192.0.2.1"), range(50)))
    assert outcomes == {"checked": MAX_GUESSES, "slow": 50 - MAX_GUESSES}


def test_concurrent_guesses_from_many_addresses(store: Store) -> None:
    addresses = [f"192.0.2.{n % 40}" for n in range(MAX_GUESSES_OF_NAME + 40)]
    with ThreadPoolExecutor(16) as pool:
        outcomes = Counter(pool.map(lambda address: guess(store, address), addresses))
    assert outcomes == {"checked": MAX_GUESSES_OF_NAME, "slow": 40}
    # The owner's own browser is not locked, and nor is anybody else's name.
    assert guess(store, "192.0.2.1", browser=OWNER_BROWSER) == "checked"
    assert guess(store, "192.0.2.1", name="other-wren") == "checked"


def test_a_known_browser_has_its_own_limit(store: Store) -> None:
    outcomes = Counter(guess(store, "192.0.2.1", browser=OWNER_BROWSER) for _ in range(12))
    assert outcomes == {"checked": MAX_GUESSES, "slow": 2}
    assert guess(store, "192.0.2.1") == "checked"


def test_guesses_come_back_with_time(store: Store, manual_clock: ManualClock) -> None:
    for _ in range(MAX_GUESSES):
        assert guess(store, "192.0.2.1") == "checked"
    manual_clock.seconds += GUESS_SECONDS - 1
    assert guess(store, "192.0.2.1") == "slow"  # and a rejected guess does not prolong the wait
    manual_clock.seconds += 2
    assert guess(store, "192.0.2.1") == "checked"
    manual_clock.seconds += NAME_SECONDS + GUESS_SECONDS
    guess(store, "192.0.2.2")
    n_rows = store.read(lambda tx: len(tx.session.scalars(select(SignInAttempt)).all()))
    assert n_rows == 2  # expired counts are deleted


def test_a_success_takes_back_only_its_own_guess(store: Store) -> None:
    for _ in range(MAX_GUESSES - 1):
        assert guess(store, "192.0.2.1") == "checked"
    for _ in range(3):
        reserved = store.write(lambda tx: reserve_guess(tx, " Calm-Heron", "192.0.2.1", None))
        store.write(lambda tx: release_guess(tx, reserved))  # noqa: B023 run at once
    assert guess(store, "192.0.2.1") == "checked"
    assert guess(store, "192.0.2.1") == "slow"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),  # one customer has 64 bits
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("unknown", "unknown", True),
    ],
)
def test_addresses_of_one_network(store: Store, first: str, second: str, same: bool) -> None:
    for _ in range(MAX_GUESSES):
        assert guess(store, first) == "checked"
    assert guess(store, second) == ("slow" if same else "checked")


def test_no_name_and_no_address_is_stored(store: Store) -> None:
    guess(store, "192.0.2.77", name="Calm-Heron")
    rows = store.read(lambda tx: tx.session.scalars(select(SignInAttempt)).all())
    assert rows
    for row in rows:
        assert len(row.bucket) == 64 and set(row.bucket) <= set("0123456789abcdef")
