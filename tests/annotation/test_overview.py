"""What administrators see: people, invitations with their states, the audit log in pages."""

from __future__ import annotations

from collections.abc import Callable

from tests.annotation.conftest import ManualClock
from tests.annotation.test_queue import add_queue_item, claim, submit

from truing.annotation import dialogues, overview, people
from truing.annotation.store import Store
from truing.annotation.study import Study, new_id


def test_administrators_see_no_opt_outs(store: Store, add_person: Callable[..., str]) -> None:
    add_person("wise-finch", "rater", "redteamer", without=("self_harm",))
    people_list = store.read(overview.list_people)
    assert [(p.pseudonym, p.roles) for p in people_list] == [("wise-finch", ("redteamer", "rater"))]
    assert "self_harm" not in str(people_list)
    lines = store.read(lambda tx: overview.read_audit_log(tx, None, 100))
    assert {line.action for line in lines} == {"invite", "accept", "consent"}
    assert "animal_abuse" not in str(lines)
    assert not store.read(overview.has_admin)
    add_person("boss-crane", "admin")
    assert store.read(overview.has_admin)


def test_people_are_listed_with_their_ratings_and_finished_dialogues(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    for n in range(2):
        add_queue_item(store, study, f"k{n}")
    rater = add_person("calm-lark")
    add_person("plain-wren", "redteamer")
    while (leased := claim(store, study, rater)) is not None:
        submit(store, study, rater, leased)
    author = add_person("warm-jay", "redteamer")
    key = new_id()
    store.write(lambda tx: dialogues.start_dialogue(tx, author, ("m",), study, key))
    listed = store.read(overview.list_people)
    # The open dialogue is not counted.
    assert [(p.pseudonym, p.ratings, p.dialogues) for p in listed] == [
        ("calm-lark", 2, 0),
        ("plain-wren", 0, 0),
        ("warm-jay", 0, 0),
    ]


def test_the_state_of_each_invitation(store: Store, manual_clock: ManualClock) -> None:
    def invite(note: str, days: float) -> str:
        return store.write(
            lambda tx: people.create_invitation(tx, ["rater"], by=None, note=note, days=days)
        )

    used, revoked = invite("used", 7), invite("revoked", 7)
    invite("expired", 1), invite("open", 7)
    store.write(lambda tx: people.accept_invitation(tx, used, "calm-lark", "hash"))
    revoked_id = store.read(lambda tx: people.find_invitation(tx, revoked).id)
    store.write(lambda tx: overview.revoke_invitation(tx, revoked_id, by="admin"))
    manual_clock.seconds += 86401
    listed = store.read(overview.list_invitations)
    assert {i.note: i.state for i in listed} == {
        state: state for state in ("used", "revoked", "expired", "open")
    }


def test_the_audit_log_is_read_in_pages(store: Store) -> None:
    for n in range(5):
        store.write(lambda tx, n=n: people.add_audit_entry(tx, None, "test", f"object-{n}"))
    first_page = store.read(lambda tx: overview.read_audit_log(tx, None, 3))
    assert [line.object for line in first_page] == ["object-4", "object-3", "object-2"]
    second_page = store.read(lambda tx: overview.read_audit_log(tx, first_page[-1].id, 3))
    assert [line.object for line in second_page] == ["object-1", "object-0"]
