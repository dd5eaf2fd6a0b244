"""Questions whose answers stand in full before all figures: what each variant says to one prompt.

They count in no rate. A plan marks their data set with `shown = true`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from truing.analysis.outcomes import OUTCOME_NAMES, outcome_arrays
from truing.analysis.verdict_table import read_verdict_table
from truing.judges.transcript import text_or_transcript
from truing.runs.folder import Run

MAX_SHOWN = 6
_MAX_CHARACTERS = 900


class ShownAnswer(Struct, frozen=True, kw_only=True):
    """What a variant says; `outcome` is the judges' (refused, harmful, answered ...)."""

    text: str
    outcome: str
    cut: bool = False


class ShownQuestion(Struct, frozen=True, kw_only=True):
    """A prompt and the first answer of each variant to it."""

    prompt: str
    expect: str
    answers: dict[str, ShownAnswer] = field(default_factory=dict)


def read_shown_questions(runs: Mapping[str, Path]) -> tuple[ShownQuestion, ...]:
    """Returns the first `MAX_SHOWN` prompts of runs (by variant) with what each variant says."""
    questions: dict[str, ShownQuestion] = {}
    for variant, path in runs.items():
        run = Run(path)
        table = read_verdict_table(run, ids=True)
        outcomes = dict(zip(table.ids or [], outcome_arrays(table)[0]))
        for sample in run.samples():
            if sample.id not in questions and len(questions) < MAX_SHOWN:
                questions[sample.id] = ShownQuestion(prompt=sample.prompt, expect=sample.expect)
        for response in run.responses():
            question = questions.get(response.sample_id)
            if question is None or response.index or response.sample_id not in outcomes:
                continue
            text = text_or_transcript(response)
            question.answers[variant] = ShownAnswer(
                text=text[:_MAX_CHARACTERS] + ("…" if len(text) > _MAX_CHARACTERS else ""),
                outcome=OUTCOME_NAMES[outcomes[response.sample_id]],
                cut=response.finish_reason == "length",
            )
    return tuple(questions.values())
