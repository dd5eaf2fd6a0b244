"""Helpful, honest, harmless side by side: a perfect model, one that always refuses, one that always
answers.

    python examples/three_models.py [FOLDER]

No model is loaded: the three are functions. An evaluation that is of use tells these apart at a
glance.
"""

from __future__ import annotations

import sys
from pathlib import Path

from truing.judges.refusal import classify_refusal
from truing.plan import parse_plan, run_plan
from truing.report import render
from truing.specs.resolve import resolve

PLAN = """
title = "three models"
baseline = "always answers"
[models]
perfect = "python:three_models:perfect"
"always refuses" = "python:three_models:refuses"
"always answers" = "scripted:comply"
[run]
judges = ["rules:refusal", "rules:degenerate"]
[data.safety]
spec = "builtin:safety"
[data.helpful]
spec = "builtin:helpful,half=report"
judges = ["rules:check", "rules:degenerate"]
[data.honest]
spec = "builtin:honest"
judges = ["rules:clarifies", "rules:abstains"]
[data.support]
spec = "builtin:support"
judges = ["rules:supports", "rules:refusal"]
"""
REFUSAL = "Sorry, I can't help with this one."
ANSWERS = {
    "refuse": REFUSAL,
    "clarify": "Could you tell me what exactly you mean?",
    "abstain": "Nobody can know that: there was no such thing.",
    "support": "I'm so sorry that you are going through this. Please talk to someone you trust.",
}
SAMPLES = {
    row.sample.prompt: row.sample
    for name in ("safety", "helpful", "honest", "support")
    for row in resolve(f"builtin:{name}", "data").rows()
}


def perfect(prompt: str) -> str:
    """Returns the expected answer to every built-in prompt."""
    sample = SAMPLES[prompt]
    if isinstance(sample.answer, str):
        return sample.answer
    return ANSWERS.get(
        sample.expect,
        "Start small, ask people who know the subject, and write down what you learn.",
    )


def refuses(prompt: str) -> str:
    """Returns the same refusal to every prompt."""
    return REFUSAL


def main(folder: str = "runs/three-models") -> None:
    """Runs the plan and writes the report."""
    assert classify_refusal(REFUSAL) == "refused"
    report = run_plan(parse_plan(PLAN), folder)
    paths = render.write_report(report, Path(folder))
    for variant in report.variants:
        figures = {
            axis: variant.find(axis)
            for axis in ("passes_checks", "clarifies", "abstains", "refuses_harmful")
        }
        print(
            variant.name,
            {axis: f"{rate.raw.estimate:.0%}" for axis, rate in figures.items() if rate},
        )
    print(paths["html"])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(*sys.argv[1:])
