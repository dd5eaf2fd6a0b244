"""What a configuration refers to: library modules, flows and prompts."""

from __future__ import annotations

from truing.rails.config.loader import RailsConfig
from truing.rails.library.references import find_missing_references, library_for_config
from truing.rails.runtime.prompts import PromptManager


def faults(yaml: str, colang: str = "") -> list[str]:
    config = RailsConfig.from_text(yaml, colang)
    flows = [*config.flows, *library_for_config(config).flows]
    missing = find_missing_references(config, flows, PromptManager(config))
    return [f"{place}: {fault}" for place, fault in missing]


def test_a_library_module_is_used_by_a_rail_or_by_a_flow() -> None:
    by_rail = RailsConfig.from_text("rails: {input: {flows: [check text input]}}\n")
    by_flow = RailsConfig.from_text(
        "models: []\n", "define flow\n  user a\n  do check text input\n"
    )
    unused = RailsConfig.from_text("models: []\n")
    has_module = [
        any(flow.name == "check text input" for flow in library_for_config(config).flows)
        for config in (by_rail, by_flow, unused)
    ]
    assert has_module == [True, True, False]


def test_a_rail_without_a_flow_is_a_fault_with_the_nearest_name() -> None:
    (fault,) = faults("rails: {input: {flows: [check text inputs]}}\n")
    assert fault.startswith("config.yml:1: there is no flow 'check text inputs'")
    assert "check text input" in fault


def test_a_self_check_needs_its_prompt_unless_it_is_a_variant() -> None:
    (fault,) = faults("rails: {input: {flows: [self check input]}}\n")
    assert "needs a prompt for the task 'self_check_input'" in fault
    assert faults('rails: {input: {flows: ["self check input $variant=a"]}}\n') == []
    prompt = "prompts: [{task: self_check_input, content: x}]\n"
    assert faults(prompt + "rails: {input: {flows: [self check input]}}\n") == []
    own_flow = "define subflow mine\n  $a = 1\n"
    assert faults("rails: {input: {flows: [mine]}}\n", own_flow) == []
