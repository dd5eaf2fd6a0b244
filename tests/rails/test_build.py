"""Building a runtime: the library that a configuration gets, and the faults that stop it."""

from __future__ import annotations

import asyncio

import pytest
from dialog_turns import ReplyListModel

from truing.core.errors import PlanError
from truing.rails.build import build_runtime
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.embeddings import LexicalEncoder

PARTS = RuntimeParts(encoder=LexicalEncoder())
CHECK_INPUT = "rails: {input: {flows: [self check input]}}\n"
PROMPT = "prompts: [{task: self_check_input, content: 'CHECK {{ user_input }}'}]\n"


def test_library_rails_are_added_and_marked_as_subflows() -> None:
    runtime = build_runtime(
        RailsConfig.from_text(CHECK_INPUT + PROMPT), ReplyListModel("No", "the answer"), PARTS
    )
    flow = runtime.program.flows["self check input"]
    assert (flow.system, flow.is_subflow) == (True, True)
    result = asyncio.run(runtime.run_turn([{"role": "user", "content": "hi"}]))
    assert (result.text, result.llm_calls) == ("the answer", 2)
    assert [(r.name, r.ruling) for r in result.rulings] == [("self check input", "allow")]


def test_modules_of_the_library_that_nothing_uses_are_left_out() -> None:
    unused = build_runtime(RailsConfig.from_text("models: []\n"), ReplyListModel(), PARTS)
    used = build_runtime(
        RailsConfig.from_text("rails: {input: {flows: [check text input]}}\n"),
        ReplyListModel(),
        PARTS,
    )
    assert "check text input" not in unused.program.flows
    assert "check text input" in used.program.flows


def test_all_missing_flows_and_prompts_are_reported_with_their_place() -> None:
    config = RailsConfig.from_text(
        "rails:\n  input: {flows: [self check input]}\n  output: {flows: [self check outptu]}\n"
    )
    with pytest.raises(PlanError) as caught:
        build_runtime(config, ReplyListModel(), PARTS)
    prompt_fault, flow_fault = caught.value.faults
    assert prompt_fault.startswith("config.yml:2: the rail 'self check input' needs a prompt")
    assert flow_fault.startswith("config.yml:3: there is no flow 'self check outptu'")
    assert "self check output" in flow_fault


def test_a_flow_of_the_configuration_goes_before_the_librarys() -> None:
    config = RailsConfig.from_text(
        CHECK_INPUT + PROMPT,
        'define subflow self check input\n  bot say no\n  stop\n\ndefine bot say no\n  "no"\n',
    )
    model = ReplyListModel()
    result = asyncio.run(
        build_runtime(config, model, PARTS).run_turn([{"role": "user", "content": "hi"}])
    )
    assert (result.text, result.blocked, model.prompts) == ("no", True, [])
