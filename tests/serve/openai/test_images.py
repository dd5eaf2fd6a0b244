"""Images in the messages of `/v1/chat/completions`: a guard reads them, then the main model gets
the very same ones; anything else is refused or blocked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient
from tests.servers import Request, Server, serving

from truing.core.types import Answer, Conversation, ImageMessage, Judgement
from truing.models.scripted import ScriptedModel
from truing.rails.config.loader import RailsConfig
from truing.rails.config.models import build_model
from truing.serve.openai.app import chat_app
from truing.serve.openai.audit import HarmAudit
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter

IMAGE = "data:image/png;base64,iVBORw0KGgo="
REFUSED_IMAGE = "data:image/jpeg;base64,BBBB"
CONFIG = """
models:
  - {type: main, engine: vllm_openai, model: main, parameters: &server {base_url: URL/v1, max_retries: 0}}
  - {type: vision, engine: vllm_openai, model: guard, parameters: *server}
rails: {input: {flows: [content safety check input $model=vision]}}
prompts:
  - task: content_safety_check_input $model=vision
    messages:
      - {type: system, content: Check the text and the images.}
      - {type: user, content: "{{ user_input }}"}
    output_parser: is_content_safe
"""

LENGTH_RAIL = """
define subflow check length
  $too_long = len($user_message) > 100
  if $too_long
    stop
"""


async def _reply(request: Request) -> None:
    """A guard that objects to one image, and a main model that answers."""
    is_guard = request.json["model"] == "guard"
    verdict = "unsafe" if REFUSED_IMAGE in json.dumps(request.json) else "safe"
    message = {"role": "assistant", "content": verdict if is_guard else "A small picture."}
    if not request.json.get("stream"):
        await request.send(200, {"choices": [{"message": message, "finish_reason": "stop"}]})
        return
    chunk = {"choices": [{"delta": message, "finish_reason": "stop"}]}
    events = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    await request.send(200, events.encode(), kind="text/event-stream")


@contextmanager
def served(
    folder: Path, config: str = CONFIG, model: Any = None, flows: str = "", **limits: Any
) -> Iterator[tuple[Any, Server]]:
    """Yields a client of a chat server with a configuration, and the server of its models."""
    with serving(_reply) as upstream:
        (folder / "eyes").mkdir()
        (folder / "eyes" / "config.yml").write_text(config.replace("URL", upstream.url))
        (folder / "eyes" / "flows.co").write_text(flows)
        loaded = RailsConfig.load(folder / "eyes")
        main = model or build_model(loaded.models[0], loaded)
        app = chat_app(ModelRouter(main, {"eyes": folder / "eyes"}), limits=ServerLimits(**limits))
        with TestClient(app) as client:
            yield client, upstream


def image_part(address: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": address, "detail": "low"}}


def body_of(*parts: Any, **fields: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": "what is this?"}, *parts]
    return {"messages": [{"role": "user", "content": content}], **fields}


def post(client: Any, body: dict[str, Any]) -> Any:
    return client.post("/v1/chat/completions", json=body)


@pytest.mark.parametrize("stream", [False, True])
def test_the_guard_and_then_the_model_get_the_image_of_the_request(
    tmp_path: Path, stream: bool
) -> None:
    with served(tmp_path) as (client, upstream):
        response = post(client, body_of(image_part(IMAGE), stream=stream))
    assert response.status_code == 200 and "A small picture." in response.text
    asked_guard, asked_main = [request.json for request in upstream.requests]
    assert (asked_guard["model"], asked_main["model"]) == ("guard", "main")
    for asked in (asked_guard, asked_main):
        assert asked["messages"][-1]["content"][-1]["image_url"]["url"] == IMAGE
        assert "what is this?" in asked["messages"][-1]["content"][0]["text"]
        assert json.dumps(asked).count(IMAGE) == 1


PARALLEL = CONFIG.replace(
    "flows: [content safety check input $model=vision]",
    "parallel: true, flows: [content safety check input $model=vision, check length]",
)


def test_an_image_that_a_guard_beside_other_rails_lets_pass_reaches_the_model(
    tmp_path: Path,
) -> None:
    with served(tmp_path, PARALLEL, flows=LENGTH_RAIL) as (client, upstream):
        response = post(client, body_of(image_part(IMAGE)))
    assert response.json()["choices"][0]["message"]["content"] == "A small picture."
    assert json.dumps(upstream.requests[-1].json).count(IMAGE) == 1


@pytest.mark.parametrize("config", [CONFIG, PARALLEL])
def test_an_image_that_the_guard_objects_to_reaches_no_model(tmp_path: Path, config: str) -> None:
    with served(tmp_path, config, flows=LENGTH_RAIL) as (client, upstream):
        response = post(client, body_of(image_part(IMAGE), image_part(REFUSED_IMAGE)))
    assert response.json()["choices"][0]["finish_reason"] == "content_filter"
    assert [request.json["model"] for request in upstream.requests] == ["guard"]


def test_an_image_that_no_rail_reads_is_blocked_as_unread(tmp_path: Path) -> None:
    config = CONFIG.split("rails:")[0]
    options = {"log": {"activated_rails": True}}
    with served(tmp_path, config) as (client, upstream):
        body = body_of(image_part(IMAGE), guardrails={"options": options})
        answer = post(client, body).json()
        assert upstream.requests == []
        assert post(client, {"messages": [{"role": "user", "content": "hi"}]}).status_code == 200
    assert answer["choices"][0]["finish_reason"] == "content_filter"
    assert "no rail has read" in answer["guardrails"]["rails"][-1]["reason"]


def test_an_image_of_an_earlier_turn_is_not_shown_again(tmp_path: Path) -> None:
    with served(tmp_path) as (client, upstream):
        first = body_of(image_part(IMAGE))["messages"]
        said = {"role": "assistant", "content": "A small picture."}
        later = [*first, said, {"role": "user", "content": "and what else?"}]
        assert post(client, {"messages": first}).status_code == 200
        asked_before = len(upstream.requests)
        assert post(client, {"messages": later}).status_code == 200
    later_requests = [request.json for request in upstream.requests[asked_before:]]
    assert later_requests and all(IMAGE not in json.dumps(row) for row in later_requests)


@pytest.mark.parametrize(
    "part",
    [
        image_part("https://pictures.example/a.png"),
        image_part("data:image/svg+xml;base64,AAAA"),
        image_part("data:text/html;base64,AAAA"),
        image_part("data:image/png;base64,not base64"),
        image_part("data:image/png,AAAA"),
        image_part(IMAGE + "\n"),
        image_part(None),
        {"type": "image_url", "image_url": IMAGE},
        {"type": "image_url"},
        {"type": "input_image", "image_url": IMAGE},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_data": "AAAA"}},
        {"image_url": {"url": IMAGE}},
        IMAGE,
        None,
    ],
)
def test_another_part_is_refused_with_the_right_form(tmp_path: Path, part: Any) -> None:
    with served(tmp_path) as (client, upstream):
        response = post(client, body_of(part))
        assert upstream.requests == []
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "messages[0].content[1]")
    assert '"url": "data:image/png;base64,..."' in error["message"]


@pytest.mark.parametrize("role", ["system", "assistant", "tool"])
def test_only_the_user_sends_images(tmp_path: Path, role: str) -> None:
    message = {"role": role, "content": [image_part(IMAGE)], "tool_call_id": "call-1"}
    with served(tmp_path) as (client, upstream):
        response = post(client, {"messages": [message, {"role": "user", "content": "hi"}]})
        assert upstream.requests == []
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages[0].content[0]"


def test_the_number_and_the_size_of_images_are_bounded(tmp_path: Path) -> None:
    with served(tmp_path, images=2, image_bytes=60) as (client, upstream):
        too_many = post(client, body_of(*[image_part(IMAGE)] * 3))
        too_large = post(client, body_of(image_part(IMAGE.replace("=", "A" * 60))))
        assert upstream.requests == []
        assert post(client, body_of(*[image_part(IMAGE)] * 2)).status_code == 200
    for response, reason in ((too_many, "more than 2 images"), (too_large, "more than 60 bytes")):
        assert response.status_code == 400 and reason in response.json()["error"]["message"]
        assert response.json()["error"]["param"] == "messages[0].content"


def test_a_model_that_reads_no_images_gets_none(tmp_path: Path) -> None:
    with served(tmp_path, model=ScriptedModel("Only text.")) as (client, _):
        response = post(client, body_of(image_part(IMAGE)))
        assert post(client, body_of()).json()["choices"][0]["message"]["content"] == "Only text."
    assert response.status_code == 400
    assert "reads no images" in response.json()["error"]["message"]


def test_without_rails_there_are_no_images() -> None:
    with TestClient(chat_app(ModelRouter(ScriptedModel("hello")))) as client:
        response = post(client, body_of(image_part(IMAGE)))
    assert response.status_code == 400
    assert "content safety check input" in response.json()["error"]["message"]


def test_other_routes_take_texts_only(tmp_path: Path) -> None:
    with served(tmp_path) as (client, upstream):
        for path in ("/v1/checks", "/v1/responses"):
            body = body_of(image_part(IMAGE))
            if path == "/v1/responses":
                body = {"input": body["messages"]}
            assert client.post(path, json=body).status_code == 400, path
        assert upstream.requests == []


class NothingToObject:
    """A judge of texts."""

    name = "texts"

    async def judge(self, *_: Any) -> Judgement:
        return Judgement(sample_id="audit", judge="texts", question="harm", verdict=False)


def test_the_audit_does_not_count_an_answer_to_an_image_as_judged() -> None:
    verdicts: list[bool | None] = []

    class Alarm:
        def should_audit(self) -> bool:
            return True

        def observe(self, verdict: bool | None) -> bool:
            verdicts.append(verdict)
            return False

    async def run() -> None:
        audit = HarmAudit(NothingToObject(), Alarm(), print)  # type: ignore[arg-type]
        audit.observe(Conversation.of("hello"), Answer.of("a"))
        image = ImageMessage("user", "what is this?", images=(IMAGE,))
        audit.observe(Conversation((image,)), Answer.of("b"))
        await audit.finish()

    asyncio.run(run())
    assert verdicts == [False, None]
