"""PyRIT's memory: the database of 1.x (with its own column names), the JSON of earlier versions,
what is neither.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from truing.core.errors import DataError
from truing.specs.resolve import resolve

TARGET = {"class_name": "OpenAIChatTarget", "model_name": "mock"}
SCORER = {"class_name": "SubStringScorer"}
TABLES = """
CREATE TABLE PromptMemoryEntries (id, role, conversation_id, sequence, timestamp, converter_identifiers, response_error,
 original_value, converted_value_data_type, converted_value);
CREATE TABLE ScoreEntries (id, score_value, score_type, score_category, score_rationale, scorer_class_identifier,
 prompt_request_response_id, timestamp);
CREATE TABLE Conversations (conversation_id, target_identifier);
CREATE TABLE AttackResultEntries (conversation_id, objective, outcome, targeted_harm_categories, atomic_attack_identifier);
"""


def database(path: Path, *, attacks: bool = True) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(TABLES)

    def piece(
        id_: str,
        role: str,
        conversation: str,
        sequence: int,
        text: str,
        error: str = "none",
        kind: str = "text",
        converters: list[dict[str, str]] | None = None,
    ) -> None:
        connection.execute(
            "INSERT INTO PromptMemoryEntries VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                id_,
                role,
                conversation,
                sequence,
                "2026",
                json.dumps(converters or []),
                error,
                "plain",
                kind,
                text,
            ),
        )

    def score(value: str | None, kind: str, scorer: str, of: str) -> None:
        connection.execute(
            "INSERT INTO ScoreEntries VALUES (?,?,?,?,?,?,?,?)",
            (
                "s",
                value,
                kind,
                '["bench"]',
                "because",
                json.dumps({"class_name": scorer}),
                of,
                "2026",
            ),
        )

    piece("1", "user", "a", 0, "Say hello", converters=[{"class_name": "ROT13Converter"}])
    piece("2", "assistant", "a", 1, "hello")
    score("true", "true_false", "SubStringScorer", "2")
    score("False", "true_false", "SelfAskRefusalScorer", "2")
    score("0.75", "float_scale", "SelfAskLikertScorer", "2")
    score(None, "true_false", "BrokenScorer", "2")
    for k, text in enumerate(("one", "two", "three", "four")):
        piece(f"b{k}", ("user", "assistant")[k % 2], "b", k, text)
    piece("c1", "user", "c", 0, "Say no")
    piece("c2", "assistant", "c", 1, "filtered", "blocked")
    piece("d1", "user", "d", 0, "picture.png", kind="image_path")
    piece("d2", "assistant", "d", 1, "a kettle")
    piece("e1", "user", "scorer", 0, "You are a judge")
    piece("e2", "assistant", "scorer", 1, "True")
    for name in "abcd":
        connection.execute("INSERT INTO Conversations VALUES (?,?)", (name, json.dumps(TARGET)))
        if attacks:
            known = {
                "children": {
                    "attack_technique": {
                        "children": {"attack": {"class_name": "PromptSendingAttack"}}
                    }
                }
            }
            connection.execute(
                "INSERT INTO AttackResultEntries VALUES (?,?,?,?,?)",
                (name, "be greeted", "success", '["hate"]', json.dumps(known)),
            )
    connection.commit()
    connection.close()
    return path


def test_the_database(tmp_path: Path) -> None:
    greeted, dialogue, blocked = resolve(f"pyrit:{database(tmp_path / 'pyrit.db')}", "data").rows()
    assert greeted.sample.prompt == "Say hello"
    assert greeted.sample.tags == {
        "objective": "be greeted",
        "outcome": "success",
        "attack": "PromptSendingAttack",
        "categories": "hate",
        "converters": "ROT13Converter",
    }
    assert (greeted.responses[0].text, greeted.responses[0].model) == ("hello", "mock")
    assert [(j.judge, j.question, j.verdict, j.score) for j in greeted.judgements] == [
        ("pyrit:SubStringScorer", "hit", True, None),
        ("pyrit:SelfAskRefusalScorer", "refused", False, None),
        ("pyrit:SelfAskLikertScorer", "hit", True, 0.75),
        ("pyrit:BrokenScorer", "hit", None, None),
    ]
    assert greeted.judgements[-1].failure is not None
    assert [m.content for m in dialogue.sample.conversation.messages] == ["one", "two", "three"]
    assert dialogue.responses[0].text == "four"
    assert blocked.responses[0].failure is not None
    assert "filter" in blocked.responses[0].failure.message
    strict = next(iter(resolve(f"pyrit:{tmp_path}/pyrit.db,threshold=0.8", "data").rows()))
    assert [j.verdict for j in strict.judgements] == [True, False, False, None]


def test_without_attacks_every_conversation_counts(tmp_path: Path) -> None:
    rows = list(resolve(f"pyrit:{database(tmp_path / 'p.db', attacks=False)}", "data").rows())
    assert [r.sample.prompt for r in rows] == ["Say hello", "three", "Say no", "You are a judge"]


def test_the_json_of_earlier_versions(tmp_path: Path) -> None:
    def piece(role: str, sequence: int, text: str, scores: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"{sequence}",
            "role": role,
            "conversation_id": "a",
            "sequence": sequence,
            "labels": {},
            "converter_identifiers": [{"__type__": "Base64Converter"}],
            "prompt_target_identifier": {"__type__": "T"},
            "original_value": "plain",
            "converted_value": text,
            "converted_value_data_type": "text",
            "targeted_harm_categories": ["violence"],
            "response_error": "none",
            "scores": scores,
        }

    score = {
        "score_value": "True",
        "score_type": "true_false",
        "score_category": ["x"],
        "score_rationale": "r",
        "scorer_class_identifier": {"__type__": "SelfAskTrueFalseScorer"},
    }
    file = tmp_path / "export.json"
    file.write_text(
        json.dumps([piece("assistant", 1, "hello", [score]), piece("user", 0, "Say hello", [])])
    )
    (row,) = resolve(f"pyrit:{file}", "data").rows()
    assert row.sample.tags == {"categories": "violence", "converters": "Base64Converter"}
    assert (row.responses[0].text, row.responses[0].model) == ("hello", "T")
    assert [(j.judge, j.verdict, j.rationale) for j in row.judgements] == [
        ("pyrit:SelfAskTrueFalseScorer", True, "r")
    ]


def test_what_is_no_memory(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError, match="no conversation with a target"):
        list(resolve(f"pyrit:{tmp_path}/a.json", "data").rows())
    (tmp_path / "b.json").write_text('[{"role": "user"}]')
    with pytest.raises(DataError, match="missing required field `id`"):
        list(resolve(f"pyrit:{tmp_path}/b.json", "data").rows())
    connection = sqlite3.connect(tmp_path / "c.db")
    connection.execute("CREATE TABLE other (x)")
    connection.close()
    with pytest.raises(DataError, match="not a PyRIT memory of a supported version: no such table"):
        list(resolve(f"pyrit:{tmp_path}/c.db", "data").rows())
