"""Writes a run as an Inspect AI log (`.eval`): `truing export inspect RUN FILE.eval`.

The log is for `inspect view` and `inspect_ai.analysis`.

Mapping: sample -> sample, k-th answer -> epoch k, judge -> scorer. A verdict becomes true or
false; an unscored one becomes Inspect's own unscored value (NaN, with the reason), so that no mean
counts it. Log version 2, written as a zip of JSON documents, one sample at a time; the file is
replaced atomically. It holds the texts of the run and is as private as the run.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from truing.core.errors import RunError, UserError
from truing.core.private_files import create_folder, file_mode
from truing.core.types import Judgement, Response, Sample
from truing.exchange.inspect_messages import (
    encode_episode,
    encode_input,
    encode_message,
    make_id,
)
from truing.runs.folder import JudgeRecord, Manifest, Run
from truing.runs.index import ResponseKey
from truing.runs.parts import RecordReader, read_located_run_records

LOG_VERSION = 2
_ANSWER_PREVIEW_CHARACTERS = 500
_STOP_REASONS = {
    "stop": "stop",
    "length": "max_tokens",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "abstained": "stop",
    "blocked": "content_filter",
    "error": "unknown",
}


class _RecordIndex:
    """Random access to the records of a run's file by sample and index.

    The records of an unfinished run are in any order.
    """

    def __init__(self, run: Run, name: str, kind: type[Struct]) -> None:
        self._at: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for start, length, key in read_located_run_records(run.path, name, ResponseKey):
            self._at.setdefault((key.sample_id, key.index), []).append((start, length))
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(kind).decode
        self._reader = RecordReader(run.path, name) if self._at else None

    def of(self, sample_id: str, index: int) -> list[Any]:
        """Returns the records of one answer."""
        records = []
        for start, length in self._at.get((sample_id, index), ()):
            assert self._reader is not None
            records.append(self._decode(self._reader.read(length, start)))
        return records

    def count(self, sample_id: str) -> int:
        """Returns the number of answers to a sample."""
        index = 0
        while (sample_id, index) in self._at:
            index += 1
        return index

    def close(self) -> None:
        """Closes the files."""
        if self._reader is not None:
            self._reader.close()


def _encode_score(judgement: Judgement) -> dict[str, Any]:
    optional_fields = {
        "score": judgement.score,
        "value": judgement.value,
        "harms": judgement.harms or None,
        "rater": judgement.rater,
    }
    metadata = {k: v for k, v in optional_fields.items() if v is not None}
    # json.dumps writes NaN as a bare token, which is no JSON but what Inspect itself writes and
    # reads.
    row: dict[str, Any] = {"value": math.nan if judgement.verdict is None else judgement.verdict}
    if judgement.verdict is None and judgement.value is not None:
        row["value"] = judgement.value
    if judgement.rationale:
        row["explanation"] = judgement.rationale
    if judgement.failure is not None:
        row["reason"] = f"{judgement.failure.kind}: {judgement.failure.message}"
    if metadata:
        row["metadata"] = metadata
    return row


class _Scorer:
    """The judgements of one judge as a scorer of Inspect, with counts."""

    def __init__(self, run: Run, record: JudgeRecord, name: str) -> None:
        self.name, self.question = name, record.question
        self.lines = _RecordIndex(run, record.file, Judgement)
        self.yes = self.no = self.unscored = 0

    def scores(self, sample_id: str, index: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the scores of an answer: one, or one for each rater."""
        judgements: list[Judgement] = self.lines.of(sample_id, index)
        for number, judgement in enumerate(judgements):
            self.yes += judgement.verdict is True
            self.no += judgement.verdict is False
            self.unscored += judgement.verdict is None
            yield (
                (self.name if number == 0 else f"{self.name}#{number + 1}"),
                _encode_score(judgement),
            )

    def result(self) -> dict[str, Any]:
        """Returns the entry of `results.scores`."""
        scored = self.yes + self.no
        rate = self.yes / scored if scored else math.nan
        # Standard error of a mean with the sample variance (n - 1), as Inspect's stderr().
        error = math.sqrt(rate * (1 - rate) / (scored - 1)) if scored > 1 else math.nan
        metrics = {
            k: {"name": k, "value": v, "params": {}} for k, v in (("mean", rate), ("stderr", error))
        }
        return {
            "name": self.name,
            "scorer": self.name,
            "params": {},
            "scored_samples": scored,
            "unscored_samples": self.unscored,
            "metrics": metrics,
            "metadata": {"question": self.question},
        }


def _open_scorers(run: Run, manifest: Manifest) -> list[_Scorer]:
    names = [r.name for r in manifest.judges]
    scorers: list[_Scorer] = []
    for record in manifest.judges:
        name = record.name
        if names.count(name) > 1:
            name = f"{record.name}/{record.question}"
        if name in {s.name for s in scorers}:
            name = f"{name}/{record.file.rsplit('-', 1)[-1].removesuffix('.jsonl')}"
        scorers.append(_Scorer(run, record, name))
    return scorers


def _encode_sample(
    sample: Sample, response: Response, scores: dict[str, Any], created: str
) -> dict[str, Any]:
    epoch, id_ = response.index + 1, f"{sample.id}/{response.index}"
    answer = encode_message(response.message, make_id(id_, "answer")) | {
        "source": "generate",
        "model": response.model,
    }
    input_messages = [
        encode_message(m, make_id(sample.id, str(k)))
        for k, m in enumerate(sample.conversation.messages)
    ]
    token_counts = response.usage
    usage = {
        "input_tokens": token_counts.prompt_tokens,
        "output_tokens": token_counts.completion_tokens,
        "total_tokens": token_counts.prompt_tokens + token_counts.completion_tokens,
        "input_tokens_cache_read": token_counts.cached_tokens,
    }
    output: dict[str, Any] = {
        "model": response.model,
        "completion": response.text,
        "usage": usage,
        "choices": [
            {"message": answer, "stop_reason": _STOP_REASONS.get(response.finish_reason, "unknown")}
        ],
    }
    metadata = {
        "source": sample.source,
        "expect": sample.expect,
        "harms": list(sample.harms),
        "parent": sample.parent,
        "pair": sample.pair,
        "tags": sample.tags,
    }
    target = (
        sample.answer
        if isinstance(sample.answer, str)
        else ""
        if sample.answer is None
        # Inspect names choices by letters, A for the first.
        else [chr(65 + k) for k in sample.answer]
    )
    row: dict[str, Any] = {
        "id": sample.id,
        "epoch": epoch,
        "input": encode_input(sample.conversation, sample.id),
        "target": target,
        "messages": [*input_messages, *encode_episode(response, id_), answer],
        "output": output,
        "scores": scores,
        "metadata": {k: v for k, v in metadata.items() if v},
        "store": {},
        "events": [],
        "model_usage": {response.model: usage},
        "attachments": {},
        "started_at": created,
        "uuid": make_id(id_),
    }
    if sample.choices:
        row["choices"] = list(sample.choices)
    if response.failure is not None:
        error_text = f"{response.failure.kind}: {response.failure.message}"
        output["error"] = error_text
        row["error"] = {"message": error_text, "traceback": "", "traceback_ansi": ""}
    return row


def _summarise_sample(row: dict[str, Any]) -> dict[str, Any]:
    summary_keys = (
        "id",
        "epoch",
        "input",
        "target",
        "scores",
        "metadata",
        "model_usage",
        "uuid",
        "choices",
        "started_at",
    )
    summary = {k: row[k] for k in summary_keys if k in row} | {
        "completed": True,
        "message_count": len(row["messages"]),
    }
    # Inspect reads all summaries to list a log, so they have no long texts.
    if isinstance(summary["input"], str) and len(summary["input"]) > 1024:
        summary["input"] = summary["input"][:1024] + "..."
    if "error" in row:
        summary["error"] = row["error"]["message"]
    return summary


def _eval_spec(
    run: Run, manifest: Manifest, ids: list[str], epochs: int, scorers: list[_Scorer]
) -> dict[str, Any]:
    plan = manifest.plan
    task = manifest.data[0].spec if manifest.data else "truing"
    generate_config = {
        k: plan.get(k)
        for k in ("max_tokens", "temperature", "top_p", "seed")
        if plan.get(k) is not None
    }
    metrics = [
        {"name": "inspect_ai/mean", "options": {}},
        {"name": "inspect_ai/stderr", "options": {}},
    ]
    return {
        "eval_id": make_id(manifest.plan_hash, "eval"),
        "run_id": make_id(manifest.plan_hash, "run"),
        "created": manifest.created,
        "task": task,
        "task_id": make_id(manifest.plan_hash, "task"),
        "task_version": 0,
        "task_display_name": task,
        "task_attribs": {},
        "task_args": {},
        "task_args_passed": {},
        "model": manifest.model,
        "dataset": {
            "name": task,
            "location": manifest.data[0].source if manifest.data else "",
            "samples": len(ids),
            "sample_ids": ids,
            "shuffled": False,
        },
        "model_generate_config": generate_config,
        "model_args": {},
        "config": {"epochs": epochs, "log_samples": True},
        "packages": {"truing": manifest.versions.get("truing", "")},
        "metadata": {
            "plan_hash": manifest.plan_hash,
            "attack": plan.get("attack"),
            "taxonomy": manifest.taxonomy,
            "run": run.path.name,
        },
        "scorers": [
            {
                "name": s.name,
                "options": {},
                "metrics": metrics,
                "metadata": {"question": s.question},
            }
            for s in scorers
        ],
    }


def write_inspect_log(run: Run, file: Path) -> int:
    """Writes the log and returns the number of answers in it.

    Raises UserError for a file name without `.eval`, RunError if the run has no answers yet.
    """
    if file.suffix != ".eval":
        raise UserError(f"{file}: the name of an Inspect log ends in .eval")
    manifest = run.manifest
    responses = _RecordIndex(run, "responses.jsonl", Response)
    scorers = _open_scorers(run, manifest)
    temporary = file.with_name(file.name + ".tmp")
    try:
        create_folder(file.parent)
        # Private from the first byte: the log holds the texts of the run. The mode of a file that
        # open() creates depends on the umask.
        handle = os.open(
            temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, file_mode()
        )
        with (
            os.fdopen(handle, "w+b") as stream,
            zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            count = _write_archive(archive, run, manifest, responses, scorers)
        if not count:
            raise RunError(f"{run.path}: the run has no answers to export yet")
        temporary.replace(file)
    except OSError as error:
        raise RunError(f"{file}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
        for lines in (responses, *(s.lines for s in scorers)):
            lines.close()
    return count


def _write_archive(
    archive: zipfile.ZipFile,
    run: Run,
    manifest: Manifest,
    responses: _RecordIndex,
    scorers: list[_Scorer],
) -> int:
    ids: list[str] = []
    total, epochs = 0, 1
    with tempfile.TemporaryFile() as summaries:  # the summaries may not fit in memory
        for sample in run.samples():
            n = responses.count(sample.id)
            if n:
                ids.append(sample.id)
                epochs = max(epochs, n)
            for index in range(n):
                response: Response = responses.of(sample.id, index)[0]
                scores = {
                    name: score for s in scorers for name, score in s.scores(sample.id, index)
                }
                for score in list(scores.values())[
                    :1
                ]:  # the viewer's list shows the first scorer's answer
                    score["answer"] = response.text[:_ANSWER_PREVIEW_CHARACTERS]
                row = _encode_sample(sample, response, scores, manifest.created)
                archive.writestr(
                    f"samples/{sample.id}_epoch_{index + 1}.json",
                    json.dumps(row, ensure_ascii=False),
                )
                summaries.write(b"[" if total == 0 else b",\n")
                summaries.write(
                    json.dumps(_summarise_sample(row), ensure_ascii=False).encode(
                        "utf-8", "replace"
                    )
                )
                total += 1
        summaries.write(b"]")
        summaries.seek(0)
        with archive.open("summaries.json", "w") as member:
            shutil.copyfileobj(summaries, member)
    head = _eval_spec(run, manifest, ids, epochs, scorers)
    plan = {"name": "plan", "steps": [{"solver": "generate", "params": {}}], "config": {}}
    archive.writestr(
        "_journal/start.json", json.dumps({"version": LOG_VERSION, "eval": head, "plan": plan})
    )
    done = "success" if manifest.complete else "cancelled"
    results = {
        "total_samples": total,
        "completed_samples": total,
        "scores": [s.result() for s in scorers],
    }
    stats = {"started_at": manifest.created, "completed_at": manifest.created, "model_usage": {}}
    archive.writestr(
        "header.json",
        json.dumps(
            {
                "version": LOG_VERSION,
                "status": done,
                "eval": head,
                "plan": plan,
                "results": results,
                "stats": stats,
            },
            indent=1,
        ),
    )
    return total
