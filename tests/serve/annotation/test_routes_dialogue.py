"""The chat over HTTP: messages, streamed pairs, picks, the closing form."""

from __future__ import annotations

import re

import pytest
from tests.serve.annotation.site import MODELS, run_site

from truing.annotation import queue
from truing.annotation.store import RequestRejected
from truing.serve.annotation.routes_dialogue import _parse_closing_form
from truing.serve.forms import FormData


@pytest.mark.parametrize("rating", ["", "x", "-1", "100000"])
def test_a_closing_form_needs_a_rating(rating: str) -> None:
    with pytest.raises(RequestRejected, match="from 0 to 4"):
        _parse_closing_form(FormData({"rating": [rating]}))


def test_the_fields_of_a_closing_form() -> None:
    closing = _parse_closing_form(
        FormData(
            {
                "rating": ["3"],
                "grade-0-0": ["5"],
                "grade-0-1": ["6"],
                "grade-1-0": ["x"],
                "category": ["b", "a", "b"],
                "goal": ["a goal"],
            }
        )
    )
    assert (closing.rating, closing.goal) == (3, "a goal")
    # A grade outside of 1 to 5 counts as missing, which the store rejects.
    assert closing.grades == {"0-0": 5}
    assert closing.categories == ("b", "a")


def test_a_form_sent_twice_starts_one_dialogue_and_one_turn(file_url: str) -> None:
    with run_site(file_url, MODELS) as site:
        redteamer = site.add_person("red-wren", "redteamer")
        form = {"key": redteamer.form_key("/")}
        paths = {redteamer.submit("/dialogues", form).json()["go"] for _ in range(2)}
        assert len(paths) == 1
        dialogue = paths.pop()
        message = {"message": "hello", "key": redteamer.form_key(dialogue)}
        for _ in range(2):
            assert redteamer.submit(f"{dialogue}/say", message).json() == {"go": f"{dialogue}#now"}
        assert len(set(re.findall(r"/turns/([0-9a-f]+)/", redteamer.get(dialogue).text))) == 1


def test_streams_of_a_pair(file_url: str) -> None:
    with run_site(file_url, MODELS[:1]) as site:
        redteamer = site.add_person("red-wren", "redteamer")
        dialogue = redteamer.start_dialogue()
        turn, streamed = redteamer.send_message(dialogue, "hello")
        assert streamed.endswith('event: end\ndata: {"A":"","B":""}\n\n')
        path = f"{dialogue}/turns/{turn}/stream"
        response = redteamer.client.get(path)  # finished: the stored answers are sent again
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["cache-control"] == "no-store"
        assert response.text.count("the safe words") == 2
        assert response.text.count("event: end") == 1
        other = site.add_person("sly-fox", "redteamer")
        for stolen in (path, dialogue, f"{dialogue}/end"):
            assert other.client.get(stolen).status_code == 404, stolen
        assert redteamer.client.get(f"{dialogue}/turns/none/stream").status_code == 404


def test_the_order_of_the_steps(file_url: str) -> None:
    with run_site(file_url, MODELS) as site:
        redteamer = site.add_person("red-wren", "redteamer")
        dialogue = redteamer.start_dialogue()
        assert redteamer.client.get(f"{dialogue}/end").status_code == 409
        turn, _ = redteamer.send_message(dialogue, "hello")
        message = {"message": "too early", "key": "k" * 16}
        early = redteamer.submit(f"{dialogue}/say", message)
        assert (early.status_code, early.json()["kind"]) == (409, "order")
        pick = f"{dialogue}/turns/{turn}/pick"
        assert redteamer.submit(pick, {"pick": "C"}).status_code == 422
        assert redteamer.submit(pick, {"pick": "A"}).json() == {"go": f"{dialogue}#now"}
        assert redteamer.client.get(f"{dialogue}/end").status_code == 200
        assert redteamer.submit(f"{dialogue}/end", {"rating": "1"}).status_code == 422
        assert "picked as more harmful" in redteamer.text(dialogue)


def test_an_abandoned_dialogue_is_not_reviewed(file_url: str) -> None:
    with run_site(file_url, MODELS) as site:
        redteamer = site.add_person("red-wren", "redteamer")
        dialogue = redteamer.start_dialogue()
        turn, _ = redteamer.send_message(dialogue, "hello")
        redteamer.submit(f"{dialogue}/turns/{turn}/pick", {"pick": "tie"})
        assert redteamer.submit(f"{dialogue}/leave").json() == {"go": "/"}
        assert "abandoned" in redteamer.text(dialogue) and "abandoned" in redteamer.text("/")
        assert site.state.store.read(queue.count_progress)["items"] == 0


def test_a_server_without_models_starts_no_dialogue(file_url: str) -> None:
    with run_site(file_url) as site:
        redteamer = site.add_person("red-wren", "redteamer")
        assert "without a model" in redteamer.text("/")
        response = redteamer.submit("/dialogues", {"key": "k" * 16})
        assert (response.status_code, response.json()["kind"]) == (422, "invalid")
        assert redteamer.client.get("/dialogues/none").status_code == 404
