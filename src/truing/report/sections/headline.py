"""The first page: three answers, the variants side by side, and what a reader must know."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from msgspec import UNSET

from truing.analysis.claim_analyses import CARD_MARGIN
from truing.analysis.claims import Claim, Decision
from truing.analysis.comparison import Comparison
from truing.analysis.judge_facts import JudgeFacts, collect_judge_facts
from truing.analysis.lineage_relations import warnings_about
from truing.analysis.rates import SMALL_SAMPLE_SIZE, Rate
from truing.analysis.summary import RunSummary
from truing.core.prices import format_money
from truing.report.blocks import AnswerCard, AnswerCards, Cell, Grid, Section, Table, Text
from truing.report.formatting import (
    SELECTED,
    axis_title,
    format_gate_command,
    format_percent,
    format_rate,
)
from truing.report.key_answers import KeyAnswer, figure_title
from truing.report.report_data import ReportData, Variant
from truing.report.sections.shown import recorded_texts, shown_blocks

_SHOWN = (
    "attack_success",
    "harmful",
    "harmful_benign",
    "answers_benign",
    "passes_checks",
    "clarifies",
    "abstains",
    "supports",
    "degenerate",
    "cut",
)
_BROKEN = ("degenerate", "cut")
_HARM = {"attack_success", "harmful", "harmful_benign"}
_KINDS: dict[Decision, str] = {"yes": "yes", "no": "no", "not_shown": "open"}
# A word beside the colour: what the engine decided about the change of a figure.
_CHANGE_WORDS = {
    ("fell", "yes"): ("good", "fell"),
    ("fell", "no"): ("bad", "rose"),
    ("not worse than", "yes"): ("good", "not worse"),
    ("not worse than", "no"): ("bad", "worse"),
}
# From this share of answers to benign prompts that are called harmful, a warning doubts the judge.
# A convention of this report, from no paper: four times the points by which a judge's error rates
# are taken to differ between models anyway (`CARD_MARGIN`).
_DOUBT = 4 * CARD_MARGIN


def _find(summary: RunSummary | None, question: str) -> Rate | None:
    rate = summary.find(question) if summary is not None else None
    return rate if rate is not None and rate.n else None


def _summaries(report: ReportData) -> Iterator[tuple[Variant, str, RunSummary]]:
    for data in report.data:
        for variant in report.variants:
            if data in variant.summaries:
                yield variant, data, variant.summaries[data]


def claim_cell(comparison: Comparison) -> Cell:
    """Returns the word of a conclusion, such as "safer", with the reason on hover."""
    word = comparison.claim.word
    kind = {"safer": "good", "more harmful": "bad", "not safer": "bad"}.get(word, "quiet")
    reason = comparison.claims[0].reason if comparison.claims else ""
    return Cell(word, kind, reason)


def _answer_card(answer: KeyAnswer) -> AnswerCard:
    lines = []
    if answer.struck:
        lines.append(("Struck:", answer.struck))
    elif answer.reason:
        lines.append(("Why:", answer.reason))
    if answer.needs:
        lines.append(("Would settle it:", answer.needs))
    if answer.claim is not None and answer.claim.assumptions and answer.decision != "not_shown":
        lines.append(("Assumes:", "; ".join(answer.claim.assumptions)))
    return AnswerCard(
        answer.title,
        _KINDS[answer.decision],
        answer.word,
        answer.figure,
        bool(answer.struck),
        tuple(lines),
    )


def _answers_of(report: ReportData, variant: str) -> list[KeyAnswer]:
    return [answer for answer in report.answers if answer.variant == variant]


def _about(report: ReportData) -> Text:
    """Returns which variant the answers are about, and how it was chosen."""
    if len(report.variants) < 2:
        return Text(f"About {report.focus}.", "about")
    text = f"About {report.focus}, compared with {report.baseline}."
    if len(report.variants) > 2:
        text += (
            f" Of {len(report.variants) - 1} variants it is the one of which most is shown; the "
            "table has all."
        )
    return Text(text, "about")


def _variants_table(report: ReportData) -> Table:
    """Returns the figures in rows, the variants in columns: verdicts first, then rates, cost."""
    grid = Grid(["", *(_column_title(report, variant) for variant in report.variants)])
    answers = [_answers_of(report, variant.name) for variant in report.variants]
    titles = [answer.title for answer in answers[0]] if answers else []
    for at, title in enumerate(titles):
        grid.add(Cell(title), *(_decision_cell(report, of_variant[at]) for of_variant in answers))
    for question in _SHOWN:
        for data in report.data:
            _add_figure(grid, report, question, data)
    for label, cells in _cost_rows(report):
        grid.add(label, *cells)
    return grid.table(
        "All variants. Green and red: what is shown of the change; the word says the same.",
        right=range(1, 1 + len(report.variants)),
        stacked=True,
    )


def _column_title(report: ReportData, variant: Variant) -> str:
    incomplete = any(not summary.complete for summary in variant.summaries.values())
    marks = [
        *(["baseline"] if variant.name == report.baseline and len(report.variants) > 1 else []),
        *(["not complete"] if incomplete else []),
    ]
    return f"{variant.name} ({', '.join(marks)})" if marks else variant.name


def _decision_cell(report: ReportData, answer: KeyAnswer) -> Cell:
    if answer.claim is None and answer.asks != "safe_enough" and answer.variant == report.baseline:
        return Cell("–", "quiet", answer.reason)
    return Cell(answer.word, _KINDS[answer.decision], answer.describe())


def _add_figure(grid: Grid, report: ReportData, question: str, data_name: str) -> None:
    summaries = [variant.summaries.get(data_name) for variant in report.variants]
    rates = [_find(summary, question) for summary in summaries]
    # Harm over all prompts says nothing more than harm on harmful ones.
    if question == "harmful" and any(_find(s, "attack_success") for s in summaries):
        return
    # Of prompts that need support, what is answered says little, and less what is cut.
    is_support = any(_find(s, "supports") for s in summaries)
    if question in (*_BROKEN, "answers_benign") and is_support:
        return
    if question in _BROKEN and not any(_find(s, "answers_benign") for s in summaries):
        return
    first = next((rate for rate in rates if rate is not None), None)
    if first is None:
        return
    judges = dict.fromkeys(rate.judge for rate in rates if rate is not None)
    for judge in judges:
        summary = next(s for s in summaries if s is not None)
        title = figure_title(question)
        label = axis_title(summary, question, title)
        notes = [
            *([data_name] if len(report.data) > 1 else []),
            f"by {judge}",
            *_related_mark(report, judge),
        ]
        cells = [
            _figure_cell(report, variant, data_name, rate)
            if rate is not None and rate.judge == judge
            else Cell("–", "quiet")
            for variant, rate in zip(report.variants, rates)
        ]
        grid.add(Cell(label, note="; ".join(notes)), *cells)


def _relations(report: ReportData, judge: str) -> list[str]:
    """Returns what a judge shares with models or prompts without being struck for it."""
    of_judge = (warnings_about(s.lineage, judge) for _, _, s in _summaries(report))
    return list(dict.fromkeys(text for texts in of_judge for text in texts))


def _related_mark(report: ReportData, judge: str) -> list[str]:
    return ["related to what it judges, see below"] if _relations(report, judge) else []


def _relation_texts(report: ReportData) -> list[Text]:
    """Returns the relations of each judge that is quoted in the table."""
    quoted = dict.fromkeys(
        rate.judge for _, _, s in _summaries(report) for q in _SHOWN if (rate := _find(s, q))
    )
    return [
        Text(f"Related: {'; '.join(relations)}.", "note")
        for judge in quoted
        if (relations := _relations(report, judge))
    ]


def _figure_cell(report: ReportData, variant: Variant, data_name: str, rate: Rate) -> Cell:
    notes = [f"{rate.unscored:,} unscored"] if rate.unscored else []
    if rate.raw is not None and rate.scored >= SMALL_SAMPLE_SIZE:
        notes.append(f"{rate.events:,} of {rate.scored:,}")
    if rate.corrected is not None and rate.raw is not None:
        notes.append(
            f"corrected by {rate.corrected.labels:,} labels; the judge alone: "
            f"{format_percent(rate.raw.estimate)}"
        )
    if rate.selected_by_judge:
        reason = rate.struck or SELECTED
        return Cell(format_rate(rate), "struck", note="; ".join(notes), why=reason)
    kind, word = _shown_change(report, variant, data_name, rate)
    notes = [word, *notes] if word else notes
    return Cell(format_rate(rate), kind, note="; ".join(notes))


def _shown_change(report: ReportData, variant: Variant, data: str, rate: Rate) -> tuple[str, str]:
    """Returns colour and word of a figure whose change against the baseline was decided."""
    comparison = report.comparisons.get(variant.name, {}).get(data)
    for claim in comparison.claims if comparison is not None else ():
        if claim.question == rate.question and claim.judge in ("", rate.judge):
            change_words = _CHANGE_WORDS.get((claim.claim, claim.decision))
            if change_words is not None:
                return change_words
    return "", ""


def _cost_rows(report: ReportData) -> Iterator[tuple[str, list[Cell]]]:
    """Yields the tokens written and read for an answer, on the first data set with answers."""
    for data_name in report.data[:1]:
        totals = [
            summary.tokens if (summary := v.summaries.get(data_name)) is not None else None
            for v in report.variants
        ]
        if not any(totals):
            return
        data_suffix = f" ({data_name})" if len(report.data) > 1 else ""
        written, read = [], []
        for total in totals:
            if total is None:
                written.append(Cell("–", "quiet"))
                read.append(Cell("–", "quiet"))
                continue
            cached = f"{total.cached / total.answers:,.0f} from a cache" if total.cached else ""
            written.append(Cell(f"{total.written / total.answers:,.0f}"))
            read.append(Cell(f"{total.read / total.answers:,.0f}", note=cached))
        yield f"cost: tokens written an answer{data_suffix}", written
        yield f"cost: tokens read an answer{data_suffix}", read
    money = [_money_cell(variant) for variant in report.variants]
    if any(cell.text != "–" for cell in money):
        yield "cost: money for all answers, without judges", money


def _money_cell(variant: Variant) -> Cell:
    """Returns what the answers of a variant cost on all data sets together."""
    costs = [s.cost for s in variant.summaries.values() if s.cost is not UNSET]
    amounts = [cost.money for cost in costs if cost.money is not None]
    if not amounts or len(amounts) < len(variant.summaries):
        return Cell("–", "quiet")
    estimated = sum(cost.estimated for cost in costs)
    note = f"{estimated:,} answers state no usage: estimated" if estimated else ""
    return Cell(format_money(sum(amounts)), note=note)


def _judge_texts(report: ReportData) -> list[Text]:
    """Returns what the judges of harm find and how often they err, by their cards."""
    records = [r for v in report.variants for m in v.manifests.values() for r in m.judges]
    quoted = {rate.judge for _, _, s in _summaries(report) for q in _HARM if (rate := _find(s, q))}
    return [
        Text(f"{_describe_facts(facts)} {_false_alarms(report, facts.judge)}", "note")
        for facts in collect_judge_facts(records, report.facts)
        if facts.question == "harmful" and facts.judge in quoted and facts.sensitivity is not None
    ]


def _describe_facts(facts: JudgeFacts) -> str:
    sensitivity, specificity = facts.sensitivity, facts.specificity
    text = f"{facts.judge}, by its card ({facts.n:,} labelled rows),"
    if sensitivity is not None:
        text += (
            f" finds {format_percent(sensitivity.estimate, 0)} [{100 * sensitivity.lower:.0f}, "
            f"{100 * sensitivity.upper:.0f}] of the harmful answers"
        )
    if specificity is not None:
        text += (
            f" and flags {format_percent(1 - specificity.estimate, 0)} "
            f"[{100 * (1 - specificity.upper):.0f}, {100 * (1 - specificity.lower):.0f}] "
            "of the harmless ones"
        )
    return f"{text}."


def _false_alarms(report: ReportData, judge: str) -> str:
    """Returns what a judge flags of the baseline's benign answers, on the set with the most."""
    rates = [
        (data_name, rate)
        for variant, data_name, summary in _summaries(report)
        if variant.name == report.baseline
        and (rate := _find(summary, "harmful_benign"))
        and rate.judge == judge
    ]
    if not rates:
        return "What it flags of the benign answers here stands in the table."
    data_name, rate = max(rates, key=lambda of_data: of_data[1].scored)
    return (
        f"Of the answers of {report.baseline} to benign prompts here it flags {format_rate(rate)} "
        f"({data_name}): false alarms on this model, as far as those answers are harmless."
    )


def _warnings(report: ReportData) -> list[Text]:
    texts: list[Text] = []
    failed = sum(s.failed for _, _, s in _summaries(report))
    answers = sum(s.responses for _, _, s in _summaries(report))
    if failed:
        counts = f"{failed:,} of {answers:,} answers failed"
        texts.append(Text(f"{counts}; they count as unscored, never as safe.", "warning"))
    for variant, data_name, summary in _summaries(report):
        if not summary.complete:
            manifest = variant.manifests.get(data_name)
            reason = manifest.notes.get("budget", "not complete") if manifest else "not complete"
            text = f"The run of {variant.name} on {data_name} is {reason}: every figure may change."
            texts.append(Text(text, "warning"))
    if not any(_find(s, "harmful") for _, _, s in _summaries(report)):
        text = (
            "No judge of harm was asked: what does not refuse is shown as answered, never as "
            "harmful."
        )
        texts.append(Text(text, "note"))
    texts += _doubts(report)
    sets_by_reason: dict[str, list[str]] = {}
    for _, data_name, summary in _summaries(report):
        for relation in summary.lineage:
            # What chose or trained a variant is said where its figures are struck.
            if relation.consequence == "strike" and relation.kind.endswith("and prompts"):
                of_text = sets_by_reason.setdefault(relation.text, [])
                if data_name not in of_text:
                    of_text.append(data_name)
    for relation_text, sets in sets_by_reason.items():
        text = f"{relation_text} ({', '.join(sets)}): its figures there are struck."
        texts.append(Text(text, "warning"))
    return texts


def _doubts(report: ReportData) -> list[Text]:
    # The lower bound: a few answers that happen to be flagged raise no warning.
    doubtful = [
        variant.name if len(report.data) == 1 else f"{variant.name} on {data}"
        for variant, data, summary in _summaries(report)
        if (rate := _find(summary, "harmful_benign"))
        and rate.raw
        and rate.corrected is None
        and rate.raw.lower > _DOUBT
    ]
    if not doubtful:
        return []
    text = (
        f"The judge calls more than {_DOUBT:.0%} of the answers to benign prompts harmful "
        f"({', '.join(doubtful)}), a limit by convention: either they are, or the judge errs on "
        "these prompts. Its errors may differ by variant, so neither levels nor differences can be "
        "read off its verdicts; what is said of differences is net of what changed on benign "
        "prompts. Labels of a random sample (truing label) correct both."
    )
    return [Text(text, "warning")]


def next_commands(report: ReportData) -> list[str]:
    """Returns commands that would settle more, about the variant of the first page."""
    answers = _answers_of(report, report.focus)
    variant = next((v for v in report.variants if v.name == report.focus), None)
    baseline = next((v for v in report.variants if v.name == report.baseline), None)
    if variant is None or not variant.runs:
        return []
    data = next((a.data for a in answers if a.data in variant.runs), next(iter(variant.runs)))
    runs = [variant.runs[data]]
    if baseline is not None and baseline is not variant and data in baseline.runs:
        runs.insert(0, baseline.runs[data])
    quoted = [shlex.quote(run) for run in runs]
    against = f" --against {quoted[0]}" if len(quoted) > 1 else ""
    return [
        f"truing label {quoted[-1]}{against} --n {_labels_to_draw(answers)}",
        f"truing view {' '.join(quoted)}",
        format_gate_command(quoted[-1]),
    ]


def _labels_to_draw(answers: Sequence[KeyAnswer]) -> int:
    claims: list[Claim] = [a.claim for a in answers if a.claim is not None]
    needed = [c.labels_needed.total for c in claims if c.labels_needed is not None]
    return min(needed, default=60)


def build_section(report: ReportData) -> Section:
    """Returns the three answers, the table of variants, and what a reader must know before
    trusting them.
    """
    blocks = shown_blocks(report)
    answers = _answers_of(report, report.focus)
    if answers:
        blocks += [_about(report), AnswerCards(tuple(map(_answer_card, answers)))]
    blocks += _warnings(report)
    if report.variants:
        blocks.append(_variants_table(report))
    blocks += [*_relation_texts(report), *_judge_texts(report), *recorded_texts(report)]
    if report.about:
        blocks.append(Text(report.about, "note"))
    commands = next_commands(report)
    if commands:
        blocks.append(Text("Next: " + " · ".join(commands), "commands"))
    lead = (
        "Each figure has a 95 % interval; all are of these prompts, this judge and this sampling."
    )
    return Section("headline", "The answer", tuple(blocks), lead=lead)
