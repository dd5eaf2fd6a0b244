"""A run as compact columns: one byte a response for each judge, whatever the size of the run.

`read_columns` streams the run folder's lines through decoders that skip the text, so that 200,000 samples need seconds
and a few megabytes, and no numpy. Everything in `tables.py` and `compare.py` counts over these bytes. Within
`reading_once()` a folder is read once, however many tables and sections ask for it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from pathlib import Path

from msgspec import Struct, field

from truing.core import lineage
from truing.core.jsonl import read_records
from truing.core.types import Expect, Failure
from truing.runs.folder import JudgeRecord, Manifest, Run

ABSENT, NO, YES, UNSCORED, SKIPPED = 0, 1, 2, 3, 4
ANSWERED, FAILED, CUT, ABSTAINED, BLOCKED = 1, 2, 3, 4, 5
EXPECTS: tuple[Expect, ...] = ("none", "comply", "refuse", "clarify", "abstain", "support")
_FINISH = {
    "length": CUT,
    "abstained": ABSTAINED,
    "blocked": BLOCKED,
    "content_filter": BLOCKED,
    "error": FAILED,
}
# A judge that a sample does not concern says so by a failure of this kind; such rows are no part of its rates.
INAPPLICABLE = frozenset(
    {"inapplicable", "not-applicable", "not_applicable", "no-check", "skipped"}
)


class _Sample(Struct, frozen=True):
    id: str
    harms: tuple[str, ...] = ()
    expect: Expect = "none"
    pair: str | None = None


class _Id(Struct, frozen=True):
    id: str


class _Response(Struct, frozen=True):
    sample_id: str
    index: int = 0
    finish_reason: str = "stop"
    failure: Failure | None = None


class _Judgement(Struct, frozen=True):
    sample_id: str
    question: str
    index: int = 0
    verdict: bool | None = None
    score: float | None = None
    value: float | None = None
    harms: dict[str, float] = field(default_factory=dict)
    failure: Failure | None = None


lines = read_records


class Column:
    """One judge's verdicts on one question: `layers[index][position]` is one of the five codes."""

    def __init__(self, record: JudgeRecord, question: str, size: int) -> None:
        self.record = record
        self.question = question
        self.size = size
        self.layers: list[bytearray] = []
        self.votes: dict[tuple[int, int], int] = {}  # human rows: majority of raters
        self.predicted: dict[str, list[bytearray]] = {}
        self.scores: dict[tuple[int, int], float] = {}
        self.sums: array[float] | None = (
            None  # by position: sum and number of the values in the judge's own unit
        )
        self.counts: array[int] | None = None
        self.beyond = False  # whether a value lies outside [0, 1]

    def _layer(self, layers: list[bytearray], index: int) -> bytearray:
        while len(layers) <= index:
            layers.append(bytearray(self.size))
        return layers[index]

    def _add(self, at: int, value: float) -> None:
        if self.sums is None or self.counts is None:
            self.sums, self.counts = (
                array("d", bytes(8 * self.size)),
                array("L", bytes(array("L").itemsize * self.size)),
            )
        self.sums[at] += value
        self.counts[at] += 1
        self.beyond = self.beyond or not 0 <= value <= 1

    def put(self, at: int, row: _Judgement, *, human: bool, scores: bool) -> None:
        """Stores one judgement; of a person's several the majority counts, of a judge's several the newest."""
        code = UNSCORED if row.verdict is None else YES if row.verdict else NO
        if row.failure is not None and row.failure.kind in INAPPLICABLE:
            code = SKIPPED
        layer = self._layer(self.layers, row.index)
        if human and row.verdict is not None:
            key = (at, row.index)
            tally = self.votes.get(key, 0) + (1 if row.verdict else -1)
            self.votes[key] = tally
            code = YES if tally > 0 else NO if tally < 0 else UNSCORED
        layer[at] = code
        if row.value is not None and code != SKIPPED:
            self._add(at, row.value)
        if scores and row.score is not None:
            self.scores[(at, row.index)] = row.score
        if row.verdict:
            for category, p in row.harms.items():
                if p >= 0.5:
                    self._layer(self.predicted.setdefault(category, []), row.index)[at] = 1


class Columns:
    """What one run holds, ready to be counted. Positions follow `samples.jsonl`."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.ids: list[str] | None = None
        self.harms = array("H")
        self.harm_sets: list[tuple[str, ...]] = []
        self.expects = bytearray()
        self.topics = array("H")  # as harms, but a twin without its own takes those of its pair
        self.responses: list[bytearray] = []
        self.columns: dict[tuple[str, str], Column] = {}
        self.foreign: dict[str, int] = {}
        self._keys = array("q")
        self._order = array("L")

    @property
    def size(self) -> int:
        """The number of samples."""
        return len(self.expects)

    def position(self, sample_id: str) -> int | None:
        """Where a sample stands, or none if the run has no such sample."""
        key = hash(sample_id)
        at = bisect_left(self._keys, key)
        return self._order[at] if at < len(self._keys) and self._keys[at] == key else None

    def sample_harms(self, at: int) -> tuple[str, ...]:
        """The categories of a sample."""
        return self.harm_sets[self.harms[at]]

    def struck(self, record: JudgeRecord) -> str | None:
        """Why a judge's figures on this run are struck out, or none."""
        return record.struck or lineage.find_judge_conflict(record.lineage, self.manifest.lineage)

    def headline(self, question: str) -> Column | None:
        """The column that speaks for a question: the first that is neither struck nor human, else the first."""
        found = [c for (_, asked), c in self.columns.items() if asked == question]
        free = [
            c for c in found if not c.record.name.startswith("human:") and not self.struck(c.record)
        ]
        return next(iter(free or found), None)


MOST_KEPT = 16  # runs; of 200,000 samples with two judges each takes about 5 MB, with ids about 20
_Memo = OrderedDict[tuple[object, ...], Columns]
_MEMO: ContextVar[_Memo | None] = ContextVar("columns", default=None)


@contextmanager
def reading_once() -> Iterator[None]:
    """Within this, `read_columns` reads each run once and keeps it (the newest `MOST_KEPT` of them) until the end.

    A folder whose files changed meanwhile is read again. Inside another such block, the outer one keeps.
    """
    if _MEMO.get() is not None:
        yield
        return
    token = _MEMO.set(OrderedDict())
    try:
        yield
    finally:
        _MEMO.reset(token)


def read_columns(run: Run | str | Path, *, ids: bool = False, scores: bool = False) -> Columns:
    """Reads a run folder; `ids` keeps the sample ids (for pairing and flips), `scores` the judges' probabilities."""
    folder = run if isinstance(run, Run) else Run(run)
    manifest, memo = folder.manifest, _MEMO.get()
    if memo is None or scores:
        return _read(folder.path, manifest, ids, scores)
    key = _state(folder.path, manifest)
    kept = memo.pop(key, None) or _read(folder.path, manifest, ids, False)
    memo[key] = kept
    if len(memo) > MOST_KEPT:
        memo.popitem(last=False)
    if ids and kept.ids is None:
        kept.ids = [sample.id for sample in lines(folder.path / "samples.jsonl", _Id)]
    out = copy(
        kept
    )  # who asked may drop columns or strike judges; the bytes beneath are never changed
    out.path, out.manifest, out.foreign = folder.path, manifest, dict(kept.foreign)
    out.columns = {name: copy(column) for name, column in kept.columns.items()}
    return out


def _state(path: Path, manifest: Manifest) -> tuple[object, ...]:
    """A folder and the sizes and times of what is read of it."""
    names = [
        "manifest.json",
        "samples.jsonl",
        "responses.jsonl",
        *(record.file for record in manifest.judges),
    ]
    found = (((path / name).stat() if (path / name).exists() else None) for name in names)
    return (path.resolve(), *((s.st_mtime_ns, s.st_size, s.st_ino) if s else None for s in found))


def _read(path: Path, manifest: Manifest, ids: bool, scores: bool) -> Columns:
    out = Columns(path, manifest)
    _read_samples(out, ids)
    for response in lines(path / "responses.jsonl", _Response):
        at = out.position(response.sample_id)
        if at is None:
            out.foreign["responses"] = out.foreign.get("responses", 0) + 1
            continue
        while len(out.responses) <= response.index:
            out.responses.append(bytearray(out.size))
        state = (
            FAILED
            if response.failure is not None
            else _FINISH.get(response.finish_reason, ANSWERED)
        )
        out.responses[response.index][at] = state
    for record in out.manifest.judges:
        _read_judgements(out, record, scores)
    return out


def _read_samples(out: Columns, ids: bool) -> None:
    known: dict[tuple[str, ...], int] = {}
    keys = array("q")
    kept: list[str] = []
    pairs: dict[int, str] = {}
    pair_harms: dict[str, tuple[str, ...]] = {}
    for sample in lines(out.path / "samples.jsonl", _Sample):
        keys.append(hash(sample.id))
        out.harms.append(known.setdefault(sample.harms, len(known)))
        at = len(out.expects)
        out.expects.append(EXPECTS.index(sample.expect))
        if sample.pair:
            pairs[at] = sample.pair
            if sample.harms:
                pair_harms.setdefault(sample.pair, sample.harms)
        if ids:
            kept.append(sample.id)
    out.topics = array("H", out.harms)
    for at, pair in pairs.items():
        if pair in pair_harms and out.harms[at] == known.get((), -1):
            out.topics[at] = known[pair_harms[pair]]
    out.harm_sets = list(known)
    order = sorted(range(len(keys)), key=keys.__getitem__)
    out._order = array("L", order)
    out._keys = array("q", (keys[i] for i in order))
    out.ids = kept if ids else None


def _read_judgements(out: Columns, record: JudgeRecord, scores: bool) -> None:
    human = record.name.startswith("human:")
    for row in lines(out.path / record.file, _Judgement):
        at = out.position(row.sample_id)
        if at is None:
            out.foreign[record.name] = out.foreign.get(record.name, 0) + 1
            continue
        key = (record.name, row.question)
        column = out.columns.get(key)
        if column is None:
            column = out.columns[key] = Column(record, row.question, out.size)
        column.put(at, row, human=human, scores=scores)
