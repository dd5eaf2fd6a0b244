"""garak's reports: today's form, older ones, what was cut off, what is no report; the threshold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from truing.analysis.summary import summarise
from truing.core.errors import DataError, SpecError
from truing.evaluation.evaluate import evaluate
from truing.specs.resolve import resolve

SETUP = {
    "entry_type": "start_run setup",
    "plugins.target_type": "test.Repeat",
    "plugins.target_name": None,
    "run.eval_threshold": 0.5,
}


def turns(*texts: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {
        "turns": [
            {"role": roles[k % 2], "content": {"text": t, "lang": "en"}}
            for k, t in enumerate(texts)
        ]
    }


def attempt(uuid: str, status: int = 2, **more: Any) -> dict[str, Any]:
    base = {
        "entry_type": "attempt",
        "uuid": uuid,
        "status": status,
        "probe_classname": "test.Test",
        "goal": "none",
        "prompt": turns("Say hello"),
        "outputs": [{"text": "hello"}, {"text": "hi"}],
        "intent": "T999",
        "detector_results": {"always.Pass": [0.0, 1.0]} if status == 2 else {},
    }
    return {**base, **more}


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_a_report_becomes_samples_answers_and_verdicts(tmp_path: Path) -> None:
    file = written(
        tmp_path / "a.report.jsonl",
        SETUP,
        {"entry_type": "init"},
        attempt("1", 1),
        attempt("2", 1),
        attempt("1"),
        {"entry_type": "eval", "probe": "test.Test"},
    )
    cut, done = resolve(f"garak:{file}", "data").rows()
    assert [r.text for r in done.responses] == ["hello", "hi"]
    assert {r.model for r in done.responses} == {"test.Repeat"}
    assert [(j.judge, j.question, j.verdict, j.score, j.index) for j in done.judgements] == [
        ("garak:always.Pass", "hit", False, 0.0, 0),
        ("garak:always.Pass", "hit", True, 1.0, 1),
    ]
    assert (done.sample.tags["probe"], done.sample.tags["intent"]) == ("test.Test", "T999")
    assert cut.judgements == ()  # garak was stopped before its detectors: answers without verdicts
    assert done.sample.id == f"{cut.sample.id}-1"  # the same prompt again
    assert all(r.sample_id == cut.sample.id for r in cut.responses)


def test_scores_of_none_and_outputs_of_none(tmp_path: Path) -> None:
    row = attempt("1", outputs=[None, {"text": "x"}], detector_results={"d.D": [None, 0.4]})
    (parsed_row,) = resolve(f"garak:{written(tmp_path / 'a.jsonl', SETUP, row)}", "data").rows()
    assert parsed_row.responses[0].failure is not None
    assert [(j.verdict, j.score) for j in parsed_row.judgements] == [(None, None), (False, 0.4)]
    assert parsed_row.judgements[0].failure is not None
    (low,) = resolve(f"garak:{tmp_path / 'a.jsonl'},threshold=0.3", "data").rows()
    assert [j.verdict for j in low.judgements] == [None, True]
    written(tmp_path / "b.jsonl", {**SETUP, "run.eval_threshold": 0.4}, row)
    (own,) = resolve(f"garak:{tmp_path / 'b.jsonl'}", "data").rows()
    assert [j.verdict for j in own.judgements] == [None, True]


def test_texts_of_older_reports_and_dialogues(tmp_path: Path) -> None:
    old = attempt("1", prompt="Say hello", outputs=["hello"], detector_results={"d.D": [1.0]})
    two = attempt(
        "2",
        outputs=[{"text": "b"}, {"text": "d"}],
        detector_results={"d.D": [0.0, 1.0]},
        conversations=[turns("start", "a", "go on", "b"), turns("start", "c", "go on", "d")],
    )
    rows = list(resolve(f"garak:{written(tmp_path / 'a.jsonl', old, two)}", "data").rows())
    assert rows[0].sample.prompt == "Say hello"
    assert [[m.content for m in r.sample.conversation.messages] for r in rows[1:]] == [
        ["start", "a", "go on"],
        ["start", "c", "go on"],
    ]
    assert [(r.responses[0].text, r.judgements[0].verdict) for r in rows[1:]] == [
        ("b", False),
        ("d", True),
    ]


def test_a_run_of_it_can_be_judged_and_counts(tmp_path: Path) -> None:
    file = written(
        tmp_path / "a.report.jsonl", SETUP, attempt("1"), attempt("2", prompt=turns("Say bye"))
    )
    run = evaluate(
        None,
        resolve(f"garak:{file}", "data"),
        [resolve("rules:refusal", "judge")],
        tmp_path / "run",
    )
    assert run.manifest.model == "test.Repeat"
    rates = {r.question: r for r in summarise(run).rates if r.category is None}
    assert (rates["hit"].events, rates["hit"].scored) == (2, 4)
    assert (rates["refused"].events, rates["refused"].scored) == (0, 4)


def test_what_is_no_report(tmp_path: Path) -> None:
    written(tmp_path / "a.report.jsonl", SETUP)
    with pytest.raises(SpecError, match="there is no file .*did you mean 'a.report.jsonl'"):
        resolve(f"garak:{tmp_path}/a.raport.jsonl", "data")
    with pytest.raises(DataError, match="no attempts: is this a garak report"):
        list(resolve(f"garak:{tmp_path}/a.report.jsonl", "data").rows())
    (tmp_path / "b.jsonl").write_text(json.dumps(SETUP) + "\n{torn")
    with pytest.raises(DataError, match=r"b\.jsonl:2: JSON is malformed"):
        list(resolve(f"garak:{tmp_path}/b.jsonl", "data").rows())
    written(tmp_path / "c.jsonl", attempt("1", outputs="hello"))
    with pytest.raises(DataError, match=r"c\.jsonl:1: Expected `array`"):
        list(resolve(f"garak:{tmp_path}/c.jsonl", "data").rows())
