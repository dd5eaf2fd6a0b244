"""Evaluates a model: data set -> (attack) -> model -> judges -> run folder.

    run = evaluate(model, dataset, [judge], "runs/base", options=EvaluateOptions(concurrency=32))
    judge_run(run, another_judge)            # without calls to the model

The same call continues an interrupted run, and repeats what failed for a reason that may have
passed (an endpoint that was down); a folder with another plan is refused. Errors in the
input are found before the first call to the model: the whole data set is read first.
"""

from __future__ import annotations

import asyncio
import datetime
import platform
import sys
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from truing.core.errors import BudgetExceeded, PlanError, RunError
from truing.core.flagged_categories import category_thresholds
from truing.core.lineage import digest, find_judge_conflict
from truing.core.model_parts import iterate_parts
from truing.core.protocols import Attack, Dataset, Judge, Model
from truing.core.types import MAX_ANSWERS, Lineage
from truing.core.version import __version__
from truing.evaluation.ingest import ingest_dataset
from truing.evaluation.options import EvaluateOptions
from truing.evaluation.row_sample import keep_stored_sample
from truing.evaluation.scheduler import Scheduler
from truing.evaluation.shared_account import PartPass
from truing.http.limits import INITIAL_CONCURRENCY, RATE_LIMITS, close_connections
from truing.runs.folder import DataRecord, JudgeRecord, Manifest, Run, RunWriter, judgement_file

T = TypeVar("T")

RECORDED = "recorded"
"""The model's name in a run on the answers that are part of a data set."""

ATTACK_RATE = 5.0
"""Requests per second to an endpoint on another machine in an attack, if no rate is given."""


def evaluate(
    model: Model | None,
    dataset: Dataset,
    judges: Sequence[Judge],
    out: str | Path,
    *,
    attack: Attack | None = None,
    options: EvaluateOptions | None = None,
) -> Run:
    """Generates and judges a model's answers to a data set; returns the run folder.

    Without a model the data set's recorded answers are judged. Raises UserError before the first
    call to the model, and BudgetExceeded if a limit is reached; the answers until then stay in the
    folder.
    """
    evaluate_part(model, dataset, judges, out, attack=attack, options=options)
    return Run(out)


def evaluate_part(
    model: Model | None,
    dataset: Dataset,
    judges: Sequence[Judge],
    out: str | Path,
    *,
    attack: Attack | None = None,
    options: EvaluateOptions | None = None,
    part_pass: PartPass | None = None,
) -> list[int]:
    """Evaluates like `evaluate`, and returns the positions of the samples without an answer.

    A `part_pass` asks only its samples, of a part of a run with a shared budget.
    """
    options = keep_stored_sample(options or EvaluateOptions(), Path(out))
    check_arguments(model, judges, options, attack)
    attacked = attack is not None or is_attacked_dataset(dataset)
    rates = select_rate_limits(model, options, attacked=attacked)
    with open_writer(out, create_manifest(model, dataset, attack, options)) as writer:
        try:
            # Reads the data set to its end, so that a wrong row costs no call to the model.
            ingest_dataset(
                writer,
                dataset,
                "samples.jsonl" if attack is None else "parents.jsonl",
                limit=options.limit,
                recorded=model is None,
                random=options.sample == "random",
            )
        except BaseException:
            if writer.is_new:
                writer.discard()
            raise
        # Until the scheduler has finished: new judges, or repeated failures, reopen a complete run.
        writer.manifest.complete = False
        note_authorisation(writer, options, rates)
        add_judge_records(writer, judges)
        scheduler = Scheduler(
            writer, options, judges, model=model, attack=attack, part_pass=part_pass
        )
        run_coroutine(_run_scheduler(scheduler, options.concurrency, rates))
        unanswered = scheduler.unanswered()
        if part_pass is not None:
            writer.manifest.complete = not unanswered
            writer.save_manifest()
        return unanswered


def judge_run(
    run: Run | str | Path,
    judges: Judge | Sequence[Judge],
    *,
    options: EvaluateOptions | None = None,
) -> Run:
    """Adds judges to a run without calls to its model; the same call continues if interrupted."""
    run = run if isinstance(run, Run) else Run(run)
    judges = list(judges) if isinstance(judges, Sequence) else [judges]
    options = msgspec.structs.replace(options or EvaluateOptions(), until=None)
    if faults := _real_tools_faults(options, judges):
        raise PlanError(*faults)
    with open_writer(run.path, run.manifest) as writer:
        if not all(run.file(f).exists() for f in ("samples.jsonl", "responses.jsonl")):
            raise RunError(f"{run.path}: there are no answers to judge yet")
        writer.manifest.notes["judging"] = "not finished"
        add_judge_records(writer, judges)
        scheduler = Scheduler(writer, options, judges)
        # New judgements do not make an interrupted run complete.
        scheduler.marks_complete = writer.manifest.complete
        run_coroutine(_run_scheduler(scheduler, options.concurrency, {}))
    return Run(run.path)


@contextmanager
def open_writer(
    out: str | Path, manifest: Manifest, *, sharded: bool = False
) -> Iterator[RunWriter]:
    """Yields the writer of a run folder, and closes it."""
    writer = RunWriter(out, manifest, sharded=sharded)
    try:
        yield writer
    finally:
        writer.close()


async def _run_scheduler(scheduler: Scheduler, concurrency: int, rates: dict[str, float]) -> None:
    INITIAL_CONCURRENCY.set(concurrency)
    RATE_LIMITS.set(rates)
    try:
        try:
            await scheduler.run()
        except Exception:
            # A shared account has to know all costs now too; if it is gone, that is not the fault.
            with suppress(BudgetExceeded):
                await scheduler.meter.close()
            raise
        await scheduler.meter.close()
    finally:
        await close_connections()


def run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end, also where an event loop is already running (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    # A running loop cannot be entered again, so the coroutine gets a loop in another thread.
    results: list[T] = []
    errors: list[BaseException] = []

    def run_in_thread() -> None:
        try:
            results.append(asyncio.run(coroutine))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run_in_thread, name="truing-evaluate")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


# -- attacks: who may attack what, and how fast


def is_attacked_dataset(dataset: Dataset) -> bool:
    """Whether the prompts of a data set are attacks already (`attacked:...`)."""
    return dataset.info.spec.startswith("attacked:")


def select_rate_limits(
    model: Model | None, options: EvaluateOptions, *, attacked: bool
) -> dict[str, float]:
    """Returns the maximum requests per second for the model's endpoints, by scope.

    Raises PlanError for an attack on another machine without `authorised`.
    """
    if model is None or (not attacked and options.rate is None):
        return {}
    if options.rate is not None and not options.rate > 0:
        raise PlanError(f"rate: {options.rate:g} is no rate; give requests a second, above 0")
    # Imports aiohttp, which a run without HTTP does not need.
    from truing.http.client import find_endpoints

    endpoints = find_endpoints(model)
    remote = [e for e in endpoints if e.remote]
    if attacked and remote and not options.authorised.strip():
        hosts = ", ".join(sorted({str(e.url.host) for e in remote}))
        raise PlanError(
            f"{model.name} answers at {hosts}, which is not this machine: an attack on it needs "
            "--authorised WHO (who allowed it; the manifest keeps it)"
        )
    if options.rate is not None:
        return {e.scope: options.rate for e in endpoints}
    return {e.scope: ATTACK_RATE for e in remote}


def find_real_tools(*wholes: object) -> str:
    """Returns the name of an agent's tools that act outside of a simulated world, wherever the
    agent stands inside of models, judges and attacks; "" if there are none.
    """
    for part in iterate_parts(wholes):
        real_tools = getattr(part, "real_tools", "")
        if isinstance(real_tools, str) and real_tools:
            return real_tools
    return ""


def _real_tools_faults(options: EvaluateOptions, *wholes: object) -> list[str]:
    """Returns the fault of real tools that nobody has allowed, if there is one."""
    real_tools = "" if options.authorised.strip() else find_real_tools(*wholes)
    if not real_tools:
        return []
    return [
        f"{real_tools} are real tools: a run needs --authorised WHO, in a plan `authorised` "
        "under [run] (who allowed that the model acts with them; the manifest keeps it)"
    ]


def note_authorisation(
    writer: RunWriter, options: EvaluateOptions, rates: dict[str, float]
) -> None:
    """Notes who allowed an attack, and the rate limit, in the manifest, which is not saved."""
    notes, authorised = writer.manifest.notes, options.authorised.strip()
    earlier = notes.get("authorised", "")
    if authorised and authorised not in earlier.split("; "):
        notes["authorised"] = "; ".join(filter(None, (earlier, authorised)))
    if rates:
        notes["rate"] = f"at most {next(iter(rates.values())):g} requests a second"


# -- arguments and manifest


def check_arguments(
    model: Model | None, judges: Sequence[Judge], options: EvaluateOptions, attack: Attack | None
) -> None:
    """Raises PlanError with all faults of the arguments."""
    at_least_one = {
        "n": options.sampling.n,
        "concurrency": options.concurrency,
        "limit": options.limit,
        "max_tokens": options.sampling.max_tokens,
    }
    faults = [
        f"{name}: {value} is less than 1"
        for name, value in at_least_one.items()
        if value is not None and value < 1
    ]
    faults += options.budget.find_faults(options.price)
    if options.sample not in ("random", "first"):
        faults.append(f"sample: {options.sample!r} is neither 'random' nor 'first'")
    if options.sampling.n > MAX_ANSWERS:
        faults.append(f"n: {options.sampling.n} is more than {MAX_ANSWERS:,} answers to a sample")
    files = [judgement_file(j.name, j.lineage.hash) for j in judges]
    duplicates = [j.name for j, file in zip(judges, files) if files.count(file) > 1]
    if duplicates:
        faults.append(f"the judge {duplicates[0]} is given more than once")
    if model is None and attack is not None:
        faults.append("an attack needs a model to attack")
    faults += _real_tools_faults(options, model, list(judges), attack)
    if options.until is not None and all(j.question != options.until.question for j in judges):
        faults.append(
            f"until asks about {options.until.question!r}, and no judge of this run answers that"
        )
    if faults:
        raise PlanError(*faults)


def create_manifest(
    model: Model | None, dataset: Dataset, attack: Attack | None, options: EvaluateOptions
) -> Manifest:
    """Returns the manifest of a new run; its `plan_hash` decides whether a folder is continued."""
    dataset_info, sampling = dataset.info, options.sampling
    if model is not None:
        lineage = model.lineage
    else:
        # The answers of a finished run come with the judges that chose or blocked them.
        lineage = Lineage(name=RECORDED, judges=tuple(getattr(dataset, "judges", ())))
    attack_lineage: Lineage = getattr(attack, "lineage", Lineage())
    if attack_lineage.judges:
        # The judge that guides a search must not decide whether the attack succeeded.
        lineage = msgspec.structs.replace(lineage, judges=(*lineage.judges, *attack_lineage.judges))
    # The hash over these settings decides whether a folder may be continued: keys and order are
    # fixed.
    plan: dict[str, Any] = {
        "model": model.name if model is not None else RECORDED,
        "model_hash": lineage.hash,
        "data": dataset_info.spec,
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
    if options.limit is not None and options.sample != "first":
        plan["sample"] = options.sample  # not in the plans of runs that hold the first rows
    data_record = DataRecord(
        spec=dataset_info.spec,
        source=dataset_info.source,
        licence=dataset_info.licence,
        sha256=str(plan["data_sha256"]),
    )
    return Manifest(
        plan={**plan, "given": options.plan} if options.plan else plan,
        plan_hash=digest(msgspec.json.encode(plan, order="deterministic")),
        model=str(plan["model"]),
        lineage=lineage,
        taxonomy=options.taxonomy,
        seed=options.seed,
        data=[data_record],
        weights={lineage.base: lineage.base_sha256} if lineage.base_sha256 else {},
        versions=_collect_versions(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _collect_versions() -> dict[str, str]:
    """Returns the versions of Python, truing and those of its libraries that are in use."""
    versions = {
        "truing": __version__,
        "python": platform.python_version(),
        "msgspec": msgspec.__version__,
    }
    for name in ("torch", "transformers", "aiohttp", "vllm"):
        if name in sys.modules:
            versions[name] = str(getattr(sys.modules[name], "__version__", ""))
    return versions


def add_judge_records(writer: RunWriter, judges: Sequence[Judge]) -> None:
    """Adds the judges to the manifest, with the reason if one must not measure this model."""
    manifest = writer.manifest
    known = {record.file for record in manifest.judges}
    for judge in judges:
        file = judgement_file(judge.name, judge.lineage.hash)
        if file in known:
            continue
        record = JudgeRecord(
            name=judge.name,
            question=judge.question,
            file=file,
            lineage=judge.lineage,
            struck=find_judge_conflict(judge.lineage, manifest.lineage),
            category_thresholds=category_thresholds(judge) or msgspec.UNSET,
        )
        manifest.judges.append(record)
    writer.save_manifest()
