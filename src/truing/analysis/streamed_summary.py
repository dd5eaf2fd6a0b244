"""The summary of a run of very many samples, part by part: memory does not grow with the run.

Each part is read as a table of its own, and its counts are added to sketches, one for each rate
(`truing.stats.cluster_sketch`). Counts are exact; intervals are exact up to 65,536 prompts a rate,
and from a random sample of prompts beyond. What needs all rows at once is left out, and the notes
of the summary say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
from msgspec import Struct

from truing.analysis.lineage_relations import find_relations, known_prompts, needs_prompt_hashes
from truing.analysis.prompt_counts import ATTACKED, PLAIN, RateCounts, count_by_category
from truing.analysis.rates import (
    ALL_AXES,
    PREDICTED_SUFFIX,
    Rate,
    axis_verdicts,
    predicted_codes,
    rates_from_counts,
    verdict_codes,
)
from truing.analysis.verdict_table import (
    ABSENT,
    FAILED,
    TokenTotals,
    VerdictTable,
    read_verdict_table,
)
from truing.runs.folder import JudgeRecord, Run
from truing.runs.parts import list_run_parts
from truing.stats.cluster_sketch import DEFAULT_BOUND, ClusterSketch

STREAMED_SAMPLES = 2_000_000
"""A sharded run with more samples is summarised part by part."""

ALL_PROMPTS = ""


class RateKey(Struct, frozen=True):
    """Which rate: a question (or axis) by a judge, in a category (None: all), of a group."""

    question: str
    judge: str
    category: str | None
    group: str


class StreamedCounts:
    """The counts of a run's rates, added up part by part.

    `table` has no rows: it holds the manifest, and at the end what strikes judges out. `sketches`
    are by rate, `records` the judges by (question or axis, judge).
    """

    def __init__(self, run: Run, bound: int = DEFAULT_BOUND) -> None:
        self.table = VerdictTable(run.path, run.manifest)
        self.sketches: dict[RateKey, ClusterSketch] = {}
        self.records: dict[tuple[str, str], JudgeRecord] = {}
        self.questions: dict[str, None] = {}
        self.samples = self.responses = self.failed = 0
        self.has_means = False
        self.has_pairs = False
        self.categories: set[str] = set()
        self.expects: Counter[str] = Counter()
        self._bound = bound
        self._known = (
            known_prompts(run.manifest) if needs_prompt_hashes(run.manifest) else frozenset()
        )
        self._tokens = [0, 0, 0, 0]

    def add_part(self, table: VerdictTable) -> None:
        """Adds the rows of a part; parts may come in any order."""
        self.samples += table.size
        self.responses += sum(len(s) - s.count(ABSENT) for s in table.response_states)
        self.failed += sum(s.count(FAILED) for s in table.response_states)
        tokens = table.tokens
        for place, count in enumerate((tokens.answers, tokens.read, tokens.written, tokens.cached)):
            self._tokens[place] += count
        self.table.prompt_hashes |= self._known & table.prompt_hashes
        self.table.orphan_counts.update(table.orphan_counts)
        self.categories |= {c for categories in table.category_sets for c in categories}
        self.expects.update(table.expect(position) for position in range(table.size))
        self.has_pairs = self.has_pairs or table.pair_category_ids != table.category_ids
        for (judge, question), column in table.columns.items():
            self.has_means = self.has_means or column.value_counts is not None
            self.questions.setdefault(question)
            self._add(question, column.record, table, verdict_codes(table, column))
            codes = verdict_codes(table, column)
            for category in column.predicted_categories:
                name = f"{question}{PREDICTED_SUFFIX}"
                of_category = predicted_codes(column, codes, category)
                self._add(name, column.record, table, of_category, only=category)
            for axis in ALL_AXES:
                verdicts = axis_verdicts(table, axis, judge) if axis != "cut" else None
                if verdicts is not None and verdicts.record.name == judge:
                    self._add(axis, verdicts.record, table, verdicts.codes, verdicts.expects)
        cut = axis_verdicts(table, "cut")
        if cut is not None:
            self._add("cut", cut.record, table, cut.codes, cut.expects)

    def _add(
        self,
        question: str,
        record: JudgeRecord,
        table: VerdictTable,
        codes: list[bytes],
        expects: tuple[str, ...] | None = None,
        only: str | None = None,
    ) -> None:
        """Adds the counts of one rate in all categories; with `only`, in that one of the judge."""
        self.records.setdefault((question, record.name), record)
        keys = np.array(table.prompt_keys, np.int64).astype(np.uint64)
        is_axis = expects is not None
        for group in (ATTACKED, PLAIN):
            counted = count_by_category(table, codes, expects, axis=is_axis, group=group)
            by_category: Mapping[str | None, RateCounts] = (
                counted if only is None else {only: counted[None]}
            )
            for category, counts in by_category.items():
                rows = counts.by_prompt
                if not rows.rows.any():
                    continue
                key = RateKey(question, record.name, category, group)
                if key not in self.sketches:
                    self.sketches[key] = ClusterSketch(self._bound)
                self.sketches[key].add(keys[: len(rows.rows)], rows.events, rows.scored, rows.rows)

    @property
    def tokens(self) -> TokenTotals:
        """The tokens of all answers."""
        answers, read, written, cached = self._tokens
        return TokenTotals(answers=answers, read=read, written=written, cached=cached)

    def rates(self) -> tuple[list[Rate], list[Rate]]:
        """Returns the rates by question and by axis, once all parts are added.

        An axis comes from the judge that is quoted for it, as in the summary of other runs.
        """
        self.table.relations = find_relations(self.table.manifest, self.table.prompt_hashes)
        groups = {key.group for key in self.sketches}
        rates: list[Rate] = []
        axes: list[Rate] = []
        for group in (ATTACKED, PLAIN) if len(groups) > 1 else (ALL_PROMPTS,):
            for question, judge in self._rates_in_order():
                counts = self._counts_of(question, judge, group)
                record = self.records[question, judge]
                of_rate = rates_from_counts(self.table, record, question, counts, group)
                (axes if question in ALL_AXES else rates).extend(of_rate)
        return rates, axes

    def _counts_of(
        self, question: str, judge: str, group: str
    ) -> dict[str | None, RateCounts | ClusterSketch]:
        return {
            key.category: sketch
            for key, sketch in self.sketches.items()
            if (key.question, key.judge) == (question, judge) and group in (key.group, ALL_PROMPTS)
        }

    def _rates_in_order(self) -> Iterator[tuple[str, str]]:
        order = [record.name for record in self.table.manifest.judges]
        for question, judge in self.records:
            if question not in ALL_AXES:
                yield question, judge
        for axis in ALL_AXES:
            judges = [judge for question, judge in self.records if question == axis]
            ranked = sorted(judges, key=lambda name: order.index(name) if name in order else 0)
            fit = [name for name in ranked if self._is_quotable(axis, name)]
            if ranked:
                yield axis, (fit or ranked)[0]

    def _is_quotable(self, question: str, judge: str) -> bool:
        record = self.records[question, judge]
        return not judge.startswith("human:") and not self.table.struck_reason(record)

    def headline(self) -> dict[str, str]:
        """Returns the judge that is quoted for each question."""
        quoted = {}
        for question in sorted(self.questions):
            judges = [judge for asked, judge in self.records if asked == question]
            fit = [judge for judge in judges if self._is_quotable(question, judge)]
            quoted[question] = (fit or judges)[0]
        return quoted

    def notes(self) -> list[str]:
        """Returns what the figures of so large a run leave out, or take from a sample."""
        notes = [
            f"{count} {source} belong to no sample of the run and were left out"
            for source, count in self.table.orphan_counts.items()
        ]
        notes.append(
            f"{self.samples:,} samples were summarised part by part: outcomes, agents' tasks, "
            "pooled categories and corrections by labels are left out"
        )
        if self.has_means:
            notes.append("means of rewards, costs and grades are left out for the same reason")
        if self.has_pairs:
            notes.append("a benign prompt counts under its pair's category if both are in one part")
        sampled = [sketch for sketch in self.sketches.values() if not sketch.is_complete]
        if sampled:
            notes.append(
                f"{len(sampled)} rates have more than {self._bound:,} prompts: their counts are "
                "exact, their numbers of prompts and intervals from a random sample of so many"
            )
        return notes


def is_streamed(run: Run) -> bool:
    """Whether a run is so large that it is summarised part by part."""
    if list_run_parts(run.path) is None:
        return False
    return sum(record.n for record in run.manifest.data) > STREAMED_SAMPLES


def count_parts(run: Run, bound: int = DEFAULT_BOUND) -> StreamedCounts:
    """Returns the counts of a sharded run; raises RunError like `read_verdict_table`."""
    counts = StreamedCounts(run, bound)
    for part in list_run_parts(run.path) or ():
        table = read_verdict_table(run.path / "parts" / part)
        # The judges' lineages and what strikes them are those of the run.
        table.manifest = counts.table.manifest
        counts.add_part(table)
    return counts
