"""Pairs two runs: the samples that both contain, in one order, and the judges that both had.

Runs are paired by sample id. If an attack made the prompts of a run, they are paired by the id of
the sample before the attack. Samples of one run only are left out and counted; so are ids that
stand for different prompts in the two runs.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from truing.analysis.verdict_table import VerdictColumn, VerdictTable, read_verdict_table
from truing.core.errors import RunError
from truing.runs.folder import Run
from truing.runs.parts import read_run_records


class RunPair(Struct, frozen=True, kw_only=True):
    """Two runs over their shared samples.

    Attributes:
        a, b: the tables of both runs, reduced to the shared samples in the same order, with the
            judges that both had in the same version.
        keys: the id by which each sample was paired.
        positions_a, positions_b: where each shared sample is in the whole run.
        only_a, only_b: ids that were left out.
        notes: what was left out and why, for reports.
    """

    a: VerdictTable
    b: VerdictTable
    keys: tuple[str, ...]
    positions_a: tuple[int, ...]
    positions_b: tuple[int, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    notes: tuple[str, ...]


class _Sample(Struct, frozen=True):
    id: str
    conversation: msgspec.Raw
    parent: str | None = None


def pair_runs(run_a: Run | str | Path, run_b: Run | str | Path) -> RunPair:
    """Pairs two runs. Raises RunError if they share no sample."""
    a, b = read_verdict_table(run_a, ids=True), read_verdict_table(run_b, ids=True)
    attacked = bool(a.manifest.plan.get("attack") or b.manifest.plan.get("attack"))
    positions_a = _positions_by_key(a, by_parent=attacked)
    positions_b = _positions_by_key(b, by_parent=attacked)
    shared = [key for key in positions_a if key in positions_b]
    if not shared:
        raise RunError(
            f"{a.path} and {b.path} share no sample: they were run on different data, "
            "and cannot be paired"
        )
    notes = []
    if attacked:
        notes.append(
            "an attack made each run's prompts: answers are paired by the sample before the attack"
        )
    elif not _same_data(a, b):
        equal = _with_equal_prompts(a, b, shared, positions_a, positions_b)
        if len(equal) < len(shared):
            notes.append(
                f"{len(shared) - len(equal)} ids stand for different prompts in the two runs "
                "and are left out"
            )
        shared = equal

    shared_keys = set(shared)
    only_a = tuple(key for key in positions_a if key not in shared_keys)
    only_b = tuple(key for key in positions_b if key not in shared_keys)
    for path, left_out in ((a.path, only_a), (b.path, only_b)):
        if left_out:
            examples = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
            notes.append(
                f"{len(left_out)} samples are in {path} only and are left out ({examples})"
            )
    notes += _keep_shared_judges(a, b)

    shared_a = tuple(positions_a[key] for key in shared)
    shared_b = tuple(positions_b[key] for key in shared)
    reduced_a, reduced_b = _select_positions(a, shared_a), _select_positions(b, shared_b)
    # Categories, expectations and prompts of the baseline hold for both: the sets may be numbered
    # differently in the two runs, and cells have to hold the same samples.
    reduced_b.category_sets = reduced_a.category_sets
    reduced_b.category_ids = reduced_a.category_ids
    reduced_b.pair_category_ids = reduced_a.pair_category_ids
    reduced_b.expect_ids = reduced_a.expect_ids
    reduced_b.prompt_ids, reduced_b.attacked = reduced_a.prompt_ids, reduced_a.attacked
    return RunPair(
        a=reduced_a,
        b=reduced_b,
        keys=tuple(shared),
        positions_a=shared_a,
        positions_b=shared_b,
        only_a=only_a,
        only_b=only_b,
        notes=tuple(notes),
    )


def _positions_by_key(table: VerdictTable, *, by_parent: bool) -> dict[str, int]:
    """Returns pairing key -> position; keys that several samples share are left out."""
    keys: Iterable[str] = table.ids or ()
    if by_parent:
        samples = read_run_records(table.path, "samples.jsonl", _Sample)
        keys = (sample.parent or sample.id for sample in samples)
    positions: dict[str, int] = {}
    ambiguous: set[str] = set()
    for position, key in enumerate(keys):
        if key in positions:
            ambiguous.add(key)
        positions[key] = position
    return {key: position for key, position in positions.items() if key not in ambiguous}


def _same_data(a: VerdictTable, b: VerdictTable) -> bool:
    """Returns whether the manifests prove that both runs used the same data."""
    hashes_a = [data.sha256 for data in a.manifest.data]
    hashes_b = [data.sha256 for data in b.manifest.data]
    return hashes_a == hashes_b and bool(hashes_a) and all(hashes_a)


def _with_equal_prompts(
    a: VerdictTable,
    b: VerdictTable,
    shared: Sequence[str],
    positions_a: dict[str, int],
    positions_b: dict[str, int],
) -> list[str]:
    """Returns the shared ids whose prompts are equal. Raises RunError if none is."""
    prompts_a, prompts_b = _hash_prompts(a), _hash_prompts(b)
    equal = [k for k in shared if prompts_a[positions_a[k]] == prompts_b[positions_b[k]]]
    if not equal:
        raise RunError(
            f"{a.path} and {b.path}: the ids are the same, but every prompt differs; "
            "nothing to pair"
        )
    return equal


def _hash_prompts(table: VerdictTable) -> list[int]:
    samples = read_run_records(table.path, "samples.jsonl", _Sample)
    # hash() is salted for each process, but both runs are read in this one.
    return [hash(bytes(sample.conversation)) for sample in samples]


def _keep_shared_judges(a: VerdictTable, b: VerdictTable) -> list[str]:
    """Drops the columns that only one table has, or has in another version of the judge.

    A judge that is struck in one run is struck in both. Returns a note for each dropped column.
    """
    notes = []
    for key in [*a.columns, *(key for key in b.columns if key not in a.columns)]:
        name, question = key
        column_a, column_b = a.columns.get(key), b.columns.get(key)
        if column_a is None or column_b is None:
            path = b.path if column_a is None else a.path
            notes.append(f"{name} answered {question!r} in {path} only: not compared")
            continue
        hash_a, hash_b = column_a.record.lineage.hash, column_b.record.lineage.hash
        if hash_a != hash_b:
            notes.append(
                f"{name} is of another version in each run ({hash_a[:8]}, {hash_b[:8]}): "
                "not compared"
            )
            del a.columns[key], b.columns[key]
            continue
        # The variant's reason comes first: it is the one that the comparison is about.
        struck = b.struck_reason(column_b.record) or a.struck_reason(column_a.record)
        for column in (column_a, column_b):
            column.record = msgspec.structs.replace(column.record, struck=struck)
    a.columns = {key: column for key, column in a.columns.items() if key in b.columns}
    b.columns = {key: b.columns[key] for key in a.columns}  # also in the same order
    return notes


def _select_positions(table: VerdictTable, positions: Sequence[int]) -> VerdictTable:
    """Returns the table over some positions, in the order given."""
    unchanged = len(positions) == table.size and all(i == p for i, p in enumerate(positions))
    get_items = itemgetter(*positions)  # in C: many times faster than a comprehension

    def pick(values: Sequence[Any]) -> tuple[Any, ...]:
        # With a single index, an itemgetter returns the bare item.
        return get_items(values) if len(positions) > 1 else (get_items(values),)

    def select(codes: bytearray) -> bytearray:
        return codes if unchanged else bytearray(pick(codes))

    selected = VerdictTable(table.path, table.manifest)
    selected.relations = table.relations
    selected.category_sets = table.category_sets
    selected.category_ids = array("H", pick(table.category_ids))
    selected.pair_category_ids = array("H", pick(table.pair_category_ids))
    selected.expect_ids = select(table.expect_ids)
    selected.prompt_ids = array("I", pick(table.prompt_ids))
    selected.attacked = select(table.attacked)
    selected.response_states = [select(states) for states in table.response_states]
    for key, column in table.columns.items():
        reduced = VerdictColumn(column.record, column.question, len(positions))
        reduced.codes = [select(codes) for codes in column.codes]
        reduced.predicted_categories = {
            category: [select(marks) for marks in marks_by_index]
            for category, marks_by_index in column.predicted_categories.items()
        }
        if column.value_sums is not None and column.value_counts is not None:
            reduced.value_sums = array("d", pick(column.value_sums))
            reduced.value_counts = array("L", pick(column.value_counts))
        reduced.exceeds_unit_interval = column.exceeds_unit_interval
        selected.columns[key] = reduced
    return selected
