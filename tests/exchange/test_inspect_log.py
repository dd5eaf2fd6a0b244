"""A run as an Inspect AI log: the documents in the zip, what is unscored, raters, a run that is not
finished.
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.model_stand_ins import EvenJudge, MemoryDataset, SeedModel

from truing.core.errors import RunError, UserError
from truing.core.ids import with_ids
from truing.core.types import (
    Answer,
    Conversation,
    Judgement,
    Message,
    Response,
    Row,
    Sample,
    Sampling,
    ToolCall,
    Usage,
)
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.exchange.inspect_log import write_inspect_log
from truing.runs.folder import Run


class Talks:
    """Answers with a tool call, a failure, or a text."""

    name, lineage = "test:talks", SeedModel.lineage

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        if conversation.prompt == "fail":
            return (Answer.failed("timeout", "no answer"),) * sampling.n
        call = ToolCall("c1", "look", '{"at": "kettle"}') if conversation.prompt == "tool" else None
        calls = (call,) if call else ()
        return (
            Answer(message=Message("assistant", "hello", calls), usage=Usage(5, 2, 1)),
        ) * sampling.n


class Human:
    """Several raters of one answer, as people's judgements are."""

    def __init__(self) -> None:
        samples = with_ids(
            [Sample(conversation=Conversation.of("hi"), choices=("a", "b"), answer=(1,))]
        )
        self._sample = next(iter(samples))

    info = MemoryDataset([], "memory:human").info

    def sha256(self) -> str:
        return "0" * 64

    def rows(self) -> Any:
        id_ = self._sample.id
        yield Row(
            sample=self._sample,
            responses=(Response(sample_id=id_, message=Message("assistant", "hello")),),
            judgements=tuple(
                Judgement(sample_id=id_, judge="human:set", rater=r, question="harmful", verdict=v)
                for r, v in (("ann", True), ("bob", False))
            ),
        )

    def preferences(self) -> Any:
        yield from ()


def documents(file: Path) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        return {i.filename: json.loads(archive.read(i)) for i in archive.infolist()}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    system = Conversation((Message("system", "Be brief."), Message("user", "hi")))
    asked = [Conversation.of("tool"), Conversation.of("fail"), system]
    rows = MemoryDataset(
        [
            Row(sample=s)
            for s in with_ids(Sample(conversation=c, harms=("self_harm",)) for c in asked)
        ]
    )
    return evaluate(
        Talks(),
        rows,
        [EvenJudge()],
        tmp_path / "run",
        options=EvaluateOptions(sampling=Sampling(n=2)),
    )


def test_samples_epochs_scores(run: Run, tmp_path: Path) -> None:
    assert write_inspect_log(run, tmp_path / "a.eval") == 6
    log = documents(tmp_path / "a.eval")
    head = log["header.json"]
    assert (head["version"], head["status"], head["eval"]["model"]) == (2, "success", "test:talks")
    assert head["eval"]["config"]["epochs"] == 2
    assert head["eval"]["dataset"]["samples"] == 3
    score = head["results"]["scores"][0]
    assert (score["name"], score["scored_samples"], score["unscored_samples"]) == (
        "test:even",
        4,
        2,
    )
    assert score["metrics"]["mean"]["value"] == 0.0  # len("hello") is odd
    assert log["_journal/start.json"]["eval"] == head["eval"]
    by_input = {json.dumps(v["input"]): v for k, v in log.items() if k.endswith("_epoch_1.json")}
    tool, fail = by_input['"tool"'], by_input['"fail"']
    call = tool["output"]["choices"][0]["message"]["tool_calls"][0]
    assert (call["function"], call["arguments"]) == ("look", {"at": "kettle"})
    assert tool["model_usage"]["test:talks"] == {
        "input_tokens": 5,
        "output_tokens": 2,
        "total_tokens": 7,
        "input_tokens_cache_read": 1,
    }
    assert tool["scores"]["test:even"]["value"] is False
    assert tool["metadata"]["harms"] == ["self_harm"]
    assert fail["error"]["message"] == "timeout: no answer"
    assert math.isnan(fail["scores"]["test:even"]["value"])
    assert fail["scores"]["test:even"]["reason"].startswith("timeout")
    (system,) = (v for v in by_input.values() if isinstance(v["input"], list))
    assert [m["role"] for m in system["input"]] == ["system", "user"]
    assert [m["role"] for m in system["messages"]] == ["system", "user", "assistant"]
    assert {(s["id"], s["epoch"]) for s in log["summaries.json"]} == {
        (v["id"], v["epoch"]) for k, v in log.items() if k.startswith("samples/")
    }


def test_the_same_run_gives_the_same_log(run: Run, tmp_path: Path) -> None:
    write_inspect_log(run, tmp_path / "a.eval")
    write_inspect_log(run, tmp_path / "b.eval")
    assert json.dumps(documents(tmp_path / "a.eval")) == json.dumps(documents(tmp_path / "b.eval"))
    assert (tmp_path / "a.eval").stat().st_mode & 0o777 == 0o600


def test_each_rater_has_a_score(tmp_path: Path) -> None:
    run = evaluate(None, Human(), [], tmp_path / "run")
    assert write_inspect_log(run, tmp_path / "a.eval") == 1
    log = documents(tmp_path / "a.eval")
    (sample,) = (v for k, v in log.items() if k.startswith("samples/"))
    assert {k: (v["value"], v["metadata"]["rater"]) for k, v in sample["scores"].items()} == {
        "human:set": (True, "ann"),
        "human:set#2": (False, "bob"),
    }
    assert (sample["choices"], sample["target"]) == (["a", "b"], ["B"])
    assert log["header.json"]["results"]["scores"][0]["metrics"]["mean"]["value"] == 0.5


def test_a_run_that_is_not_finished_says_so(run: Run, tmp_path: Path) -> None:
    lines = (run.path / "responses.jsonl").read_bytes().splitlines(keepends=True)
    (run.path / "responses.jsonl").write_bytes(b"".join(reversed(lines[:3])) + b'{"torn')
    manifest = json.loads((run.path / "manifest.json").read_text())
    (run.path / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    assert write_inspect_log(run, tmp_path / "a.eval") == 3
    assert documents(tmp_path / "a.eval")["header.json"]["status"] == "cancelled"


def test_what_cannot_be_exported(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.eval"):
        write_inspect_log(run, tmp_path / "a.json")
    (run.path / "responses.jsonl").write_bytes(b"")
    with pytest.raises(RunError, match="no answers to export yet"):
        write_inspect_log(run, tmp_path / "a.eval")
    assert not list(tmp_path.glob("a.eval*"))
    with pytest.raises(RunError, match="no run folder"):
        write_inspect_log(Run(tmp_path), tmp_path / "a.eval")
