"""Inspect AI's logs as rows: our own export comes back, Inspect's forms of content and scores, bad
archives.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from tests.run_folders import build_run

from truing.core.bounds import FREE_EXPANDED_BYTES
from truing.core.errors import DataError
from truing.core.types import Conversation, Row, Sample, ToolCall
from truing.evaluation.evaluate import evaluate
from truing.exchange.inspect_log import write_inspect_log
from truing.exchange.inspect_results import read_inspect_log
from truing.runs.folder import Run
from truing.specs.resolve import resolve

HEADER = {"version": 2, "status": "success", "eval": {"task": "t", "model": "openai/m"}}


def _write(path: Path, *samples: dict[str, Any], header: Any = HEADER, **archive: Any) -> Path:
    with zipfile.ZipFile(path, "w", **archive) as log:
        log.writestr("header.json", json.dumps(header))
        for sample in samples:
            name = f"samples/{sample.get('id')}_epoch_{sample.get('epoch', 1)}.json"
            log.writestr(name, json.dumps(sample))
    return path


def _sample(**fields: Any) -> dict[str, Any]:
    answer = {"role": "assistant", "content": "plums"}
    base = {"id": "a", "epoch": 1, "input": "pears?", "output": {"choices": [{"message": answer}]}}
    return base | fields


def test_our_own_export_comes_back(tmp_path: Path) -> None:
    samples = [Sample(id=f"s{n}", conversation=Conversation.of(f"prompt {n}")) for n in range(3)]
    run = build_run(
        tmp_path / "run",
        samples,
        {
            "harmful@one": [[True, False], [False, None], [None, True]],
            "refused@two": [[False] * 2] * 3,
        },
    )
    log = tmp_path / "log.eval"
    write_inspect_log(Run(run), log)
    rows = list(read_inspect_log(log))
    assert [row.sample.prompt for row in rows] == [f"prompt {n}" for n in range(3)]
    assert [len(row.responses) for row in rows] == [2, 2, 2]
    verdicts = {
        (row.sample.prompt, j.index): j.verdict
        for row in rows
        for j in row.judgements
        if (j.judge, j.question) == ("inspect:one", "harmful")
    }
    assert list(verdicts.values()) == [True, False, False, None, None, True]
    unscored = [j for row in rows for j in row.judgements if j.verdict is None]
    assert all(j.failure is not None for j in unscored)
    imported = evaluate(None, resolve(f"inspect:{log}", "data"), [], tmp_path / "imported")
    assert imported.manifest.complete
    assert {j.name for j in imported.manifest.judges} == {"inspect:one", "inspect:two"}


def test_an_agents_calls_go_out_and_come_back(tmp_path: Path) -> None:
    model = resolve("agent,of=(scripted-agent,harm=1)", "model")
    data = resolve("builtin:agents,world=mail,limit=3", "data")
    run = evaluate(model, data, [resolve("state:done", "judge")], tmp_path / "run")
    write_inspect_log(run, tmp_path / "log.eval")
    rows = list(read_inspect_log(tmp_path / "log.eval"))
    episodes = {response.sample_id: response.episode for response in run.responses()}
    assert len(rows) == 3
    for row, (_, ours) in zip(rows, sorted(episodes.items()), strict=True):
        theirs = row.responses[0].episode
        assert ours and theirs
        assert [(c.name, json.loads(c.arguments), c.status, c.result) for c in theirs.calls] == [
            (c.name, json.loads(c.arguments), c.status, c.result) for c in ours.calls
        ]


def _judged(tmp_path: Path, value: Any) -> list[tuple[str, str, bool | None, float | None]]:
    log = _write(tmp_path / "log.eval", _sample(scores={"s": {"value": value}}))
    (row,) = read_inspect_log(log)
    return [(j.judge, j.question, j.verdict, j.value) for j in row.judgements]


@pytest.mark.parametrize(
    ("value", "verdict", "number"),
    [
        (True, True, None),
        (False, False, None),
        ("C", True, None),
        ("I", False, None),
        ("N", False, None),
        ("P", None, None),
        (1, True, None),
        (0.0, False, None),
        (0.25, None, 0.25),
        ("0.75", None, 0.75),
        (float("nan"), None, None),
        (None, None, None),
        ([1, 2], None, None),
        ("anything", None, None),
    ],
)
def test_values_of_scores(
    tmp_path: Path, value: Any, verdict: bool | None, number: float | None
) -> None:
    assert _judged(tmp_path, value) == [("inspect:s", "passed", verdict, number)]


def test_a_dictionary_of_scores_is_one_value_for_each_key(tmp_path: Path) -> None:
    assert _judged(tmp_path, {"deception": 7, "concerning": 1}) == [
        ("inspect:s/deception", "deception", None, 7.0),
        ("inspect:s/concerning", "concerning", None, 1.0),
    ]


def _read_one(path: Path) -> Row:
    (row,) = read_inspect_log(path)
    return row


def test_forms_of_content(tmp_path: Path) -> None:
    parts = [
        {"type": "reasoning", "reasoning": "hidden"},
        {"type": "text", "text": "first"},
        {"type": "image", "image": "data:x"},
        {"type": "text", "text": "second"},
    ]
    sample = _sample(
        input=[
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "attachment://abc"},
        ],
        attachments={"abc": "a long prompt"},
        output={"model": "m2", "choices": [{"message": {"role": "assistant", "content": parts}}]},
        metadata={"harms": ["privacy_violation", 3], "level": 2},
    )
    row = _read_one(_write(tmp_path / "log.eval", sample))
    assert [(m.role, m.content) for m in row.sample.conversation.messages] == [
        ("system", "be kind"),
        ("user", "a long prompt"),
    ]
    assert row.responses[0].text == "first\nsecond" and row.responses[0].model == "m2"
    assert row.sample.harms == ("privacy_violation",)
    assert row.sample.tags == {"level": "2", "inspect_id": "a"}


def test_an_answer_that_failed_or_is_not_there_is_a_failure(tmp_path: Path) -> None:
    failed = _sample(id="b", error={"message": "no credit"}, output={"choices": []})
    without = _sample(id="c", output={})
    rows = list(read_inspect_log(_write(tmp_path / "log.eval", failed, without)))
    kinds = [r.failure.kind for row in rows for r in row.responses if r.failure]
    assert kinds == ["error", "empty"]


def test_epochs_are_answers_in_their_order(tmp_path: Path) -> None:
    samples = [
        _sample(epoch=n, output={"completion": f"answer {n}"}, scores={"s": {"value": n == 2}})
        for n in (10, 2, 1)
    ]
    row = _read_one(_write(tmp_path / "log.eval", *samples))
    assert [r.text for r in row.responses] == ["answer 1", "answer 2", "answer 10"]
    assert [(j.index, j.verdict) for j in row.judgements] == [(0, False), (1, True), (2, False)]


def test_archives_that_are_no_logs(tmp_path: Path) -> None:
    path = tmp_path / "log.eval"
    path.write_bytes(b"no zip")
    empty = _write(tmp_path / "empty.eval")
    wrong = _write(tmp_path / "wrong.eval", {"id": [1]})
    header = _write(tmp_path / "header.eval", header=[1])
    other = tmp_path / "other.eval"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("notes.txt", "x")
    for log, message in (
        (path, "no log of Inspect"),
        (empty, "holds no samples"),
        (wrong, r"samples/\[1\]_epoch_1.json"),
        (header, "header.json"),
        (other, "there is no header.json"),
    ):
        with pytest.raises(DataError, match=message):
            list(read_inspect_log(log))


def test_a_bomb_ends_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(HEADER))
        with archive.open("samples/a_epoch_1.json", "w", force_zip64=True) as member:
            for _ in range(FREE_EXPANDED_BYTES >> 20):
                member.write(b" " * (1 << 20))
    with pytest.raises(DataError, match="expands to more than is read"):
        list(read_inspect_log(path))


def _write_zstandard(path: Path, documents: dict[str, Any]) -> None:
    """Writes an archive as Inspect does, each member compressed by Zstandard."""
    import pyarrow

    with zipfile.ZipFile(path, "w") as archive:
        plain = {name: json.dumps(document).encode() for name, document in documents.items()}
        for name, data in plain.items():
            archive.writestr(name, pyarrow.Codec("zstd").compress(data, asbytes=True))
    content = bytearray(path.read_bytes())
    for signature, offset, crc_offset in ((b"PK\3\4", 8, 14), (b"PK\1\2", 10, 16)):
        start = -1
        for data in plain.values():
            start = content.find(signature, start + 1)
            content[start + offset] = 93
            content[start + crc_offset : start + crc_offset + 4] = zlib.crc32(data).to_bytes(
                4, "little"
            )
    path.write_bytes(content)


def test_members_compressed_by_zstandard(tmp_path: Path) -> None:
    path = tmp_path / "log.eval"
    _write_zstandard(path, {"header.json": HEADER, "samples/a_epoch_1.json": _sample()})
    assert _read_one(path).responses[0].text == "plums"
    damaged = bytearray(path.read_bytes())
    damaged[damaged.find(b"\x28\xb5\x2f\xfd") + 9] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="header.json: "):
        list(read_inspect_log(path))


def test_a_compression_that_nobody_reads_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "log.eval", _sample())
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        start = data.find(signature)
        while start >= 0:
            data[start + offset] = 19
            start = data.find(signature, start + 4)
    path.write_bytes(data)
    with pytest.raises(DataError, match="compression"):
        list(read_inspect_log(path))


def test_calls_and_results_of_an_agent_are_its_episode(tmp_path: Path) -> None:
    call = {"id": "c1", "function": "bash", "arguments": {"cmd": "ls"}, "type": "function"}
    lost = {"id": "c2", "function": "bash", "arguments": {"cmd": "cat x"}, "type": "function"}
    messages = [
        {"role": "user", "content": "pears?"},
        {"role": "assistant", "content": "I look.", "tool_calls": [call, lost]},
        {"role": "tool", "content": "", "tool_call_id": "c1", "error": {"message": "denied"}},
        {"role": "assistant", "content": "plums"},
    ]
    (row,) = read_inspect_log(_write(tmp_path / "a.eval", _sample(messages=messages)))
    episode = row.responses[0].episode
    assert episode
    assert [(c.name, c.arguments, c.status) for c in episode.calls] == [
        ("bash", '{"cmd": "ls"}', "error"),
        ("bash", '{"cmd": "cat x"}', "missing"),
    ]
    (plain,) = read_inspect_log(_write(tmp_path / "b.eval", _sample()))
    assert not plain.responses[0].episode


LOOK = {"id": "c1", "function": "bash", "arguments": {"cmd": "ls"}, "type": "function"}
SEEN = {"role": "tool", "content": "x", "tool_call_id": "c1"}
USER = {"role": "user", "content": "pears?"}
TURN = {"role": "assistant", "content": "I look.", "tool_calls": [LOOK]}
DONE = {"role": "assistant", "content": "plums"}


@pytest.mark.parametrize(
    ("result", "call_id"),
    [({**SEEN, "tool_call_id": "c9"}, "'c9'"), ({"role": "tool", "content": "x"}, "''")],
)
def test_a_result_without_its_call_is_a_failed_response_and_is_not_judged(
    tmp_path: Path, result: dict[str, Any], call_id: str
) -> None:
    # The turn that made the call is missing: what else it did nobody knows.
    sample = _sample(messages=[USER, TURN, SEEN, result, DONE])
    path = _write(tmp_path / "a.eval", sample)
    (response,) = _read_one(path).responses
    assert response.failure is not None
    assert response.failure.message == (
        f"a result (call {call_id}) without its call: turns are missing"
    )
    assert response.episode
    assert [call.name for call in response.episode.calls] == ["bash"]
    words = tmp_path / "words.txt"
    words.write_text("something else\n")
    judge = resolve(f"transcript,of=(keywords:{words})", "judge")
    run = evaluate(None, resolve(f"inspect:{path}", "data"), [judge], tmp_path / "run")
    assert [judgement.verdict for judgement in run.judgements()] in ([], [None])


def test_a_result_whose_only_turn_is_missing_is_a_failed_response(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.eval", _sample(messages=[USER, SEEN, DONE]))
    (response,) = _read_one(path).responses
    assert response.failure is not None
    assert "turns are missing" in response.failure.message


def test_the_error_of_the_log_is_told_before_missing_turns(tmp_path: Path) -> None:
    fields = {"messages": [USER, SEEN], "error": {"message": "the sandbox died"}}
    (response,) = _read_one(_write(tmp_path / "a.eval", _sample(**fields))).responses
    assert response.failure is not None
    assert response.failure.message == "the sandbox died"


def test_calls_in_the_input_have_their_results_after_it(tmp_path: Path) -> None:
    fields = {"input": [USER, TURN], "messages": [USER, TURN, SEEN, DONE]}
    (response,) = _read_one(_write(tmp_path / "a.eval", _sample(**fields))).responses
    assert response.failure is None


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("stop", "stop"),
        ("max_tokens", "length"),
        ("model_length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "tool_calls"),
        ("unknown", "stop"),
    ],
)
def test_stop_reasons_and_tool_calls_of_the_answer_are_kept(
    tmp_path: Path, stop_reason: str, finish_reason: str
) -> None:
    call = {"id": "c1", "function": "pay", "arguments": {"to": "nora"}}
    message = {"role": "assistant", "content": "Paying.", "tool_calls": [call]}
    output = {"choices": [{"message": message, "stop_reason": stop_reason}]}
    (row,) = read_inspect_log(_write(tmp_path / "a.eval", _sample(output=output)))
    (response,) = row.responses
    assert response.finish_reason == finish_reason
    assert response.message.tool_calls == (ToolCall("c1", "pay", '{"to": "nora"}'),)
    assert response.text == "Paying."


@pytest.mark.parametrize("header", [HEADER | {"version": 3}, {"eval": {}}])
def test_logs_of_other_versions_are_refused(tmp_path: Path, header: Any) -> None:
    with pytest.raises(DataError, match=r"header.json: a log of version \d; version 2 is read"):
        list(read_inspect_log(_write(tmp_path / "a.eval", _sample(), header=header)))


def test_scores_of_any_size_are_unscored(tmp_path: Path) -> None:
    sample = _sample(scores={"big": {"value": 10**400}, "text": {"value": "1e999"}})
    (row,) = read_inspect_log(_write(tmp_path / "a.eval", sample))
    assert [(j.verdict, j.value) for j in row.judgements] == [(None, None)] * 2
