"""A run folder as compact columns: one byte per answer and judge, whatever the length of the texts.

`read_verdict_table` streams the run's JSON lines through decoders that skip the answers, so that
200,000 samples take seconds and a few megabytes. All counting in this package is done on these
bytes, by prompt (`prompt_counts`). Inside `cached_verdict_tables()` each folder is read only once.

Every byte array runs over the samples of `samples.jsonl` in file order ("position"); a list of
such arrays runs over the index of the answer (0 to n - 1 for n answers per prompt).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from pathlib import Path

from msgspec import UNSET, Struct

from truing.analysis.lineage_relations import (
    LineageRelation,
    find_relations,
    needs_prompt_hashes,
    strike_reason,
)
from truing.analysis.verdict_rows import (
    IdRow,
    JudgementRow,
    ResponseRow,
    SampleRow,
    record_thresholds,
)
from truing.core import lineage
from truing.core.flagged_categories import UNCATEGORISED, flag_categories
from truing.core.ids import hash_text
from truing.core.types import Expect
from truing.runs.folder import JudgeRecord, Manifest, Run
from truing.runs.index import check_cells, max_cells_per_sample
from truing.runs.parts import (
    PARTS_FILE,
    locate_record_files,
    read_run_records,
    record_bytes,
)
from truing.runs.run_files import locate_run_file

# Codes of a verdict; ABSENT is also the state of an answer that was never requested.
ABSENT, NO, YES, UNSCORED, SKIPPED = 0, 1, 2, 3, 4
# States of an answer. CUT: stopped at the token limit; BLOCKED: by a rail or a content filter.
ANSWERED, FAILED, CUT, ABSTAINED, BLOCKED = 1, 2, 3, 4, 5
# `VerdictTable.expect_ids` holds indices into this tuple.
EXPECTS: tuple[Expect, ...] = ("none", "comply", "refuse", "clarify", "abstain", "support")
# `VerdictTable.task_kinds` holds indices into this tuple; "" is no task of an agent.
TASK_KINDS = ("", "benign", "harmful", "injected")
_STATE_OF_FINISH_REASON = {
    "length": CUT,
    "abstained": ABSTAINED,
    "blocked": BLOCKED,
    "content_filter": BLOCKED,
    "error": FAILED,
}


def answer_state(finish_reason: str, *, failed: bool) -> int:
    """Returns the state of an answer."""
    return FAILED if failed else _STATE_OF_FINISH_REASON.get(finish_reason, ANSWERED)


INAPPLICABLE_KINDS = frozenset(
    {"inapplicable", "not-applicable", "not_applicable", "no-check", "skipped"}
)
"""Failure kinds by which a judge says that a sample does not concern it: no part of its rates."""


class TokenTotals(Struct, frozen=True, kw_only=True):
    """Tokens read and written for the `answers` that state their usage; `cached` of those read."""

    answers: int = 0
    read: int = 0
    written: int = 0
    cached: int = 0


class VerdictColumn:
    """The verdicts of one judge on one question.

    Attributes:
        codes: `codes[index][position]` is ABSENT, NO, YES, UNSCORED or SKIPPED.
        predicted_categories: for each of the judge's own categories, arrays shaped like `codes`
            with 1 where the judge said "yes" and assigned the category by its own threshold;
            `UNCATEGORISED` where it said "yes" and assigned none.
        scores: probabilities by (position, index); filled only if the table was read with scores.
        value_sums, value_counts: by position, the sum and the number of the values that the judge
            gave in its own unit (a reward, a cost, a grade); None if it gave none.
        exceeds_unit_interval: whether some value lies outside [0, 1].
    """

    def __init__(self, record: JudgeRecord, question: str, size: int) -> None:
        self.record = record
        self.question = question
        self.size = size
        self.codes: list[bytearray] = []
        self.predicted_categories: dict[str, list[bytearray]] = {}
        self.names_categories = False
        self.thresholds = record_thresholds(record)
        self.scores: dict[tuple[int, int], float] = {}
        self.value_sums: array[float] | None = None
        self.value_counts: array[int] | None = None
        self.exceeds_unit_interval = False
        self._vote_balance: dict[tuple[int, int], int] = {}  # people's votes: yes minus no

    @property
    def is_human(self) -> bool:
        """Whether the verdicts are labels by people."""
        return self.record.name.startswith("human:")

    def add_judgement(self, position: int, row: JudgementRow, *, keep_score: bool) -> None:
        """Stores one judgement.

        Where several people labelled an answer, the majority counts; where a judge judged it
        several times (a run that was resumed), the last judgement does.
        """
        code = UNSCORED if row.verdict is None else YES if row.verdict else NO
        if row.failure is not None and row.failure.kind in INAPPLICABLE_KINDS:
            code = SKIPPED
        if self.is_human and row.verdict is not None:
            key = (position, row.index)
            balance = self._vote_balance.get(key, 0) + (1 if row.verdict else -1)
            self._vote_balance[key] = balance
            code = YES if balance > 0 else NO if balance < 0 else UNSCORED
        self._array_of(self.codes, row.index)[position] = code

        if row.value is not None and code != SKIPPED:
            self._add_value(position, row.value)
        if keep_score and row.score is not None:
            self.scores[(position, row.index)] = row.score
        self.names_categories = self.names_categories or bool(row.harms)
        if row.verdict:
            for marks in self.predicted_categories.values():  # of an earlier judgement of this row
                self._array_of(marks, row.index)[position] = 0
            for category in flag_categories(row.harms, self.thresholds) or (UNCATEGORISED,):
                marks = self.predicted_categories.setdefault(category, [])
                self._array_of(marks, row.index)[position] = 1

    def _array_of(self, arrays: list[bytearray], index: int) -> bytearray:
        while len(arrays) <= index:
            arrays.append(bytearray(self.size))
        return arrays[index]

    def _add_value(self, position: int, value: float) -> None:
        if self.value_sums is None or self.value_counts is None:
            self.value_sums = array("d", bytes(8 * self.size))
            self.value_counts = array("L", bytes(array("L").itemsize * self.size))
        self.value_sums[position] += value
        self.value_counts[position] += 1
        self.exceeds_unit_interval = self.exceeds_unit_interval or not 0 <= value <= 1


class VerdictTable:
    """What one run holds, ready for counting.

    Attributes:
        ids: sample ids by position; None unless the table was read with ids.
        category_sets: the distinct combinations of harm categories that samples have.
        category_ids: by position, the index of the sample's combination in `category_sets`.
        pair_category_ids: the same, except that a benign twin without categories has those of
            the harmful sample that it is paired with.
        expect_ids: by position, the index of the sample's expectation in `EXPECTS`.
        prompt_ids: by position, the number of the sample's prompt. Samples share one if the users'
            messages are equal (`lineage.normalise_prompt`), or if attacks made them from the same
            plain prompt, which is then their prompt too.
        prompt_keys: by the number of a prompt, its 64-bit hash, which is that of other tables.
        attacked: by position, 1 if an attack made the prompt.
        task_kinds: by position, the index of the kind of an agent's task in `TASK_KINDS`.
        response_states: `response_states[index][position]` is ABSENT or the state of the answer.
        columns: the judges' verdicts by (judge, question).
        relations: what the judges, the model and the prompts have in common.
        prompt_hashes: of the prompts, where something names its training prompts.
        tokens: what the answers cost.
        orphan_counts: by file ("responses") or judge, how many rows name no sample of the run.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.ids: list[str] | None = None
        self.category_ids = array("H")
        self.category_sets: list[tuple[str, ...]] = []
        self.expect_ids = bytearray()
        self.pair_category_ids = array("H")
        self.prompt_ids = array("I")
        self.prompt_keys = array("q")
        self.attacked = bytearray()
        self.task_kinds = bytearray()
        self.response_states: list[bytearray] = []
        self.columns: dict[tuple[str, str], VerdictColumn] = {}
        self.relations: tuple[LineageRelation, ...] = ()
        self.prompt_hashes: set[str] = set()
        self.tokens = TokenTotals()
        self.orphan_counts: Counter[str] = Counter()
        # Hashes of the ids, sorted, with the position of each: 16 bytes a sample, where a
        # dictionary of strings would take about 150.
        self._sorted_hashes = array("q")
        self._positions = array("L")

    @property
    def size(self) -> int:
        """The number of samples."""
        return len(self.expect_ids)

    def position_of(self, sample_id: str) -> int | None:
        """Returns the position of a sample, or None if the run has no such sample."""
        key = hash(sample_id)
        slot = bisect_left(self._sorted_hashes, key)
        if slot < len(self._sorted_hashes) and self._sorted_hashes[slot] == key:
            return self._positions[slot]
        return None

    def categories(self, position: int) -> tuple[str, ...]:
        """Returns the harm categories of a sample."""
        return self.category_sets[self.category_ids[position]]

    def expect(self, position: int) -> Expect:
        """Returns what a good answer to a sample is expected to do."""
        return EXPECTS[self.expect_ids[position]]

    def struck_reason(self, record: JudgeRecord) -> str | None:
        """Returns why a judge's figures on this run do not count, or None if they do.

        They do not where the judge selected, trained or blocked the model's answers, and where the
        judge or the model was trained on prompts of the run.
        """
        conflict = record.struck or lineage.find_judge_conflict(
            record.lineage, self.manifest.lineage
        )
        return conflict or strike_reason(self.relations, record.name)

    def headline_column(self, question: str) -> VerdictColumn | None:
        """Returns the column that is quoted for a question.

        This is the first by a judge that is neither struck nor a person, else the first; None if
        no judge answered the question.
        """
        candidates = [c for (_, asked), c in self.columns.items() if asked == question]
        for column in candidates:
            if not column.is_human and not self.struck_reason(column.record):
                return column
        return candidates[0] if candidates else None

    def index_samples(self, id_hashes: list[int]) -> None:
        """Builds the lookup of `position_of` from the hashes of all sample ids, in file order."""
        order = sorted(range(len(id_hashes)), key=id_hashes.__getitem__)
        self._positions = array("L", order)
        self._sorted_hashes = array("q", (id_hashes[position] for position in order))


CACHE_SIZE = 16  # runs; one of 200,000 samples with two judges takes about 5 MB, with ids 20
_Cache = OrderedDict[tuple[object, ...], VerdictTable]
_CACHE: ContextVar[_Cache | None] = ContextVar("verdict_tables", default=None)


@contextmanager
def cached_verdict_tables() -> Iterator[None]:
    """Context in which `read_verdict_table` reads each run only once.

    The most recently used `CACHE_SIZE` runs are kept. A folder whose files have changed is read
    again. A context inside another one uses the cache of the outer one.
    """
    if _CACHE.get() is not None:
        yield
        return
    token = _CACHE.set(OrderedDict())
    try:
        yield
    finally:
        _CACHE.reset(token)


def read_verdict_table(
    run: Run | str | Path, *, ids: bool = False, scores: bool = False
) -> VerdictTable:
    """Reads the table of a run folder.

    Args:
        run: the run, or the path of its folder.
        ids: keep the sample ids (for pairing and for lists of rows).
        scores: keep the judges' probabilities; such a table is never cached.

    Raises:
        RunError: the folder is no run, or a line of its files cannot be read.
    """
    folder = run if isinstance(run, Run) else Run(run)
    manifest, cache = folder.manifest, _CACHE.get()
    if cache is None or scores:
        return _read_table(folder.path, manifest, ids, scores)
    key = _fingerprint(folder.path, manifest)
    cached = cache.pop(key, None) or _read_table(folder.path, manifest, ids, False)
    cache[key] = cached  # at the end: the least recently used table is evicted first
    if len(cache) > CACHE_SIZE:
        cache.popitem(last=False)
    if ids and cached.ids is None:
        cached.ids = [sample.id for sample in read_run_records(folder.path, "samples.jsonl", IdRow)]
    # Callers may drop columns or strike judges, so each gets its own objects; the byte arrays,
    # which nobody changes, are shared.
    table = copy(cached)
    table.path, table.manifest = folder.path, manifest
    table.orphan_counts = Counter(cached.orphan_counts)
    table.columns = {name: copy(column) for name, column in cached.columns.items()}
    return table


def _fingerprint(path: Path, manifest: Manifest) -> tuple[object, ...]:
    """Returns the folder with modification time, size and inode of every file that is read."""
    names = ["samples.jsonl", "responses.jsonl", *(record.file for record in manifest.judges)]
    located = [locate_run_file(path, name) for name in ("manifest.json", PARTS_FILE)]
    located += [file for name in names for file in locate_record_files(path, name)]
    files: list[tuple[int, int, int] | None] = []
    for file in located:
        if file.exists():
            stat = file.stat()
            files.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        else:
            files.append(None)
    return (path.resolve(), *files)


def _read_table(path: Path, manifest: Manifest, ids: bool, scores: bool) -> VerdictTable:
    table = VerdictTable(path, manifest)
    _read_samples(table, ids)
    _read_responses(table)
    for record in manifest.judges:
        _read_judgements(table, record, scores)
    for column in table.columns.values():
        # Of a judge that knows no categories, nothing is uncategorised.
        if not column.names_categories:
            column.predicted_categories.clear()
    return table


def _read_samples(table: VerdictTable, keep_ids: bool) -> None:
    set_ids: dict[tuple[str, ...], int] = {}
    hashes: list[int] = []
    ids: list[str] = []
    # Only where something names its training prompts: hashing all prompts takes a while.
    hashes_prompts = needs_prompt_hashes(table.manifest)
    prompt_hashes: set[str] = set()
    pair_of: dict[int, str] = {}
    harms_of_pair: dict[str, tuple[str, ...]] = {}
    prompt_keys = array("q")
    parent_of: dict[int, str] = {}
    for position, sample in enumerate(read_run_records(table.path, "samples.jsonl", SampleRow)):
        hashes.append(hash(sample.id))
        table.category_ids.append(set_ids.setdefault(sample.harms, len(set_ids)))
        table.expect_ids.append(EXPECTS.index(sample.expect))
        table.attacked.append(sample.is_attacked)
        task_kind = "" if sample.environment is UNSET else sample.environment.kind
        table.task_kinds.append(TASK_KINDS.index(task_kind))
        prompt_keys.append(sample.prompt_key)
        if hashes_prompts:
            prompt_hashes.add(lineage.hash_prompt(sample.last_prompt))
        if sample.parent:
            parent_of[position] = sample.parent
        if sample.pair:
            pair_of[position] = sample.pair
            if sample.harms:
                harms_of_pair.setdefault(sample.pair, sample.harms)
        if keep_ids:
            ids.append(sample.id)
    table.category_sets = list(set_ids)
    table.pair_category_ids = array("H", table.category_ids)
    no_categories = set_ids.get((), -1)
    for position, pair in pair_of.items():
        if pair in harms_of_pair and table.category_ids[position] == no_categories:
            table.pair_category_ids[position] = set_ids[harms_of_pair[pair]]
    table.index_samples(hashes)
    table.ids = ids if keep_ids else None
    _number_prompts(table, prompt_keys, parent_of)
    table.prompt_hashes = prompt_hashes
    table.relations = find_relations(table.manifest, prompt_hashes)


def _number_prompts(table: VerdictTable, keys: array[int], parent_of: dict[int, str]) -> None:
    """Fills `prompt_ids` from the hash of each sample's own prompt, and the parents' ids."""
    key_of_parent: dict[str, int] = {}
    if parent_of:
        parents = read_run_records(table.path, "parents.jsonl", SampleRow)
        key_of_parent = {parent.id: parent.prompt_key for parent in parents}
    for position, parent in parent_of.items():
        parent_position = table.position_of(parent)
        if parent in key_of_parent:
            keys[position] = key_of_parent[parent]
        elif parent_position is not None and parent_position not in parent_of:
            keys[position] = keys[parent_position]
        else:  # the plain prompt is not at hand: its id stands for it
            keys[position] = hash_text(f"\0parent\0{parent}")
    number_of_key: dict[int, int] = {}
    table.prompt_ids = array("I", (number_of_key.setdefault(k, len(number_of_key)) for k in keys))
    table.prompt_keys = array("q", number_of_key)


def _read_responses(table: VerdictTable) -> None:
    path = table.path / "responses.jsonl"
    max_cells = max_cells_per_sample(record_bytes(table.path, path.name), table.size)
    answers = read = written = cached = 0
    for response in read_run_records(table.path, "responses.jsonl", ResponseRow):
        position = table.position_of(response.sample_id)
        if position is None:
            table.orphan_counts["responses"] += 1
            continue
        check_cells(response.index + 1, max_cells, path)
        while len(table.response_states) <= response.index:
            table.response_states.append(bytearray(table.size))
        state = answer_state(response.finish_reason, failed=response.failure is not None)
        table.response_states[response.index][position] = state
        usage = response.usage
        if usage.completion_tokens or usage.prompt_tokens:  # recorded answers state none
            answers += 1
            read += usage.prompt_tokens
            written += usage.completion_tokens
            cached += usage.cached_tokens
    table.tokens = TokenTotals(answers=answers, read=read, written=written, cached=cached)


def _read_judgements(table: VerdictTable, record: JudgeRecord, keep_scores: bool) -> None:
    path = table.path / record.file
    max_cells = max_cells_per_sample(record_bytes(table.path, record.file), table.size)
    questions: set[str] = set()
    # The file of a labelled set may answer several questions: one column for each.
    for row in read_run_records(table.path, record.file, JudgementRow):
        position = table.position_of(row.sample_id)
        if position is None:
            table.orphan_counts[record.name] += 1
            continue
        questions.add(row.question)
        key = (record.name, row.question)
        column = table.columns.get(key)
        n_categories = len(column.predicted_categories) if column is not None else 0
        n_cells = (row.index + 1) * (1 + n_categories) * len(questions)
        check_cells(n_cells, max_cells, path)
        if column is None:
            column = table.columns[key] = VerdictColumn(record, row.question, table.size)
        column.add_judgement(position, row, keep_score=keep_scores)
