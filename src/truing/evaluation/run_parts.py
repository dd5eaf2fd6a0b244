"""Runs in parts, which several processes answer and judge: `truing.runs.parts` has the layout.

The driver writes the samples of a data set into parts, each a run folder of its own. A worker
evaluates one part as any other run: resumed after a crash, with its lock and its own failures. At
the end the driver says whether all are complete. Joined, the files of the parts are those that one
process writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import UNSET, Struct

from truing.core.batches import split_batches
from truing.core.errors import DataError, PlanError, RunError
from truing.core.prices import Price
from truing.core.private_files import replace_file
from truing.core.protocols import Attack, Dataset, Judge, Model
from truing.core.types import DataInfo, Preference, Row
from truing.evaluation.cost_bounds import Cost
from truing.evaluation.evaluate import (
    RECORDED,
    add_judge_records,
    check_arguments,
    create_manifest,
    is_attacked_dataset,
    note_authorisation,
    open_writer,
    select_rate_limits,
)
from truing.evaluation.failures import RESPONSES
from truing.evaluation.ingest import ingest_dataset, select_rows
from truing.evaluation.options import DEFAULT_PART_ROWS, EvaluateOptions
from truing.evaluation.row_sample import keep_stored_sample
from truing.evaluation.spending import add_spending, read_lost
from truing.runs.folder import Manifest, Run, RunWriter
from truing.runs.parts import PARTS_FILE, RunParts, list_run_parts, part_name, record_bytes


class PreparedParts(Struct, frozen=True):
    """The parts of a run, and the most requests a second to its endpoints, by scope."""

    parts: tuple[str, ...]
    rates: dict[str, float]


class PartDataset:
    """The data set of a run, as the process that evaluates a part knows it: without its rows, which
    are in the part already. The driver gives the rows of the part.
    """

    def __init__(self, info: DataInfo, sha256: str, rows: Sequence[Row] | None = None) -> None:
        self._info, self._sha256, self._rows = info, sha256, rows

    @property
    def info(self) -> DataInfo:
        """Spec, source, licence of the whole data set."""
        return self._info

    def sha256(self) -> str:
        """Returns the hash of the whole data set."""
        return self._sha256

    def rows(self) -> Iterator[Row]:
        """Yields the rows of the part; raises RunError where they should be in the part."""
        if self._rows is None:
            raise RunError(
                f"{self._info.spec}: the samples of a part are missing or damaged; delete the run "
                "and begin again"
            )
        return iter(self._rows)

    def preferences(self) -> Iterator[Preference]:
        """Yields nothing."""
        return iter(())


def prepare_parts(
    model: Model | None,
    dataset: Dataset,
    judges: Sequence[Judge],
    out: Path,
    *,
    attack: Attack | None = None,
    options: EvaluateOptions,
    part_rows: int = DEFAULT_PART_ROWS,
) -> PreparedParts:
    """Writes the samples of a data set into parts of `part_rows`, unless they are there already.

    Raises UserError before the first call to the model, as `evaluate` does; PlanError also for an
    early stop, which needs the answers in one order.
    """
    options = keep_stored_sample(options, out)
    check_arguments(model, judges, options, attack)
    if faults := _find_part_faults(options, part_rows):
        raise PlanError(*faults)
    attacked = attack is not None or is_attacked_dataset(dataset)
    rates = select_rate_limits(model, options, attacked=attacked)
    manifest = create_manifest(model, dataset, attack, options)
    with open_writer(out, manifest, sharded=True) as writer:
        part_names = list_run_parts(out)
        if part_names is None:
            try:
                file = "samples.jsonl" if attack is None else "parents.jsonl"
                part_names = _write_parts(writer, dataset, options, file, part_rows)
            except BaseException:
                shutil.rmtree(out / "parts", ignore_errors=True)
                if writer.is_new:
                    writer.discard()
                raise
        writer.manifest.complete = False
        note_authorisation(writer, options, rates)
        add_judge_records(writer, judges)
    return PreparedParts(part_names, rates)


def _find_part_faults(options: EvaluateOptions, part_rows: int) -> list[str]:
    """Returns what a run in parts cannot do, of what its options ask."""
    faults = []
    if part_rows < 1:
        faults.append(f"--shard-rows {part_rows}: give 1 or more prompts for each part")
    if options.until is not None:
        faults.append("--until needs one process; leave --on out")
    return faults


def _write_parts(
    writer: RunWriter, dataset: Dataset, options: EvaluateOptions, file: str, part_rows: int
) -> tuple[str, ...]:
    """Writes all parts, then the file that names them; what an earlier attempt left is deleted."""
    shutil.rmtree(writer.path / "parts", ignore_errors=True)
    recorded = writer.manifest.model == RECORDED
    rows = select_rows(writer, dataset, options.limit, random=options.sample == "random")
    sha256 = dataset.sha256()
    part_names: list[str] = []
    n_rows = n_bytes = 0
    for chunk in split_batches(rows, part_rows):
        name = part_name(len(part_names))
        folder = writer.path / "parts" / name
        part = PartDataset(dataset.info, sha256, chunk)
        with open_writer(folder, _copy_manifest(writer.manifest)) as of_part:
            ingest_dataset(of_part, part, file, limit=None, recorded=recorded, is_part=True)
        part_names.append(name)
        n_rows += len(chunk)
        n_bytes += record_bytes(folder, RESPONSES)
    if not part_names:
        raise DataError(f"{dataset.info.spec}: no rows")
    if recorded and not n_bytes:
        raise DataError(f"{dataset.info.spec}: has no recorded answers; give a model that answers")
    manifest = writer.manifest
    manifest.data[0] = msgspec.structs.replace(
        manifest.data[0], n=n_rows, skipped=int(getattr(dataset, "skipped", 0))
    )
    if recorded:
        _merge_recorded(writer, part_names)
    writer.save_manifest()
    # Last: from here on the data set is not read again.
    encoded = msgspec.json.encode(RunParts(parts=tuple(part_names)))
    replace_file(writer.path / PARTS_FILE, encoded + b"\n")
    return tuple(part_names)


def _copy_manifest(manifest: Manifest) -> Manifest:
    """Returns a manifest that may be changed without the other."""
    copied = msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)
    copied.notes = {}
    return copied


def _merge_recorded(writer: RunWriter, parts: Sequence[str]) -> None:
    """Takes the people's judgements, and the model of the answers, of the parts into the run."""
    manifest = writer.manifest
    manifests = [Run(writer.path / "parts" / part).manifest for part in parts]
    known = {record.file for record in manifest.judges}
    for of_part in manifests:
        manifest.judges += [record for record in of_part.judges if record.file not in known]
        known |= {record.file for record in of_part.judges}
    models = {of_part.model for of_part in manifests}
    if len(models) == 1:
        manifest.model = models.pop()


def finish_parts(out: Path, *, budget_note: str | None = None, price: Price | None = None) -> Run:
    """Notes in the run whether all parts are complete, what was damaged, and what the answers cost;
    returns the run.

    `budget_note` says how a budget stopped it ("" if none did); None leaves an earlier note.
    """
    with open_writer(out, Run(out).manifest, sharded=True) as writer:
        manifest = writer.manifest
        manifest.notes.pop("judging", None)
        if budget_note is not None:
            manifest.notes.pop("budget", None)
        if budget_note:
            manifest.notes["budget"] = budget_note
        manifest.complete, has_costs = True, bool(budget_note)
        for part, of_part in _read_part_manifests(out):
            has_costs = has_costs or of_part.spending is not UNSET
            manifest.complete = manifest.complete and of_part.complete
            if "damaged" in of_part.notes:
                manifest.notes["damaged"] = f"{part}: {of_part.notes['damaged']}"
        if has_costs:
            _sum_spending(writer, price, read_lost(manifest))
        writer.save_manifest()
    return Run(out)


def save_lost(out: Path, price: Price | None, lost: Cost) -> None:
    """Writes into a run in parts what counts as spent for requests whose answers were lost.

    Done while the work goes on, so that a call that continues it counts them too.
    """
    if read_lost(Run(out).manifest) == lost:
        return
    with open_writer(out, Run(out).manifest, sharded=True) as writer:
        _sum_spending(writer, price, lost)
        writer.save_manifest()


def _read_part_manifests(out: Path) -> Iterator[tuple[str, Manifest]]:
    for part in list_run_parts(out) or ():
        yield part, Run(out / "parts" / part).manifest


def _sum_spending(writer: RunWriter, price: Price | None, lost: Cost) -> None:
    """Writes what the parts have cost into the manifest, which is not saved."""
    stated = [of_part.spending for _, of_part in _read_part_manifests(writer.path)]
    spendings = [spending for spending in stated if spending is not UNSET]
    if price is None:  # that of the call that drew the answers
        price = next((s.price for s in spendings if s.price is not None), None)
    writer.manifest.spending = add_spending(spendings, price, lost)


def prepare_judging(out: Path, judges: Sequence[Judge]) -> tuple[str, ...]:
    """Adds judges to a sharded run, whose parts are then judged; returns the parts with answers.

    A run that was stopped has parts without any. Raises RunError for a run in the layout of one
    process, and for one that holds no answer.
    """
    parts = list_run_parts(out)
    if parts is None:
        raise RunError(f"{out}: is a run of one process; judge it without --on")
    answered = tuple(part for part in parts if record_bytes(out / "parts" / part, RESPONSES) > 0)
    if not answered:
        raise RunError(f"{out}: there are no answers to judge yet")
    with open_writer(out, Run(out).manifest, sharded=True) as writer:
        writer.manifest.notes["judging"] = "not finished"
        add_judge_records(writer, judges)
    return answered
