"""The run: data -> (attack) -> model -> judges -> run folder.

    run = evaluate(model, dataset, [judge], "runs/base", options=EvaluateOptions(concurrency=32))
    judge_run(run, another_judge)            # no call to the model

The same call again goes on where it stopped; a folder that holds another plan is refused. Everything that can be wrong
with what you gave is found before the first call to the model: the data are read to the end first.
"""

from __future__ import annotations

import asyncio
import datetime
import platform
import sys
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from truing.core import output_filter
from truing.core.errors import DataError, PlanError, RunError
from truing.core.lineage import digest, find_judge_conflict
from truing.core.protocols import Attack, Dataset, Judge, Model
from truing.core.types import Judgement, Lineage
from truing.core.version import __version__
from truing.evaluation.options import EvaluateOptions
from truing.evaluation.scheduler import Scheduler
from truing.http.limits import INITIAL_CONCURRENCY, RATE_LIMITS, close_connections
from truing.runs.folder import (
    DataRecord,
    JudgeRecord,
    Manifest,
    Run,
    RunWriter,
    encode_line,
    judgement_file,
)
from truing.runs.index import IdIndex

T = TypeVar("T")

RECORDED = "recorded"
"""The model's name in runs on the answers that came with a data set."""

ATTACK_RATE = 5.0
"""Requests a second to an endpoint that is attacked and is not this machine, unless a rate is given."""

_CHUNK = 1 << 16


def evaluate(
    model: Model | None,
    dataset: Dataset,
    judges: Sequence[Judge],
    out: str | Path,
    *,
    attack: Attack | None = None,
    options: EvaluateOptions | None = None,
) -> Run:
    """Runs a model on a data set and judges what it answers; gives the run folder.

    Without a model the set's own recorded answers are taken. Raises UserError before the first call to the model, and
    BudgetExceeded when a limit of yours was reached: what came until then is kept.
    """
    given = options or EvaluateOptions()
    _check(model, judges, given, attack)
    rates = select_rate_limits(
        model, given, attacked=attack is not None or is_attacked_dataset(dataset)
    )
    manifest = _manifest(model, dataset, attack, given)
    with _open(out, manifest) as writer:
        known = {record.file for record in writer.record.judges}
        wanted = [judgement_file(j.name, j.lineage.hash) for j in judges]
        done = writer.record.complete and "judging" not in writer.record.notes
        if done and known.issuperset(wanted) and not given.retry_failures:
            return Run(out)
        try:
            _ingest(
                writer,
                dataset,
                given,
                model is None,
                "samples.jsonl" if attack is None else "parents.jsonl",
            )
        except BaseException:
            if writer.fresh:
                writer.discard()
            raise
        writer.record.complete = False
        _note_authority(writer, given, rates)
        _note_judges(writer, judges, writer.record.lineage)
        engine = Scheduler(writer, given, judges, model=model, attack=attack)
        run_coroutine(_run(engine, given.concurrency, rates))
    return Run(out)


def is_attacked_dataset(dataset: Dataset) -> bool:
    """Whether the prompts of a set are attacks already (`attacked:...`)."""
    return dataset.info.spec.startswith("attacked:")


def select_rate_limits(
    model: Model | None, options: EvaluateOptions, *, attacked: bool
) -> dict[str, float]:
    """The rates to which endpoints are held; PlanError for an attack on another machine that nobody answers for."""
    if model is None or (not attacked and options.rate is None):
        return {}
    if options.rate is not None and not options.rate > 0:
        raise PlanError(f"rate: {options.rate:g} is no rate; give requests a second, above 0")
    from truing.http.client import find_endpoints

    endpoints = find_endpoints(model)
    remote = [e for e in endpoints if e.remote]
    if attacked and remote and not options.authorised.strip():
        hosts = ", ".join(sorted({str(e.url.host) for e in remote}))
        raise PlanError(
            f"{model.name} answers at {hosts}, which is not this machine: an attack on it needs --authorised "
            "WHO (who allowed it; the manifest keeps it)"
        )
    rate = options.rate if options.rate is not None else ATTACK_RATE
    return {e.scope: rate for e in (endpoints if options.rate is not None else remote)}


def _note_authority(writer: RunWriter, options: EvaluateOptions, rates: dict[str, float]) -> None:
    notes, who = writer.record.notes, options.authorised.strip()
    if who and who not in notes.get("authorised", "").split("; "):
        notes["authorised"] = "; ".join(filter(None, (notes.get("authorised"), who)))
    if rates:
        notes["rate"] = f"at most {next(iter(rates.values())):g} requests a second"


def judge_run(
    run: Run | str | Path,
    judges: Judge | Sequence[Judge],
    *,
    options: EvaluateOptions | None = None,
) -> Run:
    """Adds judges to a run without a call to its model; the same call again goes on where it stopped."""
    found = run if isinstance(run, Run) else Run(run)
    listed = list(judges) if isinstance(judges, Sequence) else [judges]
    given = msgspec.structs.replace(options or EvaluateOptions(), until=None, retry_failures=False)
    with _open(found.path, found.manifest) as writer:
        if (
            not (found.path / "samples.jsonl").exists()
            or not (found.path / "responses.jsonl").exists()
        ):
            raise RunError(f"{found.path}: there are no answers to judge yet")
        writer.record.notes["judging"] = "not finished"
        _note_judges(writer, listed, writer.record.lineage)
        engine = Scheduler(writer, given, listed)
        engine.completes = writer.record.complete
        run_coroutine(_run(engine, given.concurrency, {}))
    return Run(found.path)


@contextmanager
def _open(out: str | Path, manifest: Manifest) -> Iterator[RunWriter]:
    writer = RunWriter(out, manifest)
    try:
        yield writer
    finally:
        writer.close()


async def _run(engine: Scheduler, concurrency: int, rates: dict[str, float]) -> None:
    INITIAL_CONCURRENCY.set(concurrency)
    RATE_LIMITS.set(rates)
    try:
        await engine.run()
    finally:
        await close_connections()


def run_coroutine(work: Coroutine[Any, Any, T]) -> T:
    """Runs to the end and gives the result, also where an event loop runs already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    made: list[T] = []
    caught: list[BaseException] = []

    def inside() -> None:
        try:
            made.append(asyncio.run(work))
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=inside, name="truing-evaluate")
    thread.start()
    thread.join()
    if caught:
        raise caught[0]
    return made[0]


def _check(
    model: Model | None, judges: Sequence[Judge], options: EvaluateOptions, attack: Attack | None
) -> None:
    faults = [
        f"{name}: {value} is less than 1"
        for name, value in (
            ("n", options.sampling.n),
            ("concurrency", options.concurrency),
            ("limit", options.limit),
            ("max_tokens", options.sampling.max_tokens),
        )
        if value is not None and value < 1
    ]
    files = [judgement_file(j.name, j.lineage.hash) for j in judges]
    doubled = {f for f in files if files.count(f) > 1}
    faults += [
        f"the judge {j.name} is given more than once" for j, f in zip(judges, files) if f in doubled
    ][:1]
    if model is None and attack is not None:
        faults.append("an attack needs a model to attack")
    if options.until is not None and all(j.question != options.until.question for j in judges):
        faults.append(
            f"until asks about {options.until.question!r}, and no judge of this run answers that"
        )
    if faults:
        raise PlanError(*faults)


def _manifest(
    model: Model | None, dataset: Dataset, attack: Attack | None, options: EvaluateOptions
) -> Manifest:
    info, sampling = dataset.info, options.sampling
    lineage = model.lineage if model is not None else Lineage(name=RECORDED)
    steering: Lineage = getattr(attack, "lineage", Lineage())
    if steering.judges:  # the judge that steers a search never decides its success
        lineage = msgspec.structs.replace(lineage, judges=(*lineage.judges, *steering.judges))
    plan: dict[str, Any] = {
        "model": model.name if model is not None else RECORDED,
        "model_hash": lineage.hash,
        "data": info.spec,
        "data_sha256": dataset.sha256(),
        "attack": attack.name if attack is not None else None,
        "n": sampling.n,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop": list(sampling.stop),
        "logprobs": sampling.logprobs,
        "tools": [tool.name for tool in sampling.tools],
        "seed": options.seed,
        "limit": options.limit,
        "until": str(options.until) if options.until is not None else None,
    }
    versions = {
        "truing": __version__,
        "python": platform.python_version(),
        "msgspec": msgspec.__version__,
    }
    for name in ("torch", "transformers", "aiohttp", "vllm"):
        if name in sys.modules:
            versions[name] = str(getattr(sys.modules[name], "__version__", ""))
    hashed = digest(msgspec.json.encode(plan, order="deterministic"))
    return Manifest(
        plan={**plan, "given": options.plan} if options.plan else plan,
        plan_hash=hashed,
        model=str(plan["model"]),
        lineage=lineage,
        taxonomy=options.taxonomy,
        seed=options.seed,
        data=[
            DataRecord(
                spec=info.spec,
                source=info.source,
                licence=info.licence,
                sha256=str(plan["data_sha256"]),
            )
        ],
        weights={lineage.base: lineage.base_sha256} if lineage.base_sha256 else {},
        versions=versions,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _note_judges(writer: RunWriter, judges: Sequence[Judge], variant: Lineage) -> None:
    known = {record.file for record in writer.record.judges}
    for judge in judges:
        file = judgement_file(judge.name, judge.lineage.hash)
        if file not in known:
            record = JudgeRecord(
                name=judge.name,
                question=judge.question,
                file=file,
                lineage=judge.lineage,
                struck=find_judge_conflict(judge.lineage, variant),
            )
            writer.record.judges.append(record)
    writer.save()


class _People:
    """Judgements by people that came with a data set: one file for each judge and question."""

    def __init__(self, writer: RunWriter) -> None:
        self.writer = writer
        self.records: dict[str, JudgeRecord] = {}
        self.pending: dict[str, bytearray] = {}

    def add(self, judgement: Judgement) -> None:
        """Keeps a judgement, and writes a chunk when there is one."""
        lineage = Lineage(
            name=judgement.judge, hash=digest("people", judgement.judge, judgement.question)
        )
        file = judgement_file(judgement.judge, lineage.hash)
        if file not in self.records:
            self.records[file] = JudgeRecord(
                name=judgement.judge, question=judgement.question, file=file, lineage=lineage
            )
            (self.writer.path / f"{file}.part").unlink(missing_ok=True)
        chunk = self.pending.setdefault(file, bytearray())
        chunk += encode_line(judgement)
        if len(chunk) > _CHUNK:
            self.writer.open_file(f"{file}.part").append(chunk)
            self.pending[file] = bytearray()

    def finish(self) -> None:
        """Writes what is left and gives the files their names."""
        for file, chunk in self.pending.items():
            self.writer.open_file(f"{file}.part").append(chunk)
            self.writer.rename(f"{file}.part", file)
        known = {record.file for record in self.writer.record.judges}
        self.writer.record.judges += [r for f, r in self.records.items() if f not in known]


def _ingest(
    writer: RunWriter, dataset: Dataset, options: EvaluateOptions, recorded: bool, file: str
) -> None:
    """Reads the whole set into the folder: a wrong row is found before the first call to a model.

    Files are written under another name and renamed when they are whole, the samples last: where they stand, the set
    has been read. A crash before that costs no answer, and the set is read again.
    """
    if (writer.path / file).exists():
        return
    parts = (f"{file}.part", "responses.jsonl.part")
    for part in parts:
        (writer.path / part).unlink(missing_ok=True)
    samples, answers, people = bytearray(), bytearray(), _People(writer)
    ids, faults, answered, models = IdIndex(), [], 0, set[str]()
    for number, row in enumerate(islice(dataset.rows(), options.limit)):
        sample = row.sample
        if not sample.id or not ids.add(sample.id, number):
            faults.append(
                f"{dataset.info.spec}: row {number + 1}: the id {sample.id!r} "
                + ("stands more than once" if sample.id else "is missing")
            )
            if len(faults) >= 20:
                break
        samples += encode_line(sample)
        if len(samples) > _CHUNK:
            writer.open_file(parts[0]).append(samples)
            samples = bytearray()
        if recorded:
            for response in row.responses:
                answers += encode_line(output_filter.filter_response(response))
                answered += 1
                models.add(response.model)
            for judgement in row.judgements:
                people.add(judgement)
            if len(answers) > _CHUNK:
                writer.open_file(parts[1]).append(answers)
                answers = bytearray()
    if faults:
        raise DataError(*faults)
    if len(ids) == 0:
        raise DataError(f"{dataset.info.spec}: no rows")
    if recorded and not answered:
        raise DataError(f"{dataset.info.spec}: has no recorded answers; give a model that answers")
    if recorded:
        writer.open_file(parts[1]).append(answers)
        writer.rename(parts[1], "responses.jsonl")
        people.finish()
        if len(models) == 1:  # the set says which model answered
            writer.record.model = models.pop()
    writer.open_file(parts[0]).append(samples)
    writer.record.data[0] = msgspec.structs.replace(
        writer.record.data[0], n=len(ids), skipped=int(getattr(dataset, "skipped", 0))
    )
    writer.save()
    writer.rename(parts[0], file)
