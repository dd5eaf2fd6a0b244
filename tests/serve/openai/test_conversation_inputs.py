"""The inputs of a conversation mean the same in Python, over HTTP and in `rails test`; what has
another shape is refused in each of them, with the right one shown.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from truing.core.errors import PlanError
from truing.core.types import Conversation, Sampling
from truing.integrations.nemo import LLMRails, RailsConfig
from truing.models.scripted import ScriptedModel
from truing.rails.config.combined import combine_configs
from truing.rails.config.generation_options import OptionsError
from truing.rails.dialogue_tests import DialogueRunner, parse_dialogues
from truing.serve.openai.app import chat_app, keep_threads
from truing.serve.openai.memory_threads import MemoryThreads
from truing.serve.openai.model_router import ModelRouter

YAML = """
models: []
rails: {input: {flows: [no secrets, note the mood]}}
truing:
  client_options:
    context: [note]
    output_vars: [note, mood]
    log: [internal_events]
    llm_params: {max_tokens: 50}
"""
COLANG = """
define bot refuse
  "No."

define subflow no secrets
  if "secret" in $user_message
    bot refuse
    stop

define subflow note the mood
  $mood = "calm"
"""
WAYS = ("python", "http", "rails test")
Turn = dict[str, Any]  # user, and any of context, options


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_config(tmp_path / "moods", YAML, COLANG)


def write_config(path: Path, yaml: str, colang: str) -> Path:
    path.mkdir()
    (path / "config.yml").write_text(yaml)
    (path / "rails.co").write_text(colang)
    return path


def answer(conversation: Conversation, sampling: Sampling) -> str:
    said = [message.content for message in conversation.messages if message.role == "user"]
    return f"{len(said)} messages, at most {sampling.max_tokens} tokens"


def make_client(*folders: Path) -> Any:
    app = chat_app(
        ModelRouter(ScriptedModel(answer), {folder.name: folder for folder in folders}),
        keys=["k", "other"],
    )
    keep_threads(app, MemoryThreads())
    client = TestClient(app)
    client.headers["authorization"] = "Bearer k"
    return client


def body_of(turn: Turn, **guardrails: Any) -> Turn:
    fields = {name: turn[name] for name in ("context", "options") if name in turn}
    return {
        "messages": [{"role": "user", "content": turn["user"]}],
        "guardrails": {**fields, **guardrails},
    }


def run_turn(way: str, folder: Path, turn: Turn) -> tuple[str, dict[str, Any]]:
    """Returns the text of a turn and the variables `note` and `mood` after it."""
    options = {"output_vars": ["note", "mood"], **turn.get("options", {})}
    turn = {**turn, "options": options}
    if way == "python":
        rows = [{"role": "context", "content": turn["context"]}] if "context" in turn else []
        rails = LLMRails(RailsConfig.from_path(str(folder)), llm=ScriptedModel(answer))
        rows.append({"role": "user", "content": turn["user"]})
        result: Any = rails.generate(messages=rows, options=options)
        return result.response[0]["content"], result.output_data
    if way == "http":
        with make_client(folder) as client:
            body = client.post("/v1/chat/completions", json=body_of(turn)).json()
        return body["choices"][0]["message"]["content"], body["guardrails"]["output_data"]
    # `rails test` compares variables: it says what they are where they are others.
    expected = {"note": "?", "mood": "?"}
    outcome = run_dialogue(folder, {**turn, "variables": expected})
    values = {
        name: next(
            (json.loads(fault.rpartition("it is ")[2].replace("'", '"')))
            for fault in outcome.faults
            if f"${name} " in fault and not fault.endswith("None")
        )
        for name in expected
        if any(f"${name} " in fault and not fault.endswith("None") for fault in outcome.faults)
    }
    return outcome.said[0], values


def run_dialogue(folder: Path, *turns: Turn) -> Any:
    dialogues = parse_dialogues("words.yml", json.dumps({"dialogues": [{"turns": list(turns)}]}))
    runner = DialogueRunner(RailsConfig.from_path(str(folder)), ScriptedModel(answer))
    (outcome,) = runner.run(dialogues)
    return outcome


@pytest.mark.parametrize("way", WAYS)
def test_variables_go_in_and_out(way: str, folder: Path) -> None:
    _, variables = run_turn(way, folder, {"user": "hello", "context": {"note": "tea"}})
    assert variables == {"note": "tea", "mood": "calm"}
    _, variables = run_turn(way, folder, {"user": "hello"})
    assert variables == {"mood": "calm"}


@pytest.mark.parametrize("way", WAYS)
def test_the_rails_read_variables(way: str, folder: Path) -> None:
    """A variable is a text like any other."""
    text, _ = run_turn(way, folder, {"user": "hello", "context": {"note": "a secret"}})
    assert text == "No."


@pytest.mark.parametrize("way", WAYS)
def test_parameters_reach_the_model(way: str, folder: Path) -> None:
    turn = {"user": "hello", "options": {"llm_params": {"max_tokens": 7}}}
    assert run_turn(way, folder, turn)[0] == "1 messages, at most 7 tokens"


def test_a_conversation_goes_on(folder: Path) -> None:
    """By a state in Python and over HTTP, by a thread over HTTP, by turns in `rails test`."""
    expected = ["1 messages", "2 messages"]
    texts: dict[str, list[str]] = {}
    rails = LLMRails(RailsConfig.from_path(str(folder)), llm=ScriptedModel(answer))
    first: Any = rails.generate(messages=[{"role": "user", "content": "a"}], state={})
    second: Any = rails.generate(messages=[{"role": "user", "content": "b"}], state=first.state)
    texts["python"] = [result.response[0]["content"] for result in (first, second)]
    with make_client(folder) as client:

        def ask(user: str, **guardrails: Any) -> Any:
            body = body_of({"user": user}, **guardrails)
            return client.post("/v1/chat/completions", json=body).json()

        one = ask("a", state={})
        two = ask("b", state=one["guardrails"]["state"])
        thread = f"thread-{uuid.uuid4()}"
        threads = [ask("a", thread_id=thread), ask("b", thread_id=thread)]
    for name, bodies in (("state", [one, two]), ("thread", threads)):
        texts[name] = [body["choices"][0]["message"]["content"] for body in bodies]
    texts["rails test"] = list(run_dialogue(folder, {"user": "a"}, {"user": "b"}).said)
    assert {way: [t.split(",")[0] for t in said] for way, said in texts.items()} == dict.fromkeys(
        texts, expected
    )


def test_a_thread_id_of_another_key_names_another_thread(folder: Path) -> None:
    thread = f"thread-{uuid.uuid4()}"
    with make_client(folder) as client:
        said = [
            client.post(
                "/v1/chat/completions",
                json=body_of({"user": "hello"}, thread_id=thread),
                headers={"authorization": f"Bearer {key}"},
            ).json()["choices"][0]["message"]["content"]
            for key in ("k", "other", "k")
        ]
    assert [text.split(",")[0] for text in said] == ["1 messages", "1 messages", "2 messages"]


def test_several_configurations_act_together(folder: Path) -> None:
    colang = COLANG.replace("secret", "password").replace("no secrets", "no passwords")
    yaml = "models: []\nrails: {input: {flows: [no passwords]}}\n"
    other = write_config(folder.parent / "words", yaml, colang.partition("define subflow note")[0])
    with make_client(folder, other) as client:
        over_http = [
            client.post(
                "/v1/chat/completions",
                json=body_of({"user": user}, config_ids=["moods", "words"]),
            ).json()["choices"][0]["message"]["content"]
            for user in ("a secret", "a password", "hello")
        ]
    configs = [RailsConfig.from_path(str(path)) for path in (folder, other)]
    rails = LLMRails(combine_configs(configs), llm=ScriptedModel(answer))
    in_python = [rails.generate(prompt=user) for user in ("a secret", "a password", "hello")]
    assert over_http[:2] == in_python[:2] == ["No.", "No."]
    assert "1 messages" in over_http[2] and "1 messages" in str(in_python[2])


def test_events_come_in_and_go_out_with_their_uid(folder: Path) -> None:
    event = {"type": "UtteranceUserActionFinished", "final_transcript": "a secret", "uid": "u-1"}
    rails = LLMRails(RailsConfig.from_path(str(folder)), llm=ScriptedModel(answer))
    log = {"internal_events": True}
    result: Any = rails.generate(messages=[{"role": "event", "event": event}], options={"log": log})
    assert result.response[0]["content"] == "No."
    uids = [row["uid"] for row in result.log["internal_events"]]
    assert len(set(uids)) == len(uids) > 2
    assert run_dialogue(folder, {"event": event, "bot": "No."}).passed
    with make_client(folder) as client:
        body = {"messages": [{"role": "event", "event": event}]}
        refused = client.post("/v1/chat/completions", json=body)
        # A client's turn says which events followed, and cannot write any.
        answered = client.post(
            "/v1/chat/completions", json=body_of({"user": "hi", "options": {"log": log}})
        ).json()
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages[0].role")
    assert all(row["uid"] for row in answered["guardrails"]["log"]["internal_events"])


# -- wrong shapes ----------------------------------------------------------------------------------

SHAPES = [
    ({"log": True}, '{"activated_rails": true}'),
    ({"log": {"everything": True}}, "everything"),
    ({"output_vars": 3}, '["name of a variable"] or true'),
    ({"output_vars": [3]}, '["name of a variable"] or true'),
    ({"llm_params": [1]}, '{"temperature": 0.2, "max_tokens": 100}'),
    ({"rails": "input"}, '["input", "output"]'),
    ({"lgo": {}}, "log"),
]


def refused_in_python(folder: Path, options: Any) -> str:
    rails = LLMRails(RailsConfig.from_path(str(folder)), llm=ScriptedModel(answer))
    with pytest.raises(OptionsError) as caught:
        rails.generate(prompt="hello", options=options)
    return str(caught.value)


def refused_over_http(folder: Path, options: Any) -> str:
    with make_client(folder) as client:
        reply = client.post(
            "/v1/chat/completions", json=body_of({"user": "hello", "options": options})
        )
    assert reply.status_code == 400
    return str(reply.json()["error"]["message"])


def refused_in_tests(folder: Path, options: Any) -> str:
    with pytest.raises(PlanError) as caught:
        run_dialogue(folder, {"user": "hello", "options": options})
    return str(caught.value)


@pytest.mark.parametrize("refuse", [refused_in_python, refused_over_http, refused_in_tests])
@pytest.mark.parametrize(("options", "shape"), SHAPES)
def test_a_wrong_shape_is_refused_with_the_right_one(
    refuse: Callable[[Path, Any], str], options: Any, shape: str, folder: Path
) -> None:
    assert shape in refuse(folder, options)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"context": "tea"}, "guardrails.context"),
        ({"context": {"other": "tea"}}, "guardrails.context.other"),
        ({"config_ids": "moods"}, "guardrails.config_ids"),
        ({"config_ids": ["nobody", "moods"]}, "guardrails.config_ids"),
        ({"thread_id": "short"}, "guardrails.thread_id"),
        ({"thread_id": ["x" * 20]}, "guardrails.thread_id"),
        ({"thread_id": "x" * 20, "state": {}}, "guardrails.state"),
        ({"state": "mine"}, "guardrails.state"),
        ({"options": {"llm_params": {"max_tokens": 51}}}, "guardrails.options.llm_params"),
        ({"options": {"llm_params": {"top_k": 3}}}, "guardrails.options.llm_params"),
        ({"options": {"output_vars": ["bot_message"]}}, "guardrails.options.output_vars"),
        ({"options": {"rails": ["dialog"]}}, "guardrails.options.rails"),
    ],
)
def test_a_client_is_told_the_field(fields: dict[str, Any], param: str, folder: Path) -> None:
    with make_client(folder) as client:
        reply = client.post("/v1/chat/completions", json=body_of({"user": "hello"}, **fields))
    error = reply.json()["error"]
    assert reply.status_code in (400, 404) and (error["param"] or "").startswith(param), error
