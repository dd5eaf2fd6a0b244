"""Two runs side by side: the samples that both asked, in one order, and the judges that both had.

Runs are paired by sample id; where an attack made each run's prompts its own, by the sample before the attack. What
stands in one run alone is left out and counted; so are ids that stand for different prompts.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from operator import itemgetter
from pathlib import Path

import msgspec
from msgspec import Struct

from truing.analysis.verdict_table import VerdictColumn, VerdictTable, read_verdict_table
from truing.core.errors import RunError
from truing.core.jsonl import read_records
from truing.runs.folder import Run


class RunPair(Struct, frozen=True, kw_only=True):
    """Both runs over the shared samples, position by position; `only_a` and `only_b` are the ids left out."""

    a: VerdictTable
    b: VerdictTable
    keys: tuple[str, ...]
    positions_a: tuple[int, ...]
    positions_b: tuple[int, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    notes: tuple[str, ...]


class _Asked(Struct, frozen=True):
    id: str
    conversation: msgspec.Raw
    parent: str | None = None


def _keys(columns: VerdictTable, *, parents: bool) -> dict[str, int]:
    """Key of pairing -> position; a parent that several samples share names none of them."""
    out: dict[str, int] = {}
    doubled: set[str] = set()
    names: Iterable[str] = columns.ids or ()
    if parents:
        names = (
            sample.parent or sample.id
            for sample in read_records(columns.path / "samples.jsonl", _Asked)
        )
    for at, key in enumerate(names):
        if key in out:
            doubled.add(key)
        out[key] = at
    return {k: at for k, at in out.items() if k not in doubled}


def _prompts(columns: VerdictTable) -> list[int]:
    return [
        hash(bytes(s.conversation)) for s in read_records(columns.path / "samples.jsonl", _Asked)
    ]


def pair_runs(run_a: Run | str | Path, run_b: Run | str | Path) -> RunPair:
    """Pairs two runs; RunError if they share no sample."""
    a, b = read_verdict_table(run_a, ids=True), read_verdict_table(run_b, ids=True)
    attacked = bool(a.manifest.plan.get("attack") or b.manifest.plan.get("attack"))
    keys_a, keys_b = _keys(a, parents=attacked), _keys(b, parents=attacked)
    shared = [k for k in keys_a if k in keys_b]
    if not shared:
        raise RunError(
            f"{a.path} and {b.path} share no sample: they were run on different data, and cannot be paired"
        )
    notes = []
    hashes = [[d.sha256 for d in c.manifest.data] for c in (a, b)]
    same_data = hashes[0] == hashes[1] and bool(hashes[0]) and all(hashes[0])
    if not attacked and not same_data:
        asked_a, asked_b = _prompts(a), _prompts(b)
        same = [k for k in shared if asked_a[keys_a[k]] == asked_b[keys_b[k]]]
        if len(same) < len(shared):
            notes.append(
                f"{len(shared) - len(same)} ids stand for different prompts in the two runs and are left out"
            )
        if not same:
            raise RunError(
                f"{a.path} and {b.path}: the ids are the same, but every prompt differs; nothing to pair"
            )
        shared = same
    elif attacked:
        notes.append(
            "an attack made each run's prompts: answers are paired by the sample before the attack"
        )
    kept = set(shared)
    only_a = tuple(k for k in keys_a if k not in kept)
    only_b = tuple(k for k in keys_b if k not in kept)
    for name, left in ((a.path, only_a), (b.path, only_b)):
        if left:
            more = ", ..." if len(left) > 3 else ""
            notes.append(
                f"{len(left)} samples stand in {name} alone and are left out ({', '.join(left[:3])}{more})"
            )
    at_a, at_b = tuple(keys_a[k] for k in shared), tuple(keys_b[k] for k in shared)
    notes += _share_judges(a, b)
    first = _take(a, at_a)
    second = _take(b, at_b)
    second.category_sets, second.category_ids, second.pair_category_ids = (
        first.category_sets,
        first.category_ids,
        first.pair_category_ids,
    )
    second.expect_ids = first.expect_ids
    return RunPair(
        a=first,
        b=second,
        keys=tuple(shared),
        positions_a=at_a,
        positions_b=at_b,
        only_a=only_a,
        only_b=only_b,
        notes=tuple(notes),
    )


def _share_judges(a: VerdictTable, b: VerdictTable) -> list[str]:
    """Keeps the judges of both runs (one version only), struck in both where they are struck in one."""
    notes = []
    struck_a = {k: a.struck_reason(c.record) for k, c in a.columns.items()}
    struck_b = {k: b.struck_reason(c.record) for k, c in b.columns.items()}
    for key in [*a.columns, *(k for k in b.columns if k not in a.columns)]:
        name, question = key
        mine, other = a.columns.get(key), b.columns.get(key)
        if mine is None or other is None:
            where = b.path if mine is None else a.path
            notes.append(f"{name} answered {question!r} in {where} alone: not compared")
            continue
        hashes = mine.record.lineage.hash, other.record.lineage.hash
        if hashes[0] != hashes[1]:
            notes.append(
                f"{name} is of another version in each run ({hashes[0][:8]}, {hashes[1][:8]}): not compared"
            )
            del a.columns[key], b.columns[key]
            continue
        reason = struck_b[key] or struck_a[key]
        for column in (mine, other):
            column.record = msgspec.structs.replace(column.record, struck=reason)
    for columns, peer in ((a, b), (b, a)):
        columns.columns = {k: c for k, c in columns.columns.items() if k in peer.columns}
    b.columns = {k: b.columns[k] for k in a.columns}
    return notes


def _take(columns: VerdictTable, at: Sequence[int]) -> VerdictTable:
    """The same columns over some positions, in the order given."""
    out = VerdictTable(columns.path, columns.manifest)
    everything = len(at) == columns.size and all(i == p for i, p in enumerate(at))
    pick = itemgetter(*at) if len(at) > 1 else lambda layer: (layer[at[0]],)

    def layer(given: bytearray) -> bytearray:
        return given if everything else bytearray(pick(given))

    out.category_sets = columns.category_sets
    out.category_ids, out.pair_category_ids = (
        array("H", pick(columns.category_ids)),
        array("H", pick(columns.pair_category_ids)),
    )
    out.expect_ids = layer(columns.expect_ids)
    out.response_states = [layer(given) for given in columns.response_states]
    for key, column in columns.columns.items():
        made = VerdictColumn(column.record, column.question, len(at))
        made.codes = [layer(given) for given in column.codes]
        made.predicted_categories = {
            c: [layer(given) for given in marks] for c, marks in column.predicted_categories.items()
        }
        if column.value_sums is not None and column.value_counts is not None:
            made.value_sums, made.value_counts = (
                array("d", pick(column.value_sums)),
                array("L", pick(column.value_counts)),
            )
        made.exceeds_unit_interval = column.exceeds_unit_interval
        out.columns[key] = made
    return out
