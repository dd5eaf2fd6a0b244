"""The three answers of the first page: is a variant safe enough, did it get safer, did it stay
useful.

Each follows from a claim of the analysis (`analysis.claims`, `analysis.rate_claims`), and has its
decision, figures, reason and what would settle it. Over several data sets the worst decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.claim_decisions import describe_change
from truing.analysis.claims import HARM_QUESTIONS, Claim, Decision
from truing.analysis.comparison import Comparison
from truing.analysis.judge_facts import JudgeFacts
from truing.analysis.rate_claims import RateRule, decide_rate
from truing.analysis.rates import AXIS_TITLES, Rate
from truing.analysis.summary import RunSummary
from truing.report.formatting import SELECTED, format_percent, format_rate

DECISION_WORDS: dict[Decision, str] = {"yes": "yes", "no": "no", "not_shown": "not shown"}
_BETTER_FIRST: dict[Decision, int] = {"yes": 0, "not_shown": 1, "no": 2}
# Where data sets differ, "no" on one of them is the answer, and "not shown" on one hides a "yes".
_WORSE_FIRST: dict[Decision, int] = {"no": 0, "not_shown": 1, "yes": 2}

FactsOfJudge = Callable[[str, str], JudgeFacts | None]
"""(judge, question) -> what its card says."""


class KeyAnswer(Struct, frozen=True, kw_only=True):
    """One of the three answers about a variant.

    Attributes:
        asks: ``safe_enough``, ``safer`` or ``useful``.
        title: the question in words.
        data: the data set whose figure decides.
        figure: the figure with its interval, in words; empty if nothing was measured.
        reason: why the decision is as it is; `claim` has it in full.
        needs: what would settle it; empty if it is settled.
        struck: why the judge may not measure the variant; the figure then proves nothing.
        claim: the claim that the answer follows from; None if there is none.
    """

    asks: Literal["safe_enough", "safer", "useful"]
    title: str
    variant: str
    baseline: str = ""
    data: str = ""
    decision: Decision = "not_shown"
    figure: str = ""
    reason: str = ""
    needs: str = ""
    struck: str = ""
    claim: Claim | None = None

    @property
    def word(self) -> str:
        """The decision in words: yes, no or not shown."""
        return DECISION_WORDS[self.decision]

    def describe(self) -> str:
        """Returns the answer in one paragraph."""
        parts = [
            f"{self.title} {self.word.capitalize()}",
            f"{self.figure} (struck)" if self.figure and self.struck else self.figure,
            f"Why: {self.reason}" if self.reason else "",
            f"Would settle it: {self.needs}" if self.needs else "",
        ]
        return ". ".join(part.rstrip(".") for part in parts if part) + "."


class MeasuredVariant(Struct, frozen=True, kw_only=True):
    """What the answers about a variant are made from, by data set."""

    name: str
    summaries: Mapping[str, RunSummary]
    comparisons: Mapping[str, Comparison]


def answer_for_variant(
    variant: MeasuredVariant, baseline: str, max_harm: float, facts_of: FactsOfJudge
) -> tuple[KeyAnswer, KeyAnswer, KeyAnswer]:
    """Returns the three answers about one variant; the baseline is compared with nothing."""
    safe = _safe_enough(variant, max_harm, facts_of)
    if variant.name == baseline or not variant.comparisons:
        safer, useful = _nothing_to_compare(variant, baseline)
    else:
        safer, useful = _safer(variant, baseline), _useful(variant, baseline)
    if max(len(variant.summaries), len(variant.comparisons)) < 2:
        return safe, safer, useful
    return _name_data(safe), _name_data(safer), _name_data(useful)


def _name_data(answer: KeyAnswer) -> KeyAnswer:
    """Returns the answer with the data set that decided in its figure."""
    if not answer.figure or not answer.data:
        return answer
    return replace(answer, figure=f"{answer.figure} (on {answer.data})")


def choose_variant(answers: Mapping[str, Sequence[KeyAnswer]], baseline: str) -> str:
    """Returns the variant that the first page is about: the one of which most is shown.

    Fewest struck figures first, then by "safer", "useful" and "safe enough"; of equals the first
    of the plan. A baseline that is alone is it.
    """
    candidates = [name for name in answers if name != baseline] or list(answers)

    def standing(name: str) -> tuple[int, ...]:
        safe, safer, useful = answers[name]
        struck = sum(bool(answer.struck) for answer in answers[name])
        return (struck, *(_BETTER_FIRST[a.decision] for a in (safer, useful, safe)))

    return min(candidates, key=standing, default="")


def _safe_enough(variant: MeasuredVariant, max_harm: float, facts_of: FactsOfJudge) -> KeyAnswer:
    answer = KeyAnswer(
        asks="safe_enough",
        title="Is it safe enough?",
        variant=variant.name,
        reason="no judge of harm was asked: nobody knows whether its answers are harmful",
        needs="a judge of harm, such as moderation:default",
    )
    rule = RateRule(bound="upper", limit=max_harm)
    decided = []
    for data_name, rate in _harm_rates(variant.summaries):
        claim = decide_rate(rate, rule, facts_of(rate.judge, "harmful"), variant=variant.name)
        decision, reason, needs = claim.decision, claim.short_reason or claim.reason, claim.needs
        if not variant.summaries[data_name].complete and decision == "yes":
            decision, reason, needs = "not_shown", "the run is not complete", "the rest of the run"
        decided.append(
            replace(
                answer,
                data=data_name,
                decision=decision,
                figure=_harm_sentence(rate, max_harm),
                reason=reason,
                needs=needs,
                struck=rate.struck or "" if rate.selected_by_judge else "",
                claim=claim,
            )
        )
    return min(decided, key=lambda a: (_WORSE_FIRST[a.decision], -_upper(a)), default=answer)


def _upper(answer: KeyAnswer) -> float:
    return answer.claim.upper or 0.0 if answer.claim is not None else 0.0


def _harm_rates(summaries: Mapping[str, RunSummary]) -> Iterator[tuple[str, Rate]]:
    """Yields the rates of harm over all prompts, plain and attacked ones apart, by data set."""
    for data_name, summary in summaries.items():
        for question in HARM_QUESTIONS:
            quoted = summary.find(question)
            if quoted is None or not quoted.n:
                continue
            for rate in (*summary.axes, *summary.rates):
                if (rate.question, rate.judge, rate.category) == (question, quoted.judge, None):
                    yield data_name, rate
            break


def _harm_sentence(rate: Rate, max_harm: float) -> str:
    kind = "harmful" if rate.question == "attack_success" else ""
    prompts = " ".join(word for word in (rate.group, kind, "prompts") if word)
    labels = f", corrected by {rate.corrected.labels:,} labels" if rate.corrected else ""
    return (
        f"{format_rate(rate)} of the answers to {prompts} are harmful by {rate.judge}{labels}; at "
        f"most {format_percent(max_harm, 0 if max_harm >= 0.01 else 1)} may be"
    )


def _nothing_to_compare(variant: MeasuredVariant, baseline: str) -> tuple[KeyAnswer, KeyAnswer]:
    reason = "there is one variant, and so nothing to compare"
    if variant.name != baseline:
        reason = f"it was measured on no data set that {baseline} was measured on"
    elif variant.comparisons:
        reason = "it is what the others are compared with"
    safer = KeyAnswer(
        asks="safer",
        title="Did it get safer?",
        variant=variant.name,
        baseline=baseline,
        reason=reason,
        needs="a second variant in the plan",
    )
    usable = next(
        (
            (data_name, rate)
            for data_name, summary in variant.summaries.items()
            if (rate := summary.find("answers_benign")) is not None and rate.n
        ),
        None,
    )
    useful = replace(safer, asks="useful", title="Did it stay useful?")
    if usable is not None:
        data_name, rate = usable
        useful = replace(
            useful, data=data_name, figure=f"{format_rate(rate)} of the benign prompts are answered"
        )
    return safer, useful


def _safer(variant: MeasuredVariant, baseline: str) -> KeyAnswer:
    answer = KeyAnswer(
        asks="safer",
        title="Did it get safer?",
        variant=variant.name,
        baseline=baseline,
        reason=f"no judge of harm scored both {variant.name} and {baseline}",
        needs="a judge of harm on both",
    )
    decided = []
    for data, comparison in variant.comparisons.items():
        if comparison.claims and comparison.claims[0].estimate is not None:
            decided.append(_from_claim(answer, data, comparison.claims[0], comparison))
        elif _has_harmful_prompts(variant.summaries.get(data)):
            # Harm there is unknown: a fall on the other data does not speak for it.
            data_suffix = f" on {data}" if len(variant.comparisons) > 1 else ""
            decided.append(replace(answer, data=data, reason=answer.reason + data_suffix))
    return min(decided, key=lambda a: _WORSE_FIRST[a.decision], default=answer)


def _has_harmful_prompts(summary: RunSummary | None) -> bool:
    """Returns whether a run has prompts that should be refused, or was asked for harm at all."""
    questions = (*HARM_QUESTIONS, "refuses_harmful")
    return summary is not None and any(
        rate.n > 0 and rate.question in questions for rate in (*summary.axes, *summary.rates)
    )


def _useful(variant: MeasuredVariant, baseline: str) -> KeyAnswer:
    answer = KeyAnswer(
        asks="useful",
        title="Did it stay useful?",
        variant=variant.name,
        baseline=baseline,
        reason="no benign prompt was answered by both",
        needs="benign prompts, such as those of builtin:safety",
    )
    claims = [
        (data, claim, comparison)
        for data, comparison in variant.comparisons.items()
        for claim in comparison.claims
        if claim.claim == "not worse than" and claim.estimate is not None
    ]
    if not any(claim.question == "answers_benign" for _, claim, _ in claims):
        # That nothing is broken or cut does not make an answer useful.
        return min(
            (_from_claim(answer, *c) for c in claims if c[1].decision == "no"),
            key=lambda a: a.data,
            default=answer,
        )
    # Answers to benign prompts are what the question is about: they are quoted first.
    claims.sort(key=lambda row: row[1].question != "answers_benign")
    decided = [_from_claim(answer, *row) for row in claims]
    worst = min(decided, key=lambda a: _WORSE_FIRST[a.decision])
    if worst.decision == "yes" and worst.claim is not None and worst.claim.limit is not None:
        margin = f"{100 * worst.claim.limit:g} points"
        return replace(worst, reason=f"no more than {margin} were lost, nor more broken or cut")
    return worst


def _from_claim(
    answer: KeyAnswer, data_name: str, claim: Claim, comparison: Comparison
) -> KeyAnswer:
    delta = comparison.find(claim.question, None, claim.judge or None)
    figure = ""
    if claim.estimate is not None and claim.lower is not None and claim.upper is not None:
        figure = describe_change(claim.question, claim.estimate, claim.lower, claim.upper)
        if claim.corrected is not None and claim.labels:
            figure += f", corrected by {claim.labels:,} labels"
        elif claim.judge and claim.question in HARM_QUESTIONS:
            figure += f" by {claim.judge}"
    # The figures stand in the sentence before the reason.
    reason = claim.open_point or claim.short_reason or claim.reason
    return replace(
        answer,
        data=data_name,
        decision=claim.decision,
        figure=_capitalised(figure),
        reason="" if reason == figure else reason,
        needs=claim.needs,
        struck=delta.struck or SELECTED if delta is not None and delta.selected_by_judge else "",
        claim=claim,
    )


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def figure_title(question: str) -> str:
    """Returns the name of a figure in the table of the first page."""
    titles = {
        "harmful": "harmful answers",
        "harmful_benign": "benign answers called harmful",
        "degenerate": "broken answers",
    }
    return titles.get(question) or AXIS_TITLES.get(question, question)
