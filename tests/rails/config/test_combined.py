"""Several configurations as one: all rails run, and clients may do what every one allows."""

from __future__ import annotations

import pytest

from truing.core.errors import PlanError
from truing.rails.config.client_settings import ClientSettings
from truing.rails.config.combined import combine_configs
from truing.rails.config.loader import RailsConfig

FIRST = """
models: [{type: main, engine: openai, model: a}, {type: guard, engine: openai, model: g}]
user_messages: {greet: [hi]}
rails:
  input: {flows: [one, both], parallel: true}
  output: {flows: [three]}
  config: {regex_detection: {input: {patterns: [a]}}}
truing:
  trusted_roles: [system, tool]
  join_turns: false
  client_options: {rails: true, llm_params: {max_tokens: 9, top_p: 1}, context: [x, y]}
"""
SECOND = """
models: [{type: main, engine: openai, model: a}]
user_messages: {greet: [hello], leave: [bye]}
rails:
  input: {flows: [both, two]}
  config: {regex_detection: {input: {patterns: [b]}}}
truing:
  trusted_roles: [system]
  client_options: {llm_params: {max_tokens: 5}, context: [y], log: [llm_calls]}
"""


def test_rails_and_texts_of_both() -> None:
    combined = combine_configs([RailsConfig.from_text(FIRST), RailsConfig.from_text(SECOND)])
    assert combined.rails.input.flows == ["both", "two", "one"]
    assert combined.rails.input.parallel and combined.rails.output.flows == ["three"]
    assert combined.user_messages == {"greet": ["hello", "hi"], "leave": ["bye"]}
    assert [entry.type for entry in combined.models] == ["main", "guard"]
    patterns = combined.raw["rails"]["config"]["regex_detection"]["input"]["patterns"]
    assert patterns == ["b", "a"]


def test_clients_may_do_what_both_allow() -> None:
    combined = combine_configs([RailsConfig.from_text(FIRST), RailsConfig.from_text(SECOND)])
    assert ClientSettings.of(combined.truing) == ClientSettings(
        trusted_roles=frozenset({"system"}),
        joins_turns=True,
        rails=False,
        llm_params={"max_tokens": 5},
        context=frozenset({"y"}),
    )


def test_code_is_trusted_only_where_both_are() -> None:
    trusted = RailsConfig.from_text(FIRST, trust_code=True)
    assert not combine_configs([trusted, RailsConfig.from_text(SECOND)]).trust_code
    assert combine_configs([trusted, trusted]).trust_code


def test_what_cannot_be_combined() -> None:
    other = RailsConfig.from_text("models: [{type: main, engine: openai, model: b}]")
    with pytest.raises(PlanError, match="different models of the type 'main'"):
        combine_configs([RailsConfig.from_text(FIRST), other])
    flow = "define flow greeting\n  user greet\n  bot reply\n"
    first = RailsConfig.from_text("models: []", flow)
    with pytest.raises(PlanError, match="the flow 'greeting' differently"):
        combine_configs([first, RailsConfig.from_text("models: []", flow + "  bot go\n")])
    assert len(combine_configs([first, first]).flows) == 1
