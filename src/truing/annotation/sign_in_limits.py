"""Limits of password guesses, counted in the database before a guess is checked.

A name is never locked for its owner. Guesses of a name are counted for each browser that has signed
in with it before (a *known browser*: it holds a cookie that only this server can compute), for each
address of all other browsers, and for all these addresses together; whoever guesses exhausts their
own count. This is OWASP's "slow down online guessing attacks with device cookies". The counts are
kept under keyed hashes, so the table holds no name and no address; names without an account are
counted too, so the answer does not tell which names exist.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets

from msgspec import Struct
from sqlalchemy import case, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from truing.annotation.store import RequestRejected, Transaction
from truing.annotation.study import load_secret
from truing.annotation.tables import SignInAttempt

MAX_GUESSES, GUESS_SECONDS = 10, 900.0
# NIST SP 800-63B allows at most 100 consecutive failures of an account.
MAX_GUESSES_OF_NAME, NAME_SECONDS = 100, 3600.0
_MESSAGE = (
    "Too many attempts to sign in with this name from here. Wait, sign in with a browser that you "
    "have used before, or ask for a link that sets a new pass phrase."
)


class _Limit(Struct, frozen=True):
    """At most `n` attempts within `seconds`, counted under `bucket`."""

    bucket: str
    n: int
    seconds: float


def normalise_name(pseudonym: str) -> str:
    """Returns a typed pseudonym as it is stored and counted."""
    return pseudonym.strip().lower()[:64]


def _keyed_hash(secret: str, *parts: str) -> str:
    # The lengths keep ("ab", "c") and ("a", "bc") apart.
    message = "".join(f"{len(part)}:{part}" for part in parts)
    return hmac.new(secret.encode(), message.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def make_browser_token(tx: Transaction, person_id: str, phrase_hash: str) -> str:
    """Returns the value of the cookie that makes a browser known for an account.

    It ends with the pass phrase: a stolen phrase leaves no known browser behind once it is changed.
    """
    nonce = secrets.token_hex(16)
    return f"{nonce}.{_keyed_hash(load_secret(tx), 'browser', person_id, phrase_hash, nonce)}"


def find_known_browser(
    tx: Transaction, token: str, person_id: str | None, phrase_hash: str | None
) -> str | None:
    """Returns the nonce of a browser that has signed in with this account before, or None."""
    nonce, _, code = token.partition(".")
    if person_id is None or phrase_hash is None or not code:
        return None
    expected = _keyed_hash(load_secret(tx), "browser", person_id, phrase_hash, nonce)
    return (
        nonce if hmac.compare_digest(code.encode("utf-8", "replace"), expected.encode()) else None
    )


def _network(address: str) -> str:
    """Returns the network that one customer has: an IPv4 address, or 64 bits of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _limits(secret: str, name: str, address: str, known_browser: str | None) -> list[_Limit]:
    if known_browser is not None:
        bucket = _keyed_hash(secret, "guess-browser", name, known_browser)
        return [_Limit(bucket, MAX_GUESSES, GUESS_SECONDS)]
    by_address = _keyed_hash(secret, "guess-address", name, _network(address))
    by_name = _keyed_hash(secret, "guess-name", name)
    return [
        _Limit(by_address, MAX_GUESSES, GUESS_SECONDS),
        _Limit(by_name, MAX_GUESSES_OF_NAME, NAME_SECONDS),
    ]


def reserve_guess(
    tx: Transaction, pseudonym: str, address: str, known_browser: str | None
) -> tuple[str, ...]:
    """Counts a guess that is about to be checked; returns what `release_guess` takes.

    Raises RequestRejected if the guesses are used up, and then counts nothing. However many
    transactions run at once, no more guesses are reserved than the limit: each count is one
    statement, which locks its row until the transaction ends.
    """
    name = normalise_name(pseudonym)
    limits = _limits(load_secret(tx), name, address, known_browser)
    # Rows that another transaction has locked are skipped, so that no two wait for each other.
    expired_rows = select(SignInAttempt.bucket).where(SignInAttempt.expires < tx.now)
    expired_rows = expired_rows.with_for_update(skip_locked=True)
    tx.session.execute(delete(SignInAttempt).where(SignInAttempt.bucket.in_(expired_rows)))
    # Both dialects have ON CONFLICT, which the general INSERT lacks.
    insert_of_dialect = (postgresql if tx.dialect == "postgresql" else sqlite).insert
    for limit in limits:
        row = insert_of_dialect(SignInAttempt).values(
            bucket=limit.bucket, n=1, expires=tx.now + limit.seconds
        )
        expired = SignInAttempt.expires < tx.now
        upsert = row.on_conflict_do_update(
            index_elements=[SignInAttempt.bucket],
            set_={
                "n": case((expired, 1), else_=SignInAttempt.n + 1),
                "expires": case((expired, tx.now + limit.seconds), else_=SignInAttempt.expires),
            },
        ).returning(SignInAttempt.n, SignInAttempt.expires)
        count = tx.session.execute(upsert).one()
        if count.n > limit.n:
            raise RequestRejected("slow", _MESSAGE, retry_after=max(1.0, count.expires - tx.now))
    return tuple(limit.bucket for limit in limits)


def release_guess(tx: Transaction, buckets: tuple[str, ...]) -> None:
    """Takes a guess that was right out of the counts."""
    # Only this one: a success of the owner must not give a guesser at the same address new guesses.
    for bucket in buckets:  # in the order of `reserve_guess`, or the two would wait for each other
        counted = update(SignInAttempt).where(SignInAttempt.bucket == bucket, SignInAttempt.n > 0)
        tx.session.execute(counted.values(n=SignInAttempt.n - 1))
