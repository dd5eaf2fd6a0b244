"""Builds run folders for tests from verdicts alone, without a model or a judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from truing.core.types import Conversation, Failure, Judgement, Lineage, Message, Response, Sample
from truing.runs.folder import JudgeRecord, Manifest, RunWriter, judgement_file

Verdicts = Sequence[Sequence[bool | None]]  # by sample, then by answer


def build_run(
    path: Path,
    samples: Sequence[Sample],
    verdicts: dict[str, Verdicts],
    *,
    finish: dict[tuple[int, int], str] | None = None,
    lineages: dict[str, Lineage] | None = None,
    model: Lineage | None = None,
) -> Path:
    """Writes a complete run and returns its folder.

    Args:
        path: the folder.
        samples: the samples.
        verdicts: "question" or "question@judge" -> the verdicts on the answers to each sample;
            None is a judgement that failed.
        finish: (position of the sample, index of the answer) -> finish reason; "error" also makes
            the response a failure. The default is "stop".
        lineages: judge -> lineage; the default has a hash that depends on the name.
        model: lineage of the model.
    """
    records = [_judge_record(key, lineages or {}) for key in verdicts]
    manifest = Manifest(
        model="scripted:test", judges=records, complete=True, lineage=model or Lineage()
    )
    writer = RunWriter(path, manifest)
    for sample in samples:
        writer.append("samples.jsonl", sample)
    answers = max(len(row) for rows in verdicts.values() for row in rows)
    for position, sample in enumerate(samples):
        for index in range(answers):
            reason = (finish or {}).get((position, index), "stop")
            writer.append("responses.jsonl", _response(sample, index, reason))
    for record, rows in zip(records, verdicts.values()):
        for sample, row in zip(samples, rows):
            for index, verdict in enumerate(row):
                writer.append(record.file, _judgement(sample, index, record, verdict))
    writer.close()
    return path


def _judge_record(key: str, lineages: dict[str, Lineage]) -> JudgeRecord:
    question, _, judge = key.partition("@")
    name = judge or f"test:{question}"
    lineage = lineages.get(name, Lineage(name=name, hash=f"{abs(hash(name)):016x}"[:16]))
    file = judgement_file(key, lineage.hash)
    return JudgeRecord(name=name, question=question, file=file, lineage=lineage)


def _response(sample: Sample, index: int, finish_reason: str) -> Response:
    failed = finish_reason == "error"
    return Response(
        sample_id=sample.id,
        index=index,
        model="scripted:test",
        message=Message("assistant", "words"),
        finish_reason=finish_reason,
        failure=Failure("model", "timeout", "no answer") if failed else None,
    )


def _judgement(sample: Sample, index: int, record: JudgeRecord, verdict: bool | None) -> Judgement:
    return Judgement(
        sample_id=sample.id,
        index=index,
        judge=record.name,
        question=record.question,
        verdict=verdict,
        failure=Failure("judge", "unparsable", "?") if verdict is None else None,
        score=None if verdict is None else 0.9 if verdict else 0.1,
    )


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """`make_run(name, samples, verdicts, ...)` builds a run below the test's folder."""

    def make(name: str, samples: Sequence[Sample], verdicts: Any, **options: Any) -> Path:
        return build_run(tmp_path / name, samples, verdicts, **options)

    return make


@pytest.fixture
def prompts() -> Callable[..., list[Sample]]:
    """`prompts(n, harms=..., expect=...)` returns samples s0 ... s(n-1)."""

    def make(n: int, **fields: Any) -> list[Sample]:
        return [
            Sample(id=f"s{i}", conversation=Conversation.of(f"question {i}"), **fields)
            for i in range(n)
        ]

    return make
