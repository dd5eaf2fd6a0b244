"""Live pairs: same pace, one generation for all watchers, failures that can be retried."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import pytest
from tests.serve.annotation.site import Site, Visitor, run_site
from tests.servers import Request, serving

from truing.annotation.store import DatabaseUnavailable
from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.models.scripted import ScriptedModel
from truing.serve.annotation.app_state import ServerLimits
from truing.serve.annotation.live_pairs import LivePair, LiveResponse
from truing.specs.resolve import resolve


class StreamingModel:
    """Streams its words with a pause after each; with `broken`, fails after the first."""

    def __init__(self, name: str, words: list[str], pause: float = 0.0) -> None:
        self.name, self.words, self.pause = name, words, pause
        self.lineage = Lineage(name=name)
        self.broken = False
        self.calls = 0

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        raise AssertionError("it streams")

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        self.calls += 1
        for word in self.words:
            yield word
            await asyncio.sleep(self.pause)
            if self.broken:
                raise ConnectionError(f"{self.name} went away")


class NonStreamingModel:
    """A model that does not stream."""

    name, lineage = "slow", Lineage(name="slow")

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        await asyncio.sleep(0.3)
        return (Answer.of("whole at once"),)


def parse_events(text: str) -> list[tuple[str, dict[str, str]]]:
    return [
        (name, json.loads(data)) for name, data in re.findall(r"event: (\w+)\ndata: (.*)\n", text)
    ]


def join_text(text: str) -> dict[str, str]:
    text_by_letter = {"A": "", "B": ""}
    for name, data in parse_events(text):
        if name == "piece":
            text_by_letter[data["letter"]] += data["text"]
    return text_by_letter


def _start_dialogue(site: Site) -> tuple[Visitor, str]:
    redteamer = site.add_person("red-wren", "redteamer")
    return redteamer, redteamer.start_dialogue()


def test_visible_text_is_limited_by_the_unfinished_response() -> None:
    fast, slow = LiveResponse("A", "a" * 50, done=True), LiveResponse("B", "b" * 7)
    pair = LivePair([fast, slow])
    assert {k: len(v) for k, v in pair.visible_text().items()} == {"A": 7, "B": 7}
    slow.text += "b" * 3
    assert {k: len(v) for k, v in pair.visible_text().items()} == {"A": 10, "B": 10}
    slow.done = True
    assert {k: len(v) for k, v in pair.visible_text().items()} == {"A": 50, "B": 10} and pair.done


def test_both_responses_stream_at_the_same_pace(file_url: str) -> None:
    fast, slow = (
        StreamingModel("quick", ["quick words here "] * 10),
        StreamingModel("slow", ["slow "] * 10, 0.02),
    )
    with run_site(file_url, [fast, slow]) as site:
        redteamer, dialogue = _start_dialogue(site)
        _, streamed = redteamer.send_message(dialogue, "hello")
        lengths = {"A": 0, "B": 0}
        lengths_seen = []
        for name, data in parse_events(streamed):
            if name == "piece":
                lengths[data["letter"]] += len(data["text"])
                lengths_seen.append(dict(lengths))
        assert set(join_text(streamed).values()) == {"quick words here " * 10, "slow " * 10}
        shorter_length = 50
        assert all(
            abs(lengths["A"] - lengths["B"]) <= 10
            for lengths in lengths_seen
            if max(lengths.values()) < shorter_length
        )


def test_several_watchers_share_one_generation(file_url: str) -> None:
    one, two = (
        StreamingModel("one", ["word "] * 20, 0.02),
        StreamingModel("two", ["term "] * 20, 0.02),
    )
    with run_site(file_url, [one, two]) as site:
        redteamer, dialogue = _start_dialogue(site)
        redteamer.submit(
            f"{dialogue}/say", {"message": "hello", "key": redteamer.form_key(dialogue)}
        )
        turn = re.findall(r"/turns/([0-9a-f]+)/", redteamer.get(dialogue).text)[-1]
        with redteamer.client.stream("GET", f"{dialogue}/turns/{turn}/stream") as stream:
            next(stream.iter_bytes())  # and the page is closed
        first_stream = redteamer.read_stream(dialogue, turn)
        second_stream = redteamer.read_stream(dialogue, turn)
        assert join_text(first_stream) == join_text(second_stream) and set(
            join_text(first_stream).values()
        ) == {
            "word " * 20,
            "term " * 20,
        }
        assert (one.calls, two.calls) == (1, 1)
        assert (
            "disabled"
            not in re.findall(r'<button name="pick"[^>]*>', redteamer.get(dialogue).text)[0]
        )


def test_a_failing_model_can_be_retried_and_is_not_named(file_url: str) -> None:
    working, failing = StreamingModel("good", ["fine"]), StreamingModel("bad-model", ["half "])
    failing.broken = True
    with run_site(file_url, [working, failing]) as site:
        redteamer, dialogue = _start_dialogue(site)
        turn, streamed = redteamer.send_message(dialogue, "hello")
        failures = parse_events(streamed)[-1][1]
        assert (
            sorted(failures.values()) == ["", "The model did not answer."]
            and "bad-model" not in streamed
        )
        assert "bad-model" not in redteamer.get(dialogue).text
        rejected = redteamer.submit(f"{dialogue}/turns/{turn}/pick", {"pick": "A"})
        assert (rejected.status_code, rejected.json()["kind"]) == (409, "order")
        failing.broken = False
        second_stream = redteamer.read_stream(dialogue, turn)
        assert set(join_text(second_stream).values()) == {"fine", "half "} and working.calls == 1
        assert redteamer.submit(f"{dialogue}/turns/{turn}/pick", {"pick": "A"}).status_code == 200


def test_an_endpoint_that_fails_during_a_dialogue(file_url: str) -> None:
    is_up = [True]

    async def endpoint(request: Request) -> None:
        if not is_up[0]:
            await request.send(500, {"error": {"message": "down"}})
            return
        chunk = {
            "choices": [{"index": 0, "delta": {"content": "from afar"}, "finish_reason": None}]
        }
        last_chunk = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        body = f"data: {json.dumps(chunk)}\n\ndata: {json.dumps(last_chunk)}\n\ndata: [DONE]\n\n".encode()
        await request.send(200, body, kind="text/event-stream")

    with serving(endpoint) as server:
        model = resolve(f"openai:m,base_url={server.url}/v1,retries=0", "model")
        with run_site(file_url, [model]) as site:
            redteamer, dialogue = _start_dialogue(site)
            turn, streamed = redteamer.send_message(dialogue, "first")
            assert set(join_text(streamed).values()) == {"from afar"}
            redteamer.submit(f"{dialogue}/turns/{turn}/pick", {"pick": "tie"})
            is_up[0] = False
            turn, streamed = redteamer.send_message(dialogue, "second")
            assert set(parse_events(streamed)[-1][1].values()) == {"The model did not answer."}
            assert "second" in redteamer.get(dialogue).text
            is_up[0] = True
            assert set(join_text(redteamer.read_stream(dialogue, turn)).values()) == {"from afar"}


def test_a_model_without_streaming_and_a_timeout(file_url: str) -> None:
    endless = StreamingModel("endless", ["x"] * 1000, 0.05)
    with run_site(
        file_url, [NonStreamingModel(), endless], limits=ServerLimits(answer_seconds=1.0)
    ) as site:
        redteamer, dialogue = _start_dialogue(site)
        _, streamed = redteamer.send_message(dialogue, "hello")
        assert "whole at once" in join_text(streamed).values()
        assert sorted(parse_events(streamed)[-1][1].values()) == ["", "The model did not answer."]


def test_a_dialogue_with_a_model_that_is_not_served(file_url: str) -> None:
    with run_site(file_url, [ScriptedModel("a", name="m"), ScriptedModel("b", name="n")]) as site:
        redteamer, dialogue = _start_dialogue(site)
        redteamer.submit(
            f"{dialogue}/say", {"message": "hello", "key": redteamer.form_key(dialogue)}
        )
        removed_model = site.state.models.pop("n")
        turn = re.findall(r"/turns/([0-9a-f]+)/", redteamer.get(dialogue).text)[-1]
        failures = parse_events(redteamer.read_stream(dialogue, turn))[-1][1]
        assert sorted(failures.values()) == ["", "The model did not answer."]
        site.state.models["n"] = removed_model
        assert "b" in join_text(redteamer.read_stream(dialogue, turn)).values()


def test_an_answer_that_could_not_be_stored_is_a_failure(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_site(file_url, [ScriptedModel("a", name="m")]) as site:
        redteamer, dialogue = _start_dialogue(site)
        redteamer.submit(
            f"{dialogue}/say", {"message": "hello", "key": redteamer.form_key(dialogue)}
        )
        turn = re.findall(r"/turns/([0-9a-f]+)/", redteamer.get(dialogue).text)[-1]

        def fail(work: object) -> None:
            raise DatabaseUnavailable("away")

        monkeypatch.setattr(site.state.store, "write", fail)
        failures = parse_events(redteamer.read_stream(dialogue, turn))[-1][1]
        assert set(failures.values()) == {"The model did not answer."}
        monkeypatch.undo()
        assert set(parse_events(redteamer.read_stream(dialogue, turn))[-1][1].values()) == {""}


def test_the_stream_of_another_person_is_not_found(file_url: str) -> None:
    with run_site(file_url, [ScriptedModel("secret words", name="m")]) as site:
        redteamer, dialogue = _start_dialogue(site)
        turn, _ = redteamer.send_message(dialogue, "hello")
        stranger = site.add_person("nosy-ibis", "redteamer")
        answer = stranger.client.get(
            f"{dialogue}/turns/{turn}/stream", headers={"accept": "text/event-stream"}
        )
        assert answer.status_code == 404 and "secret" not in answer.text


def test_a_waiting_stream_sends_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truing.serve.annotation.live_pairs._KEEP_ALIVE_SECONDS", 0.01)
    response = LiveResponse("A")
    pair = LivePair([response])

    async def read() -> list[bytes]:
        events = []
        async for event in pair.stream_events():
            events.append(event)
            if len(events) == 2:
                response.text, response.done = "words", True
                pair.notify()
        return events

    events = asyncio.run(read())
    assert events[:2] == [b"event: waiting\ndata: {}\n\n"] * 2
    assert parse_events(b"".join(events[2:]).decode())[-2:] == [
        ("piece", {"letter": "A", "text": "words"}),
        ("end", {"A": ""}),
    ]
