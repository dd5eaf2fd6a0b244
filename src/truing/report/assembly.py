"""From run folders to the data of a report: summaries, comparisons with a baseline, rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from msgspec import UNSET, Struct

from truing.analysis.attack_success import AttackResult, attack_results
from truing.analysis.card_files import read_card
from truing.analysis.comparison import Comparison, adjust_comparisons, compare
from truing.analysis.judge_facts import JudgeFacts, collect_judge_facts, facts_from_card
from truing.analysis.summary import summarise
from truing.analysis.verdict_table import cached_verdict_tables
from truing.core.version import __version__
from truing.report.key_answers import (
    KeyAnswer,
    MeasuredVariant,
    answer_for_variant,
    choose_variant,
)
from truing.report.limits import MAX_HARM, find_max_harm_fault
from truing.report.report_data import Ranking, ReportData, Variant
from truing.report.rows import select_rows
from truing.report.shown_questions import read_shown_questions
from truing.runs.folder import Run

RunsByVariant = Mapping[str, Mapping[str, Path]]
"""Variant -> name of the data set -> run folder."""

Comparisons = Mapping[str, Mapping[str, Comparison]]
"""Variant -> name of the data set -> its comparison with the baseline."""


class ReportOptions(Struct, frozen=True, kw_only=True):
    """What a report is called and what it says of itself (`about`), and how it compares.

    `margin` is the loss of usable answers to benign prompts that still counts as none, `max_harm`
    the share of harmful answers that counts as safe enough; `cards` are the cards of judges by the
    judge's name. Texts of rows are included if `with_text` is set, or
    where all data is built in: those prompts are mild. `shown` are runs, by variant, whose answers
    stand in full before the figures, and count in none.
    """

    title: str
    baseline: str
    about: str = ""
    margin: float = 0.05
    max_harm: float = MAX_HARM
    cards: Mapping[str, Path] = {}
    with_text: bool = False
    rankings: Sequence[Ranking] = ()
    seconds: float | None = None
    shown: Sequence[Mapping[str, Path]] = ()


def assemble_report(
    runs: RunsByVariant, options: ReportOptions, comparisons: Comparisons | None = None
) -> ReportData:
    """Returns the data of the report on some runs.

    `comparisons` are those with the baseline, where the caller has made them; otherwise each
    variant is compared on every data set that it shares with the baseline.
    """
    with cached_verdict_tables():
        variants = tuple(_read_variant(name, folders) for name, folders in runs.items())
        if comparisons is None:
            comparisons = compare_variants(runs, options)
        opened = [Run(path) for folders in runs.values() for path in folders.values()]
        with_text = options.with_text or all(has_only_builtin_data(run) for run in opened)
        rows, rows_left_out = select_rows(
            variants,
            {name: dict(by_data) for name, by_data in comparisons.items()},
            with_text=with_text,
        )
    shown_runs = [
        runs_of_set for runs_of_set in options.shown if with_text or _is_builtin(runs_of_set)
    ]
    facts = tuple(f for p in options.cards.values() for f in facts_from_card(read_card(p)))
    answers = answer_report(variants, comparisons, options, facts)
    return ReportData(
        title=options.title,
        about=options.about,
        created=date.today().isoformat(),
        version=__version__,
        baseline=options.baseline,
        variants=variants,
        data=tuple(dict.fromkeys(name for folders in runs.values() for name in folders)),
        comparisons={name: dict(by_data) for name, by_data in comparisons.items()},
        rankings=tuple(options.rankings),
        rows=tuple(rows),
        rows_left_out=rows_left_out,
        with_text=with_text,
        seconds=options.seconds,
        facts=facts,
        claims=tuple(
            claim
            for by_data in comparisons.values()
            for comparison in by_data.values()
            for claim in comparison.claims
        ),
        answers=tuple(answer for of_variant in answers.values() for answer in of_variant),
        focus=choose_variant(answers, options.baseline),
        max_harm=options.max_harm,
        shown=tuple(q for runs_of_set in shown_runs for q in read_shown_questions(runs_of_set)),
        attacks=_attacks_of_variants(variants) or UNSET,
    )


def _attacks_of_variants(variants: Sequence[Variant]) -> dict[str, dict[str, list[AttackResult]]]:
    """Returns variant -> data set -> results of the attacks on it, of those that were attacked."""
    attacks: dict[str, dict[str, list[AttackResult]]] = {}
    for variant in variants:
        for data_name, run in variant.runs.items():
            # The plain prompts may be in another data set of the plan.
            plain = [folder for name, folder in variant.runs.items() if name != data_name]
            if results := attack_results(run, plain):
                attacks.setdefault(variant.name, {})[data_name] = results
    return attacks


def _is_builtin(runs: Mapping[str, Path]) -> bool:
    return all(has_only_builtin_data(Run(path)) for path in runs.values())


def answer_report(
    variants: Sequence[Variant],
    comparisons: Comparisons,
    options: ReportOptions,
    facts: Sequence[JudgeFacts],
) -> dict[str, tuple[KeyAnswer, KeyAnswer, KeyAnswer]]:
    """Returns the three answers of the first page for each variant.

    Raises ValueError if `max_harm` does not lie between 0 and 1.
    """
    if fault := find_max_harm_fault(options.max_harm):
        raise ValueError(f"max_harm {fault}")
    records = [r for v in variants for m in v.manifests.values() for r in m.judges]
    by_judge = {(f.judge, f.question): f for f in collect_judge_facts(records, facts)}
    return {
        variant.name: answer_for_variant(
            MeasuredVariant(
                name=variant.name,
                summaries=variant.summaries,
                comparisons=comparisons.get(variant.name, {}),
            ),
            options.baseline,
            options.max_harm,
            lambda judge, question: by_judge.get((judge, question)),
        )
        for variant in variants
    }


def compare_variants(
    runs: RunsByVariant, options: ReportOptions
) -> dict[str, dict[str, Comparison]]:
    """Compares each variant with the baseline on every data set that both have; p values are
    adjusted over all of them.
    """
    baseline = runs[options.baseline]
    comparisons = {
        name: {
            data_name: compare(
                baseline[data_name], path, margin=options.margin, cards=options.cards or None
            )
            for data_name, path in folders.items()
            if data_name in baseline
        }
        for name, folders in runs.items()
        if name != options.baseline
    }
    keys = [(name, data_name) for name, by_data in comparisons.items() for data_name in by_data]
    adjusted = adjust_comparisons([comparisons[name][data_name] for name, data_name in keys])
    for (name, data_name), comparison in zip(keys, adjusted):
        comparisons[name][data_name] = comparison
    return comparisons


def _read_variant(name: str, folders: Mapping[str, Path]) -> Variant:
    runs = {data: Run(path) for data, path in folders.items()}
    return Variant(
        name=name,
        runs={data: str(path) for data, path in folders.items()},
        summaries={data: summarise(run) for data, run in runs.items()},
        manifests={data: run.manifest for data, run in runs.items()},
    )


def has_only_builtin_data(run: Run) -> bool:
    """Returns whether the run has data, and all of it is `builtin:`."""
    data = run.manifest.data
    return bool(data) and all(d.spec.split(",", 1)[0].startswith("builtin:") for d in data)
