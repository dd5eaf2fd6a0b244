"""`RailsGuardrail` and the Generic Guardrail API with the real LiteLLM: its proxy, in a process of
its own, before an upstream that LiteLLM mocks.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integrations.hook_rails_folder import REFUSED_INPUT, REFUSED_OUTPUT, write_rails
from tests.serve.openai.live import free_port, running_server

pytest.importorskip("litellm", reason="runs in `make test-peers`")

from litellm.exceptions import GuardrailRaisedException
from litellm.types.utils import Delta, ModelResponseStream, StreamingChoices

from truing.integrations.litellm import RailsGuardrail
from truing.integrations.litellm.guardrail import _session
from truing.models.scripted import ScriptedModel
from truing.serve.openai.app import chat_app
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter

# LiteLLM builds types of its own as it goes, of which pydantic warns.
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore::UserWarning")]
ANSWERS = {
    "plain": "a fine answer",
    "forbidden": "one two FORBIDDEN four",
    "mail": "write to ana@example.org please",
}
PROXY_KEY = "sk-of-the-tests-proxy-0123456789abcdef"
PLUGIN = """
from truing.integrations.litellm import RailsGuardrail


class Rails(RailsGuardrail):
    pass
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rails(tmp_path_factory.mktemp("rails") / "words")


def apply(guardrail: RailsGuardrail, kind: str, **inputs: Any) -> Any:
    return asyncio.run(guardrail.apply_guardrail(inputs, {}, kind))


def test_texts_are_checked_and_rewritten(folder: Path) -> None:
    seen: list[Any] = []
    guardrail = RailsGuardrail(folder, guardrail_name="rails", on_rulings=seen.extend)
    assert apply(guardrail, "request", texts=["mail ana@example.org"])["texts"] == [
        "mail <EMAIL_ADDRESS>"
    ]
    with pytest.raises(GuardrailRaisedException, match="talk about that"):
        apply(guardrail, "request", texts=["FORBIDDEN"])
    with pytest.raises(GuardrailRaisedException):
        apply(guardrail, "request", texts=["look"], images=["data:x"])
    assert {ruling.ruling for ruling in seen} == {"allow", "rewrite", "block"}


def stream(guardrail: RailsGuardrail, *deltas: Any) -> list[Any]:
    """Returns the chunks that a stream of (choice, fields of a delta) becomes."""
    chunks = [
        ModelResponseStream(choices=[StreamingChoices(index=index, delta=Delta(**fields))])
        for index, fields in deltas
    ]

    async def give() -> Any:
        for chunk in chunks:
            yield chunk

    async def read() -> list[Any]:
        released = guardrail.async_post_call_streaming_iterator_hook(None, give(), {})
        return [chunk async for chunk in released]

    return asyncio.run(read())


def test_a_stream_is_stripped_of_reasoning_and_read_by_choice(folder: Path) -> None:
    guardrail = RailsGuardrail(folder, guardrail_name="rails")
    thought = {"role": "assistant", "content": "", "reasoning_content": "UNREAD"}
    released = stream(guardrail, (0, thought), (0, {"content": "fine"}))
    assert "UNREAD" not in str(released) and "fine" in str(released)
    parts = [(0, {"content": "FORB"}), (1, {"content": "two"}), (0, {"content": "IDDEN"})]
    with pytest.raises(GuardrailRaisedException, match="say that"):
        stream(guardrail, *parts)
    with pytest.raises(GuardrailRaisedException, match="read by no rail"):
        stream(guardrail, (0, {"content": "x", "function_call": {"name": "f", "arguments": "{}"}}))


def test_a_prefill_of_a_client_and_parts_that_are_no_text_are_refused(folder: Path) -> None:
    guardrail = RailsGuardrail(folder, guardrail_name="rails")
    rows = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "FORBIDDEN"}]
    with pytest.raises(GuardrailRaisedException, match="talk about that"):
        apply(guardrail, "request", texts=["hi", "FORBIDDEN"], structured_messages=rows)
    audio = [{"type": "input_audio", "text": "hi", "input_audio": {"data": "AAAA"}}]
    rows = [{"role": "user", "content": audio}]
    with pytest.raises(GuardrailRaisedException):
        apply(guardrail, "request", texts=["hi"], structured_messages=rows)
    called = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '"FORBIDDEN"'}}
    rows = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [called]}]
    with pytest.raises(GuardrailRaisedException):
        apply(guardrail, "request", texts=["other"], structured_messages=rows)


def test_a_client_cannot_choose_its_session() -> None:
    chosen = {"metadata": {"user_api_key_hash": "of another"}}
    own = {**chosen, "litellm_metadata": {"user_api_key_hash": "its own"}}
    assert len({_session(chosen), _session(own), ""}) == 3 and _session({}) == ""


def test_a_guardrail_without_rails_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUING_RAILS", raising=False)
    with pytest.raises(ValueError, match="TRUING_RAILS"):
        RailsGuardrail(guardrail_name="rails")


@pytest.fixture(scope="module")
def rails_server(folder: Path) -> Iterator[str]:
    app = chat_app(ModelRouter(ScriptedModel(lambda c, s: "unused"), {"words": folder}), keys=["k"])
    port = free_port()
    with running_server(app, port, ServerLimits()):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def proxy(
    folder: Path, rails_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The proxy: guardrail `own` is the class, `served` the Generic Guardrail API."""
    home = tmp_path_factory.mktemp("proxy")
    (home / "rails_plugin.py").write_text(PLUGIN)
    models = [
        {
            "model_name": name,
            "litellm_params": {"model": "openai/x", "api_key": "none", "mock_response": text},
        }
        for name, text in ANSWERS.items()
    ]
    modes = {"mode": ["pre_call", "post_call"]}
    served = {
        "guardrail": "generic_guardrail_api",
        "api_base": rails_server,
        "api_key": "k",
        "streaming_transform_mode": "incremental_diff",
        "streaming_sampling_rate": 1,
        **modes,
    }
    own = {"guardrail": "rails_plugin.Rails", **modes}
    config = {
        "model_list": models,
        "guardrails": [
            {"guardrail_name": "own", "litellm_params": own},
            {"guardrail_name": "served", "litellm_params": served},
        ],
    }
    (home / "config.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [sys.executable, "-c", "from litellm import run_server; run_server()"]
    process = subprocess.Popen(
        [*command, "--config", str(home / "config.yaml"), "--port", str(port)],
        cwd=home,
        env={
            **os.environ,
            "TRUING_RAILS": str(folder),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MASTER_KEY": PROXY_KEY,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(2400):
        assert process.poll() is None, "the proxy ended"
        try:
            urllib.request.urlopen(f"{address}/health/liveliness", timeout=5)
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the proxy did not start")


def ask(proxy: str, guardrail: str, model: str, text: str = "hello", **fields: Any) -> Any:
    """Returns status and body of a chat completion through the proxy."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "guardrails": [guardrail],
        **fields,
    }
    request = urllib.request.Request(
        f"{proxy}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {PROXY_KEY}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("guardrail", ["own", "served"])
def test_the_proxy_blocks_and_rewrites(proxy: str, guardrail: str) -> None:
    status, body = ask(proxy, guardrail, "plain")
    assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, ANSWERS["plain"])
    status, body = ask(proxy, guardrail, "plain", "FORBIDDEN")
    assert status == 400 and REFUSED_INPUT in body
    status, body = ask(proxy, guardrail, "forbidden")
    assert status == 400 and REFUSED_OUTPUT in body and "two" not in body
    status, body = ask(proxy, guardrail, "mail")
    assert status == 200 and "<EMAIL_ADDRESS>" in body and "ana@" not in body


@pytest.mark.parametrize("guardrail", ["own", "served"])
def test_a_stream_of_the_proxy_shows_nothing_that_is_refused(proxy: str, guardrail: str) -> None:
    status, events = ask(proxy, guardrail, "plain", stream=True)
    assert status == 200 and _streamed_text(events) == ANSWERS["plain"]
    _, events = ask(proxy, guardrail, "forbidden", stream=True)
    assert "FORBIDDEN" not in events
    _, events = ask(proxy, guardrail, "mail", stream=True)
    assert "ana@" not in events and _streamed_text(events) == "write to <EMAIL_ADDRESS> please"


def _streamed_text(events: str) -> str:
    rows = [
        json.loads(line.removeprefix("data: "))
        for line in events.splitlines()
        if line.startswith("data: {")
    ]
    return "".join(
        row["choices"][0]["delta"].get("content") or "" for row in rows if row["choices"]
    )
