"""Several configurations as one: all rails run, and clients may do what every one allows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def combine(*yamls: str) -> RailsConfig:
    return combine_configs([RailsConfig.from_text(yaml) for yaml in yamls])


def test_safety_settings_of_both_hold() -> None:
    combined = combine(
        "truing: {tools: {deny: [pay], max_calls: 3}, moderation: {input: {threshold: 0.2}}, "
        "secrets: {action: block}}",
        "truing: {tools: {deny: [send], judge: j}, moderation: {output: {threshold: 0.9}}, "
        "urls: {allow: [a.example]}, secrets: }",
    )
    assert {key: combined.truing[key] for key in ("tools", "moderation", "secrets", "urls")} == {
        "tools": {"deny": ["send", "pay"], "max_calls": 3, "judge": "j"},
        "moderation": {"input": {"threshold": 0.2}, "output": {"threshold": 0.9}},
        "secrets": {"action": "block"},
        "urls": {"allow": ["a.example"]},
    }
    assert combined.raw["truing"] == combined.truing


@pytest.mark.parametrize(
    ("base", "later", "key"),
    [
        (
            "truing: {secrets: {action: block}}",
            "truing: {secrets: {action: mask}}",
            "secrets.action",
        ),
        ("truing: {tools: {allow: [a]}}", "truing: {tools: {allow: [b]}}", "tools.allow"),
        ("truing: {max_message: 5}", "truing: {max_message: 6}", "max_message"),
        (
            "truing: {services: {guard: {url: 'http://a', blocked: x}}}",
            "truing: {services: {guard: {url: 'http://a'}}}",
            "services.guard",
        ),
        (
            "rails: {config: {fiddler: {safety_threshold: 0.1}}}",
            "rails: {config: {fiddler: {safety_threshold: 0.9}}}",
            "rails.config.fiddler.safety_threshold",
        ),
        ("custom_data: {limit: 1}", "custom_data: {limit: 2}", "custom_data.limit"),
        (
            "instructions: [{type: general, content: a}]",
            "instructions: [{type: general, content: b}]",
            "instructions",
        ),
        ("lowest_temperature: 0.1", "lowest_temperature: 0.2", "lowest_temperature"),
    ],
)
def test_a_key_that_both_set_differently_is_a_fault(base: str, later: str, key: str) -> None:
    for yamls in ((base, later), (later, base)):
        with pytest.raises(PlanError, match=f"{key} differently"):
            combine(*yamls)
    assert combine(base, base)


NAMES = st.sampled_from(["a", "b", "deny"])
VALUES = st.recursive(
    st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=2),
    lambda children: st.dictionaries(NAMES, children, max_size=3),
    max_leaves=6,
)
BLOCKS = st.dictionaries(NAMES, VALUES, max_size=3)


@settings(max_examples=50)
@given(base=BLOCKS, later=BLOCKS)
def test_no_key_is_lost_and_the_order_decides_no_fault(
    base: dict[str, Any], later: dict[str, Any]
) -> None:
    configs = [RailsConfig(custom_data=data) for data in (base, later)]
    assert combine_configs([configs[0], configs[0], RailsConfig()]).custom_data == base
    faults = find_faults(configs)
    assert sorted(find_faults(configs[::-1])) == sorted(faults)
    if not faults:
        combined = combine_configs(configs).custom_data
        for data in (base, later):
            assert_holds(combined, data)


def find_faults(configs: list[RailsConfig]) -> tuple[str, ...]:
    try:
        combine_configs(configs)
    except PlanError as error:
        return tuple(error.faults)
    return ()


def assert_holds(whole: Any, part: Any) -> None:
    if isinstance(part, dict):
        for name, value in part.items():
            assert_holds(whole[name], value)
    elif isinstance(part, list):
        assert set(part) <= set(whole)
    else:
        assert whole == part


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        combine("truing: {seed: 1, max_message: 1}", "truing: {seed: 2, max_message: 2}")
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize(("base", "later"), [("[web]", "[web, mail]"), ("[mail, web]", "[web]")])
def test_a_tool_is_trusted_only_where_both_trust_it(base: str, later: str) -> None:
    yamls = [f"truing: {{tools: {{trusted_tools: {names}}}}}" for names in (base, later)]
    assert combine(*yamls).truing["tools"]["trusted_tools"] == ["web"]
    assert combine(yamls[0], "models: []").truing["tools"]["trusted_tools"] == []
    assert combine("models: []", yamls[0]).truing["tools"]["trusted_tools"] == []


SETTINGS = """
instructions: [{type: general, content: Be kind.}]
sample_conversation: "user: hi"
prompting_mode: compact
lowest_temperature: 0.2
enable_multi_step_generation: true
rails:
  dialog:
    user_messages:
      embeddings_only: true
      embeddings_only_similarity_threshold: 0.7
      embeddings_only_fallback_intent: other
"""


@pytest.mark.parametrize("yamls", [(SETTINGS, ""), ("", SETTINGS), (SETTINGS, SETTINGS)])
def test_a_setting_is_that_of_the_configuration_that_sets_it(yamls: tuple[str, str]) -> None:
    combined = combine(*(yaml or "models: []" for yaml in yamls))
    assert combined.instructions == "Be kind."
    assert combined.sample_conversation == "user: hi"
    assert combined.prompting_mode == "compact"
    assert combined.lowest_temperature == 0.2
    assert combined.multi_step and combined.embeddings_only
    assert (combined.embeddings_threshold, combined.embeddings_fallback) == (0.7, "other")


MODEL = "type: main, engine: openai, model: a"


@pytest.mark.parametrize(
    "other",
    [
        "parameters: {base_url: 'http://localhost:1/v1'}",
        "parameters: {temperature: 1}",
        "api_key_env_var: OTHER_KEY",
        "mode: text",
        "cache: {enabled: true}",
    ],
)
def test_models_agree_in_all_their_settings(other: str) -> None:
    with pytest.raises(PlanError, match="different models of the type 'main'"):
        combine(f"models: [{{{MODEL}}}]", f"models: [{{{MODEL}, {other}}}]")
    same = combine(f"models: [{{{MODEL}, {other}}}]", f"models: [{{{MODEL}, {other}}}]")
    assert len(same.models) == 1


def test_prompts_of_one_task_agree() -> None:
    first, second, other = (
        f"prompts: [{{task: {task}, content: {content}}}]"
        for task, content in (
            ("self_check_input", "a"),
            ("self_check_input", "b"),
            ("general", "c"),
        )
    )
    with pytest.raises(PlanError, match="different prompts of the task 'self_check_input'"):
        combine(first, second)
    assert len(combine(first, first).prompts) == 1
    assert [entry.task for entry in combine(first, other).prompts] == [
        "self_check_input",
        "general",
    ]
