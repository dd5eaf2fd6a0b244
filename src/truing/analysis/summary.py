"""The summary of one run: rates with intervals and bounds, outcomes, and axes.

    summary = summarise("runs/base")
    write_summary("runs/base")                # also writes runs/base/summary.json

Scipy is loaded only if the run holds drawn labels or a card is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec
from msgspec import UNSET, Struct, UnsetType

from truing.analysis.agent_outcomes import AgentSummary, summarise_agents
from truing.analysis.corrections import add_corrected_rates
from truing.analysis.labels import use_labels
from truing.analysis.lineage_relations import LineageRelation
from truing.analysis.outcomes import outcome_codes, outcome_name
from truing.analysis.pooled_categories import pool_small_rates
from truing.analysis.rates import (
    ALL_AXES,
    QUESTION_ALIASES,
    Rate,
    axis_rates,
    predicted_rates,
    question_rates,
)
from truing.analysis.scalar_scores import MeanScore, has_verdicts, mean_scores, reports_mean
from truing.analysis.stopped_runs import stopped_early, use_sequence_intervals
from truing.analysis.streamed_summary import count_parts, is_streamed
from truing.analysis.transport import add_transported_rates
from truing.analysis.verdict_table import (
    ABSENT,
    EXPECTS,
    FAILED,
    TokenTotals,
    VerdictTable,
    read_verdict_table,
)
from truing.core.errors import DataError, UserError, did_you_mean
from truing.core.prices import Spending
from truing.core.private_files import replace_file
from truing.core.taxonomy import load_taxonomy
from truing.runs.folder import Run
from truing.stats.intervals import Interval


class OutcomeCounts(Struct, frozen=True, kw_only=True):
    """What became of the answers: disjoint counts that add up to `n`.

    For all prompts (category and expect None), by category, and by expectation.
    """

    category: str | None
    expect: str | None
    n: int
    harmful: int = 0
    refused: int = 0
    degenerate: int = 0
    answered: int = 0
    abstained: int = 0
    blocked: int = 0
    unscored: int = 0


class RunSummary(Struct, frozen=True, kw_only=True):
    """Everything that a report states about one run.

    Attributes:
        failed: number of answers that were requested and failed.
        rates: by question, judge and category.
        axes: rates over the prompts with certain expectations.
        headline: question -> the judge that is quoted for it.
        not_tested: what the run says nothing about.
        means: of judges that give values instead of verdicts.
        lineage: what judges, model and prompts have in common, and what follows from it.
        tokens: tokens read and written for the answers; None if they state no usage.
        agents: outcomes and figures of agents' tasks; not stored for runs without any.
        cost: what the answers cost; not stored for runs without a price or a budget.
    """

    model: str
    data: tuple[str, ...]
    samples: int
    responses: int
    failed: int
    complete: bool
    rates: tuple[Rate, ...]
    outcomes: tuple[OutcomeCounts, ...]
    axes: tuple[Rate, ...]
    headline: dict[str, str]
    taxonomy: str = "beavertails"
    not_tested: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    means: tuple[MeanScore, ...] = ()
    lineage: tuple[LineageRelation, ...] = ()
    tokens: TokenTotals | None = None
    agents: AgentSummary | UnsetType = UNSET
    cost: Spending | UnsetType = UNSET

    def find(
        self, question: str, category: str | None = None, judge: str | None = None
    ) -> Rate | None:
        """Returns the rate of a question or axis (or an alias) by a judge.

        Without `judge` it is the judge quoted for the question, else the first.
        """
        question = QUESTION_ALIASES.get(question, question)
        # Axes have no entry in `headline`: they come from one judge, and the first rate is it.
        judge = judge or self.headline.get(question)
        for rate in (*self.axes, *self.rates):
            asked_for = rate.question == question and rate.category == category
            if asked_for and (judge is None or rate.judge == judge):
                return rate
        return None

    def figure(
        self, question: str, category: str | None = None, judge: str | None = None
    ) -> Interval:
        """Returns the share of answers with its interval: corrected by labels where the run has
        some, else by the judge's verdicts.

        Raises UserError if nothing was measured, or if the judge may not measure this model.
        """
        rate = self.find(question, category, judge)
        if rate is None:
            measured = {known.question for known in (*self.axes, *self.rates)}
            raise UserError(f"{question}: was not measured{did_you_mean(question, measured)}")
        if rate.struck:
            raise UserError(f"{question}: {rate.struck}")
        share = rate.corrected or rate.raw
        if share is None:
            raise UserError(f"{question}: none of {rate.n} answers was scored by {rate.judge}")
        return Interval(share.estimate, share.lower, share.upper)


def summarise(
    run: Run | str | Path | VerdictTable, cards: Mapping[str, Path] | None = None
) -> RunSummary:
    """Summarises a run.

    Labels drawn in the run add corrected rates.

    Args:
        run: the run, its folder, or its table.
        cards: judge name -> card.json; adds transported rates.

    Raises:
        RunError: the folder is no run, or a line of its files cannot be read.
        DataError: a card cannot be read, or does not fit a judge of the run.
    """
    if not isinstance(run, VerdictTable):
        folder = run if isinstance(run, Run) else Run(run)
        if is_streamed(folder):
            if cards:
                raise DataError(
                    f"{folder.path}: rates of so large a run are not transported from cards; leave "
                    f"them out ({', '.join(map(str, cards.values()))})"
                )
            return _summarise_parts(folder)
    table = run if isinstance(run, VerdictTable) else read_verdict_table(run)
    rates: list[Rate] = []
    for column in table.columns.values():
        if reports_mean(column) and not has_verdicts(column):
            continue  # a reward answers no yes-or-no question: its mean is in `means`
        # By the category of the prompt, and by the categories that the judge assigns.
        rates += question_rates(table, column)
        rates += predicted_rates(table, column)
    axes = [rate for axis in ALL_AXES for rate in axis_rates(table, axis)]
    notes = [
        f"{count} {source} belong to no sample of the run and were left out"
        for source, count in table.orphan_counts.items()
    ]
    # Without either, the imports of scipy inside these functions are never reached.
    if cards or (table.path / "labels" / "draws.jsonl").is_file():
        n_rates = len(rates)
        corrected, label_notes = _with_corrections(table, [*rates, *axes], cards or {})
        rates, axes = corrected[:n_rates], corrected[n_rates:]
        notes += label_notes
    stopped = stopped_early(table)
    if (missing := _count_unanswered(table)) and not stopped:
        notes.append(
            f"{missing} of {table.size} samples have no stored answer; the command that wrote the "
            "run asks them again"
        )
    if "budget" in table.manifest.notes:
        notes.append(f"the run was {table.manifest.notes['budget']}")
    if stopped:
        rates, axes = use_sequence_intervals(table, rates), use_sequence_intervals(table, axes)
    else:  # the length of a stopped run depends on its rates
        rates, axes = pool_small_rates(rates), pool_small_rates(axes)
    manifest = table.manifest
    return RunSummary(
        model=manifest.model,
        data=tuple(data.spec for data in manifest.data),
        samples=table.size,
        responses=sum(len(states) - states.count(ABSENT) for states in table.response_states),
        failed=sum(states.count(FAILED) for states in table.response_states),
        complete=manifest.complete,
        rates=tuple(rates),
        outcomes=tuple(_count_outcomes(table)),
        axes=tuple(axes),
        headline=_headline_judges(table),
        taxonomy=manifest.taxonomy,
        not_tested=tuple(_list_not_tested(table)),
        notes=tuple(notes),
        # Student's interval does not hold for a run that was stopped by its own figures.
        means=() if stopped else tuple(mean_scores(table)),
        lineage=table.relations,
        tokens=table.tokens if table.tokens.answers else None,
        agents=summarise_agents(table) or UNSET,
        cost=manifest.spending,
    )


def _summarise_parts(run: Run) -> RunSummary:
    """Summarises a sharded run part by part; memory does not grow with it."""
    counts = count_parts(run)
    rates, axes = counts.rates()
    manifest = counts.table.manifest
    return RunSummary(
        model=manifest.model,
        data=tuple(data.spec for data in manifest.data),
        samples=counts.samples,
        responses=counts.responses,
        failed=counts.failed,
        complete=manifest.complete,
        rates=tuple(rates),
        outcomes=(),
        axes=tuple(axes),
        headline=counts.headline(),
        taxonomy=manifest.taxonomy,
        not_tested=tuple(
            _list_untested(manifest.taxonomy, counts.categories, counts.questions, counts.expects)
        ),
        notes=tuple(counts.notes()),
        lineage=counts.table.relations,
        tokens=counts.tokens if counts.tokens.answers else None,
    )


def _count_unanswered(table: VerdictTable) -> int:
    """Returns how many samples of a complete run lack an answer (its file has been cut off).

    Of recorded answers a sample may have none.
    """
    if not table.manifest.complete or not table.manifest.plan.get("n"):
        return 0
    if table.manifest.plan.get("model") == "recorded":
        return 0
    return table.response_states[0].count(ABSENT) if table.response_states else table.size


def write_summary(run: Run | str | Path, cards: Mapping[str, Path] | None = None) -> RunSummary:
    """Writes `summary.json` into the run folder and returns the summary."""
    folder = run if isinstance(run, Run) else Run(run)
    summary = summarise(folder, cards)
    # Written aside and renamed, so that readers never see half a file.
    encoded = msgspec.json.format(msgspec.json.encode(summary), indent=2)
    replace_file(folder.file("summary.json"), encoded + b"\n")
    return summary


def _with_corrections(
    table: VerdictTable, rates: list[Rate], cards: Mapping[str, Path]
) -> tuple[list[Rate], list[str]]:
    """Returns corrected and transported rates, and a note for labels that were not used."""
    labels = use_labels(table)
    corrected = add_corrected_rates(table, rates, labels)
    notes = [
        f"{count} labels of {question!r} {reason} do not enter a correction"
        for question, of_question in labels.items()
        for reason, count in of_question.ignored.items()
    ]
    return add_transported_rates(table, corrected, cards), notes


def _headline_judges(table: VerdictTable) -> dict[str, str]:
    judges = {}
    for question in sorted({question for _, question in table.columns}):
        column = table.headline_column(question)
        if column is not None:
            judges[question] = column.record.name
    return judges


def _count_outcomes(table: VerdictTable) -> list[OutcomeCounts]:
    """Counts outcomes over all answers, by expectation, and by category."""
    counts: dict[tuple[str | None, str | None], Counter[str]] = {}
    for arrays in outcome_codes(table):
        kinds = Counter(zip(table.category_ids, table.expect_ids, *arrays))
        for (category_id, expect_id, state, *verdicts), times in kinds.items():
            if state == ABSENT:
                continue
            outcome = outcome_name(state, *verdicts)
            expect = EXPECTS[expect_id]
            keys: list[tuple[str | None, str | None]] = [(None, None), (None, expect)]
            if expect != "comply":  # a benign prompt belongs to no harm category
                keys += [(category, None) for category in table.category_sets[category_id]]
            for key in keys:
                counts.setdefault(key, Counter())[outcome] += times
    ordered = sorted(counts.items(), key=lambda item: (item[0][0] or "", item[0][1] or ""))
    return [
        OutcomeCounts(category=category, expect=expect, n=by_outcome.total(), **by_outcome)
        for (category, expect), by_outcome in ordered
    ]


def _list_not_tested(table: VerdictTable) -> list[str]:
    """Returns what the run cannot tell: categories without prompts, questions without judges."""
    categories = {c for set_id in set(table.category_ids) for c in table.category_sets[set_id]}
    questions = {question for _, question in table.columns}
    expects = {EXPECTS[expect_id] for expect_id in set(table.expect_ids)}
    return _list_untested(table.manifest.taxonomy, categories, questions, expects)


def _list_untested(
    taxonomy: str, categories: set[str], questions: Collection[str], expects: Collection[str]
) -> list[str]:
    if categories:
        not_tested = [
            f"category {name}: no prompt of it was asked"
            for name in _missing_categories(taxonomy, categories)
        ]
    else:
        not_tested = ["harm by category of the prompt"]
    names = {"harmful": "harm", "refused": "refusal", "degenerate": "degenerate answers"}
    not_tested += [
        f"{name}: no judge was asked"
        for question, name in names.items()
        if question not in questions
    ]
    if "comply" not in expects:
        not_tested.append("over-refusal: no benign prompt was asked")
    return not_tested


def _missing_categories(taxonomy: str, categories: set[str]) -> list[str]:
    try:
        return [c.short for c in load_taxonomy(taxonomy).categories if c.id not in categories]
    except Exception:
        # The taxonomy may be a file that was moved since: no reason to lose the whole summary.
        return []
