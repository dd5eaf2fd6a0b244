"""Fifty raters at once: is anything lost or doubled, and how long does a page take?

    python benchmarks/redteam/load.py                                              SQLite in a temporary folder
    python benchmarks/redteam/load.py --db postgresql://postgres@127.0.0.1/empty   an empty PostgreSQL database

Starts `truing redteam serve` as users do, fills the queue, signs 50 raters in, and lets each of them open an item, think
for a random time, and submit a rating (which brings the next item), for two minutes. Server and raters share this
machine. At the end what the server acknowledged is compared with what stands in the database.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import aiohttp
from sqlalchemy import select

from truing.annotation import people, wellbeing
from truing.annotation.review_items import NewItem, Target, add_item
from truing.annotation.store import Store, open_store
from truing.annotation.study import Study, save_study
from truing.annotation.tables import Person, Rating
from truing.core.types import Conversation, Message

PHRASE = "four plain words here"
BY_SCRIPT = {"x-fetch": "1"}
CATEGORIES = ("privacy_violation", "self_harm", "animal_abuse")


def fill(store: Store, raters: int, items: int) -> list[str]:
    """A study without breaks, items of four messages, and an account for each rater."""
    study = Study(gold_every=0, exposure_budget=10**9, break_after=10**9)
    store.write(lambda tx: save_study(tx, study))
    text = "A plain sentence that stands for what a model would say. " * 12

    def add(first: int) -> None:
        def work(tx: object) -> None:
            for n in range(first, min(first + 200, items)):
                said = Conversation(
                    tuple(
                        Message(r, f"{n}: {text}")
                        for r in ("user", "assistant", "user", "assistant")
                    )
                )  # type: ignore[arg-type]
                targets = (Target(f"s{n}", 0, 1), Target(f"s{n}", 1, 3))
                new = NewItem(
                    source="run:load",
                    key=str(n),
                    conversation=said,
                    targets=targets,
                    harms=(CATEGORIES[n % 3],),
                )
                add_item(tx, new, study)  # type: ignore[arg-type]

        store.write(work)

    for first in range(0, items, 200):
        add(first)
    hashed = people.hash_phrase(PHRASE)
    names = [f"rater-{n:03d}" for n in range(raters)]

    def accounts(tx: object) -> None:
        for name in names:
            token = people.create_invitation(tx, ["rater"], by=None)  # type: ignore[arg-type]
            made = people.accept_invitation(tx, token, name, hashed)  # type: ignore[arg-type]
            person = tx.session.get_one(Person, made)  # type: ignore[attr-defined]
            wellbeing.record_consent(tx, person, study.categories().ids, unsorted=True, study=study)  # type: ignore[arg-type]

    store.write(accounts)
    return names


class Rater:
    """One person's browser."""

    def __init__(self, base: str, name: str, think: float, seed: int) -> None:
        self.base, self.name, self.think, self.random = base, name, think, random.Random(seed)
        self.acknowledged = self.resent = 0
        self.times: dict[str, list[float]] = {"page": [], "submit": [], "sign-in": []}
        self.errors: list[str] = []

    async def _timed(
        self, kind: str, request: Callable[[], aiohttp.client._RequestContextManager]
    ) -> tuple[int, str]:
        began = time.perf_counter()
        for last in (False, True):
            try:
                async with request() as answer:
                    text = await answer.text()
                break
            except aiohttp.ClientError:  # as the pages' script does: forms may be sent twice
                self.resent += 1
                if last:
                    raise
        self.times[kind].append(time.perf_counter() - began)
        if answer.status >= 400:
            self.errors.append(f"{kind} {answer.status}: {text[:120]}")
        return answer.status, text

    async def sign_in(self, web: aiohttp.ClientSession) -> None:
        """By the door, as people do."""
        _, page = await self._timed("page", lambda: web.get(f"{self.base}/sign-in"))
        fields = {"csrf": _mark(page), "pseudonym": self.name, "phrase": PHRASE}
        await self._timed(
            "sign-in", lambda: web.post(f"{self.base}/sign-in", data=fields, headers=BY_SCRIPT)
        )

    async def work(self, web: aiohttp.ClientSession, until: float) -> None:
        """Rates until the time is over."""
        await asyncio.sleep(self.random.uniform(0, self.think))
        _, page = await self._timed("page", lambda: web.get(f"{self.base}/review"))
        where = await self._send(web, "/review/next", {"csrf": _mark(page)})
        while time.monotonic() < until and where and re.fullmatch(r"/review/[0-9a-f]+", where):
            status, page = await self._timed("page", lambda at=where: web.get(f"{self.base}{at}"))  # type: ignore[misc]
            if status != 200:
                return
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * self.think)
            grades = {
                name: str(self.random.randint(1, 5))
                for name in set(re.findall(r'name="(grade-\d+)"', page))
            }
            fields = grades | {"csrf": _mark(page), "category": CATEGORIES[0], "note": ""}
            where = await self._send(web, where, fields)
            self.acknowledged += where is not None

    async def _send(
        self, web: aiohttp.ClientSession, path: str, fields: dict[str, str]
    ) -> str | None:
        status, text = await self._timed(
            "submit", lambda: web.post(self.base + path, data=fields, headers=BY_SCRIPT)
        )
        return str(json.loads(text)["go"]) if status == 200 else None


def _mark(page: str) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', page)
    return found.group(1) if found else ""


def serve(db: str, port: int) -> subprocess.Popen[bytes]:
    """The command, until it answers."""
    command = [sys.executable, "-m", "truing", "redteam", "serve", "--db", db, "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    for _ in range(600):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.1)
    raise SystemExit("the server does not come up")


async def everybody(base: str, names: list[str], seconds: float, think: float) -> list[Rater]:
    """All raters, each with cookies of their own."""
    raters = [Rater(base, name, think, n) for n, name in enumerate(names)]
    jars = [
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), headers={"origin": base})
        for _ in raters
    ]
    for rater, web in zip(raters, jars, strict=True):
        await rater.sign_in(web)
    until = time.monotonic() + seconds
    await asyncio.gather(*(r.work(web, until) for r, web in zip(raters, jars, strict=True)))
    await asyncio.gather(*(web.close() for web in jars))
    return raters


def quantiles(times: list[float]) -> dict[str, float]:
    """Milliseconds."""
    if len(times) < 2:
        return {"n": len(times)}
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {
        "n": len(times),
        "p50": round(1e3 * cuts[49], 1),
        "p95": round(1e3 * cuts[94], 1),
        "p99": round(1e3 * cuts[98], 1),
        "max": round(1e3 * max(times), 1),
    }


def main() -> int:
    """Runs it and prints the figures as JSON; exit status 2 if something was lost or doubled, or p95 is over 200 ms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", default="")
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument(
        "--think",
        type=float,
        default=4.0,
        help="mean seconds between opening an item and submitting",
    )
    parser.add_argument("--items", type=int, default=3000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        db = given.db or f"sqlite:///{Path(folder) / 'load.sqlite'}"
        store = open_store(db)
        names = fill(store, given.raters, given.items)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        process = serve(db, port)
        load = os.getloadavg()[0]
        try:
            raters = asyncio.run(
                everybody(f"http://127.0.0.1:{port}", names, given.seconds, given.think)
            )
        finally:
            process.terminate()
            process.wait(20)
        rows = store.read(
            lambda tx: tx.session.execute(
                select(Rating.item_id, Rating.person_id, Rating.counted)
            ).all()
        )
        dialect = store.dialect
        store.close()
    acknowledged = sum(r.acknowledged for r in raters)
    doubled = sum(n - 1 for n in Counter((r.item_id, r.person_id) for r in rows).values())
    over = sum(n > 3 for item, n in Counter(r.item_id for r in rows if r.counted).items())
    times = {
        kind: [t for r in raters for t in r.times[kind]] for kind in ("page", "submit", "sign-in")
    }
    figures = {
        "database": dialect,
        "raters": given.raters,
        "seconds": given.seconds,
        "think": given.think,
        "acknowledged": acknowledged,
        "stored": len(rows),
        "lost": acknowledged - len(rows),
        "doubled": doubled,
        "items over k": over,
        "sent again": sum(r.resent for r in raters),
        "errors": [e for r in raters for e in r.errors][:5],
        "ms": {k: quantiles(t) for k, t in times.items()},
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load before": round(load, 1),
        "load after": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(figures, indent=2))
    slow = max(figures["ms"][k].get("p95", 0) for k in ("page", "submit"))  # type: ignore[index]
    return 2 if figures["lost"] or doubled or over or figures["errors"] or slow >= 200 else 0


if __name__ == "__main__":
    sys.exit(main())
