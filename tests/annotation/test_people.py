"""Accounts: invitations, reused links, hashed phrases, sign-in, suspension, deletion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from tests.annotation.conftest import ManualClock

from truing.annotation import overview, people, queue
from truing.annotation.review_items import NewItem, Target, add_item
from truing.annotation.store import RequestRejected, Store
from truing.annotation.study import Study
from truing.annotation.tables import (
    Flag,
    Invitation,
    Login,
    Person,
    Slot,
)
from truing.core.types import Conversation, Message


def _invite(store: Store, **options: float) -> str:
    return store.write(lambda tx: people.create_invitation(tx, ["rater"], by=None, **options))


def test_a_link_works_once_and_its_reuse_raises_a_flag(store: Store) -> None:
    token = _invite(store)
    person_id = store.write(lambda tx: people.accept_invitation(tx, token, " Calm-Heron ", "hash"))
    assert store.read(lambda tx: tx.session.get_one(Person, person_id).pseudonym) == "calm-heron"
    with pytest.raises(RequestRejected) as caught:
        store.write(lambda tx: people.accept_invitation(tx, token, "thief", "hash"))
    assert caught.value.kind == "used"
    for _ in range(3):
        store.write(lambda tx: people.record_link_reuse(tx, token))
    flags = store.read(overview.list_flags)
    assert [(f.kind, f.pseudonym) for f in flags] == [("link used twice", "calm-heron")]
    store.write(lambda tx: overview.resolve_flag(tx, flags[0].id, "asked them", by="admin"))
    assert store.read(overview.count_open_flags) == 0
    assert store.read(lambda tx: tx.session.get_one(Flag, flags[0].id).resolution) == "asked them"


def test_links_expire_and_can_be_revoked(store: Store, manual_clock: ManualClock) -> None:
    expired = _invite(store, days=1.0)
    manual_clock.seconds += 86401
    with pytest.raises(RequestRejected, match="has expired"):
        store.read(lambda tx: people.find_invitation(tx, expired).id)
    revoked = _invite(store)
    invitation_id = store.read(lambda tx: people.find_invitation(tx, revoked).id)
    store.write(lambda tx: overview.revoke_invitation(tx, invitation_id, by="admin"))
    with pytest.raises(RequestRejected, match="revoked"):
        store.write(lambda tx: people.accept_invitation(tx, revoked, "somebody", "hash"))
    with pytest.raises(RequestRejected, match="not valid"):
        store.read(lambda tx: people.find_invitation(tx, "a guess").id)


def test_the_database_stores_no_token_and_no_phrase(store: Store) -> None:
    token = _invite(store)
    hashed = people.hash_phrase("four plain words here")
    person_id = store.write(lambda tx: people.accept_invitation(tx, token, "plain-wren", hashed))
    login_token = store.write(lambda tx: people.sign_in(tx, person_id)).token
    assert store.read(lambda tx: people.find_signed_in(tx, login_token)) is not None
    stored = store.read(
        lambda tx: [
            *tx.session.scalars(select(Invitation.token_hash)),
            *tx.session.scalars(select(Login.token_hash)),
            *tx.session.scalars(select(Person.phrase_hash)),
        ]
    )
    assert not {token, login_token, "four plain words here"} & set(stored)
    assert hashed.startswith("$argon2id$")
    assert people.check_phrase(hashed, "four plain words here")
    assert not people.check_phrase(hashed, "four plain words")
    assert not people.check_phrase(None, "anything at all") and not people.check_phrase(
        "no hash", "anything"
    )


@pytest.mark.parametrize("name", ["", "ab", "-ab", "a" * 33, "with space", "käse", "<script>"])
def test_invalid_pseudonyms(store: Store, name: str) -> None:
    token = _invite(store)
    with pytest.raises(RequestRejected, match="pseudonym"):
        store.write(lambda tx: people.accept_invitation(tx, token, name, "hash"))
    assert store.read(lambda tx: people.find_invitation(tx, token).used) is None


def test_pseudonyms_are_unique_and_phrases_have_a_minimum_length(store: Store) -> None:
    store.write(
        lambda tx: people.accept_invitation(
            tx, people.create_invitation(tx, ["rater"], by=None), "one-name", "h"
        )
    )
    with pytest.raises(RequestRejected, match="taken"):
        store.write(
            lambda tx: people.accept_invitation(
                tx, people.create_invitation(tx, ["rater"], by=None), "ONE-name", "h"
            )
        )
    with pytest.raises(RequestRejected, match="10 to 200"):
        people.hash_phrase("short")
    with pytest.raises(RequestRejected, match="at least one role"):
        store.write(lambda tx: people.create_invitation(tx, ["emperor"], by=None))


def test_a_sign_in_is_completed_only_if_the_account_is_still_the_same(
    store: Store, add_person: Callable[..., str]
) -> None:
    person_id = add_person("quiet-jay")

    def complete(stored: people.Credentials, matches: bool) -> people.NewLogin | None:
        return store.write(lambda tx: people.complete_sign_in(tx, stored, matches, ()))

    stored = store.read(lambda tx: people.find_credentials(tx, " Quiet-Jay"))
    assert stored.person_id == person_id
    assert complete(stored, False) is None and complete(people.Credentials(), True) is None
    login = complete(stored, True)
    assert login is not None
    assert store.read(lambda tx: people.find_signed_in(tx, login.token).id) == person_id  # type: ignore[union-attr]
    store.write(lambda tx: people.change_phrase(tx, person_id, "another hash"))
    assert complete(stored, True) is None  # the phrase was changed while this one was checked
    stored = store.read(lambda tx: people.find_credentials(tx, "quiet-jay"))
    store.write(lambda tx: people.set_active(tx, person_id, False, by="admin"))
    assert complete(stored, True) is None
    lines = store.read(lambda tx: overview.read_audit_log(tx, None, 50))
    failed = [(line.pseudonym, line.object) for line in lines if line.action == "sign-in-failed"]
    assert failed == [("quiet-jay", ""), ("quiet-jay", ""), ("", ""), ("quiet-jay", "")]


def test_a_known_browser_ends_with_the_phrase(store: Store, add_person: Callable[..., str]) -> None:
    person_id, other_id = add_person("quiet-jay"), add_person("calm-wren")
    browser = store.write(lambda tx: people.sign_in(tx, person_id)).browser_token

    def is_known(name: str, token: str) -> bool:
        stored = store.read(lambda tx: people.find_credentials(tx, name, token))
        return stored.known_browser is not None

    nonce, _, code = browser.partition(".")
    assert is_known("quiet-jay", browser)
    assert not is_known("calm-wren", browser) and not is_known("nobody", browser)
    for forged in (
        "",
        nonce,
        f"{nonce}.",
        f"x{nonce}.{code}",
        f"{nonce}.{code[:-1]}",
        "\ud83d.\ud83d",
    ):
        assert not is_known("quiet-jay", forged), forged
    assert other_id
    store.write(lambda tx: people.change_phrase(tx, person_id, "another hash"))
    assert not is_known("quiet-jay", browser)


def test_logins_end_by_expiry_sign_out_and_a_new_phrase(
    store: Store, manual_clock: ManualClock, add_person: Callable[..., str]
) -> None:
    person_id = add_person("warm-lark")
    first, second = (store.write(lambda tx: people.sign_in(tx, person_id)).token for _ in range(2))
    store.write(lambda tx: people.sign_out(tx, first))
    assert store.read(lambda tx: people.find_signed_in(tx, first)) is None
    third = store.write(lambda tx: people.change_phrase(tx, person_id, "new hash")).token
    assert store.read(lambda tx: people.find_signed_in(tx, second)) is None
    assert store.read(lambda tx: people.find_signed_in(tx, third).id) == person_id  # type: ignore[union-attr]
    manual_clock.seconds += people.LOGIN_SECONDS + 1
    assert store.read(lambda tx: people.find_signed_in(tx, third)) is None


def _add_item(store: Store, study: Study, key: str = "k", author: str | None = None) -> str:
    conversation = Conversation((Message("user", "hello"), Message("assistant", "hi")))
    new = NewItem(
        source="run:x",
        key=key,
        conversation=conversation,
        targets=(Target("s", 0, 1),),
        harms=("self_harm",),
        author=author,
    )
    return str(store.write(lambda tx: add(tx, new, study)))


def add(tx: object, new: NewItem, study: Study) -> str | None:
    return add_item(tx, new, study)  # type: ignore[arg-type]


def test_a_suspended_person_loses_leases_and_can_be_restored(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    _add_item(store, study)
    person_id, admin = add_person("deft-ibis"), add_person("boss-crane", "admin")
    login_token = store.write(lambda tx: people.sign_in(tx, person_id)).token
    assert store.write(lambda tx: queue.claim_item(tx, person_id, study)) is not None
    store.write(lambda tx: people.set_active(tx, person_id, False, by=admin))
    assert store.read(lambda tx: people.find_signed_in(tx, login_token)) is None
    assert store.read(lambda tx: set(tx.session.scalars(select(Slot.state)))) == {"free"}
    with pytest.raises(RequestRejected, match="no such account"):
        store.write(lambda tx: queue.claim_item(tx, person_id, study))
    with pytest.raises(RequestRejected, match="yourself"):
        store.write(lambda tx: people.set_active(tx, admin, False, by=admin))
    store.write(lambda tx: people.set_active(tx, person_id, True, by=admin))
    assert store.write(lambda tx: queue.claim_item(tx, person_id, study)) is not None


def test_a_phrase_reset_ends_every_login(
    store: Store, manual_clock: ManualClock, add_person: Callable[..., str]
) -> None:
    person_id = add_person("warm-lark")
    old_login = store.write(lambda tx: people.sign_in(tx, person_id)).token
    token = store.write(lambda tx: people.create_phrase_reset(tx, " Warm-Lark", by=None))
    assert (
        store.write(lambda tx: people.accept_invitation(tx, token, "another-name", "new hash"))
        == person_id
    )
    person = store.read(lambda tx: tx.session.get_one(Person, person_id))
    assert (person.pseudonym, person.phrase_hash) == ("warm-lark", "new hash")
    assert store.read(lambda tx: people.find_signed_in(tx, old_login)) is None
    with pytest.raises(RequestRejected) as caught:
        store.write(lambda tx: people.accept_invitation(tx, token, "x", "third hash"))
    assert caught.value.kind == "used"
    expired = store.write(lambda tx: people.create_phrase_reset(tx, "warm-lark", by=None))
    manual_clock.seconds += 86401
    with pytest.raises(RequestRejected, match="has expired"):
        store.write(lambda tx: people.accept_invitation(tx, expired, "x", "third hash"))
    with pytest.raises(RequestRejected, match="no such person"):
        store.write(lambda tx: people.create_phrase_reset(tx, "nobody-here", by=None))
    unused = store.write(lambda tx: people.create_phrase_reset(tx, "warm-lark", by=None))
    store.write(lambda tx: people.set_active(tx, person_id, False, by="admin"))
    with pytest.raises(RequestRejected, match="revoked"):
        store.write(lambda tx: people.accept_invitation(tx, unused, "x", "third hash"))


def test_only_the_newest_link_for_a_phrase_works(
    store: Store, add_person: Callable[..., str]
) -> None:
    person_id, other_id = add_person("warm-lark"), add_person("calm-wren")
    for_other = store.write(lambda tx: people.create_phrase_reset(tx, "calm-wren", by=None))
    older, newest = (
        store.write(lambda tx: people.create_phrase_reset(tx, "warm-lark", by=None))
        for _ in range(2)
    )
    with pytest.raises(RequestRejected, match="revoked"):
        store.write(lambda tx: people.accept_invitation(tx, older, "", "hash of a thief"))
    assert store.write(lambda tx: people.accept_invitation(tx, newest, "", "new")) == person_id
    unused = store.write(lambda tx: people.create_phrase_reset(tx, "warm-lark", by=None))
    store.write(lambda tx: people.change_phrase(tx, person_id, "by the settings page"))
    with pytest.raises(RequestRejected, match="revoked"):
        store.write(lambda tx: people.accept_invitation(tx, unused, "", "hash of a thief"))
    assert store.write(lambda tx: people.accept_invitation(tx, for_other, "", "new")) == other_id


@pytest.mark.parametrize("renewal", [False, True])
def test_of_concurrent_uses_of_a_link_one_wins(
    store: Store, add_person: Callable[..., str], renewal: bool
) -> None:
    add_person("warm-lark")
    token = (
        store.write(lambda tx: people.create_phrase_reset(tx, "warm-lark", by=None))
        if renewal
        else _invite(store)
    )

    def accept(n: int) -> str:
        try:
            store.write(lambda tx: people.accept_invitation(tx, token, f"name-{n}", f"hash {n}"))
        except RequestRejected as error:
            return error.kind
        return "accepted"

    with ThreadPoolExecutor(8) as pool:
        outcomes = Counter(pool.map(accept, range(8)))
    assert outcomes == {"accepted": 1, "used": 7}
