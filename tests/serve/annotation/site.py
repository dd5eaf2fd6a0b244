"""The pages on a real port, and people who use them over HTTP."""

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
from truing.serve.annotation.app import create_app
from truing.serve.annotation.app_state import AppState, ServerLimits

PHRASE = "four plain words here"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Site:
    """A running server."""

    def __init__(self, state: AppState, base: str) -> None:
        self.state, self.base = state, base

    def invite(self, *roles: str) -> str:
        """The path of a new invitation."""
        token = self.state.store.write(
            lambda tx: people.create_invitation(tx, roles or ("redteamer", "rater"), by=None)
        )
        return f"/join/{token}"

    def person(self, name: str, *roles: str, consent: bool = True) -> Visitor:
        """Somebody who has followed an invitation."""
        made = Visitor(self.base)
        made.join(self.invite(*roles), name)
        if consent:
            page = made.get("/consent").text
            made.send(
                "/consent",
                {"category": re.findall(r'name="category" value="([^"]+)"', page), "unsorted": "1"},
            )
        return made


class Visitor:
    """A browser without a face: cookies, forms with their marks."""

    def __init__(self, base: str) -> None:
        # Connections are not kept, so that none is left open when a test forgets its visitors.
        self.web = httpx.Client(
            base_url=base,
            timeout=20,
            headers={"origin": base},
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self.csrf = ""

    def get(self, path: str, **more: Any) -> httpx.Response:
        """A page; remembers the mark of its forms."""
        answer = self.web.get(path, follow_redirects=True, **more)
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', answer.text)
        if found:
            self.csrf = found.group(1)
        return answer

    def send(
        self, path: str, fields: dict[str, Any] | None = None, **headers: str
    ) -> httpx.Response:
        """A form; by script, so that the answer says where to go."""
        return self.web.post(
            path, data={"csrf": self.csrf} | (fields or {}), headers={"x-fetch": "1"} | headers
        )

    def join(self, path: str, name: str) -> None:
        """Makes an account."""
        self.get(path)
        answer = self.send(path, {"pseudonym": name, "phrase": PHRASE, "again": PHRASE})
        assert answer.json() == {"go": "/consent"}, answer.text

    def begin(self) -> str:
        """Opens a dialogue; gives its path."""
        key = self.key("/")
        return str(self.send("/dialogues", {"key": key}).json()["go"])

    def key(self, path: str) -> str:
        """The key of the form on a page."""
        return re.findall(r'name="key" value="([0-9a-f]+)"', self.get(path).text)[0]

    def say(self, dialogue: str, text: str) -> tuple[str, str]:
        """Says something; gives the turn's id and everything that streamed in."""
        answer = self.send(f"{dialogue}/say", {"message": text, "key": self.key(dialogue)})
        assert answer.status_code == 200, answer.text
        turn = re.findall(r"/turns/([0-9a-f]+)/", self.get(dialogue).text)[-1]
        return turn, self.web.get(f"{dialogue}/turns/{turn}/stream").text

    def text(self, path: str) -> str:
        """What a page shows, as text."""
        return unescape(re.sub(r"<[^>]+>", " ", self.get(path).text))


@contextmanager
def site(
    url: str,
    models: Sequence[Model] = (),
    study: Study | None = None,
    limits: ServerLimits | None = None,
) -> Iterator[Site]:
    """A server in a thread."""
    store = open_store(url)
    store.write(
        lambda tx: save_study(
            tx, study or Study(gold_every=0, exposure_budget=10**6, break_after=10**6)
        )
    )
    state = AppState(store, models, limits)
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(create_app(state), host="127.0.0.1", port=port, log_level="warning")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield Site(state, f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join(20)
