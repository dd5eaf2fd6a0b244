"""A configuration from files and texts: settings, definitions, places and faults."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from truing.core.errors import PlanError
from truing.models.scripted import ScriptedModel
from truing.rails.build import build_runtime
from truing.rails.colang.ast import BotText
from truing.rails.config.loader import (
    DEFAULT_INSTRUCTIONS,
    RailsConfig,
    iterate_stages,
    list_rail_flow_names,
)
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.embeddings import LexicalEncoder

YAML = """\
instructions:
  - {type: general, content: Be kind.}
sample_conversation: |
  user "Hi"
lowest_temperature: 0.2
enable_multi_step_generation: true
user_messages: {greet: [hello, hi]}
bot_messages: {reply: Hi!}
rails:
  input: {flows: [self check input, "check $model=x"], parallel: true}
  output:
    flows: [self check output]
    streaming: {enabled: true, chunk_size: 9}
  dialog:
    single_call: {enabled: true}
    user_messages: {embeddings_only: true, embeddings_only_similarity_threshold: 0.5}
truing: {seed: 4}
flows:
  - {id: from yaml, elements: [{user: greet}]}
"""
COLANG = 'define user greet\n  "good day"\n\ndefine flow greeting\n  user greet\n  bot reply\n'


def test_settings() -> None:
    config = RailsConfig.from_text(YAML)
    assert config.instructions == "Be kind."
    assert config.sample_conversation == 'user "Hi"\n'
    assert (config.lowest_temperature, config.multi_step, config.single_call) == (0.2, True, True)
    assert (config.embeddings_only, config.embeddings_threshold) == (True, 0.5)
    assert config.truing == {"seed": 4}
    assert config.rails.input.parallel
    assert config.rails.output.streaming.chunk_size == 9


def test_a_temperature_of_zero_is_kept() -> None:
    assert RailsConfig.from_text("lowest_temperature: 0\n").lowest_temperature == 0.0


def test_defaults() -> None:
    config = RailsConfig.from_text("models: []\n")
    assert config.instructions == DEFAULT_INSTRUCTIONS
    assert config.sample_conversation.startswith('user "Hello there!"\n')
    assert not config.passthrough
    assert [(name, stage.flows) for name, stage in iterate_stages(config)] == [
        (name, []) for name in ("input", "output", "retrieval", "tool_output", "tool_input")
    ]


def test_definitions_of_yaml_and_colang() -> None:
    config = RailsConfig.from_text(YAML, COLANG)
    assert config.user_messages == {"greet": ["good day"]}  # a definition in Colang wins
    assert config.bot_messages == {"reply": [BotText("Hi!", 0)]}
    assert [flow.name for flow in config.flows] == ["from yaml", "greeting"]


def test_rail_flow_names_have_no_parameters() -> None:
    names = list_rail_flow_names(RailsConfig.from_text(YAML))
    assert names == {"self check input", "check", "self check output"}


def test_places() -> None:
    config = RailsConfig.from_text(YAML, COLANG)
    assert config.locate("key", "rails.output.streaming.chunk_size") == "config.yml:13"
    assert config.locate("user", "greet") == "main.co:1"
    assert config.locate("key", "no.such.key") == "config"


def test_the_first_file_defines_a_message_and_the_second_is_noted(tmp_path: Path) -> None:
    (tmp_path / "a.co").write_text('define bot reply\n  "first"\n')
    (tmp_path / "b.co").write_text('\ndefine bot reply\n  "second"\n')
    config = RailsConfig.load(tmp_path)
    assert [text.text for text in config.bot_messages["reply"]] == ["first"]
    assert config.notes == [
        (
            "b.co:2",
            "the bot message 'reply' is not used: a.co:1 defines it too, and comes first",
        )
    ]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="holds neither YAML nor Colang files"):
        RailsConfig.load(tmp_path)


@pytest.mark.parametrize(
    ("yaml", "faults"),
    [
        ("colang_version: 2.x\n", ["config.yml:1: colang_version 2.x is not supported"]),
        (
            "models:\n  - {type: main}\nprompts:\n  - {task: general}\nactions_server_url: x\n",
            [
                "config.yml:2: a model needs type and engine",
                "config.yml:4: a prompt needs a task, and content or messages",
                "config.yml:5: an actions server is not supported",
            ],
        ),
        (
            "passthrough: true\n"
            "rails:\n"
            "  config:\n"
            "    jailbreak_detection: {api_key: abc}\n"
            "  dialog:\n"
            "    single_call: {enabled: true}\n"
            "    user_messages: {embeddings_only_similarity_threshold: 2}\n",
            [
                "config.yml:4: the configuration contains a secret",
                "config.yml:1: passthrough and single_call exclude each other",
                "config.yml:7: 2 is not between 0 and 1",
            ],
        ),
        (
            "prompts:\n  - {task: general, content: x, max_length: 0}\n",
            ["config.yml:2: max_length: 0 is less than 1"],
        ),
        (
            "models:\n  - {type: main}\nrails:\n  dialog: {user_messages: "
            "{embeddings_only_similarity_threshold: 2}}\nactions_server_url: x\n",
            [
                "config.yml:2: a model needs type and engine",
                "config.yml:5: an actions server is not supported",
                "config.yml:4: 2 is not between 0 and 1",
            ],
        ),
        ("flows:\n  - {id: a}\n", ["config.yml:2: the flow has no elements"]),
    ],
)
def test_faults_have_their_line(yaml: str, faults: list[str]) -> None:
    with pytest.raises(PlanError) as caught:
        RailsConfig.from_text(yaml)
    assert len(caught.value.faults) == len(faults)
    for fault, expected in zip(caught.value.faults, faults):
        assert fault.startswith(expected)


def test_the_note_on_two_flows_of_one_name_names_the_one_that_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(
        "rails: {dialog: {user_messages: {embeddings_only: true}}}\n"
    )
    for name in ("a", "b"):
        flow = (
            f'define flow greet\n  user hi\n  bot say {name}\n\ndefine bot say {name}\n  "{name}"\n'
        )
        (tmp_path / f"{name}.co").write_text(flow)
    (tmp_path / "c.co").write_text('define user hi\n  "hi"\n')
    config = RailsConfig.load(tmp_path)
    assert config.notes == [
        ("a.co:1", "the flow 'greet' is not used: b.co:1 defines it too, and comes last")
    ]
    runtime = build_runtime(config, ScriptedModel("x"), RuntimeParts(encoder=LexicalEncoder()))
    turn = asyncio.run(runtime.run_turn([{"role": "user", "content": "hi"}]))
    assert turn.message["content"] == "b"
