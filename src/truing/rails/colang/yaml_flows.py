"""Flows written as YAML (``flows:`` in config.yml), parsed to the same nodes as Colang files."""

from __future__ import annotations

from typing import Any

from truing.core.errors import PlanError
from truing.rails.colang import ast
from truing.rails.colang.lexer import LogicalLine
from truing.rails.colang.statements import ColangSyntaxError, Statement, parse_step

# Key of a YAML element -> keyword of the Colang statement.
_STATEMENT_KEYWORDS = {
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
_JUMPS: dict[str, type[ast.Break | ast.Continue | ast.Return]] = {
    "break": ast.Break,
    "continue": ast.Continue,
    "pass": ast.Continue,
    "return": ast.Return,
}
# Key of a YAML flow -> flow property, with NeMo's spelling.
_FLOW_PROPERTIES = {
    "priority": "priority",
    "is_extension": "is_extension",
    "is_interruptible": "interruptable",
    "is_subflow": "subflow",
    "allow_multiple": "allow_multiple",
}


def parse_yaml_flow(
    raw: dict[str, Any], index: int, locations: dict[tuple[str, str], tuple[str, int]]
) -> ast.Flow:
    """Parses the entry `index` of ``flows:``; raises PlanError with its file and line.

    `locations` maps ``("key", dotted path)`` to file and line. All steps get the line of the entry.
    """
    file, line = locations.get(("key", f"flows.{index}"), ("config.yml", 1))
    meta = {name: raw[key] for key, name in _FLOW_PROPERTIES.items() if key in raw}
    elements = list(raw.get("elements") or [])
    if elements and isinstance(elements[0], dict) and "meta" in elements[0]:
        meta.update(elements.pop(0)["meta"] or {})
    try:
        steps = _parse_steps(elements, line)
    except ColangSyntaxError as error:
        raise PlanError(f"{file}:{line}: {error}") from error
    if not steps:
        raise PlanError(f"{file}:{line}: the flow has no elements")
    return ast.Flow(str(raw.get("id") or f"flow-{index}"), steps, file, line, meta)


def _parse_steps(elements: list[Any], line: int) -> list[ast.FlowStep]:
    """Parses a list of elements; consecutive nested lists are the branches of one ``when``."""
    steps: list[ast.FlowStep] = []
    branches: list[list[ast.FlowStep]] = []
    for element in elements:
        if isinstance(element, list):
            branches.append(_parse_steps(element, line))
            continue
        if branches:
            steps.append(ast.When(line, None, branches))
            branches = []
        steps.append(_parse_element(element, line))
    if branches:
        steps.append(ast.When(line, None, branches))
    return steps


def _parse_element(element: Any, line: int) -> ast.FlowStep:
    if not isinstance(element, dict) or not element:
        raise ColangSyntaxError(line, f"{element!r} is not a flow element")
    key, argument = next(iter(element.items()))
    if key == "if":
        body = _parse_steps(element.get("then") or [], line)
        orelse = _parse_steps(element.get("else") or [], line)
        return ast.If(line, None, str(argument), body, orelse)
    if key == "while":
        return ast.While(line, None, str(argument), _parse_steps(element.get("do") or [], line))
    if key in ("any", "or"):
        return ast.AnyOf(line, None, _parse_steps(argument, line))
    if key in ("infer", "add", "new", "post"):
        event = _parse_element(argument[0] if isinstance(argument, list) else argument, line)
        if not isinstance(event, (ast.MatchEvent, ast.UserIntent, ast.BotMessage)):
            raise ColangSyntaxError(line, "only events can be created")
        return ast.CreateEvent(line, None, event)
    if key in ("stop", "abort"):
        return ast.BotMessage(line, None, "stop")
    if key in _JUMPS:
        return _JUMPS[key](line, None)
    if key not in _STATEMENT_KEYWORDS:
        raise ColangSyntaxError(line, f"unknown flow element {key!r}")
    keyword = _STATEMENT_KEYWORDS[key]
    step = parse_step(Statement(LogicalLine("", line, 0), f"{keyword} {argument}", keyword))
    if isinstance(step, (ast.ExecuteAction, ast.CallFlow)):
        # The other keys of the element are the parameters of the call.
        for name, param in element.items():
            if name != key and not name.startswith("_"):
                step.params[name] = param
    return step
