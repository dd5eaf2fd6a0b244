"""truing: a model answers, a judge scores the answer, an aligner returns a better model, and the
better model is measured by the very same run.

    import truing

    model, data = truing.model("scripted:mixed"), truing.data("builtin:safety")
    run = truing.evaluate(model, data, [truing.judge("rules:refusal")], "runs/base")
    print(truing.summarise(run).rates[0])

Everything heavy is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# `evaluate` is a module as well as its function: importing it here settles that `truing.evaluate`
# is the function.
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
from truing.evaluation.evaluate import evaluate, judge_run
from truing.evaluation.options import EvaluateOptions
from truing.runs.folder import Run

if TYPE_CHECKING:
    from pathlib import Path

    from truing.align.best_of import best_of
    from truing.align.prompted import prompted
    from truing.analysis.comparison import compare
    from truing.analysis.summary import summarise
    from truing.core.protocols import Attack, Dataset, Judge, Model
    from truing.plan import read_plan, run_plan

_LATE = {
    "best_of": "truing.align.best_of:best_of",
    "prompted": "truing.align.prompted:prompted",
    "compare": "truing.analysis.comparison:compare",
    "summarise": "truing.analysis.summary:summarise",
    "read_plan": "truing.plan:read_plan",
    "run_plan": "truing.plan:run_plan",
}

__all__ = [
    "Answer",
    "Conversation",
    "EvaluateOptions",
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
    "guard",
    "judge",
    "judge_run",
    "model",
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


def model(spec: str) -> Model:
    """The model that a spec names (`local:smollm2`, `openai:NAME,base_url=...`); SpecError says
    what is wrong with it.
    """
    from truing.specs.resolve import resolve

    resolved: Model = resolve(spec, "model")
    return resolved


def data(spec: str) -> Dataset:
    """The data set that a spec names (`builtin:safety`, `xstest:prompts`, `file:mine.jsonl`)."""
    from truing.specs.resolve import resolve

    resolved: Dataset = resolve(spec, "data")
    return resolved


def judge(spec: str) -> Judge:
    """The judge that a spec names (`rules:refusal`, `moderation:default`,
    `llm:harm,model=(...)`).
    """
    from truing.specs.resolve import resolve

    resolved: Judge = resolve(spec, "judge")
    return resolved


def attack(spec: str) -> Attack:
    """The attack that a spec names (`rewrite:past_tense`)."""
    from truing.specs.resolve import resolve

    resolved: Attack = resolve(spec, "attack")
    return resolved


def guard(inner: Model, folder: str | Path, **parts: Any) -> Model:
    """A model behind the rails of a NeMo-format folder; `parts` as
    `truing.rails.guarded.guard_model` takes them.
    """
    from truing.rails.guarded import guard_model

    return guard_model(inner, folder, **parts)


def ask(inner: Model, prompt: str | Conversation, sampling: Sampling | None = None) -> str:
    """One answer's text, waiting for it: for a try in a notebook. A failed answer raises
    TruingError.
    """
    from truing.evaluation.evaluate import run_coroutine
    from truing.http.limits import close_connections

    talk = Conversation.of(prompt) if isinstance(prompt, str) else prompt

    async def go() -> Answer:
        try:
            return (await inner.generate(talk, sampling or Sampling()))[0]
        finally:
            await close_connections()

    answer = run_coroutine(go())
    if answer.failure is not None:
        raise TruingError(f"{inner.name}: {answer.failure.kind}: {answer.failure.message}")
    return answer.text
