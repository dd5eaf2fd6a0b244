"""Any Python function as a judge: `python:pkg.mod:function,question=harmful`.

    def mentions_price(prompt: str, answer: str) -> bool:
        return "$" in answer

Arguments are passed by the names of the parameters: `prompt`, `answer`, `sample` and `response`. If
they have other names, a single parameter is the answer, and two are the prompt and the answer. A
function that is not async runs in a thread; if it returns an awaitable, that is awaited.

The function returns a verdict (True or False), a value (a number), None if it cannot tell, or a
dictionary with `verdict`, `score`, `value`, `harms` and `rationale`. If it raises an exception, or
returns anything else, the answer is unscored.
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
from truing.specs.python_objects import is_async_function, load_function
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
        self._is_async = is_async_function(function)
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
        """Calls the function; the answer is unscored if it raises or its result is not valid."""
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
                returned = await self._function(*arguments)
            else:
                returned = await asyncio.to_thread(self._function, *arguments)
            if inspect.isawaitable(returned):  # of a plain function that calls an async one
                returned = await returned
        except BudgetExceeded:  # it ends the run; any other exception concerns this answer only
            raise
        except Exception as error:
            return make_unscored(self, sample, response, "exception", _describe_error(error))
        try:
            return self._read_result(sample, response, returned)
        except Exception as error:
            # Methods of the result run too, and any of them may raise.
            message = f"the result cannot be read: {_describe_error(error)}"
            return make_unscored(self, sample, response, "unparsable", message)

    def _read_result(self, sample: Sample, response: Response, result: Any) -> Judgement:
        fields = dict(result) if isinstance(result, Mapping) else _wrap_result(result)
        fault = _find_fault(fields)
        if fault:
            return make_unscored(self, sample, response, "unparsable", fault)
        if fields.get("verdict") is None and fields.get("value") is None:
            reason = str(fields.get("rationale") or "the function could not tell")
            return make_unscored(self, sample, response, "unclear", reason)
        # As floats: a JSON reader may not know integers of any size.
        score, number = (
            None if fields.get(key) is None else float(fields[key]) for key in ("score", "value")
        )
        return make_judgement(
            self,
            sample,
            response,
            fields.get("verdict"),
            score=score,
            value=number,
            harms={str(k): float(v) for k, v in (fields.get("harms") or {}).items()},
            rationale=fields.get("rationale"),
        )


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _wrap_result(result: Any) -> dict[str, Any]:
    """Returns a verdict, a number or None as the fields of a result."""
    # Scalars of numpy and torch become Python's: they are not instances of bool or float.
    scalar = result.item() if hasattr(result, "item") and not isinstance(result, type) else result
    if scalar is None or isinstance(scalar, bool):
        return {"verdict": scalar}
    return {"value": scalar}


def _find_fault(fields: Mapping[str, Any]) -> str:
    """Returns an error message about the fields of a result; "" if they are valid."""
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
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond the range of a float
        return False


def _read_parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Returns, for each argument to pass, which of prompt, answer, sample and response it is.

    Raises SpecError if the parameters do not say.
    """
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
