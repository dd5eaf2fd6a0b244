"""Flows written as YAML (``flows:`` in config.yml): the same steps in another dress."""

from __future__ import annotations

from typing import Any

from truing.core.errors import PlanError
from truing.rails.colang import ast as n
from truing.rails.colang.lexer import Line
from truing.rails.colang.statements import ColangError, Statement, parse_step

_WORDS = {
    "user": "user",
    "intent": "user",
    "you": "user",
    "bot": "bot",
    "utter": "bot",
    "ask": "bot",
    "bot_ask": "bot",
    "run": "run",
    "action": "run",
    "execute": "run",
    "event": "event",
    "flow": "do",
    "call": "do",
    "activate": "do",
    "set": "set",
    "check": "check",
    "label": "label",
    "checkpoint": "label",
    "goto": "goto",
}
_BARE = {"break": "break", "continue": "continue", "pass": "continue", "return": "return"}


def flow_from_yaml(
    raw: dict[str, Any], at: int, places: dict[tuple[str, str], tuple[str, int]]
) -> n.Flow:
    """A flow from its YAML entry; PlanError with the place of a step that cannot be read."""
    file, line = places.get(("key", f"flows.{at}"), ("config.yml", 1))
    meta = {
        key: raw[name]
        for name, key in (
            ("priority", "priority"),
            ("is_extension", "is_extension"),
            ("is_interruptible", "interruptable"),
            ("is_subflow", "subflow"),
            ("allow_multiple", "allow_multiple"),
        )
        if name in raw
    }
    items = list(raw.get("elements") or [])
    if items and isinstance(items[0], dict) and "meta" in items[0]:
        meta.update(items.pop(0)["meta"] or {})
    try:
        steps = _steps(items, line)
    except ColangError as error:
        raise PlanError(f"{file}:{line}: {error}") from error
    if not steps:
        raise PlanError(f"{file}:{line}: the flow has no elements")
    return n.Flow(str(raw.get("id") or f"flow-{at}"), steps, file, line, meta)


def _steps(items: list[Any], line: int) -> list[n.Step]:
    made: list[n.Step] = []
    branches: list[list[n.Step]] = []
    for item in items:
        if isinstance(item, list):
            branches.append(_steps(item, line))
            continue
        if branches:
            made.append(n.When(line, None, branches))
            branches = []
        made.append(_step(item, line))
    if branches:
        made.append(n.When(line, None, branches))
    return made


def _step(item: Any, line: int) -> n.Step:
    if not isinstance(item, dict) or not item:
        raise ColangError(line, f"{item!r} is no flow element")
    word, value = next(iter(item.items()))
    if word == "if":
        return n.If(
            line,
            None,
            str(value),
            _steps(item.get("then") or [], line),
            _steps(item.get("else") or [], line),
        )
    if word == "while":
        return n.While(line, None, str(value), _steps(item.get("do") or [], line))
    if word in ("any", "or"):
        return n.AnyOf(line, None, _steps(value, line))
    if word in ("infer", "add", "new", "post"):
        inner = _step(value[0] if isinstance(value, list) else value, line)
        if not isinstance(inner, (n.Event, n.User, n.Bot)):
            raise ColangError(line, "only events can be created")
        return n.Create(line, None, inner)
    if word in ("stop", "abort"):
        return n.Bot(line, None, "stop")
    if word in _BARE:
        return n.Leave(line, None, _BARE[word])
    if word not in _WORDS:
        raise ColangError(line, f"unknown flow element {word!r}")
    kind = _WORDS[word]
    step = parse_step(Statement(Line("", line, 0), f"{kind} {value}", kind))
    if isinstance(step, (n.Execute, n.Do)):
        step.params.update({k: v for k, v in item.items() if k != word and not k.startswith("_")})
    return step
