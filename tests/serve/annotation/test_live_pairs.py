"""Pairs in the making: in step, made once however many watch, failures that may be tried again."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import pytest
from tests.serve.annotation.site import Site, Visitor, site
from tests.servers import Request, serving

from truing.annotation.store import DatabaseUnavailable
from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.models.scripted import Scripted
from truing.serve.annotation.app_state import ServerLimits
from truing.serve.annotation.live_pairs import LivePair, LiveResponse
from truing.specs.resolve import resolve


class Typist:
    """Streams its words with a pause after each; can be told to break off."""

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


class Slow:
    """A model that does not stream."""

    name, lineage = "slow", Lineage(name="slow")

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        await asyncio.sleep(0.3)
        return (Answer.of("whole at once"),)


def events(text: str) -> list[tuple[str, dict[str, str]]]:
    return [
        (name, json.loads(data)) for name, data in re.findall(r"event: (\w+)\ndata: (.*)\n", text)
    ]


def texts(text: str) -> dict[str, str]:
    made = {"A": "", "B": ""}
    for name, data in events(text):
        if name == "piece":
            made[data["letter"]] += data["text"]
    return made


def _red(here: Site) -> tuple[Visitor, str]:
    red = here.person("red-wren", "redteamer")
    return red, red.begin()


def test_the_faster_side_waits_for_the_slower() -> None:
    fast, slow = LiveResponse("A", "a" * 50, done=True), LiveResponse("B", "b" * 7)
    pair = LivePair([fast, slow])
    assert {k: len(v) for k, v in pair.visible_text().items()} == {"A": 7, "B": 7}
    slow.text += "b" * 3
    assert {k: len(v) for k, v in pair.visible_text().items()} == {"A": 10, "B": 10}
    slow.done = True
    assert {k: len(v) for k, v in pair.visible_text().items()} == {"A": 50, "B": 10} and pair.done


def test_speed_tells_nothing_over_the_wire(file_url: str) -> None:
    quick, slow = Typist("quick", ["quick words here "] * 10), Typist("slow", ["slow "] * 10, 0.02)
    with site(file_url, [quick, slow]) as here:
        red, talk = _red(here)
        _, streamed = red.say(talk, "hello")
        lengths = {"A": 0, "B": 0}
        order = []
        for name, data in events(streamed):
            if name == "piece":
                lengths[data["letter"]] += len(data["text"])
                order.append(dict(lengths))
        assert set(texts(streamed).values()) == {"quick words here " * 10, "slow " * 10}
        short = 50
        assert all(abs(seen["A"] - seen["B"]) <= 10 for seen in order if max(seen.values()) < short)


def test_many_watchers_one_generation_and_a_closed_page_loses_nothing(file_url: str) -> None:
    one, two = Typist("one", ["word "] * 20, 0.02), Typist("two", ["term "] * 20, 0.02)
    with site(file_url, [one, two]) as here:
        red, talk = _red(here)
        red.send(f"{talk}/say", {"message": "hello", "key": red.key(talk)})
        turn = re.findall(r"/turns/([0-9a-f]+)/", red.get(talk).text)[-1]
        with red.web.stream("GET", f"{talk}/turns/{turn}/stream") as stream:
            next(stream.iter_bytes())  # and the page is closed
        whole = red.web.get(f"{talk}/turns/{turn}/stream").text
        again = red.web.get(f"{talk}/turns/{turn}/stream").text
        assert texts(whole) == texts(again) and set(texts(whole).values()) == {
            "word " * 20,
            "term " * 20,
        }
        assert (one.calls, two.calls) == (1, 1)
        assert "disabled" not in re.findall(r'<button name="pick"[^>]*>', red.get(talk).text)[0]


def test_a_model_that_breaks_off_is_tried_again_and_not_named(file_url: str) -> None:
    good, bad = Typist("good", ["fine"]), Typist("bad-model", ["half "])
    bad.broken = True
    with site(file_url, [good, bad]) as here:
        red, talk = _red(here)
        turn, streamed = red.say(talk, "hello")
        end = events(streamed)[-1][1]
        assert (
            sorted(end.values()) == ["", "The model did not answer."]
            and "bad-model" not in streamed
        )
        assert "bad-model" not in red.get(talk).text
        refused = red.send(f"{talk}/turns/{turn}/pick", {"pick": "A"})
        assert (refused.status_code, refused.json()["kind"]) == (409, "order")
        bad.broken = False
        again = red.web.get(f"{talk}/turns/{turn}/stream").text
        assert set(texts(again).values()) == {"fine", "half "} and good.calls == 1
        assert red.send(f"{talk}/turns/{turn}/pick", {"pick": "A"}).status_code == 200


def test_an_endpoint_that_is_down_in_the_middle_of_a_dialogue(file_url: str) -> None:
    up = [True]

    async def endpoint(request: Request) -> None:
        if not up[0]:
            await request.send(500, {"error": {"message": "down"}})
            return
        chunk = {
            "choices": [{"index": 0, "delta": {"content": "from afar"}, "finish_reason": None}]
        }
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        body = f"data: {json.dumps(chunk)}\n\ndata: {json.dumps(end)}\n\ndata: [DONE]\n\n".encode()
        await request.send(200, body, kind="text/event-stream")

    with serving(endpoint) as server:
        model = resolve(f"openai:m,base_url={server.url}/v1,retries=0", "model")
        with site(file_url, [model]) as here:
            red, talk = _red(here)
            turn, streamed = red.say(talk, "first")
            assert set(texts(streamed).values()) == {"from afar"}
            red.send(f"{talk}/turns/{turn}/pick", {"pick": "tie"})
            up[0] = False
            turn, streamed = red.say(talk, "second")
            assert set(events(streamed)[-1][1].values()) == {"The model did not answer."}
            assert "second" in red.get(talk).text
            up[0] = True
            assert set(texts(red.web.get(f"{talk}/turns/{turn}/stream").text).values()) == {
                "from afar"
            }


def test_a_model_that_does_not_stream_and_one_that_never_ends(file_url: str) -> None:
    endless = Typist("endless", ["x"] * 1000, 0.05)
    with site(file_url, [Slow(), endless], limits=ServerLimits(answer_seconds=1.0)) as here:
        red, talk = _red(here)
        _, streamed = red.say(talk, "hello")
        assert "whole at once" in texts(streamed).values()
        assert sorted(events(streamed)[-1][1].values()) == ["", "The model did not answer."]


def test_a_server_started_without_the_model_says_so(file_url: str) -> None:
    with site(file_url, [Scripted("a", name="m"), Scripted("b", name="n")]) as here:
        red, talk = _red(here)
        red.send(f"{talk}/say", {"message": "hello", "key": red.key(talk)})
        kept = here.state.models.pop("n")
        turn = re.findall(r"/turns/([0-9a-f]+)/", red.get(talk).text)[-1]
        end = events(red.web.get(f"{talk}/turns/{turn}/stream").text)[-1][1]
        assert sorted(end.values()) == ["", "The model did not answer."]
        here.state.models["n"] = kept
        assert "b" in texts(red.web.get(f"{talk}/turns/{turn}/stream").text).values()


def test_an_answer_that_could_not_be_kept_is_not_shown_as_kept(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site(file_url, [Scripted("a", name="m")]) as here:
        red, talk = _red(here)
        red.send(f"{talk}/say", {"message": "hello", "key": red.key(talk)})
        turn = re.findall(r"/turns/([0-9a-f]+)/", red.get(talk).text)[-1]

        def away(work: object) -> None:
            raise DatabaseUnavailable("away")

        monkeypatch.setattr(here.state.store, "write", away)
        end = events(red.web.get(f"{talk}/turns/{turn}/stream").text)[-1][1]
        assert set(end.values()) == {"The model did not answer."}
        monkeypatch.undo()
        assert set(events(red.web.get(f"{talk}/turns/{turn}/stream").text)[-1][1].values()) == {""}


def test_the_stream_of_another_person_is_not_there(file_url: str) -> None:
    with site(file_url, [Scripted("secret words", name="m")]) as here:
        red, talk = _red(here)
        turn, _ = red.say(talk, "hello")
        other = here.person("nosy-ibis", "redteamer")
        answer = other.web.get(
            f"{talk}/turns/{turn}/stream", headers={"accept": "text/event-stream"}
        )
        assert answer.status_code == 404 and "secret" not in answer.text
