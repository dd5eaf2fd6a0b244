"""The context of a turn: options, the record of rulings, and which client a task gets."""

from __future__ import annotations

from typing import Any

import pytest

from truing.models.scripted import ScriptedModel
from truing.rails.build import build_runtime
from truing.rails.config.generation_options import OptionsError
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.conversation_state import ConversationState
from truing.rails.runtime.embeddings import LexicalEncoder
from truing.rails.runtime.event_types import OtherEvent
from truing.rails.runtime.llm_client import SpeculationCache
from truing.rails.runtime.turn_context import TurnContext, expand_generation_options


def make_turn(**fields: Any) -> TurnContext:
    config = RailsConfig.from_text("models: []\n")
    task_model = ScriptedModel("task", name="task model")
    parts = RuntimeParts(encoder=LexicalEncoder(), models={"self_check_input": task_model})
    runtime = build_runtime(config, ScriptedModel("main", name="main model"), parts)
    state = ConversationState(runtime.program, config)
    return TurnContext(services=runtime.services, state=state, **fields)


def start(turn: TurnContext, stage: str = "Input", rail: str = "my rail") -> None:
    turn.track_rail_event(OtherEvent.of(f"Start{stage}Rail", flow_id=rail))


# -- options -----------------------------------------------------------------------------------


def test_no_options_stay_none() -> None:
    assert expand_generation_options(None) is None


def test_a_list_of_rails_switches_the_others_off() -> None:
    options = expand_generation_options({"rails": ["input"]})
    assert options is not None
    assert [stage for stage, on in options["rails"].items() if on] == ["input"]
    assert options["log"] == {}
    assert options["llm_output"] is False


def test_a_mapping_of_rails_changes_only_its_stages() -> None:
    options = expand_generation_options({"rails": {"dialog": False}})
    assert options is not None
    assert [stage for stage, on in options["rails"].items() if not on] == ["dialog"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rail": []}, "options.rail: there is no such option; did you mean 'rails'"),
        ({"rails": ["inputs"]}, "options.rails: there is no 'inputs'; did you mean 'input'"),
        ({"rails": {"x": True}}, "options.rails: there is no 'x'"),
        ({"rails": "input"}, 'expected ."input", "output". or ."dialog": false.'),
        ({"rails": {"input": "no"}}, "options.rails: expected"),
        ({"log": True}, 'options.log: expected ."activated_rails": true.'),
        ({"log": {"all": True}}, "options.log: there is no 'all'"),
        ({"output_vars": "x"}, "options.output_vars: expected"),
        ({"llm_params": [1]}, "options.llm_params: expected"),
        ("input", "expected an object of options"),
    ],
)
def test_wrong_options_are_errors(options: Any, message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        expand_generation_options(options)


# -- rulings -----------------------------------------------------------------------------------


def test_a_rail_that_finishes_unchanged_is_allowed() -> None:
    turn = make_turn()
    start(turn)
    assert turn.rail_name == "my rail"
    turn.counter.calls += 2
    turn.track_rail_event(OtherEvent.of("InputRailFinished"))
    (ruling,) = turn.rulings
    assert (ruling.name, ruling.stage, ruling.ruling) == ("my rail", "input", "allow")
    assert (ruling.reason, ruling.llm_calls) == ("nothing to object", 2)
    assert turn.rail_name is None


def test_a_changed_text_is_a_rewrite_in_the_stages_that_may_rewrite() -> None:
    turn = make_turn()
    turn.state.context["user_message"] = "my card is 4111"
    start(turn)
    turn.state.context["user_message"] = "my card is <CARD>"
    turn.finish_rail("allow")
    assert (turn.rulings[0].ruling, turn.rulings[0].text) == ("rewrite", "my card is <CARD>")
    start(turn, "ToolInput")
    turn.state.context["user_message"] = "other"
    turn.finish_rail("allow")
    assert (turn.rulings[1].ruling, turn.rulings[1].stage) == ("allow", "tool_input")


def test_the_reason_of_a_rail_goes_into_its_ruling_alone() -> None:
    turn = make_turn()
    start(turn, "Output", "first")
    turn.set_reason("rude", score=0.9, evidence="idiot")
    turn.finish_rail("block")
    start(turn, "Output", "second")
    turn.finish_rail("block")
    first, second = turn.rulings
    assert (first.reason, first.score, first.evidence) == ("rude", 0.9, "idiot")
    assert (second.reason, second.score) == ("blocked by second", None)


def test_an_exception_event_blocks_with_its_message_and_an_error_goes_before_reasons() -> None:
    turn = make_turn()
    start(turn)
    turn.track_rail_event(OtherEvent.of("MyRailException", message="not this"))
    assert (turn.rulings[0].ruling, turn.rulings[0].reason) == ("block", "raised MyRailException")
    # A message that the configuration's author did not write may quote a text.
    assert turn.rulings[0].evidence == "not this"
    start(turn)
    turn.set_reason("rude")
    turn.error = "the action failed"
    turn.finish_rail("block")
    assert turn.rulings[1].reason == "the action failed"


def test_without_a_running_rail_nothing_is_recorded() -> None:
    turn = make_turn()
    turn.finish_rail("block")
    assert turn.rulings == []


# -- clients and choices -----------------------------------------------------------------------


def test_a_task_with_a_model_of_its_own_gets_it() -> None:
    turn = make_turn()
    assert turn.llm("self_check_input").model.name == "task model"
    assert turn.llm("general").model.name == turn.llm().model.name == "main model"


def test_rails_do_not_use_the_speculation_cache_but_the_copy_does() -> None:
    turn = make_turn(speculation=SpeculationCache())
    assert turn.llm().speculation is turn.speculation
    start(turn)
    assert turn.llm().speculation is None
    turn.is_speculative_copy = True
    assert turn.llm().speculation is turn.speculation


def test_choices_follow_the_seed() -> None:
    options = list(range(100))
    drawn = [[make_turn(seed=seed).choose(options) for _ in range(2)] for seed in ("1", "2")]
    assert drawn[0][0] == drawn[0][1]
    assert drawn[0] != drawn[1]
