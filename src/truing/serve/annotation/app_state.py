"""State shared by the route handlers: database, models, templates, thread pools, rate limits."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from truing.annotation.group_commit import MAX_BATCH
from truing.annotation.store import Store, Transaction, finish_erasure
from truing.annotation.study import (
    GRADE_LABELS,
    SUCCESS_LABELS,
    load_secret,
    load_study,
    save_lineages,
)
from truing.core.protocols import Closeable, Model
from truing.http.limits import close_connections
from truing.serve.annotation.live_pairs import LivePairs
from truing.serve.annotation.template_filters import FILTERS
from truing.serve.page_files import load_templates, read_static_files
from truing.serve.throttling import HashingQueue, Throttle

T = TypeVar("T")
_PACKAGE = Path(__file__).parent


class ServerLimits(Struct, frozen=True, kw_only=True):
    """Limits of one server.

    `requests_per_minute` is for each person, `sign_ins_per_minute` for each address; a model may
    take `answer_seconds` for an answer, a client `body_seconds` to send a form. Of
    more than `waiting_sign_ins` at once, the others are told to try again; each takes some 50 ms.
    `https`: cookies are sent over https only. `hosts`: the names under which the server answers
    (empty: any).
    """

    max_body_bytes: int = 2_000_000
    requests_per_minute: int = 240
    sign_ins_per_minute: int = 60
    answer_seconds: float = 180.0
    body_seconds: float = 30.0
    waiting_sign_ins: int = 128
    https: bool = False
    hosts: tuple[str, ...] = ()


def name_models(models: Sequence[Model]) -> dict[str, Model]:
    """Returns name -> model; a number is appended to a name that is taken, as in `m (2)`."""
    by_name: dict[str, Model] = {}
    for model in models:
        name, number = model.name, 2
        while name in by_name:
            name, number = f"{model.name} ({number})", number + 1
        by_name[name] = model
    return by_name


class AppState:
    """State shared by the route handlers (stored in `app.state.annotation`)."""

    def __init__(
        self, store: Store, models: Sequence[Model] = (), limits: ServerLimits | None = None
    ) -> None:
        self.store, self.limits = store, limits or ServerLimits()
        self.models = name_models(models)
        self.study, self._secret = store.write(lambda tx: (load_study(tx), load_secret(tx)))
        if self.models:
            lineages = {name: model.lineage for name, model in self.models.items()}
            store.write(lambda tx: save_lineages(tx, lineages))
        self.request_throttle = Throttle(self.limits.requests_per_minute)
        self.sign_in_throttle = Throttle(self.limits.sign_ins_per_minute)
        self.live_pairs = LivePairs(self.models, self.study, self.limits.answer_seconds, self.write)
        # Few readers: a thread releases the GIL at every statement and has to wait for it again. On
        # SQLite one writer works while the others queue, to be committed together
        # (group_commit.py).
        sqlite = store.dialect == "sqlite"
        self._read_pool = ThreadPoolExecutor(2 if sqlite else 6, "read")
        self._write_pool = ThreadPoolExecutor(MAX_BATCH if sqlite else 6, "write")
        self._slow_pool = ThreadPoolExecutor(2, "slow")
        # A flood of guesses fills its own queue: people whose browser or link is known, and the
        # pages of those who are signed in, do not wait for it.
        self.guess_hashing = HashingQueue(self.limits.waiting_sign_ins)
        self.trusted_hashing = HashingQueue(self.limits.waiting_sign_ins)
        self.static = read_static_files(_PACKAGE / "static")
        self._templates = load_templates(_PACKAGE / "templates", FILTERS, self.static)
        self._templates.globals.update(
            study=self.study, grade_labels=GRADE_LABELS, success_labels=SUCCESS_LABELS
        )

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Runs a function that only reads, on a database thread."""
        return await asyncio.get_running_loop().run_in_executor(
            self._read_pool, self.store.read, work
        )

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Runs a function in one durable transaction, on a database thread."""
        return await asyncio.get_running_loop().run_in_executor(
            self._write_pool, self.store.write, work
        )

    async def erase_traces(self) -> None:
        """Erases the traces of deletions; what fails is done at the next deletion or start."""
        await asyncio.get_running_loop().run_in_executor(
            self._write_pool, finish_erasure, self.store
        )

    async def run_in_slow_pool(self, work: Callable[..., T], *args: Any) -> T:
        """Runs a function that needs much CPU time (bootstrap), at most two at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._slow_pool, work, *args)

    def form_token(self, session_token: str) -> str:
        """Returns the CSRF token of a session: an HMAC that only this server can compute."""
        message = f"form:{session_token}".encode()
        return hmac.new(self._secret.encode(), message, hashlib.sha256).hexdigest()[:40]

    def render(self, template: str, /, **values: Any) -> str:
        """Renders a template as HTML."""
        return self._templates.get_template(template).render(**values)

    async def close(self) -> None:
        """Waits for running generations, then closes models, thread pools and the database."""
        # First the generations: they still need the models, and a write thread to store their
        # answers.
        await self.live_pairs.wait()
        for model in self.models.values():
            if isinstance(model, Closeable):
                await model.close()
        await close_connections()
        for pool in (self._read_pool, self._write_pool, self._slow_pool):
            pool.shutdown(wait=True)
        self.guess_hashing.close()
        self.trusted_hashing.close()
        self.store.close()
