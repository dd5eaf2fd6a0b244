"""Images in messages: a guard model that reads them lets them pass, or they are blocked."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.servers import Request, serving

from truing.core.types import Answer
from truing.http.limits import close_connections
from truing.models.scripted import ScriptedModel
from truing.rails.config.loader import RailsConfig
from truing.rails.config.models import build_model
from truing.rails.guarded import GuardedModel
from truing.rails.library.image_checks import add_images
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.embeddings import LexicalEncoder

IMAGE = "data:image/png;base64,AAAA"
PROMPT = {
    "task": "content_safety_check_input $model=vision",
    "messages": [
        {"type": "system", "content": "Check the text and the images."},
        {"type": "user", "content": "{{ user_input }}"},
    ],
    "output_parser": "is_content_safe",
}


def _image(address: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": address}}


def _content(*addresses: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": "what is this?"}, *map(_image, addresses)]


def _guard(
    url: str,
    flows: tuple[str, ...] = ("content safety check input $model=vision",),
    prompts: tuple[Any, ...] = (PROMPT,),
    main: Any = None,
    **settings: Any,
) -> GuardedModel:
    server = {"engine": "vllm_openai", "parameters": {"base_url": f"{url}/v1", "max_retries": 0}}
    config = {
        "models": [
            {**server, "type": "main", "model": "main"},
            {**server, "type": "vision", "model": "guard"},
        ],
        "rails": {"input": {"flows": list(flows)}},
        "prompts": list(prompts),
        **settings,
    }
    loaded = RailsConfig.from_text(json.dumps(config))
    models = {"vision": build_model(loaded.models[1], loaded)}
    parts = RuntimeParts(models=models, encoder=LexicalEncoder())
    return GuardedModel(loaded, main or build_model(loaded.models[0], loaded), parts=parts)


def _ask(model: GuardedModel, *contents: Any) -> Answer:
    rows = [{"role": "user", "content": content} for content in contents]

    async def run() -> Answer:
        try:
            return await model.answer_messages(rows)
        finally:
            await close_connections()

    return asyncio.run(run())


async def _reply(request: Request) -> None:
    """A guard that objects to the image BBBB, and a main model that answers."""
    is_guard = request.json["model"] == "guard"
    verdict = "unsafe" if "BBBB" in json.dumps(request.json) else "safe"
    message = {"role": "assistant", "content": verdict if is_guard else "A small picture."}
    await request.send(200, {"choices": [{"message": message, "finish_reason": "stop"}]})


@pytest.mark.parametrize("passthrough", [False, True])
def test_the_guard_and_the_model_get_the_same_image(passthrough: bool) -> None:
    with serving(_reply) as server:
        answer = _ask(_guard(server.url, passthrough=passthrough), _content(IMAGE))
    assert answer.text == "A small picture."
    asked_guard, asked_main = [request.json for request in server.requests]
    assert asked_guard["model"] == "guard" and asked_main["model"] == "main"
    for body in (asked_guard, asked_main):
        content = body["messages"][-1]["content"]
        assert content[-1] == _image(IMAGE)
        assert "what is this?" in content[0]["text"]
        assert json.dumps(body).count(IMAGE) == 1


def test_an_image_that_the_guard_objects_to_reaches_no_model() -> None:
    with serving(_reply) as server:
        answer = _ask(_guard(server.url), _content("data:image/png;base64,BBBB"))
    assert answer.finish_reason == "blocked"
    assert [request.json["model"] for request in server.requests] == ["guard"]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("https://host.example/picture.png", "only if the message holds it"),
        ("data:text/html,hello", "only if the message holds it"),
    ],
)
def test_an_image_behind_an_address_is_not_checked(address: str, reason: str) -> None:
    with serving(_reply) as server:
        answer = _ask(_guard(server.url), _content(address))
    assert answer.finish_reason == "blocked" and server.requests == []
    assert reason in (answer.rulings[0].reason or "")


def test_another_part_is_blocked_as_unread() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    with serving(_reply) as server:
        answer = _ask(_guard(server.url), [{"type": "text", "text": "listen"}, part])
    assert answer.finish_reason == "blocked" and server.requests == []


def test_without_a_rail_that_reads_it_an_image_blocks() -> None:
    with serving(_reply) as server:
        answer = _ask(_guard(server.url, flows=(), prompts=()), _content(IMAGE))
        assert answer.finish_reason == "blocked" and server.requests == []
        assert "an image or a file that no rail has read" in (answer.rulings[-1].reason or "")
        assert _ask(_guard(server.url, flows=(), prompts=()), "hi").text == "A small picture."


def test_a_guard_that_reads_no_images_blocks() -> None:
    with serving(_reply) as server:
        model = _guard(server.url)
        model.runtime.services.models["vision"] = ScriptedModel("safe", name="text-guard")
        answer = _ask(model, _content(IMAGE))
    assert answer.finish_reason == "blocked" and server.requests == []
    assert "text-guard reads no images" in (answer.rulings[0].reason or "")


def test_an_image_of_an_earlier_message_is_not_shown_again() -> None:
    with serving(_reply) as server:
        answer = _ask(_guard(server.url, passthrough=True), _content(IMAGE), "and now?")
    assert answer.text == "A small picture."
    assert all(IMAGE not in json.dumps(request.json) for request in server.requests)


def test_a_model_that_reads_no_images_answers_the_text() -> None:
    with serving(_reply) as server:
        model = _guard(server.url, flows=(), prompts=(), main=ScriptedModel("Only text."))
        assert _ask(model, _content(IMAGE)).text == "Only text."


def test_images_go_into_the_last_message_of_the_user() -> None:
    assert add_images("look", ()) == "look"
    parts = [{"type": "text", "text": "look"}, _image(IMAGE)]
    assert add_images("look", [IMAGE]) == [{"type": "user", "content": parts}]
    rows = [{"type": "user", "content": "look"}, {"type": "assistant", "content": "yes"}]
    assert add_images(rows, [IMAGE]) == [{"type": "user", "content": parts}, rows[1]]
    assert rows[0]["content"] == "look"  # the caller's rows are left alone
