"""What people say about the rows of a run: labels of drawn rows, thumbs and notes.

    labels/labels.jsonl     the labels of `truing label`: they correct the run's rates
    notes.jsonl             thumbs and notes, one line each; no figure counts them

Several people may label one row; the newest label of each counts, and differing ones are shown.
"""

from __future__ import annotations

import datetime
import re
import threading
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Struct

from truing.analysis.label_draws import LabelDraw, draw_rows, read_draws
from truing.analysis.labels import add_label, majority_vote
from truing.annotation.store import RequestRejected
from truing.core.types import AnswerIndex, Judgement
from truing.runs.append_only_file import AppendOnlyFile
from truing.runs.folder import Run, encode_line
from truing.runs.parts import read_run_records

NOTES_FILE = "notes.jsonl"
MAX_NOTE_CHARACTERS = 4_000
MAX_DRAWN_ROWS = 5_000
QUESTIONS = ("harmful", "refused", "degenerate")
Thumb = Literal["up", "down", ""]
RowKey = tuple[str, int]
_MAX_NAME = 40
_QUESTION = re.compile(r"[\w][\w .-]{0,58}")
# One process writes the labels of all browsers; a line is appended while no other is.
_write_lock = threading.Lock()


class RowNote(Struct, frozen=True, kw_only=True):
    """What a person thinks of a row, in no fixed form."""

    sample_id: str
    index: AnswerIndex = 0
    person: str
    thumb: Thumb = ""
    note: str = ""
    at: str = ""


class LabelState(Struct, frozen=True, kw_only=True):
    """How far the labels of one question are.

    `labels` maps a row to the newest label of each person; `waiting` are the drawn rows, in the
    order drawn, that `person` is to label next.
    """

    question: str
    person: str
    drawn: int
    labelled: int
    own: int
    labels: Mapping[RowKey, Mapping[str, bool | None]]
    waiting: tuple[LabelDraw, ...]

    @property
    def conflicts(self) -> list[RowKey]:
        """The rows that this person has labelled and on which people differ.

        Other people's labels of further rows would bias the label that is still to come.
        """
        return [
            key
            for key, labels in self.labels.items()
            if f"human:{self.person}" in labels and differ(labels.values())
        ]


def check_name(name: str) -> str:
    """Returns a person's name in its composed form: one name, however a keyboard writes its marks.

    Raises RequestRejected unless it has letters (with their combining marks), digits, spaces and
    . @ _ - alone, begins with a letter or digit, and has at most 40 characters.
    """
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    is_valid = 0 < len(name) <= _MAX_NAME and _is_letter_or_digit(name[0])
    # Vowels of many scripts are combining marks, which `\w` does not match.
    if not is_valid or not all(
        _is_letter_or_digit(c) or unicodedata.category(c) in ("Mn", "Mc") or c in " .@_-"
        for c in name
    ):
        raise RequestRejected(
            "invalid", "A name has letters, digits, spaces, . @ _ - and up to 40 of them."
        )
    return name


def _is_letter_or_digit(character: str) -> bool:
    return unicodedata.category(character)[0] in "LN"


def check_question(question: str) -> str:
    """Returns the name of a question; raises RequestRejected if it can be none."""
    if not _QUESTION.fullmatch(question):
        raise RequestRejected("invalid", "That is no question of a judge.")
    return question


def differ(labels: Iterable[bool | None]) -> bool:
    """Returns whether some people say yes and others no."""
    return {True, False} <= set(labels)


def read_labels_of(run: Run, question: str) -> dict[RowKey, dict[str, bool | None]]:
    """Returns the newest label of each person on each row, by `human:NAME`."""
    by_row: dict[RowKey, dict[str, bool | None]] = {}
    for row in read_run_records(run.path, "labels/labels.jsonl", Judgement):
        if row.question == question:
            by_row.setdefault((row.sample_id, row.index), {})[row.judge] = row.verdict
    return by_row


def read_label_state(run: Run, question: str, person: str, *, relabel: bool) -> LabelState:
    """Returns how far the labels of a question are.

    With `relabel`, rows that others have labelled wait for `person` too.
    """
    labels = read_labels_of(run, question)
    draws = {(d.sample_id, d.index): d for d in reversed(read_draws(run, question))}
    ordered = dict(reversed(draws.items()))  # a row that was drawn twice is shown once
    judge = f"human:{person}"
    waiting = tuple(
        draw
        for key, draw in ordered.items()
        if (judge not in labels.get(key, {}) if relabel else key not in labels)
    )
    return LabelState(
        question=question,
        person=person,
        drawn=len(ordered),
        labelled=sum(key in labels for key in ordered),
        own=sum(judge in labels.get(key, {}) for key in ordered),
        labels={key: labels[key] for key in ordered if key in labels},
        waiting=waiting,
    )


def store_label(
    run: Run, key: RowKey, question: str, person: str, verdict: bool | None
) -> dict[str, bool | None]:
    """Stores a person's label of a drawn row; returns those of other people on the same row.

    Raises DataError if the row was not drawn for that question.
    """
    label = Judgement(
        sample_id=key[0],
        index=key[1],
        judge=f"human:{person}",
        question=question,
        verdict=verdict,
    )
    with _write_lock:
        add_label(run, label)
        labels = read_labels_of(run, question).get(key, {})
    return {name: other for name, other in labels.items() if name != label.judge}


def draw_more(
    run: Run, n: int | None, question: str, *, active: bool, fixed: bool
) -> list[LabelDraw]:
    """Draws rows for people, as `truing label --n` does."""
    if n is None or not 1 <= n <= MAX_DRAWN_ROWS:
        raise RequestRejected("invalid", f"Draw from 1 to {MAX_DRAWN_ROWS:,} rows.")
    with _write_lock:
        return draw_rows(run, n, question=question, active=active, fixed=fixed)


def describe_labels(labels: Mapping[str, bool | None]) -> list[tuple[str, str]]:
    """Returns each person with the label in words."""
    words = {True: "yes", False: "no", None: "cannot tell"}
    return [(judge.removeprefix("human:"), words[verdict]) for judge, verdict in labels.items()]


def describe_vote(labels: Mapping[str, bool | None]) -> str:
    """Returns what counts of some labels: that of most people, or nothing."""
    vote = majority_vote(list(labels.values()))
    return "counts as unscored" if vote is None else f"counts as {'yes' if vote else 'no'}"


def read_notes(run: Run) -> dict[RowKey, dict[str, RowNote]]:
    """Returns the newest note of each person on each row; empty ones have been taken back."""
    notes: dict[RowKey, dict[str, RowNote]] = {}
    for note in read_run_records(run.path, NOTES_FILE, RowNote):
        of_row = notes.setdefault((note.sample_id, note.index), {})
        of_row.pop(note.person, None)
        if note.thumb or note.note:
            of_row[note.person] = note
    return {key: of_row for key, of_row in notes.items() if of_row}


def store_note(run: Run, key: RowKey, person: str, thumb: str, text: str) -> None:
    """Stores a person's thumb and note; they replace that person's earlier ones on the row."""
    if thumb not in ("up", "down", ""):
        raise RequestRejected("invalid", "A thumb is up or down.")
    if len(text) > MAX_NOTE_CHARACTERS:
        raise RequestRejected("long", f"A note has at most {MAX_NOTE_CHARACTERS:,} characters.")
    note = RowNote(
        sample_id=key[0],
        index=key[1],
        person=person,
        thumb=thumb,  # type: ignore[arg-type]
        note=text.strip(),
        at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    with _write_lock:
        file = AppendOnlyFile(run.file(NOTES_FILE))
        try:
            file.append(encode_line(note))
            file.sync()
        finally:
            file.close()
