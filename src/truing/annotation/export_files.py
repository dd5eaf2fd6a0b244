"""Writes an export to disk: run folders, and tables as JSONL, CSV or Parquet."""

from __future__ import annotations

import csv
import re
import time
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from truing.annotation.exports import ExportData, TableRow, collect_export, flatten_row
from truing.annotation.imports import run_source
from truing.annotation.store import Store
from truing.annotation.study import is_harmful, load_lineages, load_study
from truing.core.errors import MissingExtra, UserError
from truing.core.lineage import digest
from truing.core.private_files import create_folder, private_opener, replace_file_with
from truing.core.types import Judgement, Lineage
from truing.core.version import __version__
from truing.runs.folder import DataRecord, JudgeRecord, Manifest, Run, RunWriter, judgement_file

Format = Literal["jsonl", "csv", "parquet"]


class ExportCounts(Struct, frozen=True, kw_only=True):
    """What an export wrote.

    `files`: file name -> rows; `runs`: run folder -> judgements; `contradicted`: pairs left out.
    """

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
) -> ExportCounts:
    """Writes the tables and one run folder a model into `out`, a new folder.

    Judgements on imported rows are written into their own run folders, `runs`.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"--out {out}: is not empty; an export goes into a new folder")
    study = store.read(load_study)
    lineages = store.read(load_lineages)
    export = store.read(lambda tx: collect_export(tx, study, text=text))
    # Readable by its owner only: even without text it says what each person judged.
    create_folder(out)
    tables = {
        "dialogues": export.dialogues,
        "ratings": export.ratings,
        "preferences": export.preferences,
        "cost": export.cost,
    }
    n_rows = {}
    for name, rows in tables.items():
        path = out / f"{name}.{form}"
        _write_table(path, rows, form)
        n_rows[path.name] = len(rows)
    n_judgements: dict[str, int] = {}
    plan = {"kind": "redteam", "study": study.name, "text": str(text)}
    for model in sorted({r.model for r in export.responses}):
        folder = _run_folder(out, model)
        lineage = lineages.get(model, Lineage(name=model))
        n_judgements[folder.name] = _write_run(folder, lineage, model, export, plan)
    for path in runs:
        n_judgements[str(path)] = _write_into_run(path, export)
    return ExportCounts(files=n_rows, runs=n_judgements, contradicted=export.contradicted)


def _run_folder(out: Path, model: str) -> Path:
    """Returns `run-MODEL`; a hash is appended if another model has the same simplified name."""
    name = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:50] or "model"
    folder = out / f"run-{name}"
    return folder if not folder.exists() else folder.with_name(f"{folder.name}-{digest(model)[:8]}")


def _write_run(
    folder: Path, lineage: Lineage, model: str, exported: ExportData, plan: dict[str, str]
) -> int:
    """Writes the dialogues with one model as a run; returns the number of judgements.

    A sample is a turn, with the model's responses and people's judgements of them.
    """
    responses = [r for r in exported.responses if r.model == model]
    response_keys = {(r.sample_id, r.index) for r in responses}
    sample_ids = {r.sample_id for r in responses}
    samples = [s for s in exported.samples if s.id in sample_ids]
    data_hash = digest(*(msgspec.json.encode(s) for s in samples))
    manifest = Manifest(
        plan=dict(plan),
        plan_hash=digest("redteam", model, data_hash),
        model=model,
        lineage=lineage,
        data=[
            DataRecord(
                spec="redteam:human",
                source="people in the red-teaming pages",
                sha256=data_hash,
                n=len(samples),
            )
        ],
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        versions={"truing": __version__},
        complete=True,
        notes={"text": "redacted" if plan["text"] == "True" else "withheld"},
    )
    writer = RunWriter(folder, manifest)
    try:
        for sample in samples:
            writer.append("samples.jsonl", sample)
        for response in responses:
            writer.append("responses.jsonl", response)
        n_judgements = 0
        for judge, rows in exported.judgements.get("dialogue", {}).items():
            of_this_model = [r for r in rows if (r.sample_id, r.index) in response_keys]
            n_judgements += _write_judge(writer, judge, of_this_model)
        return n_judgements
    finally:
        writer.close()


def _write_into_run(path: Path, data: ExportData) -> int:
    """Writes the judgements on a run's imported rows into its folder; returns their number."""
    manifest = Run(path).manifest
    judgements = data.judgements.get(run_source(manifest), {})
    writer = RunWriter(path, manifest)
    try:
        return sum(_write_judge(writer, judge, rows) for judge, rows in judgements.items())
    finally:
        writer.close()


def _write_judge(writer: RunWriter, judge: str, rows: list[Judgement]) -> int:
    """Writes the verdicts from grade 3 on, and those from 2 and from 4 as separate questions.

    Returns the number of judgements of the first kind.
    """
    for threshold in (2, 4):
        name, question = f"{judge}@{threshold}", f"harmful_at_{threshold}"
        moved = [
            replace(
                r,
                judge=name,
                question=question,
                verdict=is_harmful(int(r.value), threshold),
                score=None,
            )
            for r in rows
            if r.value is not None
        ]
        replace_judgements(writer, name, moved)
    return replace_judgements(writer, judge, rows)


def replace_judgements(writer: RunWriter, judge: str, rows: list[Judgement]) -> int:
    """Writes a human judge's rows into a run, in place of those of an earlier export."""
    if not rows:
        return 0
    hash_ = digest(*(msgspec.json.encode(r) for r in rows))
    file = judgement_file(judge, hash_)
    earlier = [r for r in writer.manifest.judges if r.name == judge]
    if any(r.file == file for r in earlier):
        return len(rows)
    # The manifest does not name this file, so it can only be the rest of an interrupted export.
    writer.delete(file)
    for row in rows:
        writer.append(file, row)
    writer.sync()
    other_judges = [r for r in writer.manifest.judges if r.name != judge]
    record = JudgeRecord(
        name=judge, question=rows[0].question, file=file, lineage=Lineage(name=judge, hash=hash_)
    )
    # The new file is named in the manifest before the old one goes: after a crash the run is
    # readable.
    writer.manifest.judges = [*other_judges, record]
    writer.save_manifest()
    for old in earlier:
        writer.delete(old.file)
    return len(rows)


def _write_table(path: Path, rows: list[TableRow], form: Format) -> None:
    if form == "jsonl":
        with open(path, "wb", opener=private_opener) as stream:
            stream.writelines(msgspec.json.encode(r) + b"\n" for r in rows)
        return
    flat_rows = [flatten_row(r) for r in rows]
    names = list(dict.fromkeys(k for r in flat_rows for k in r))
    if form == "csv":
        with open(path, "w", encoding="utf-8", newline="", opener=private_opener) as stream:
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            writer.writerows({k: _escape_formula(v) for k, v in r.items()} for r in flat_rows)
        return
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingExtra("hub", "Parquet (package pyarrow)") from error
    table = arrow.table({n: [r.get(n) for r in flat_rows] for n in names})
    replace_file_with(path, lambda temporary: parquet.write_table(table, temporary))


def _escape_formula(value: object) -> object:
    """Returns a CSV cell that a spreadsheet does not run as a formula (CSV injection)."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
