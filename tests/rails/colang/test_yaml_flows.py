"""Flows written as YAML become the nodes of the same flow in Colang."""

from __future__ import annotations

from typing import Any

import pytest

from truing.core.errors import PlanError
from truing.rails.colang import ast
from truing.rails.colang.parser import parse_colang, walk_steps
from truing.rails.colang.yaml_flows import parse_yaml_flow


def _parse(*elements: Any, **properties: Any) -> ast.Flow:
    return parse_yaml_flow({"elements": list(elements), **properties}, 0, {})


def _without_lines(steps: list[ast.FlowStep]) -> list[ast.FlowStep]:
    for step in walk_steps(steps):
        step.line = 0
        if isinstance(step, ast.CreateEvent):
            step.event.line = 0
    return steps


def test_elements_equal_colang_statements() -> None:
    flow = _parse(
        {"user": "ask price"},
        {"set": "$n = 1"},
        {"if": "$n > 0", "then": [{"bot": "tell price"}], "else": [{"stop": ""}]},
        {"while": "$n", "do": [{"execute": "count", "by": 2}, {"break": ""}]},
        [{"user": "agree"}, {"bot": "thank"}],
        [{"user": "deny"}, {"return": ""}],
        {"new": {"event": "Ping(a=1)"}},
        {"label": "end"},
        {"call": "other flow"},
    )
    colang = """
define flow x
  user ask price
  $n = 1
  if $n > 0
    bot tell price
  else
    stop
  while $n
    execute count(by=2)
    break
  when user agree
    bot thank
  else when user deny
    return
  create event Ping(a=1)
  label end
  do other flow
"""
    expected = parse_colang("x.co", colang).flows[0]
    assert _without_lines(flow.steps) == _without_lines(expected.steps)


def test_name_properties_and_place() -> None:
    raw = {
        "id": "greet",
        "priority": 2,
        "is_interruptible": False,
        "elements": [{"meta": {"is_extension": True}}, {"user": "hi"}],
    }
    flow = parse_yaml_flow(raw, 3, {("key", "flows.3"): ("config.yml", 12)})
    assert (flow.name, flow.file, flow.line) == ("greet", "config.yml", 12)
    assert flow.meta == {"priority": 2, "interruptable": False, "is_extension": True}
    assert [step.line for step in flow.steps] == [12]


def test_a_flow_without_a_name_is_numbered() -> None:
    assert _parse({"user": "hi"}).name == "flow-0"


@pytest.mark.parametrize(
    ("element", "message"),
    [
        ("user hi", "'user hi' is not a flow element"),
        ({}, "is not a flow element"),
        ({"usr": "hi"}, "unknown flow element 'usr'"),
        ({"new": {"label": "a"}}, "only events can be created"),
        ({"bot": '{"a": 1}'}, "not supported"),
    ],
)
def test_errors_have_the_place_of_the_flow(element: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        _parse(element)
    assert str(caught.value).startswith("config.yml:1: ")


def test_a_flow_without_elements_is_refused() -> None:
    with pytest.raises(PlanError, match="the flow has no elements"):
        _parse()
