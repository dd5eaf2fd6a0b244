"""What all pages share: the database on its own threads, the study, the models, the templates, limits of rate."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from msgspec import Struct

from truing.annotation import study as studies
from truing.annotation.group_commit import MOST
from truing.annotation.store import Refused, Store, Tx
from truing.core.protocols import Closeable, Model
from truing.http.limits import close_connections
from truing.serve.annotation.live_pairs import Live
from truing.serve.annotation.template_filters import FILTERS

T = TypeVar("T")
_HERE = Path(__file__).parent
STATIC_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Rules(Struct, frozen=True, kw_only=True):
    """Limits of one server: bytes of a request, requests a minute of a person, sign-ins a minute of an address, seconds
    that a model may take, and whether cookies are for https alone."""

    body: int = 2_000_000
    per_minute: int = 240
    sign_ins: int = 60
    answer_seconds: float = 180.0
    https: bool = False


class Throttle:
    """At most `most` events a minute for each key; the least recently seen keys are forgotten."""

    def __init__(
        self, most: int, *, keys: int = 20_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._keys, self._clock = most, keys, clock
        self._seen: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, key: str) -> None:
        """Takes one from the key's bucket; Refused ``slow`` when it is empty."""
        now = self._clock()
        left, then = self._seen.pop(key, (float(self._most), now))
        left = min(float(self._most), left + (now - then) * self._most / 60)
        self._seen[key] = (max(0.0, left - 1), now)
        if len(self._seen) > self._keys:
            self._seen.popitem(last=False)
        if left < 1:
            raise Refused("slow", "That was a lot in a short time. Wait a few seconds, then go on.")


def named(models: Sequence[Model]) -> dict[str, Model]:
    """Name -> model; two models of one name are told apart by a number."""
    found: dict[str, Model] = {}
    for model in models:
        name, count = model.name, 2
        while name in found:
            name, count = f"{model.name} ({count})", count + 1
        found[name] = model
    return found


class House:
    """Kept in the app's state under `house`."""

    def __init__(
        self, store: Store, models: Sequence[Model] = (), rules: Rules | None = None
    ) -> None:
        self.store, self.rules = store, rules or Rules()
        self.models = named(models)
        self.study, self._secret = store.write(
            lambda tx: (studies.load_study(tx), studies.secret(tx))
        )
        if self.models:
            lineages = {name: model.lineage for name, model in self.models.items()}
            store.write(lambda tx: studies.put_lineages(tx, lineages))
        self.people, self.doors = Throttle(self.rules.per_minute), Throttle(self.rules.sign_ins)
        self.live = Live(self.models, self.study, self.rules.answer_seconds, self.write)
        # Every statement lets go of the interpreter and must get it back: few threads wait less for it than many.
        # On SQLite one of the writers works and the others stand in line, to be carried out with it.
        sqlite = store.dialect == "sqlite"
        self._readers = ThreadPoolExecutor(2 if sqlite else 6, "read")
        self._writers = ThreadPoolExecutor(MOST if sqlite else 6, "write")
        self._slow = ThreadPoolExecutor(2, "slow")
        self.static = {
            p.name: p.read_bytes()
            for p in sorted((_HERE / "static").iterdir())
            if p.suffix in STATIC_TYPES
        }
        self.version = hashlib.sha256(b"".join(self.static.values())).hexdigest()[:12]
        self._pages = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._pages.filters.update(FILTERS)
        self._pages.globals.update(
            version=self.version, study=self.study, grades=studies.GRADES, successes=studies.SUCCESS
        )

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Runs a function that only reads, on a thread of the database's."""
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, self.store.read, work
        )

    async def write(self, work: Callable[[Tx], T]) -> T:
        """Runs a function in one durable transaction, on a thread of the database's."""
        return await asyncio.get_running_loop().run_in_executor(
            self._writers, self.store.write, work
        )

    async def slowly(self, work: Callable[..., T], *given: Any) -> T:
        """Runs what takes the processor for long (argon2, bootstrap), two at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._slow, work, *given)

    def mark(self, purpose: str, token: str) -> str:
        """A text that only this server can make of a token: it goes into forms."""
        return hmac.new(
            self._secret.encode(), f"{purpose}:{token}".encode(), hashlib.sha256
        ).hexdigest()[:40]

    def render(self, page: str, /, **values: Any) -> str:
        """A page as HTML."""
        return self._pages.get_template(page).render(**values)

    async def close(self) -> None:
        """Waits for answers under way, then lets go of models and database."""
        await self.live.finish()
        for model in self.models.values():
            if isinstance(model, Closeable):
                await model.close()
        await close_connections()
        for threads in (self._readers, self._writers, self._slow):
            threads.shutdown(wait=True)
        self.store.close()
