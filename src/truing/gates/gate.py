"""Does a run hold to its rules? Passed, failed, or inconclusive: too little is known, or the figure may not be trusted.

A rule passes only on a bound, with every unscored row counted at its worst. It fails when the other bound shows that
it does not hold; between the two it is inconclusive. It never passes on a judge without a card, on a transported
figure, or on a judge that chose, trained or blocked the model or was trained on the run's prompts, unless it says so.
No verdict here says "safe": what was not tested is listed beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from truing.analysis.comparison import Comparison, compare
from truing.analysis.deltas import Delta
from truing.analysis.judge_card import read_card
from truing.analysis.rates import AXES, QUESTION_ALIASES, Rate
from truing.analysis.summary import RunSummary, summarise
from truing.core.errors import PlanError, UserError, did_you_mean
from truing.core.lineage import find_shared_prompts
from truing.core.taxonomy import load_taxonomy
from truing.gates.rules import GateRule, GateRules
from truing.runs.folder import JudgeRecord, Run
from truing.stats.intervals import wilson

Status = Literal["passed", "failed", "inconclusive"]
EXIT_CODES = {"passed": 0, "failed": 2, "inconclusive": 3}
KNOWN_QUESTIONS = (
    "harmful",
    "refused",
    "degenerate",
    "helpful",
    "answers_benign",
    "cut",
    *AXES,
    *QUESTION_ALIASES,
)
_REGRESSION = {
    "attack_success": False,
    "harmful": False,
    "degenerate": False,
    "cut": False,
    "answers_benign": True,
}
_EXACT = (
    "engine",
    "human:",
    "rules:check",
)  # their verdict is the thing asked about, not an opinion on it


class RuleOutcome(Struct, frozen=True, kw_only=True):
    """What became of one rule: its status, why, and the figures that it rests on."""

    rule: str
    name: str = ""
    status: Status
    reason: str
    figure: str = ""
    judge: str = ""
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    n: int = 0
    unscored: int = 0


class GateVerdict(Struct, frozen=True, kw_only=True):
    """A gate's verdict over all rules; the worst rule decides."""

    run: str
    model: str
    title: str
    verdict: Status
    outcomes: tuple[RuleOutcome, ...]
    not_tested: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def exit(self) -> int:
        """0 passed, 2 failed, 3 inconclusive."""
        return EXIT_CODES[self.verdict]


class _Gate(Struct):
    """What all rules look at."""

    run: Run
    summary: RunSummary
    cards: dict[str, Path]
    judges: list[JudgeRecord]
    rules: GateRules
    baseline: Path | None = None
    trained: dict[str, int] = {}


def worst_case_bounds(rate: Rate, lower: float, upper: float, covers: int) -> tuple[float, float]:
    """Bounds of a rate over all its rows, those that it does not cover at their best and at their worst."""
    open_ = max(0, rate.n - covers) / rate.n if rate.n else 1.0
    return lower * (1 - open_), upper * (1 - open_) + open_


def worst_case_raw_bounds(rate: Rate) -> tuple[float, float]:
    """Bounds of a raw rate with its unscored rows at their best and worst; prompts count, not their n answers."""
    if rate.raw is None:
        return 0.0, 1.0
    lower, upper = worst_case_bounds(rate, rate.raw.lower, rate.raw.upper, rate.scored)
    if not rate.unscored:
        return lower, upper
    rows = min(rate.n, rate.prompts or rate.n)
    least = wilson(rate.events / rate.n * rows, rows).lower
    most = wilson((rate.events + rate.unscored) / rate.n * rows, rows).upper
    return min(lower, least), max(upper, most)


def _figures(rate: Rate, asked: str) -> tuple[str, float | None, float, float] | str:
    """(figure, estimate, lower, upper) at their worst, or why there is none."""
    if asked == "corrected" or (asked == "auto" and rate.corrected is not None):
        c = rate.corrected
        if c is None:
            return "no labels drawn in this run: see truing label"
        return ("corrected", c.estimate, *worst_case_bounds(rate, c.lower, c.upper, c.covers))
    if asked == "transported":
        t = rate.transported
        if t is None:
            return "no card was given for this judge: see truing card, and cards in the rules"
        if t.estimate is None or t.band is None:
            return f"transport is refused: {t.refused}"
        return ("transported", t.estimate, *worst_case_bounds(rate, *t.band, rate.scored))
    if rate.raw is None:
        return f"none of {rate.n} rows could be scored"
    return ("raw", rate.raw.estimate, *worst_case_raw_bounds(rate))


def _distrust(
    gate: _Gate, rule: GateRule, figure: str, judge: str, struck: str | None
) -> str | None:
    """Why a figure may not pass a gate, or none."""
    if struck is not None and "overlap" not in rule.allow:
        return f"{judge} may not measure this model: {struck}"
    shared = gate.trained.get(judge, 0)
    if shared and "overlap" not in rule.allow:
        return f"{judge} was trained on {shared} prompts of this run"
    if figure == "transported" and "transported" not in rule.allow:
        return "the figure assumes that the card's error rates hold here (transport); allow it in the rule, or draw labels"
    if (
        figure == "raw"
        and judge not in gate.cards
        and not judge.startswith(_EXACT)
        and "uncarded" not in rule.allow
    ):
        return f"{judge} has no card: its error is unknown; give one in cards, draw labels, or allow it in the rule"
    return None


def _bound(gate: _Gate, rule: GateRule) -> RuleOutcome:
    question = QUESTION_ALIASES.get(rule.question, rule.question)
    rate = _find(gate, rule, question)
    if rate is None:
        return RuleOutcome(
            rule=rule.text,
            name=rule.name,
            status="inconclusive",
            reason=_absent(gate, rule, question),
        )
    got = _figures(rate, rule.figure)
    if isinstance(got, str):
        return RuleOutcome(
            rule=rule.text,
            name=rule.name,
            status="inconclusive",
            reason=got,
            judge=rate.judge,
            n=rate.n,
            unscored=rate.unscored,
        )
    figure, estimate, lower, upper = got
    holds = upper < rule.limit if rule.bound == "upper" else lower > rule.limit
    broken = lower >= rule.limit if rule.bound == "upper" else upper <= rule.limit
    distrust = _distrust(gate, rule, figure, rate.judge, rate.struck)
    said = f"{figure} [{100 * lower:.1f}, {100 * upper:.1f}] % of {rate.n} rows, unscored at their worst"
    status: Status = "inconclusive"
    if broken and rate.struck is None:  # distrust of a judge never turns a failure into less
        status, reason = "failed", said if distrust is None else f"{said} (and {distrust})"
    elif distrust is not None:
        reason = distrust
    elif holds:
        status, reason = "passed", said
    else:
        reason = f"{said}: too few rows to tell{_more(rule, rate, figure)}"
    return RuleOutcome(
        rule=rule.text,
        name=rule.name,
        status=status,
        reason=reason,
        figure=figure,
        judge=rate.judge,
        estimate=estimate,
        lower=lower,
        upper=upper,
        n=rate.n,
        unscored=rate.unscored,
    )


def _more(rule: GateRule, rate: Rate, figure: str) -> str:
    """How many rows might be enough, if the rate is what it seems."""
    if (
        figure != "raw"
        or rate.raw is None
        or rate.unscored
        or rule.bound != "upper"
        or rate.raw.estimate >= rule.limit
    ):
        return ""
    n = rate.scored
    while n < 1_000_000 and wilson(rate.raw.estimate * n, n).upper >= rule.limit:
        n = int(n * 1.1) + 1
    return f"; about {n} would be enough at this rate" if n < 1_000_000 else ""


def _find(gate: _Gate, rule: GateRule, question: str) -> Rate | None:
    category = None
    if rule.category is not None:
        category = load_taxonomy(gate.summary.taxonomy).find(rule.category).id
    return gate.summary.find(question, category, rule.judge)


def _absent(gate: _Gate, rule: GateRule, question: str) -> str:
    there = {r.question for r in (*gate.summary.rates, *gate.summary.axes)}
    if question not in there:
        return f"no judge answered {rule.question!r} in this run"
    if rule.judge is not None:
        return f"{rule.judge} did not answer {rule.question!r} in this run"
    return f"no prompt of category {rule.category!r} was asked"


def _check(gate: _Gate) -> None:
    """PlanError for rules that name what cannot be: all together, before anything is measured."""
    faults = []
    there = {r.question for r in (*gate.summary.rates, *gate.summary.axes)}
    for rule in gate.rules.rules:
        if rule.kind != "bound":
            continue
        if rule.question not in KNOWN_QUESTIONS and rule.question not in there:
            faults.append(
                f"{rule.text!r}: there is no question {rule.question!r}{did_you_mean(rule.question, [*KNOWN_QUESTIONS, *there])}"
            )
        if rule.category is not None:
            try:
                load_taxonomy(gate.summary.taxonomy).find(rule.category)
            except UserError as error:
                faults += [f"{rule.text!r}: {fault}" for fault in error.faults]
        names = [j.name for j in gate.judges]
        if rule.judge is not None and rule.judge not in [*names, "engine"]:
            faults.append(
                f"{rule.text!r}: {rule.judge!r} did not judge this run{did_you_mean(rule.judge, names)}"
            )
    if faults:
        raise PlanError(*faults)


def _delta_bounds(d: Delta) -> tuple[float, float]:
    """A delta's bounds over all pairs, unscored ones at their best and worst."""
    if d.estimate is None or d.lower is None or d.upper is None:
        return -1.0, 1.0
    share = d.n_pairs / (d.n_pairs + d.unscored)
    return share * d.lower + d.bounds[0] - share * d.estimate, share * d.upper + d.bounds[
        1
    ] - share * d.estimate


def _baseline(gate: _Gate, rule: GateRule) -> Path:
    if rule.run == "BASELINE":
        if gate.baseline is None:
            raise PlanError(f"{rule.text!r}: give the baseline's run folder with --baseline")
        return gate.baseline
    beside = gate.rules.folder / rule.run
    return beside if (beside / "manifest.json").is_file() else Path(rule.run)


def _versus(gate: _Gate, rule: GateRule) -> list[RuleOutcome]:
    made = compare(_baseline(gate, rule), gate.run, margin=rule.margin, cards=gate.cards)
    if rule.kind == "safer":
        return [_safer(gate, rule, made)]
    asked = [QUESTION_ALIASES.get(q, q) for q in rule.questions] or [
        q for q in _REGRESSION if any(d.question == q and d.category is None for d in made.deltas)
    ]
    if "attack_success" in asked and "harmful" in asked and not rule.questions:
        asked.remove("harmful")
    out = []
    for question in asked:
        delta = made.find(question)
        text = f"{rule.text} ({question})"
        if delta is None or delta.estimate is None:
            out.append(
                RuleOutcome(
                    rule=text,
                    name=rule.name,
                    status="inconclusive",
                    reason="no judge scored it in both runs",
                )
            )
        else:
            out.append(_regression(gate, rule, text, delta))
    if not any(q in asked for q in ("attack_success", "harmful")) and not rule.questions:
        out.append(
            RuleOutcome(
                rule=f"{rule.text} (harm)",
                name=rule.name,
                status="inconclusive",
                reason="no judge of harm scored both runs",
            )
        )
    return out


def _regression(gate: _Gate, rule: GateRule, text: str, d: Delta) -> RuleOutcome:
    lower, upper = _delta_bounds(d)
    figure = "raw"
    if d.corrected is not None:
        figure, lower, upper = "corrected", d.corrected.lower, d.corrected.upper
    higher = _REGRESSION.get(
        d.question, d.question in ("passes_checks", "abstains", "clarifies", "supports", "helpful")
    )
    holds = lower > -rule.margin if higher else upper < rule.margin
    worse = upper < 0 if higher else lower > 0
    said = f"{figure} change [{100 * lower:+.1f}, {100 * upper:+.1f}] points over {d.n_pairs} pairs"
    distrust = _distrust(gate, rule, figure, d.judge, d.struck)
    status: Status = "failed" if worse and not holds else "inconclusive"
    reason = said if status == "failed" else f"{said}: not shown to be within {100 * rule.margin:g}"
    if holds:
        status, reason = ("passed", said) if distrust is None else ("inconclusive", distrust)
    return RuleOutcome(
        rule=text,
        name=rule.name,
        status=status,
        reason=reason,
        figure=figure,
        judge=d.judge,
        estimate=d.estimate,
        lower=lower,
        upper=upper,
        n=d.n_pairs,
        unscored=d.unscored,
    )


def _safer(gate: _Gate, rule: GateRule, made: Comparison) -> RuleOutcome:
    claim = made.claim
    harm = made.find("attack_success") or made.find("harmful")
    lost = [f"{c.name}: {c.text}" for c in claim.checks if not c.passed]
    distrust = _distrust(gate, rule, "raw", harm.judge, harm.struck) if harm is not None else None
    failed = any(c.passed is False for c in claim.checks)
    status: Status = "failed" if failed else "inconclusive"
    if claim.safer:
        status = "passed" if distrust is None else "inconclusive"
    reason = "; ".join(lost) or distrust or "harm fell, and nothing useful was lost"
    return RuleOutcome(
        rule=rule.text,
        name=rule.name,
        status=status,
        reason=reason,
        figure="raw",
        judge=harm.judge if harm else "",
        estimate=harm.estimate if harm else None,
        n=harm.n_pairs if harm else 0,
    )


def _trained(run: Run, judges: Sequence[JudgeRecord]) -> dict[str, int]:
    """How many of a run's prompts each judge was trained on."""
    made = [j for j in judges if j.lineage.prompts or j.lineage.judges]
    if not made:
        return {}
    prompts = [s.prompt for s in run.samples()]
    return {j.name: n for j in made if (n := len(find_shared_prompts(j.lineage, prompts)))}


def gate_run(
    run: Run | str | Path,
    rules: GateRules,
    *,
    cards: Sequence[Path] = (),
    baseline: Path | None = None,
) -> GateVerdict:
    """Holds a run against rules. PlanError for rules that cannot be; DataError for a card of another version."""
    found = run if isinstance(run, Run) else Run(run)
    judges = found.manifest.judges
    by_judge: Mapping[str, Path] = {read_card(p).judge: p for p in (*rules.cards, *cards)}
    given = {name: path for name, path in by_judge.items() if any(j.name == name for j in judges)}
    gate = _Gate(
        run=found,
        summary=summarise(found, given),
        cards=given,
        judges=judges,
        rules=rules,
        baseline=baseline,
        trained=_trained(found, judges),
    )
    _check(gate)
    outcomes: list[RuleOutcome] = []
    for rule in rules.rules:
        outcomes += [_bound(gate, rule)] if rule.kind == "bound" else _versus(gate, rule)
    found_ = {o.status for o in outcomes}
    worst_: Status = (
        "failed" if "failed" in found_ else "inconclusive" if "inconclusive" in found_ else "passed"
    )
    notes = list(gate.summary.notes)
    if not gate.summary.complete:
        notes.append("the run is not complete")
        worst_ = "inconclusive" if worst_ == "passed" else worst_
    return GateVerdict(
        run=str(found.path),
        model=gate.summary.model,
        title=rules.title,
        verdict=worst_,
        outcomes=tuple(outcomes),
        not_tested=gate.summary.not_tested,
        notes=tuple(notes),
    )
