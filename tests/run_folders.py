"""Builds run folders for the tests of the report room: no model, no judge, only their lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from truing.core.types import Conversation, Failure, Judgement, Lineage, Message, Response, Sample
from truing.runs.folder import JudgeRecord, Manifest, RunWriter, judgement_file


def build_run(
    path: Path,
    samples: Sequence[Sample],
    verdicts: dict[str, Sequence[Sequence[bool | None]]],
    *,
    finish: dict[tuple[int, int], str] | None = None,
    lineages: dict[str, Lineage] | None = None,
    model: Lineage | None = None,
) -> Path:
    """`verdicts["question"]` or `["question@judge"]` holds for each sample the verdicts of its answers."""
    records = []
    for key in verdicts:
        question, _, judge = key.partition("@")
        name = judge or f"test:{question}"
        line = (lineages or {}).get(name, Lineage(name=name, hash=f"{abs(hash(name)):016x}"[:16]))
        records.append(
            JudgeRecord(
                name=name, question=question, file=judgement_file(key, line.hash), lineage=line
            )
        )
    writer = RunWriter(
        path,
        Manifest(model="scripted:test", judges=records, complete=True, lineage=model or Lineage()),
    )
    for sample in samples:
        writer.append("samples.jsonl", sample)
    answers = max(len(v) for rows in verdicts.values() for v in rows)
    for at, sample in enumerate(samples):
        for index in range(answers):
            reason = (finish or {}).get((at, index), "stop")
            failure = Failure("model", "timeout", "no answer") if reason == "error" else None
            writer.append(
                "responses.jsonl",
                Response(
                    sample_id=sample.id,
                    index=index,
                    model="scripted:test",
                    message=Message("assistant", "words"),
                    finish_reason=reason,
                    failure=failure,
                ),
            )
    for record, rows in zip(records, verdicts.values()):
        for sample, row in zip(samples, rows):
            for index, verdict in enumerate(row):
                failure = Failure("judge", "unparsable", "?") if verdict is None else None
                writer.append(
                    record.file,
                    Judgement(
                        sample_id=sample.id,
                        index=index,
                        judge=record.name,
                        question=record.question,
                        verdict=verdict,
                        failure=failure,
                        score=None if verdict is None else 0.9 if verdict else 0.1,
                    ),
                )
    writer.close()
    return path


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """`make_run(name, samples, verdicts, ...)` -> the folder."""

    def make(name: str, samples: Sequence[Sample], verdicts: Any, **more: Any) -> Path:
        return build_run(tmp_path / name, samples, verdicts, **more)

    return make


@pytest.fixture
def prompts() -> Callable[..., list[Sample]]:
    """`prompts(n, harms=..., expect=...)` -> samples s0 ... s(n-1)."""

    def make(n: int, **more: Any) -> list[Sample]:
        return [
            Sample(id=f"s{i}", conversation=Conversation.of(f"question {i}"), **more)
            for i in range(n)
        ]

    return make
