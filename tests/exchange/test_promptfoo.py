"""promptfoo's results: chats and texts, repeats, assertions of several kinds, errors, plug-ins of
its red teaming.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from truing.core.errors import DataError
from truing.core.types import Row
from truing.specs.resolve import resolve


def result(
    raw: str, output: Any = "hello", *components: tuple[str, bool], **more: Any
) -> dict[str, Any]:
    listed = [
        {"pass": ok, "score": float(ok), "reason": "r", "assertion": {"type": kind}}
        for kind, ok in components
    ]
    return {
        "prompt": {"raw": raw, "label": "p"},
        "provider": {"id": "echo", "label": "model-a"},
        "vars": {},
        "response": {"output": output},
        "success": all(ok for _, ok in components),
        "score": 1,
        "failureReason": 0,
        "gradingResult": {"pass": True, "score": 1, "componentResults": listed},
        **more,
    }


def rows(tmp_path: Path, *results: dict[str, Any], bare: bool = False) -> list[Row]:
    file = tmp_path / "out.json"
    file.write_text(
        json.dumps({"results": list(results) if bare else {"version": 3, "results": list(results)}})
    )
    return list(resolve(f"promptfoo:{file}", "data").rows())


def test_results_become_samples_answers_and_verdicts(tmp_path: Path) -> None:
    chat = json.dumps(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Greet Ann"}]
    )
    first, second = rows(
        tmp_path,
        result("Say hello", "hi", ("contains", True), ("contains", False), ("is-refusal", True)),
        result(chat, {"greeting": "hello"}),
        result("Say hello", "ho", ("contains", True)),
    )
    assert [r.text for r in first.responses] == [
        "hi",
        "ho",
    ]  # the same prompt twice: two answers to one sample
    assert {r.model for r in first.responses} == {"model-a"}
    assert [(j.judge, j.question, j.verdict, j.index) for j in first.judgements] == [
        ("promptfoo:contains", "passed", True, 0),
        ("promptfoo:contains#2", "passed", False, 0),
        ("promptfoo:is-refusal", "refused", True, 0),
        ("promptfoo:all", "passed", False, 0),
        ("promptfoo:contains", "passed", True, 1),
        ("promptfoo:all", "passed", True, 1),
    ]
    assert second.sample.conversation.system == "Be brief."
    assert second.responses[0].text == '{"greeting": "hello"}'


def test_red_teaming_says_harmful_where_it_failed(tmp_path: Path) -> None:
    meta = {"pluginId": "harmful:hate", "strategyId": "base64", "_hidden": 1}
    (row,) = rows(
        tmp_path,
        result("x", "no", ("promptfoo:redteam:harmful:hate", False), metadata=meta),
        bare=True,
    )
    assert row.sample.harms == ("hate_speech,offensive_language",)
    assert row.sample.tags == {
        "pluginId": "harmful:hate",
        "strategyId": "base64",
        "provider": "model-a",
    }
    judged = row.judgements[0]
    assert (judged.judge, judged.question, judged.verdict, judged.score) == (
        "promptfoo:redteam:harmful:hate",
        "harmful",
        True,
        1.0,
    )


def test_errors_are_failures(tmp_path: Path) -> None:
    gone = result(
        "x", None, error="API error: 500", response=None, gradingResult=None, success=False
    )
    (row,) = rows(tmp_path, gone)
    assert row.responses[0].failure is not None
    assert row.responses[0].failure.message == "API error: 500"
    assert row.judgements == ()
    (row,) = rows(
        tmp_path, result("x", "hello", ("contains", False), error="Expected output to contain")
    )
    assert row.responses[0].failure is None
    assert [j.verdict for j in row.judgements] == [False, False]


def test_what_is_no_result_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no results"):
        rows(tmp_path)
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(DataError, match=r"b\.json: Input data was truncated"):
        list(resolve(f"promptfoo:{tmp_path}/b.json", "data").rows())
    (tmp_path / "c.json").write_text('{"evals": []}')
    with pytest.raises(DataError, match="missing required field `results`"):
        list(resolve(f"promptfoo:{tmp_path}/c.json", "data").rows())
