"""An export onto the disk: run folders, and tables as JSONL, CSV or Parquet."""

from __future__ import annotations

import csv
import re
import time
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from truing.annotation.exports import Exported, Row, flat, gather
from truing.annotation.imports import source_name
from truing.annotation.store import Store
from truing.annotation.study import get_lineages, harmful, load_study
from truing.core.errors import MissingExtra, UserError
from truing.core.lineage import digest
from truing.core.types import Judgement, Lineage
from truing.core.version import __version__
from truing.runs.folder import DataRecord, JudgeRecord, Manifest, Run, RunWriter, judgement_file

Format = Literal["jsonl", "csv", "parquet"]


class Written(Struct, frozen=True, kw_only=True):
    """What an export wrote: files with their rows, run folders with their judgements."""

    files: dict[str, int]
    runs: dict[str, int]
    contradicted: int


def write_export(
    store: Store,
    out: Path,
    *,
    form: Format = "jsonl",
    text: bool = False,
    runs: tuple[Path, ...] = (),
) -> Written:
    """Writes everything under `out`, and judgements of imported rows into their own run folders."""
    if out.exists() and any(out.iterdir()):
        raise UserError(f"--out {out}: is not empty; an export goes into a new folder")
    study = store.read(load_study)
    exported = store.read(lambda tx: gather(tx, study, text=text))
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    tables = {
        "dialogues": exported.dialogues,
        "ratings": exported.ratings,
        "preferences": exported.preferences,
        "cost": exported.cost,
    }
    files = {}
    for name, rows in tables.items():
        path = out / f"{name}.{form}"
        _write_table(path, rows, form)
        files[path.name] = len(rows)
    into: dict[str, int] = {}
    lineages = store.read(get_lineages)
    for model in sorted({r.model for r in exported.responses}):
        folder = _folder(out, model)
        notes = {"study": study.name, "text": str(text)}
        into[folder.name] = _write_run(
            folder, lineages.get(model, Lineage(name=model)), model, exported, notes
        )
    for path in runs:
        found = Run(path)
        judged = exported.judgements.get(source_name(found.manifest), {})
        writer = RunWriter(path, found.manifest)
        try:
            into[str(path)] = sum(_put_all(writer, judge, rows) for judge, rows in judged.items())
        finally:
            writer.close()
    return Written(files=files, runs=into, contradicted=exported.contradicted)


def _folder(out: Path, model: str) -> Path:
    """`run-MODEL`; names that look alike are told apart by a hash."""
    folder = out / ("run-" + (re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:50] or "model"))
    return folder if not folder.exists() else folder.with_name(f"{folder.name}-{digest(model)[:8]}")


def _write_run(
    folder: Path, lineage: Lineage, model: str, exported: Exported, notes: dict[str, str]
) -> int:
    """The dialogues with one model as a run: a sample for each turn, its responses, people's judgements."""
    responses = [r for r in exported.responses if r.model == model]
    known = {(r.sample_id, r.index) for r in responses}
    ids = {r.sample_id for r in responses}
    samples = [s for s in exported.samples if s.id in ids]
    data = digest(*(msgspec.json.encode(s) for s in samples))
    manifest = Manifest(
        plan={"kind": "redteam", **notes},
        plan_hash=digest("redteam", model, data),
        model=model,
        lineage=lineage,
        data=[
            DataRecord(
                spec="redteam:human",
                source="people in the red-teaming pages",
                sha256=data,
                n=len(samples),
            )
        ],
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        versions={"truing": __version__},
        complete=True,
        notes={"text": "redacted" if notes["text"] == "True" else "withheld"},
    )
    writer = RunWriter(folder, manifest)
    try:
        for sample in samples:
            writer.append("samples.jsonl", sample)
        for response in responses:
            writer.append("responses.jsonl", response)
        total = 0
        for judge, rows in exported.judgements.get("dialogue", {}).items():
            total += _put_all(writer, judge, [r for r in rows if (r.sample_id, r.index) in known])
        return total
    finally:
        writer.close()


def _put_all(writer: RunWriter, judge: str, rows: list[Judgement]) -> int:
    """The verdicts from 3, and as questions of their own, the verdicts from 2 and from 4; counts the first."""
    for threshold in (2, 4):
        name, question = f"{judge}@{threshold}", f"harmful_at_{threshold}"
        moved = [
            replace(
                r,
                judge=name,
                question=question,
                verdict=harmful(int(r.value), threshold),
                score=None,
            )
            for r in rows
            if r.value is not None
        ]
        put_judgements(writer, name, moved)
    return put_judgements(writer, judge, rows)


def put_judgements(writer: RunWriter, judge: str, rows: list[Judgement]) -> int:
    """Sets a human judge's rows in a run, in a file named by its content; an earlier export is replaced."""
    if not rows:
        return 0
    hash_ = digest(*(msgspec.json.encode(r) for r in rows))
    file = judgement_file(judge, hash_)
    old = [r for r in writer.record.judges if r.name == judge]
    if any(r.file == file for r in old):
        return len(rows)
    (writer.path / file).unlink(missing_ok=True)  # a torn earlier try
    for row in rows:
        writer.append(file, row)
    writer.flush()
    kept = [r for r in writer.record.judges if r.name != judge]
    record = JudgeRecord(
        name=judge, question=rows[0].question, file=file, lineage=Lineage(name=judge, hash=hash_)
    )
    writer.record.judges = [*kept, record]
    writer.save()
    for gone in old:
        (writer.path / gone.file).unlink(missing_ok=True)
    return len(rows)


def _write_table(path: Path, rows: list[Row], form: Format) -> None:
    if form == "jsonl":
        with path.open("wb") as stream:
            stream.writelines(msgspec.json.encode(r) + b"\n" for r in rows)
        return
    flattened = [flat(r) for r in rows]
    names = list(dict.fromkeys(k for r in flattened for k in r))
    if form == "csv":
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            writer.writerows({k: _cell(v) for k, v in r.items()} for r in flattened)
        return
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingExtra("hub", "Parquet (package pyarrow)") from error
    parquet.write_table(arrow.table({n: [r.get(n) for r in flattened] for n in names}), path)


def _cell(value: object) -> object:
    """A spreadsheet runs a cell that begins like a formula; an apostrophe keeps it text."""
    return (
        f"'{value}"
        if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
        else value
    )
