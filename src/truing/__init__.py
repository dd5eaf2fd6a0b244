"""truing: a model answers, a judge scores the answer, an aligner returns a better model, and the
better model is measured by the very same run.

    import truing

    run = truing.evaluate("scripted:mixed", "builtin:safety", "rules:refusal", "runs/base")
    print(run.summary.find("refused"))

Everything heavy is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from truing.core.errors import TruingError
from truing.core.types import (
    Answer,
    Conversation,
    Failure,
    Judgement,
    Message,
    Preference,
    Response,
    Sample,
    Sampling,
)
from truing.core.version import __version__ as __version__
from truing.evaluation.options import EvaluateOptions
from truing.integrations.notebook import register_formatters
from truing.runs.folder import Run

if TYPE_CHECKING:
    from truing.align.best_of import best_of
    from truing.align.prompted import prompted
    from truing.analysis.comparison import compare
    from truing.analysis.summary import summarise
    from truing.api import (
        EvaluatedRun,
        ask,
        attack,
        data,
        evaluate,
        evaluate_async,
        guard,
        judge,
        judge_run,
        model,
        open_run,
    )
    from truing.plan.evaluation import read_plan
    from truing.plan.evaluation_run import run_plan

_API = "EvaluatedRun ask attack data evaluate evaluate_async guard judge judge_run model open_run"

_LATE = {
    **{name: f"truing.api:{name}" for name in _API.split()},
    "best_of": "truing.align.best_of:best_of",
    "prompted": "truing.align.prompted:prompted",
    "compare": "truing.analysis.comparison:compare",
    "summarise": "truing.analysis.summary:summarise",
    "read_plan": "truing.plan.evaluation:read_plan",
    "run_plan": "truing.plan.evaluation_run:run_plan",
}

__all__ = [
    "Answer",
    "Conversation",
    "EvaluateOptions",
    "EvaluatedRun",
    "Failure",
    "Judgement",
    "Message",
    "Preference",
    "Response",
    "Run",
    "Sample",
    "Sampling",
    "TruingError",
    "ask",
    "attack",
    "best_of",
    "compare",
    "data",
    "evaluate",
    "evaluate_async",
    "guard",
    "judge",
    "judge_run",
    "model",
    "open_run",
    "prompted",
    "read_plan",
    "run_plan",
    "summarise",
]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'truing' has no attribute {name!r}")
    from truing.specs.resolve import load_object

    exported = globals()[name] = load_object(_LATE[name])
    return exported


def __dir__() -> list[str]:
    return sorted(__all__)


register_formatters()
