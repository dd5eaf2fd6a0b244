"""The gate: checks a run against rules. Passed, failed, or inconclusive.

The claims behind the rules are decided in `truing.analysis`, as those of reports are. Inconclusive
means that too little is known, or that the figure may not be trusted: a gate never passes on a
judge without a card, on a transported figure, or on a judge that chose, trained or blocked the
model or was trained on the run's prompts, unless the rule allows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from truing.analysis.card_files import read_card
from truing.analysis.judge_facts import JudgeFacts, collect_judge_facts, facts_from_card
from truing.analysis.rates import AXES, QUESTION_ALIASES
from truing.analysis.summary import summarise
from truing.core.errors import PlanError, UserError, did_you_mean
from truing.core.taxonomy import load_taxonomy
from truing.gates.bound_rules import evaluate_bound_rule
from truing.gates.comparison_rules import evaluate_comparison_rule
from truing.gates.context import GateContext
from truing.gates.rules import GateRules
from truing.gates.verdict import GateVerdict, RuleOutcome, Status
from truing.runs.folder import JudgeRecord, Run

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


def gate_run(
    run: Run | str | Path,
    rules: GateRules,
    *,
    cards: Sequence[Path] = (),
    baseline: Path | None = None,
    without_baseline: bool = False,
) -> GateVerdict:
    """Checks a run against rules.

    Args:
        run: the run, or the path of its folder.
        rules: the rules, from `read_rules`.
        cards: cards of the run's judges, besides those that the rules name.
        baseline: the run folder that BASELINE stands for in the rules.
        without_baseline: leave out the rules on BASELINE, as before the first run of the main
            branch; the verdict lists them as not tested.

    Raises:
        PlanError: rules name questions, categories or judges that do not exist.
        DataError: a card is of another version of its judge.
        RunError: the run or a baseline cannot be read.
    """
    folder = run if isinstance(run, Run) else Run(run)
    judges = folder.manifest.judges
    judge_names = {judge.name for judge in judges}
    # Rules files are shared by runs, so cards of other judges are no error.
    card_of_judge = {read_card(path).judge: path for path in (*rules.cards, *cards)}
    usable_cards = {name: path for name, path in card_of_judge.items() if name in judge_names}
    context = GateContext(
        run=folder,
        summary=summarise(folder, usable_cards),
        cards=usable_cards,
        judges=judges,
        rules=rules,
        facts=tuple(_judge_facts(judges, usable_cards)),
        baseline=baseline,
    )
    _check_names(context)  # before comparisons, which may take long
    outcomes: list[RuleOutcome] = []
    left_out: list[str] = []
    for rule in rules.rules:
        if rule.kind == "bound":
            decided = [evaluate_bound_rule(context, rule)]
        elif rule.run == "BASELINE" and without_baseline:
            left_out.append(f"{rule.text}: there is no baseline yet")
            continue
        else:
            decided = evaluate_comparison_rule(context, rule)
        outcomes += [replace(outcome, line=rule.line) for outcome in decided]

    status = _worst_status(outcomes)
    notes = list(context.summary.notes)
    if not context.summary.complete:
        notes.append("the run is not complete")
        # An unfinished run may still change every figure.
        if status == "passed":
            status = "inconclusive"
    return GateVerdict(
        run=str(folder.path),
        model=context.summary.model,
        title=rules.title,
        verdict=status,
        outcomes=tuple(outcomes),
        not_tested=(*left_out, *context.summary.not_tested),
        notes=tuple(notes),
        claims=tuple(claim for outcome in outcomes for claim in outcome.claims),
    )


def _worst_status(outcomes: Sequence[RuleOutcome]) -> Status:
    statuses = {outcome.status for outcome in outcomes}
    if "failed" in statuses:
        return "failed"
    # Rules of which all were left out show nothing.
    return "inconclusive" if "inconclusive" in statuses or not outcomes else "passed"


def _judge_facts(judges: Sequence[JudgeRecord], cards: Mapping[str, Path]) -> list[JudgeFacts]:
    """Returns the error rates of the judges, from the given cards and from the shipped ones."""
    from_cards = [facts for path in cards.values() for facts in facts_from_card(read_card(path))]
    return collect_judge_facts(judges, from_cards)


def _check_names(context: GateContext) -> None:
    """Raises PlanError with all rules that name questions, categories or judges in vain."""
    faults: list[str] = []
    taxonomy = context.summary.taxonomy
    answered = {rate.question for rate in (*context.summary.rates, *context.summary.axes)}
    judges = [judge.name for judge in context.judges]
    for rule in context.rules.rules:
        if rule.kind != "bound":
            continue
        if rule.question not in KNOWN_QUESTIONS and rule.question not in answered:
            hint = did_you_mean(rule.question, [*KNOWN_QUESTIONS, *answered])
            faults.append(f"{rule.text!r}: there is no question {rule.question!r}{hint}")
        if rule.category is not None:
            try:
                load_taxonomy(taxonomy).find(rule.category)
            except UserError as error:
                faults += [f"{rule.text!r}: {fault}" for fault in error.faults]
        if rule.judge is not None and rule.judge not in (*judges, "engine"):
            hint = did_you_mean(rule.judge, judges)
            faults.append(f"{rule.text!r}: {rule.judge!r} did not judge this run{hint}")
    if faults:
        raise PlanError(*faults)
