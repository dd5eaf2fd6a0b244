"""Accounts: links work once, stolen links raise a flag, phrases are hashed, leaving leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select
from tests.annotation.conftest import Hands

from truing.annotation import overview, people, queue, wellbeing
from truing.annotation.queue import Assessment
from truing.annotation.review_items import NewItem, Target, add_item
from truing.annotation.store import RequestRejected, Store
from truing.annotation.study import Study
from truing.annotation.tables import (
    Demographic,
    Exposure,
    Flag,
    Invitation,
    Login,
    OptOut,
    Person,
    Rating,
    Slot,
)
from truing.core.types import Conversation, Message


def _invite(store: Store, **more: float) -> str:
    return store.write(lambda tx: people.create_invitation(tx, ["rater"], by=None, **more))


def test_a_link_works_once_and_its_second_use_is_flagged(store: Store) -> None:
    token = _invite(store)
    made = store.write(lambda tx: people.accept_invitation(tx, token, " Calm-Heron ", "hash"))
    assert store.read(lambda tx: tx.session.get_one(Person, made).pseudonym) == "calm-heron"
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


def test_links_end_and_can_be_taken_back(store: Store, hands: Hands) -> None:
    late = _invite(store, days=1.0)
    hands.at += 86401
    with pytest.raises(RequestRejected, match="has expired"):
        store.read(lambda tx: people.find_invitation(tx, late).id)
    gone = _invite(store)
    which = store.read(lambda tx: people.find_invitation(tx, gone).id)
    store.write(lambda tx: overview.revoke_invitation(tx, which, by="admin"))
    with pytest.raises(RequestRejected, match="revoked"):
        store.write(lambda tx: people.accept_invitation(tx, gone, "somebody", "hash"))
    with pytest.raises(RequestRejected, match="not valid"):
        store.read(lambda tx: people.find_invitation(tx, "a guess").id)


def test_no_token_and_no_phrase_stands_in_the_database(store: Store) -> None:
    token = _invite(store)
    hashed = people.hash_phrase("four plain words here")
    made = store.write(lambda tx: people.accept_invitation(tx, token, "plain-wren", hashed))
    cookie = store.write(lambda tx: people.sign_in(tx, made))
    assert store.read(lambda tx: people.find_signed_in(tx, cookie)) is not None
    stored = store.read(
        lambda tx: [
            *tx.session.scalars(select(Invitation.token_hash)),
            *tx.session.scalars(select(Login.token_hash)),
            *tx.session.scalars(select(Person.phrase_hash)),
        ]
    )
    assert not {token, cookie, "four plain words here"} & set(stored)
    assert hashed.startswith("$argon2id$")
    assert people.check_phrase(hashed, "four plain words here")
    assert not people.check_phrase(hashed, "four plain words")
    assert not people.check_phrase(None, "anything at all") and not people.check_phrase(
        "no hash", "anything"
    )


@pytest.mark.parametrize("name", ["", "ab", "-ab", "a" * 33, "with space", "käse", "<script>"])
def test_wrong_pseudonyms(store: Store, name: str) -> None:
    token = _invite(store)
    with pytest.raises(RequestRejected, match="pseudonym"):
        store.write(lambda tx: people.accept_invitation(tx, token, name, "hash"))
    assert store.read(lambda tx: people.find_invitation(tx, token).used) is None


def test_a_pseudonym_is_taken_once_and_a_phrase_is_long(store: Store) -> None:
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


def test_ten_failures_lock_a_name_for_a_quarter_of_an_hour(
    store: Store, hands: Hands, join: Callable[..., str]
) -> None:
    made = join("quiet-jay")
    for _ in range(10):
        assert store.read(lambda tx: people.find_phrase_hash(tx, "Quiet-Jay"))[0] == made
        store.write(lambda tx: people.add_audit_entry(tx, None, "sign-in-failed", "quiet-jay"))
    with pytest.raises(RequestRejected) as caught:
        store.read(lambda tx: people.find_phrase_hash(tx, "quiet-jay"))
    assert caught.value.kind == "slow"
    hands.at += people.LOCK_SECONDS + 1
    assert store.read(lambda tx: people.find_phrase_hash(tx, "quiet-jay"))[0] == made


def test_logins_end_by_time_by_signing_out_and_by_a_new_phrase(
    store: Store, hands: Hands, join: Callable[..., str]
) -> None:
    made = join("warm-lark")
    first, second = (store.write(lambda tx: people.sign_in(tx, made)) for _ in range(2))
    store.write(lambda tx: people.sign_out(tx, first))
    assert store.read(lambda tx: people.find_signed_in(tx, first)) is None
    third = store.write(lambda tx: people.change_phrase(tx, made, "new hash"))
    assert store.read(lambda tx: people.find_signed_in(tx, second)) is None
    assert store.read(lambda tx: people.find_signed_in(tx, third).id) == made  # type: ignore[union-attr]
    hands.at += people.LOGIN_SECONDS + 1
    assert store.read(lambda tx: people.find_signed_in(tx, third)) is None


def _item(store: Store, study: Study, key: str = "k", author: str | None = None) -> str:
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


def test_a_suspended_person_holds_nothing_and_comes_back(
    store: Store, study: Study, join: Callable[..., str]
) -> None:
    _item(store, study)
    made, admin = join("deft-ibis"), join("boss-crane", "admin")
    cookie = store.write(lambda tx: people.sign_in(tx, made))
    assert store.write(lambda tx: queue.claim_item(tx, made, study)) is not None
    store.write(lambda tx: people.set_active(tx, made, False, by=admin))
    assert store.read(lambda tx: people.find_signed_in(tx, cookie)) is None
    assert store.read(lambda tx: set(tx.session.scalars(select(Slot.state)))) == {"free"}
    with pytest.raises(RequestRejected, match="no such account"):
        store.write(lambda tx: queue.claim_item(tx, made, study))
    with pytest.raises(RequestRejected, match="yourself"):
        store.write(lambda tx: people.set_active(tx, admin, False, by=admin))
    store.write(lambda tx: people.set_active(tx, made, True, by=admin))
    assert store.write(lambda tx: queue.claim_item(tx, made, study)) is not None


@pytest.mark.parametrize("withdraw", [False, True])
def test_deletion_leaves_no_trace_of_the_person(
    store: Store, study: Study, join: Callable[..., str], withdraw: bool
) -> None:
    _item(store, study)
    made = join("mild-swift", without=("animal_abuse",))

    def rate(tx: object) -> None:
        held = queue.claim_item(tx, made, study)  # type: ignore[arg-type]
        queue.submit_rating(tx, made, held.token, Assessment(grades=(4,)), study)  # type: ignore[arg-type, union-attr]
        wellbeing.save_demographics(tx, tx.session.get_one(Person, made), {"age": "30-44"})  # type: ignore[arg-type, attr-defined]

    store.write(rate)
    store.write(lambda tx: people.delete_account(tx, made, withdraw=withdraw))
    left = store.read(
        lambda tx: [
            tx.session.scalars(select(t).where(t.person_id == made)).all()
            for t in (Login, OptOut, Demographic, Exposure, Flag)
        ]
    )
    assert left == [[]] * 5
    person = store.read(lambda tx: tx.session.get_one(Person, made))
    assert (
        person.pseudonym.startswith("deleted-") and person.phrase_hash is None and not person.active
    )
    ratings = store.read(lambda tx: len(tx.session.scalars(select(Rating)).all()))
    assert ratings == (0 if withdraw else 1)
    free = store.read(lambda tx: list(tx.session.scalars(select(Slot.state))).count("free"))
    assert free == (3 if withdraw else 2)  # a withdrawn rating's place is given again


def test_the_desk_shows_people_without_what_they_opted_out_of(
    store: Store, join: Callable[..., str]
) -> None:
    join("wise-finch", "rater", "redteamer", without=("self_harm",))
    folk = store.read(overview.list_people)
    assert [(p.pseudonym, p.roles) for p in folk] == [("wise-finch", ("redteamer", "rater"))]
    assert "self_harm" not in str(folk)
    lines = store.read(lambda tx: overview.read_audit_log(tx, None, 100))
    assert {line.action for line in lines} == {"invite", "accept", "consent"}
    assert "animal_abuse" not in str(lines)
    assert not store.read(overview.has_admin)
    join("boss-crane", "admin")
    assert store.read(overview.has_admin)


def test_a_forgotten_phrase_is_renewed_by_a_link_that_ends_every_login(
    store: Store, hands: Hands, join: Callable[..., str]
) -> None:
    made = join("warm-lark")
    old = store.write(lambda tx: people.sign_in(tx, made))
    token = store.write(lambda tx: people.create_phrase_reset(tx, " Warm-Lark", by=None))
    assert (
        store.write(lambda tx: people.accept_invitation(tx, token, "another-name", "new hash"))
        == made
    )
    person = store.read(lambda tx: tx.session.get_one(Person, made))
    assert (person.pseudonym, person.phrase_hash) == ("warm-lark", "new hash")
    assert store.read(lambda tx: people.find_signed_in(tx, old)) is None
    with pytest.raises(RequestRejected) as caught:
        store.write(lambda tx: people.accept_invitation(tx, token, "x", "third hash"))
    assert caught.value.kind == "used"
    late = store.write(lambda tx: people.create_phrase_reset(tx, "warm-lark", by=None))
    hands.at += 86401
    with pytest.raises(RequestRejected, match="has expired"):
        store.write(lambda tx: people.accept_invitation(tx, late, "x", "third hash"))
    with pytest.raises(RequestRejected, match="no such person"):
        store.write(lambda tx: people.create_phrase_reset(tx, "nobody-here", by=None))
    soon = store.write(lambda tx: people.create_phrase_reset(tx, "warm-lark", by=None))
    store.write(lambda tx: people.set_active(tx, made, False, by="admin"))
    with pytest.raises(RequestRejected, match="revoked"):
        store.write(lambda tx: people.accept_invitation(tx, soon, "x", "third hash"))
