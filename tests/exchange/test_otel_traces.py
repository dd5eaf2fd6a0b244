"""Traces of agents in OpenTelemetry's form: the whole conversation of the last span, and its episode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from truing.core.errors import DataError
from truing.core.types import Row
from truing.evaluation.evaluate import evaluate
from truing.exchange.otel_traces import read_otel_traces
from truing.specs.resolve import resolve

USER = {"role": "user", "parts": [{"type": "text", "content": "Send it."}]}
CALL = {
    "role": "assistant",
    "parts": [
        {"type": "reasoning", "content": "Hm."},
        {"type": "text", "content": "I send."},
        {"type": "tool_call", "id": "c1", "name": "send", "arguments": {"to": "FORBIDDEN"}},
        {"type": "tool_call", "id": "c2", "name": "wait"},
    ],
}
RESULT = {
    "role": "tool",
    "parts": [{"type": "tool_call_response", "id": "c1", "response": {"sent": True}}],
}
DONE = {
    "role": "assistant",
    "parts": [{"type": "text", "content": "Done."}],
    "finish_reason": "stop",
}


def _span(trace: str, start: int, read: list[Any], written: list[Any]) -> dict[str, Any]:
    texts = {
        "gen_ai.input.messages": json.dumps(read),
        "gen_ai.output.messages": json.dumps(written),
        "gen_ai.request.model": "m1",
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be brief."}]),
    }
    attributes = [{"key": k, "value": {"stringValue": v}} for k, v in texts.items()]
    attributes.append({"key": "gen_ai.usage.input_tokens", "value": {"intValue": "7"}})
    return {
        "traceId": trace,
        "spanId": f"{start}",
        "startTimeUnixNano": str(start),
        "attributes": attributes,
    }


def _write(path: Path, *spans: dict[str, Any]) -> Path:
    lines = [{"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]} for span in spans]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _read(path: Path) -> list[Row]:
    return list(read_otel_traces(path))


def test_the_last_span_of_a_trace_is_the_episode(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "t.jsonl",
        _span("t1", 20, [USER, CALL, RESULT], [DONE]),
        _span("t1", 10, [USER], [CALL]),
        {"traceId": "t2", "attributes": []},
    )
    (row,) = _read(path)
    assert [m.role for m in row.sample.conversation.messages] == ["system", "user"]
    assert row.sample.tags == {"otel_trace": "t1"}
    (response,) = row.responses
    assert (response.model, response.text) == ("m1", "Done.")
    assert response.episode is not UNSET
    sent, waited = response.episode.calls
    assert (sent.name, sent.arguments, sent.status) == ("send", '{"to":"FORBIDDEN"}', "ok")
    assert sent.result == '{"sent":true}'
    # A trace with a missing turn does not say whether the call was executed.
    assert (waited.name, waited.status) == ("wait", "missing")
    assert response.episode.turns[0].text == "I send."


def test_a_judge_reads_the_calls_of_an_imported_trace(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.jsonl", _span("t1", 20, [USER, CALL, RESULT], [DONE]))
    words = tmp_path / "words.txt"
    words.write_text("forbidden\n")
    judge = resolve(f"transcript,of=(keywords:{words})", "judge")
    run = evaluate(None, resolve(f"otel:{path}", "data"), [judge], tmp_path / "run")
    (judgement,) = run.judgements()
    assert judgement.verdict is True


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no span has messages"),
        ("{}\n", "no span has messages"),
        ("no JSON\n", r"t\.jsonl:1: "),
        ('{"resourceSpans": 3}\n', r"t\.jsonl:1: Expected `array`"),
        ("[" * 5000, r"t\.jsonl:1: "),
    ],
)
def test_files_that_are_no_traces(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=fault):
        _read(path)


def test_messages_that_cannot_be_read_are_named_with_their_line(tmp_path: Path) -> None:
    span = _span("t1", 1, [USER], [DONE])
    span["attributes"][1]["value"]["stringValue"] = "[3]"
    path = _write(tmp_path / "t.jsonl", span)
    with pytest.raises(DataError, match=r"t\.jsonl:1: gen_ai\.output\.messages: Expected `object`"):
        _read(path)


def test_a_trace_without_an_answer_is_a_failed_response(tmp_path: Path) -> None:
    (row,) = _read(_write(tmp_path / "t.jsonl", _span("t1", 1, [USER], [USER])))
    assert row.responses[0].failure is not None


def test_a_result_without_its_call_is_a_failed_response_and_is_not_judged(tmp_path: Path) -> None:
    lost = {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c9", "response": "x"}]}
    path = _write(tmp_path / "t.jsonl", _span("t1", 1, [USER, CALL, RESULT, lost], [DONE]))
    (row,) = _read(path)
    failure = row.responses[0].failure
    assert failure is not None
    assert "a result (call 'c9') without its call: turns are missing" in failure.message
    words = tmp_path / "words.txt"
    words.write_text("something else\n")
    judge = resolve(f"transcript,of=(keywords:{words})", "judge")
    run = evaluate(None, resolve(f"otel:{path}", "data"), [judge], tmp_path / "run")
    assert [judgement.verdict for judgement in run.judgements()] in ([], [None])
