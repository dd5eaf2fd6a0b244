"""The catalogue of shipped rails: what is always there, and what is read only when it is used."""

from __future__ import annotations

from truing.rails.colang.ast import ExecuteAction, Flow
from truing.rails.colang.parser import walk_steps
from truing.rails.library.catalog import (
    all_actions,
    library_flow_names,
    load_base_library,
    load_library_for,
    load_optional_modules,
    pure_action_names,
)


def flow_names(flows: tuple[Flow, ...]) -> set[str]:
    return {flow.name for flow in flows}


def test_a_configuration_gets_only_the_modules_that_it_names() -> None:
    base = load_base_library()
    assert flow_names(load_library_for([]).flows) == flow_names(base.flows)
    with_tools = flow_names(load_library_for(["check tool calls"]).flows)
    assert "check tool results" in with_tools
    assert "check text input" not in with_tools


def test_all_modules_together_are_the_library() -> None:
    names = {"texts", "safety", "guard_models", "injection", "tools", "tool_guards", "services"}
    assert set(load_optional_modules()) == names
    everything = load_library_for(library_flow_names())
    assert flow_names(everything.flows) == library_flow_names()
    names_of_actions = {action.__name__ for action in everything.actions}
    assert names_of_actions - {"ask_person"} == pure_action_names()
    assert len(all_actions()) == len(names_of_actions)


def test_library_flows_are_system_flows() -> None:
    assert all(flow.system for flow in load_library_for(library_flow_names()).flows)


def test_every_action_that_a_library_flow_executes_exists() -> None:
    flows = load_library_for(library_flow_names()).flows
    executed = {
        step.action
        for flow in flows
        for step in walk_steps(flow.steps)
        if isinstance(step, ExecuteAction)
    }
    built_in = {
        "generate_user_intent",
        "generate_next_steps",
        "generate_bot_message",
        "retrieve_relevant_chunks",
        "run_input_rails_in_parallel",
        "run_output_rails_in_parallel",
    }
    assert executed - built_in - {"ask_person"} <= pure_action_names()
    assert executed
