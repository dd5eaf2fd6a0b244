"""The data of a report: variants of a model, each measured on the same data, and their
comparisons.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType, field

from truing.analysis.attack_success import AttackResult
from truing.analysis.claims import Claim
from truing.analysis.judge_facts import JudgeFacts
from truing.analysis.rates import Rate
from truing.analysis.summary import RunSummary
from truing.report.key_answers import KeyAnswer
from truing.report.limits import MAX_HARM
from truing.report.shown_questions import ShownQuestion
from truing.runs.folder import Manifest


class Variant(Struct, kw_only=True):
    """One model under one name: its run folder, summary and manifest for each data set (by its name
    in the plan).
    """

    name: str
    runs: dict[str, str] = field(default_factory=dict)
    summaries: dict[str, RunSummary] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)

    def find(self, question: str, category: str | None = None) -> Rate | None:
        """Returns the rate of a question on the first data set that has one."""
        for summary in self.summaries.values():
            rate = summary.find(question, category)
            if rate is not None and rate.n:
                return rate
        return None


class Ranking(Struct, kw_only=True):
    """A small table of a ranker's results: one line a method."""

    title: str
    model: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


class RowView(Struct, kw_only=True):
    """An answer worth reading; `prompt` and `texts` (by variant) are empty unless text may be
    shown.
    """

    sample_id: str
    index: int
    data: str
    why: str
    categories: tuple[str, ...] = ()
    expect: str = ""
    outcomes: dict[str, str] = field(default_factory=dict)
    prompt: str = ""
    texts: dict[str, str] = field(default_factory=dict)


class ReportData(Struct, kw_only=True):
    """Everything that the sections are made from.

    `comparisons` maps variant -> data set -> comparison with the baseline; `facts` are the figures
    of the judges' cards; `claims` are those of all comparisons; `rows_left_out` counts answers that
    did not fit into `rows`. `answers` are three for each variant, `focus` is the variant that the
    first page is about, and `max_harm` the share of harmful answers that counts as safe enough.
    `shown` are prompts whose answers stand before all figures, `about` is a paragraph of the plan.
    `attacks` maps variant -> attacked data set -> results; unset where nothing was attacked.
    """

    title: str
    created: str
    version: str
    baseline: str
    variants: tuple[Variant, ...]
    data: tuple[str, ...]
    comparisons: dict[str, dict[str, Any]] = field(default_factory=dict)
    rankings: tuple[Ranking, ...] = ()
    facts: tuple[JudgeFacts, ...] = ()
    rows: tuple[RowView, ...] = ()
    rows_left_out: int = 0
    with_text: bool = False
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    answers: tuple[KeyAnswer, ...] = ()
    focus: str = ""
    max_harm: float = MAX_HARM
    shown: tuple[ShownQuestion, ...] = ()
    about: str = ""
    attacks: dict[str, dict[str, list[AttackResult]]] | UnsetType = UNSET

    def series(self, name: str) -> int:
        """Returns the number of a variant, which decides its colour in all charts."""
        return [v.name for v in self.variants].index(name)
