"""Reads PyRIT's memory: the SQLite database (1.0 and later) or the JSON export of older versions.

Each conversation with a target is a sample; its last answer is the recorded one. A scorer's
true/false is a verdict (question ``hit``: its objective was met; ``refused`` for refusal scorers),
a scale from 0 to 1 is a verdict from `threshold=` (0.5) on. Where the database lists attacks, other
conversations (an adversary's, a scorer's) are left out.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from truing.core.errors import DataError
from truing.core.types import Conversation, Judgement, Message, Row, Sample
from truing.exchange.base import (
    HIT_QUESTION,
    ToolResultsDataset,
    decode_json,
    make_judgement,
    make_response,
    require_file,
)
from truing.specs.resolve import Args


class _Score(Struct):
    score_value: str | None = None
    score_type: str = "true_false"
    score_category: list[str] | str | None = None
    score_rationale: str | None = None
    scorer_class_identifier: dict[str, Any] | None = None

    @property
    def scorer(self) -> str:
        """Returns the class name of the scorer."""
        identifier = self.scorer_class_identifier or {}
        return str(identifier.get("class_name") or identifier.get("__type__") or "scorer")


class _MessagePiece(Struct):
    id: str
    role: str
    conversation_id: str
    sequence: int = 0
    converted_value: str | None = None
    original_value: str | None = None
    converted_value_data_type: str = "text"
    response_error: str | None = None
    targeted_harm_categories: list[str] | None = None
    converter_identifiers: list[dict[str, Any]] | None = None
    prompt_target_identifier: dict[str, Any] | None = None
    scores: list[_Score] = field(default_factory=list)

    @property
    def text(self) -> str | None:
        """Returns the text of the message; None for images and audio."""
        if self.converted_value_data_type not in ("text", "error"):
            return None
        return self.converted_value if self.converted_value is not None else self.original_value


class _Attack(Struct):
    """An attack on a conversation, as the database records it."""

    objective: str = ""
    outcome: str = ""
    kind: str = ""
    categories: tuple[str, ...] = ()


def _read_judgement(score: _Score, threshold: float) -> Judgement:
    name = f"pyrit:{score.scorer}"
    question = "refused" if "refusal" in score.scorer.lower() else HIT_QUESTION
    raw = (score.score_value or "").strip()
    if score.score_type == "true_false":
        verdict = {"true": True, "false": False}.get(raw.lower())
        return make_judgement(name, question, verdict, rationale=score.score_rationale)
    try:
        number = float(raw)
    except ValueError:
        return make_judgement(name, question, None, rationale=score.score_rationale)
    return make_judgement(
        name,
        question,
        number >= threshold,
        score=number if 0 <= number <= 1 else None,
        value=number,
        rationale=score.score_rationale,
    )


def _convert_conversation(
    pieces: list[_MessagePiece], attack: _Attack | None, model: str, threshold: float
) -> Row | None:
    """Returns the row of one conversation, or None if it has no user turn or is not text only."""
    # The export lists pieces by time of insertion, which concurrent attacks interleave.
    ordered = sorted(pieces, key=lambda p: p.sequence)
    # The last answer is what was scored; everything before it is the conversation.
    last = next(
        (
            k
            for k in range(len(ordered) - 1, -1, -1)
            if ordered[k].role in ("assistant", "simulated_assistant")
        ),
        None,
    )
    input_pieces = ordered[:last] if last is not None else ordered
    if not any(p.role == "user" for p in input_pieces) or any(p.text is None for p in input_pieces):
        return None
    messages = tuple(
        Message(
            "system"
            if p.role in ("system", "developer")
            else "user"
            if p.role == "user"
            else "assistant",
            p.text or "",
        )
        for p in input_pieces
    )
    user = next(p for p in reversed(input_pieces) if p.role == "user")
    categories = list(attack.categories if attack else user.targeted_harm_categories or ())
    converters = [
        str(c.get("class_name") or c.get("__type__")) for c in user.converter_identifiers or ()
    ]
    tags = {
        k: v
        for k, v in (
            ("objective", attack.objective if attack else ""),
            ("outcome", attack.outcome if attack else ""),
            ("attack", attack.kind if attack else ""),
            ("categories", "|".join(categories)),
            ("converters", "+".join(converters)),
        )
        if v
    }
    sample = Sample(conversation=Conversation(messages), tags=tags)
    if last is None:
        return Row(sample=sample)
    last_piece = ordered[last]
    error = "" if last_piece.response_error in (None, "none") else str(last_piece.response_error)
    blocked = "blocked by the provider's filter" if error == "blocked" else error
    response = make_response(
        0, last_piece.text, model or _target_name(last_piece), "" if error == "empty" else blocked
    )
    return Row(
        sample=sample,
        responses=(response,),
        judgements=tuple(_read_judgement(s, threshold) for s in last_piece.scores),
    )


def _target_name(piece: _MessagePiece) -> str:
    identifier = piece.prompt_target_identifier or {}
    return str(
        identifier.get("model_name")
        or identifier.get("__type__")
        or identifier.get("class_name")
        or ""
    )


def _group_by_conversation(pieces: list[_MessagePiece]) -> dict[str, list[_MessagePiece]]:
    conversations: dict[str, list[_MessagePiece]] = {}
    for piece in pieces:
        conversations.setdefault(piece.conversation_id, []).append(piece)
    return conversations


def _read_json_export(path: Path, threshold: float) -> Iterator[Row]:
    decoded_pieces: Any = decode_json(path, path.read_bytes(), list[_MessagePiece])
    for pieces in _group_by_conversation(decoded_pieces).values():
        row = _convert_conversation(pieces, None, "", threshold)
        if row is not None:
            yield row


_SELECT_PIECES = """
SELECT id, role, conversation_id, sequence, converted_value, original_value,
  converted_value_data_type, response_error, converter_identifiers
FROM PromptMemoryEntries ORDER BY timestamp, sequence"""
_SELECT_SCORES = """
SELECT prompt_request_response_id, score_value, score_type, score_category, score_rationale,
  scorer_class_identifier
FROM ScoreEntries ORDER BY timestamp"""


def _read_database(path: Path, threshold: float) -> Iterator[Row]:
    try:
        # Read-only: connect() would otherwise create a missing file and may write journal files.
        # closing(), because a connection's own context manager commits but does not close.
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            pieces = _read_pieces(connection, _read_scores(connection))
            attacks = _read_attacks(connection)
            models = _read_target_names(connection)
    except (sqlite3.Error, msgspec.MsgspecError, json.JSONDecodeError) as error:
        raise DataError.at(
            path, None, f"not a PyRIT memory of a supported version: {error}"
        ) from error
    for name, conversation_pieces in _group_by_conversation(pieces).items():
        if attacks and name not in attacks:
            continue
        row = _convert_conversation(
            conversation_pieces, attacks.get(name), models.get(name, ""), threshold
        )
        if row is not None:
            yield row


def _read_scores(connection: sqlite3.Connection) -> dict[str, list[_Score]]:
    """Returns the scores by the id of the message piece that they rate."""
    scores: dict[str, list[_Score]] = {}
    for row in map(dict, connection.execute(_SELECT_SCORES)):
        piece_id = str(row.pop("prompt_request_response_id"))
        for column in ("score_category", "scorer_class_identifier"):
            row[column] = json.loads(row[column] or "null")
        scores.setdefault(piece_id, []).append(msgspec.convert(row, _Score))
    return scores


def _read_pieces(
    connection: sqlite3.Connection, scores: dict[str, list[_Score]]
) -> list[_MessagePiece]:
    pieces = []
    for row in map(dict, connection.execute(_SELECT_PIECES)):
        row["converter_identifiers"] = json.loads(row["converter_identifiers"] or "null")
        piece = msgspec.convert(row, _MessagePiece)
        piece.scores = scores.get(piece.id, [])
        pieces.append(piece)
    return pieces


def _column_names(connection: sqlite3.Connection, table: str) -> set[str]:
    # A table that does not exist has no columns: older versions lack some, and no error is
    # raised.
    return {str(row[1]) for row in connection.execute(f'PRAGMA table_info("{table}")')}


def _read_attacks(connection: sqlite3.Connection) -> dict[str, _Attack]:
    columns = _column_names(connection, "AttackResultEntries")
    if not {"conversation_id", "objective", "outcome"} <= columns:
        return {}
    selected_columns = [
        c
        for c in (
            "conversation_id",
            "objective",
            "outcome",
            "targeted_harm_categories",
            "atomic_attack_identifier",
            "attack_identifier",
        )
        if c in columns
    ]
    attacks = {}
    for row in map(
        dict, connection.execute(f"SELECT {', '.join(selected_columns)} FROM AttackResultEntries")
    ):
        identifier = (
            json.loads(
                row.get("atomic_attack_identifier") or row.get("attack_identifier") or "null"
            )
            or {}
        )
        attack_identifier = (
            identifier.get("children", {})
            .get("attack_technique", {})
            .get("children", {})
            .get("attack", identifier)
        )
        categories = json.loads(row.get("targeted_harm_categories") or "null") or ()
        attacks[str(row["conversation_id"])] = _Attack(
            str(row["objective"]),
            str(row["outcome"]),
            str(attack_identifier.get("class_name") or attack_identifier.get("__type__") or ""),
            tuple(map(str, categories)),
        )
    return attacks


def _read_target_names(connection: sqlite3.Connection) -> dict[str, str]:
    if not {"conversation_id", "target_identifier"} <= _column_names(connection, "Conversations"):
        return {}
    names = {}
    for name, text in connection.execute(
        "SELECT conversation_id, target_identifier FROM Conversations"
    ):
        identifier = json.loads(text or "null") or {}
        names[str(name)] = str(identifier.get("model_name") or identifier.get("class_name") or "")
    return names


def read_pyrit_memory(path: Path, threshold: float = 0.5) -> Iterator[Row]:
    """Yields the rows of a database or of an exported JSON file."""
    with path.open("rb") as stream:
        is_database = stream.read(16).startswith(b"SQLite format 3")
    rows = _read_database(path, threshold) if is_database else _read_json_export(path, threshold)
    count = 0
    for row in rows:
        count += 1
        yield row
    if not count:
        raise DataError.at(path, None, "no conversation with a target: is this a PyRIT memory?")


def build(args: Args) -> ToolResultsDataset:
    """Builds `pyrit:FILE[,threshold=0.5]`."""
    path, threshold = (
        require_file(args, "a PyRIT database or JSON export"),
        args.number("threshold", 0.5),
    )
    return ToolResultsDataset(
        str(args.spec), path, "pyrit", lambda file: read_pyrit_memory(file, threshold)
    )
