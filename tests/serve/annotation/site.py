"""Runs the pages on a real port, with people who use them over HTTP."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import unescape
from typing import Any

import httpx
import uvicorn

from truing.annotation import people
from truing.annotation.store import open_store
from truing.annotation.study import Study, save_study
from truing.core.protocols import Model
from truing.models.scripted import ScriptedModel
from truing.serve.annotation.app import create_app
from truing.serve.annotation.app_state import AppState, ServerLimits

PHRASE = "four plain words here"
PATIENCE = 120.0  # seconds; a busy machine with two cores may need half a minute for a start
MODELS = (
    ScriptedModel("the safe words", name="model-one"),
    ScriptedModel("the other words", name="model-two"),
)


def reserve_port() -> socket.socket:
    """Returns a socket bound to a free port, which it keeps for a server of the test.

    It does not listen, so a server that sets SO_REUSEADDR can bind the port too. As long as the
    socket is open, the kernel gives the port to nobody else, not even while the server is away.
    """
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind(("127.0.0.1", 0))
    return reservation


def free_port() -> int:
    """Returns a TCP port that is free at present; somebody else may take it before its use."""
    with reserve_port() as reservation:
        return int(reservation.getsockname()[1])


class Site:
    """A running server."""

    def __init__(self, state: AppState, base: str) -> None:
        self.state, self.base = state, base

    def invite(self, *roles: str) -> str:
        """Creates an invitation; returns the path of its link."""
        token = self.state.store.write(
            lambda tx: people.create_invitation(tx, roles or ("redteamer", "rater"), by=None)
        )
        return f"/join/{token}"

    def add_person(self, name: str, *roles: str, consent: bool = True) -> Visitor:
        """Returns a visitor who has accepted an invitation and, by default, given consent."""
        visitor = Visitor(self.base)
        visitor.join(self.invite(*roles), name)
        if consent:
            page = visitor.get("/consent").text
            visitor.submit(
                "/consent",
                {"category": re.findall(r'name="category" value="([^"]+)"', page), "unsorted": "1"},
            )
        return visitor


class Visitor:
    """An HTTP client with cookies that submits forms with their CSRF token."""

    def __init__(self, base: str) -> None:
        # Connections are not kept, so that none is left open when a test forgets its visitors.
        self.client = httpx.Client(
            base_url=base,
            timeout=PATIENCE,
            headers={"origin": base},
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self.csrf = ""

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Loads a page and remembers the CSRF token of its forms."""
        response = self.client.get(path, follow_redirects=True, **options)
        match = re.search(r'name="csrf" value="([0-9a-f]+)"', response.text)
        if match:
            self.csrf = match.group(1)
        return response

    def submit(
        self, path: str, fields: dict[str, Any] | None = None, **headers: str
    ) -> httpx.Response:
        """Submits a form as a script does: the response is JSON."""
        return self.client.post(
            path, data={"csrf": self.csrf} | (fields or {}), headers={"x-fetch": "1"} | headers
        )

    def join(self, path: str, name: str) -> None:
        """Accepts an invitation."""
        self.get(path)
        response = self.submit(path, {"pseudonym": name, "phrase": PHRASE, "again": PHRASE})
        assert response.json() == {"go": "/consent"}, response.text

    def start_dialogue(self) -> str:
        """Starts a dialogue; returns its path."""
        form = {"key": self.form_key("/")}
        return str(self.submit("/dialogues", form).json()["go"])

    def form_key(self, path: str) -> str:
        """Returns the key of the form on a page, with which it counts once."""
        return re.findall(r'name="key" value="([0-9a-f]+)"', self.get(path).text)[0]

    def send_message(self, dialogue: str, text: str) -> tuple[str, str]:
        """Sends a message; returns the turn's id and the whole event stream."""
        response = self.submit(f"{dialogue}/say", {"message": text, "key": self.form_key(dialogue)})
        assert response.status_code == 200, response.text
        turn = re.findall(r"/turns/([0-9a-f]+)/", self.get(dialogue).text)[-1]
        return turn, self.read_stream(dialogue, turn)

    def read_stream(self, dialogue: str, turn: str) -> str:
        """Returns the event stream of a turn, from its beginning to its end."""
        return self.client.get(f"{dialogue}/turns/{turn}/stream").text

    def complete_dialogue(self, *messages: str) -> str:
        """Writes a finished dialogue of one pair for each message; returns its path."""
        dialogue = self.start_dialogue()
        for message in messages:
            turn, _ = self.send_message(dialogue, message)
            self.submit(f"{dialogue}/turns/{turn}/pick", {"pick": "tie"})
        grades = re.findall(r'name="(grade-\d-\d)"', self.get(f"{dialogue}/end").text)
        closing = dict.fromkeys(grades, "1") | {"rating": "0"}
        assert self.submit(f"{dialogue}/end", closing).json() == {"go": dialogue}
        return dialogue

    def text(self, path: str) -> str:
        """Returns a page as text, without tags."""
        return unescape(re.sub(r"<[^>]+>", " ", self.get(path).text))


@contextmanager
def run_site(
    url: str,
    models: Sequence[Model] = (),
    study: Study | None = None,
    limits: ServerLimits | None = None,
) -> Iterator[Site]:
    """Runs a server in a thread."""
    store = open_store(url)
    store.write(
        lambda tx: save_study(
            tx, study or Study(gold_every=0, exposure_budget=10**6, break_after=10**6)
        )
    )
    state = AppState(store, models, limits)
    config = uvicorn.Config(create_app(state), log_level="warning")
    server = uvicorn.Server(config)
    with reserve_port() as listener:
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, daemon=True, name="site"
        )
        thread.start()
        try:
            _wait_until_started(server, thread)
            yield Site(state, f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + PATIENCE
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
