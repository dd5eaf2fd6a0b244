"""Stored answers and production logs as a model."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.model_stand_ins import MemoryDataset, SeedModel

from truing.core.errors import DataError, SpecError
from truing.core.types import Answer, Conversation, Sampling
from truing.evaluation.evaluate import evaluate
from truing.specs.parser import Spec
from truing.specs.resolve import resolve


def ask(model: Any, prompt: str | Conversation, n: int = 1) -> tuple[Answer, ...]:
    conversation = Conversation.of(prompt) if isinstance(prompt, str) else prompt
    answers: tuple[Answer, ...] = asyncio.run(model.generate(conversation, Sampling(n=n)))
    return answers


def written(path: Path, *rows: Any) -> Any:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return resolve(Spec("answers", str(path)), "model")


def test_rows_messages_and_request_logs(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "two"}]
    log = {
        "request": {"messages": [{"role": "user", "content": "three"}]},
        "response": {"choices": [{"message": {"content": "c"}}]},
    }
    model = written(
        tmp_path / "log.jsonl",
        {"prompt": "one", "response": "a"},
        {"prompt": "one", "response": "a2"},
        {"messages": chat, "completion": "b"},
        log,
    )
    assert [a.text for a in ask(model, "one", 2)] == ["a", "a2"]
    assert ask(model, Conversation.from_openai(chat))[0].text == "b"
    assert ask(model, "two")[0].text == "b"
    assert ask(model, "three")[0].text == "c"
    missing = ask(model, "one", 3)[2].failure
    assert missing is not None
    assert missing.message == "there are 2 stored answers to this prompt, not 3"
    nothing = ask(model, "four")[0].failure
    assert nothing is not None
    assert nothing.kind == "missing"


def test_csv_parquet_and_other_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('q,a\n"one, two","yes\nno"\n', encoding="utf-8")
    model = resolve(
        Spec("answers", str(tmp_path / "a.csv"), {"prompt": "q", "response": "a"}), "model"
    )
    assert ask(model, "one, two")[0].text == "yes\nno"
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"prompt": ["x"], "response": ["y"]}), tmp_path / "a.parquet")
    assert ask(resolve(Spec("answers", str(tmp_path / "a.parquet")), "model"), "x")[0].text == "y"


@pytest.mark.parametrize(
    "content",
    [
        'prompt;response\r\n"x; y";gr\u00fcn\r\n'.encode("utf-8-sig"),
        "prompt\tresponse\nx; y\tgr\u00fcn\n".encode("utf-16"),
        'sep=;\nprompt;response\n"x; y";gr\u00fcn\n'.encode(),
    ],
    ids=["semicolons with a mark", "UTF-16 with tabs", "Excel's separator line"],
)
def test_csv_is_read_as_spreadsheets_write_it(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    assert ask(resolve(Spec("answers", str(path)), "model"), "x; y")[0].text == "gr\u00fcn"


def test_a_malformed_csv_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("prompt,response\na,b\nc\n")
    with pytest.raises(DataError, match="log.csv:3: fewer fields"):
        resolve(Spec("answers", str(path)), "model")


def test_a_run_folder_answers_as_its_model_did(tmp_path: Path) -> None:
    run = evaluate(SeedModel(), MemoryDataset.of_size(5), [], tmp_path / "run")
    model = resolve(Spec("answers", str(run.path)), "model")
    again = evaluate(model, MemoryDataset.of_size(5), [], tmp_path / "again")
    assert [r.text for r in again.responses()] == [r.text for r in run.responses()]


def test_faults_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    for content, word in (
        (b'{"prompt":"a","response":"b"}\n{"prompt":\n', "bad.jsonl:2: not JSON"),
        (b'{"prompt":"a","response":"b"}\n\xff\n', "bad.jsonl:2: not UTF-8"),
        (b"[1]\n", "bad.jsonl:1: expected an object"),
        (
            b'{"promt":"a","response":"b"}\n',
            "bad.jsonl:1: no column 'prompt'; did you mean 'promt'",
        ),
        (b'{"prompt":"a"}\n', "bad.jsonl:1: no column 'response'"),
        (b"", "no stored answers"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=word):
            resolve(Spec("answers", str(path)), "model")
    with pytest.raises(SpecError, match="there is no file"):
        resolve("answers:nowhere.jsonl", "model")
