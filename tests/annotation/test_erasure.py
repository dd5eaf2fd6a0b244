"""Deletion of accounts: names and personal data are gone from tables, logs and the database's files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import select
from tests.annotation.databases import BACKENDS, database

from truing.annotation import dialogues, overview, people, queue, wellbeing
from truing.annotation.erasure import NAME_REPLACEMENT, delete_account
from truing.annotation.exports import collect_export
from truing.annotation.queue import Assessment
from truing.annotation.review_items import NewItem, Target, add_item
from truing.annotation.store import (
    DatabaseUnavailable,
    Store,
    Transaction,
    finish_erasure,
    make_engine,
    migrate,
    open_store,
)
from truing.annotation.study import Study
from truing.annotation.tables import (
    Demographic,
    DialogueTurn,
    Exposure,
    Flag,
    Login,
    OptOut,
    Person,
    Rating,
    Slot,
    Submission,
    TableBase,
)
from truing.core.types import Answer, Conversation, Message

GOLDEN = Path(__file__).parents[1] / "golden" / "v0.1"
NAME = "calm-heron-417"
# Columns of text that hold no name: ids, keys, states, numbers, settings, and texts that only the
# study's operator or its raters' instructions bring in. A new column has to be put here, or into
# `erasure._texts_with_names`.
NAMELESS = {
    "adjudications": "item_id person_id grades categories",
    "answers": "turn_id model finish_reason failure",
    "audit": "person_id action object",
    "demographics": "person_id name value",
    "dialogues": "id person_id models state categories",
    "exposures": "person_id",
    "flags": "id kind person_id object detail",
    "invitations": "id token_hash roles created_by used_by person_id",
    "item_harms": "item_id category",
    "items": "id source source_key targets author_id gold",
    "leases": "token slot_id item_id person_id outcome",
    "logins": "token_hash person_id",
    "opt_outs": "person_id category",
    "people": "id phrase_hash roles",
    "ratings": "id item_id person_id lease grades categories",
    "settings": "name value",
    "sign_in_attempts": "bucket",
    "skips": "item_id person_id",
    "slots": "id item_id state person_id lease",
    "submissions": "key person_id result",
    "turns": "id dialogue_id",
}
ERASED = {
    "adjudications": "reason",
    "answers": "text",
    "audit": "detail",
    "dialogues": "goal",
    "flags": "resolution",
    "invitations": "note",
    "items": "conversation",
    "people": "pseudonym",
    "ratings": "note",
    "turns": "message",
}


def dump(store: Store) -> str:
    """Returns every value of every table as one text."""
    tables = TableBase.metadata.sorted_tables
    return store.read(
        lambda tx: "\n".join(str(row) for t in tables for row in tx.session.execute(select(t)))
    )


def read_files(store: Store) -> bytes:
    """Returns the bytes of the SQLite file, its write-ahead log and its index."""
    path = Path(str(store.engine.url.database))
    return b"".join(p.read_bytes() for p in path.parent.glob(f"{path.name}*"))


def test_every_column_of_text_is_either_nameless_or_erased() -> None:
    columns = {
        table.name: {c.name for c in table.columns if isinstance(c.type, sa.String)}
        for table in TableBase.metadata.sorted_tables
    }
    expected = {
        name: set(f"{NAMELESS.get(name, '')} {ERASED.get(name, '')}".split()) for name in columns
    }
    assert columns == expected


@pytest.mark.parametrize("withdraw", [False, True])
def test_deletion_removes_personal_data(
    store: Store, study: Study, add_person: Callable[..., str], withdraw: bool
) -> None:
    _add_item(store, study)
    person_id = add_person("mild-swift", without=("animal_abuse",))

    def rate(tx: Transaction) -> None:
        leased = queue.claim_item(tx, person_id, study)
        assert leased is not None
        queue.submit_rating(tx, person_id, leased.token, Assessment(grades=(4,)), study)
        wellbeing.save_demographics(tx, tx.session.get_one(Person, person_id), {"age": "30-44"})
        people.save_submission(tx, person_id, "a key of a form", "a result")
        people.raise_flag(tx, "gold item missed", "x", "graded 1", person_id)

    store.write(rate)
    store.write(lambda tx: delete_account(tx, person_id, withdraw=withdraw))
    tables = (Login, OptOut, Demographic, Exposure, Flag, Submission)
    remaining = store.read(
        lambda tx: [
            tx.session.scalars(select(t).where(t.person_id == person_id)).all() for t in tables
        ]
    )
    assert remaining == [[]] * len(tables)
    person = store.read(lambda tx: tx.session.get_one(Person, person_id))
    assert person.pseudonym.startswith("deleted-") and person.phrase_hash is None
    assert not person.active
    ratings = store.read(lambda tx: len(tx.session.scalars(select(Rating)).all()))
    assert ratings == (0 if withdraw else 1)
    n_free = store.read(lambda tx: list(tx.session.scalars(select(Slot.state))).count("free"))
    assert n_free == (3 if withdraw else 2)  # the slot of a withdrawn rating is free again
    store.write(lambda tx: delete_account(tx, person_id, withdraw=False))  # a second click
    assert (
        store.read(lambda tx: tx.session.get_one(Person, person_id).pseudonym) == person.pseudonym
    )


def _add_item(store: Store, study: Study) -> None:
    conversation = Conversation((Message("user", "hello"), Message("assistant", "hi")))
    targets = (Target("s", 0, 1),)
    new = NewItem(source="run:x", key="k", conversation=conversation, targets=targets)
    store.write(lambda tx: add_item(tx, new, study))


def _write_the_name_everywhere(store: Store, study: Study, person_id: str, admin: str) -> str:
    """Runs a dialogue and everything else that leads a name into a table; returns the dialogue."""
    text = f"I am {NAME.title()}, as I said."

    def work(tx: Transaction) -> str:
        people.create_invitation(tx, ["rater"], by=admin, note=f"for {NAME}'s friend")
        people.create_phrase_reset(tx, NAME, by=admin)
        people.sign_in(tx, person_id)
        people.complete_sign_in(tx, people.find_credentials(tx, NAME), False, ())
        people.raise_flag(tx, "gold item missed", "item", "graded 1, expected 3 to 5", person_id)
        tx.session.flush()
        for flag in overview.list_flags(tx):
            overview.resolve_flag(tx, flag.id, f"asked {NAME} and her sister", by=admin)
        dialogue = dialogues.start_dialogue(tx, person_id, ("model",), study, "key of a dialogue")
        turn = dialogues.add_turn(tx, dialogue, person_id, text, "key of a turn", study)
        for job in dialogues.list_pending_jobs(tx, dialogue, person_id, turn, study):
            dialogues.save_answer(tx, job, Answer.of(f"Hello {NAME}!"))
        dialogues.pick_response(tx, dialogue, person_id, turn, "A", study)
        grades = {"1-0": 4, "1-1": 2}
        closing = dialogues.ClosingForm(rating=2, grades=grades, goal=f"what it calls {NAME}")
        dialogues.finish_dialogue(tx, dialogue, person_id, closing, study)
        return dialogue

    return store.write(work)


@pytest.mark.parametrize("withdraw", [False, True])
def test_the_name_is_gone_from_tables_exports_and_files(
    store: Store, study: Study, add_person: Callable[..., str], withdraw: bool
) -> None:
    person_id, admin = add_person(NAME, "redteamer"), add_person("boss-crane", "admin")
    reader, other = add_person("plain-lark", "rater"), add_person("other-wren", "redteamer")
    _write_the_name_everywhere(store, study, person_id, admin)

    def mention_in_other_work(tx: Transaction) -> None:
        dialogue = dialogues.start_dialogue(tx, other, ("model",), study, "key of another")
        dialogues.add_turn(tx, dialogue, other, "a heron is calm", "key of its turn", study)
        leased = queue.claim_item(tx, reader, study)
        assert leased is not None
        queue.submit_rating(tx, reader, leased.token, Assessment(grades=(4,)), study)

    store.write(mention_in_other_work)
    before = store.read(queue.count_progress)
    n_lines = len(store.read(lambda tx: overview.read_audit_log(tx, None, 1000)))
    assert dump(store).lower().count(NAME) >= 8
    assert store.dialect != "sqlite" or NAME.encode() in read_files(store).lower()
    store.write(lambda tx: delete_account(tx, person_id, withdraw=withdraw))
    assert finish_erasure(store)
    everything = dump(store)
    assert NAME not in everything.lower() and "her sister" not in everything
    assert (NAME_REPLACEMENT in everything) or withdraw
    assert "a heron is calm" in everything
    exported = store.read(lambda tx: collect_export(tx, study, text=True))
    assert NAME not in str(exported).lower()
    assert len(exported.dialogues) == (0 if withdraw else 1)
    if not withdraw:  # counts and ratings stay
        assert store.read(queue.count_progress) == before
    lines = store.read(lambda tx: overview.read_audit_log(tx, None, 1000))
    assert len(lines) == n_lines + 1  # no line of the log is lost
    if store.dialect == "sqlite":
        content = read_files(store).lower()
        assert NAME.encode() not in content and b"her sister" not in content
        assert b"a heron is calm" in content


def test_a_name_that_is_a_word_changes_only_the_persons_own_work(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    vandal, other = add_person("the", "redteamer"), add_person("other-wren", "redteamer")

    def write(tx: Transaction, person_id: str, key: str) -> str:
        dialogue = dialogues.start_dialogue(tx, person_id, ("m",), study, f"dialogue {key}")
        return dialogues.add_turn(tx, dialogue, person_id, "The other the", f"turn {key}", study)

    own = store.write(lambda tx: write(tx, vandal, "one"))
    others = store.write(lambda tx: write(tx, other, "two"))
    store.write(lambda tx: delete_account(tx, vandal, withdraw=False))
    messages = store.read(
        lambda tx: [tx.session.get_one(DialogueTurn, turn).message for turn in (own, others)]
    )
    assert messages == ["[deleted] other [deleted]", "The other the"]


def test_an_interrupted_erasure_is_finished_at_the_next_start(
    file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = file_store
    token = store.write(lambda tx: people.create_invitation(tx, ["rater"], by=None))
    person_id = store.write(lambda tx: people.accept_invitation(tx, token, NAME, "hash"))
    store.write(lambda tx: delete_account(tx, person_id, withdraw=False))

    def fail(store: Store) -> None:
        raise DatabaseUnavailable("busy")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "erase_free_space", fail)
        assert not finish_erasure(store)
    assert NAME.encode() in read_files(store)  # in the write-ahead log
    url = store.engine.url.render_as_string()
    store.close()
    reopened = open_store(url)
    assert NAME.encode() not in read_files(reopened)
    reopened.close()


def test_a_reader_of_another_process_delays_the_erasure(file_store: Store) -> None:
    store = file_store
    token = store.write(lambda tx: people.create_invitation(tx, ["rater"], by=None))
    person_id = store.write(lambda tx: people.accept_invitation(tx, token, NAME, "hash"))
    reader = sqlite3.connect(str(store.engine.url.database), isolation_level=None)
    reader.execute("PRAGMA busy_timeout=0")
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM people").fetchone() == (1,)
    store.write(lambda tx: delete_account(tx, person_id, withdraw=False))
    with store.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=100")
    assert not finish_erasure(store)
    reader.close()
    assert finish_erasure(store) and NAME.encode() not in read_files(store)


@pytest.fixture
def file_store(tmp_path: Path):  # type: ignore[no-untyped-def]
    with database("sqlite", tmp_path) as url:
        opened = open_store(url)
        yield opened
        opened.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_migration_takes_typed_names_out_of_the_audit_log(backend: str, tmp_path: Path) -> None:
    with database(backend, tmp_path, empty=True) as url:
        engine = make_engine(url)
        migrate(engine, "0003")
        insert_person = (
            "INSERT INTO people (id, pseudonym, phrase_hash, roles, created) "
            "VALUES ('p1', 'calm-heron', 'h', '[]', 0)"
        )
        insert_failure = (
            "INSERT INTO audit (at, person_id, action, object) "
            "VALUES (1, NULL, 'sign-in-failed', '{}'), (2, 'p1', 'rate', 'item')"
        )
        insert_link = (
            "INSERT INTO invitations (id, token_hash, roles, created, expires, person_id) "
            "VALUES ('{0}', '{0}', '[]', {1}, 9e9, 'p1')"
        )
        with engine.begin() as connection:
            connection.exec_driver_sql(insert_person)
            for typed in ("calm-heron", "my secret phrase", "gone-wren"):
                connection.exec_driver_sql(insert_failure.format(typed))
            for id_, created in (("older", 1), ("newest", 2)):
                connection.exec_driver_sql(insert_link.format(id_, created))
        engine.dispose()
        store = open_store(url, upgrade=True)
        lines = store.read(lambda tx: overview.read_audit_log(tx, None, 50))
        failed = [(x.pseudonym, x.object) for x in lines if x.action == "sign-in-failed"]
        assert failed == [("", ""), ("", ""), ("calm-heron", "")]
        assert [x.object for x in lines if x.action == "rate"] == ["item"] * 3
        links = store.read(lambda tx: {i.id: i.state for i in overview.list_invitations(tx)})
        assert links == {"older": "revoked", "newest": "open"}
        if backend == "sqlite":
            assert b"my secret phrase" not in read_files(store)
        store.close()


@pytest.mark.parametrize("dump_name", ["study.sql", "study-0001.sql"])
def test_deletion_from_a_study_of_an_old_version(dump_name: str, tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript((GOLDEN / dump_name).read_text("utf-8"))
    connection.close()
    store = open_store(str(path), upgrade=True)
    names = store.read(
        lambda tx: dict(tx.session.execute(select(Person.pseudonym, Person.id)).all())
    )  # type: ignore[arg-type]
    assert {"redteamer-0", "rater-2"} <= set(names)
    ratings = store.read(lambda tx: len(tx.session.scalars(select(Rating)).all()))
    for person_id in names.values():
        store.write(lambda tx: delete_account(tx, person_id, withdraw=False))  # noqa: B023 run at once
    assert finish_erasure(store)
    content = dump(store).encode() + read_files(store)
    assert [name for name in names if name.encode() in content] == []
    assert store.read(lambda tx: len(tx.session.scalars(select(Rating)).all())) == ratings
    store.close()
