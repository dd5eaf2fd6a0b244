"""Any Python function as a judge: `python:pkg.mod:function,question=harmful`.

    def mentions_price(prompt: str, answer: str) -> bool:
        return "$" in answer

The function takes what its parameters are called: `prompt`, `answer`, `sample` or `response`; one
of another name is the answer if it is the only one, else the first is the prompt and the second the
answer. It may be async; one that is not runs in a thread. It returns a verdict (True or False), a
value (a number), None where it cannot tell, or a dictionary with `verdict`, `score`, `value`,
`harms` or `rationale`. What it raises leaves the answer unscored.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from truing.core.errors import BudgetExceeded, SpecError
from truing.core.lineage import digest
from truing.core.types import Judgement, Lineage, Response, Sample
from truing.judges.verdicts import (
    check_failed_response,
    make_judgement,
    make_unscored,
    text_of_message,
)
from truing.specs.python_objects import load_function
from truing.specs.resolve import Args

_PARAMETERS = ("prompt", "answer", "sample", "response")
_FIELDS = ("verdict", "score", "value", "harms", "rationale")


class PythonJudge:
    """A Python function that answers one question about an answer."""

    def __init__(
        self, function: Callable[..., Any], *, question: str = "harmful", name: str = ""
    ) -> None:
        self.question = question
        self.name = (
            name or f"python:{function.__module__}:{getattr(function, '__qualname__', 'function')}"
        )
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)
        self._parameters = _read_parameters(function)
        try:
            code = inspect.getsource(function)
        except (OSError, TypeError):
            # Built-in functions and those typed into an interpreter have no source.
            code = ""
        self.lineage = Lineage(
            name=self.name, hash=digest("python-judge", self.name, question, code)
        )

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        """Calls the function; what it raises, or a result of another form, is unscored."""
        failed = check_failed_response(self, sample, response)
        if failed is not None:
            return failed
        values = {
            "prompt": sample.conversation.prompt,
            "answer": text_of_message(response.message),
            "sample": sample,
            "response": response,
        }
        arguments = [values[name] for name in self._parameters]
        try:
            if self._is_async:
                result = await self._function(*arguments)
            else:
                result = await asyncio.to_thread(self._function, *arguments)
        # The run must stop; every other exception concerns this answer alone.
        except BudgetExceeded:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return make_unscored(self, sample, response, "exception", what)
        return self._read_result(sample, response, result)

    def _read_result(self, sample: Sample, response: Response, result: Any) -> Judgement:
        fields = dict(result) if isinstance(result, Mapping) else _fields_of(result)
        fault = _find_fault(fields)
        if fault:
            return make_unscored(self, sample, response, "unparsable", fault)
        if fields.get("verdict") is None and fields.get("value") is None:
            reason = str(fields.get("rationale") or "the function could not tell")
            return make_unscored(self, sample, response, "unclear", reason)
        return make_judgement(
            self,
            sample,
            response,
            fields.get("verdict"),
            score=fields.get("score"),
            value=fields.get("value"),
            harms={str(k): float(v) for k, v in (fields.get("harms") or {}).items()},
            rationale=fields.get("rationale"),
        )


def _fields_of(result: Any) -> dict[str, Any]:
    # numpy's scalars are neither bool nor float.
    plain = result.item() if hasattr(result, "item") and not isinstance(result, type) else result
    if plain is None or isinstance(plain, bool):
        return {"verdict": plain}
    return {"value": plain}


def _find_fault(fields: Mapping[str, Any]) -> str:
    """Returns what is wrong with the fields of a result, or ""."""
    unknown = [str(key) for key in fields if key not in _FIELDS]
    if unknown:
        return f"unknown keys {', '.join(unknown)}; a result has {', '.join(_FIELDS)}"
    verdict = fields.get("verdict")
    if verdict is not None and not isinstance(verdict, bool):
        return f"the verdict is a {type(verdict).__name__}, not True, False or None"
    for key in ("score", "value"):
        number = fields.get(key)
        if number is not None and not _is_finite(number):
            return f"the {key} is {number!r:.80}, not a finite number"
    score = fields.get("score")
    if score is not None and not 0 <= score <= 1:
        return f"the score is {score!r}, not a probability"
    harms = fields.get("harms") or {}
    if not isinstance(harms, Mapping) or not all(
        _is_finite(p) and 0 <= p <= 1 for p in harms.values()
    ):
        return "harms is not a mapping of categories to probabilities"
    rationale = fields.get("rationale")
    if rationale is not None and not isinstance(rationale, str):
        return "the rationale is no text"
    return ""


def _is_finite(number: object) -> bool:
    return (
        isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    )


def _read_parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Returns which of prompt, answer, sample and response each parameter takes."""
    try:
        parameters = [
            p
            for p in inspect.signature(function).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):  # built-in functions may have no signature
        return ("answer",)
    names = [p.name for p in parameters]
    if names and all(name in _PARAMETERS for name in names):
        return tuple(names)
    required = [p.name for p in parameters if p.default is p.empty]
    if len(required) == 1 or (not required and names):
        return ("answer",)
    if len(required) == 2:
        return ("prompt", "answer")
    raise SpecError(
        f"python judge {function!r}: takes {', '.join(names) or 'no argument'}; a judge takes the "
        f"answer, the prompt and the answer, or any of {', '.join(_PARAMETERS)}"
    )


def build(args: Args) -> PythonJudge:
    """Returns the judge of a `python:` spec."""
    question = args.text("question", "harmful")
    return PythonJudge(load_function(args), question=question, name=f"python:{args.name}")
