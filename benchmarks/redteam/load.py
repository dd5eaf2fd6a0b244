"""Fifty raters at once: are ratings lost or stored twice, and how long does a page take?

    python benchmarks/redteam/load.py
        with SQLite in a temporary folder
    python benchmarks/redteam/load.py --db postgresql://postgres@127.0.0.1/empty
        with an empty PostgreSQL database

Starts `truing redteam serve` as users do, fills the queue, signs 50 raters in, and lets each of
them open an item, wait for a random time, and submit a rating (which returns the next item), for
two minutes. Server and raters share this machine. At the end the ratings that the server
acknowledged are compared with those in the database.
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
SCRIPT_HEADERS = {"x-fetch": "1"}  # as the pages' script sends
CATEGORIES = ("privacy_violation", "self_harm", "animal_abuse")


def fill_database(store: Store, raters: int, items: int) -> list[str]:
    """Adds a study without breaks, items of four messages, and an account for each rater.

    Returns the pseudonyms.
    """
    study = Study(gold_every=0, exposure_budget=10**9, break_after=10**9)
    store.write(lambda tx: save_study(tx, study))
    text = "A plain sentence that stands for what a model would say. " * 12

    def add_items(first: int) -> None:
        def add_in_transaction(tx: object) -> None:
            for n in range(first, min(first + 200, items)):
                conversation = Conversation(
                    tuple(
                        Message(r, f"{n}: {text}")
                        for r in ("user", "assistant", "user", "assistant")
                    )
                )  # type: ignore[arg-type]
                targets = (Target(f"s{n}", 0, 1), Target(f"s{n}", 1, 3))
                new_item = NewItem(
                    source="run:load",
                    key=str(n),
                    conversation=conversation,
                    targets=targets,
                    harms=(CATEGORIES[n % 3],),
                )
                add_item(tx, new_item, study)  # type: ignore[arg-type]

        store.write(add_in_transaction)

    for first in range(0, items, 200):
        add_items(first)
    phrase_hash = people.hash_phrase(PHRASE)
    names = [f"rater-{n:03d}" for n in range(raters)]

    def add_accounts(tx: object) -> None:
        for name in names:
            token = people.create_invitation(tx, ["rater"], by=None)  # type: ignore[arg-type]
            person_id = people.accept_invitation(tx, token, name, phrase_hash)  # type: ignore[arg-type]
            person = tx.session.get_one(Person, person_id)  # type: ignore[attr-defined]
            wellbeing.record_consent(tx, person, study.categories().ids, unsorted=True, study=study)  # type: ignore[arg-type]

    store.write(add_accounts)
    return names


class Rater:
    """A simulated person at a browser."""

    def __init__(self, base: str, name: str, think: float, seed: int) -> None:
        self.base, self.name, self.think, self.random = base, name, think, random.Random(seed)
        self.acknowledged = self.resent = 0
        self.times: dict[str, list[float]] = {"page": [], "submit": [], "sign-in": []}
        self.errors: list[str] = []

    async def timed_request(
        self, kind: str, request: Callable[[], aiohttp.client._RequestContextManager]
    ) -> tuple[int, str]:
        """Sends a request, once more if the connection breaks; returns status and text."""
        started = time.perf_counter()
        for last_attempt in (False, True):
            try:
                async with request() as response:
                    text = await response.text()
                break
            except aiohttp.ClientError:  # The pages' script repeats too.
                self.resent += 1
                if last_attempt:
                    raise
        self.times[kind].append(time.perf_counter() - started)
        if response.status >= 400:
            self.errors.append(f"{kind} {response.status}: {text[:120]}")
        return response.status, text

    async def sign_in(self, web: aiohttp.ClientSession) -> None:
        """Signs in with the form."""
        _, page = await self.timed_request("page", lambda: web.get(f"{self.base}/sign-in"))
        fields = {"csrf": csrf_token(page), "pseudonym": self.name, "phrase": PHRASE}
        await self.timed_request(
            "sign-in", lambda: web.post(f"{self.base}/sign-in", data=fields, headers=SCRIPT_HEADERS)
        )

    async def work(self, web: aiohttp.ClientSession, until: float) -> None:
        """Rates items until the time is over or there are none left."""
        await asyncio.sleep(self.random.uniform(0, self.think))
        _, page = await self.timed_request("page", lambda: web.get(f"{self.base}/review"))
        path = await self.submit(web, "/review/next", {"csrf": csrf_token(page)})
        while time.monotonic() < until and path and re.fullmatch(r"/review/[0-9a-f]+", path):
            status, page = await self.timed_request(
                "page", lambda path=path: web.get(self.base + path)
            )  # type: ignore[misc]
            if status != 200:
                return
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * self.think)
            grades = {
                name: str(self.random.randint(1, 5))
                for name in set(re.findall(r'name="(grade-\d+)"', page))
            }
            fields = grades | {"csrf": csrf_token(page), "category": CATEGORIES[0], "note": ""}
            path = await self.submit(web, path, fields)
            self.acknowledged += path is not None

    async def submit(
        self, web: aiohttp.ClientSession, path: str, fields: dict[str, str]
    ) -> str | None:
        """Submits a form; returns the path of the next page, None on an error."""
        status, text = await self.timed_request(
            "submit", lambda: web.post(self.base + path, data=fields, headers=SCRIPT_HEADERS)
        )
        return str(json.loads(text)["go"]) if status == 200 else None


def csrf_token(page: str) -> str:
    """Returns the CSRF token of a page's form."""
    match = re.search(r'name="csrf" value="([0-9a-f]+)"', page)
    return match.group(1) if match else ""


def start_server(db: str, port: int) -> subprocess.Popen[bytes]:
    """Starts the server and waits until it listens."""
    command = [sys.executable, "-m", "truing", "redteam", "serve", "--db", db, "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    for _ in range(600):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.1)
    raise SystemExit("the server did not start within 60 s")


async def run_raters(base: str, names: list[str], seconds: float, think: float) -> list[Rater]:
    """Runs all raters, each with a session of their own, and returns them."""
    raters = [Rater(base, name, think, n) for n, name in enumerate(names)]
    sessions = [
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), headers={"origin": base})
        for _ in raters
    ]
    for rater, web in zip(raters, sessions, strict=True):
        await rater.sign_in(web)
    until = time.monotonic() + seconds
    await asyncio.gather(*(r.work(web, until) for r, web in zip(raters, sessions, strict=True)))
    await asyncio.gather(*(web.close() for web in sessions))
    return raters


def quantiles(times: list[float]) -> dict[str, float]:
    """Returns count, quantiles and maximum in milliseconds."""
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
    """Prints the figures as JSON; returns 2 on lost or doubled ratings, errors or slow pages."""
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
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        db = arguments.db or f"sqlite:///{Path(folder) / 'load.sqlite'}"
        store = open_store(db)
        names = fill_database(store, arguments.raters, arguments.items)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        process = start_server(db, port)
        load = os.getloadavg()[0]
        try:
            raters = asyncio.run(
                run_raters(f"http://127.0.0.1:{port}", names, arguments.seconds, arguments.think)
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
        "raters": arguments.raters,
        "seconds": arguments.seconds,
        "think": arguments.think,
        "acknowledged": acknowledged,
        "stored": len(rows),
        "lost": acknowledged - len(rows),
        "doubled": doubled,
        "items over k": over,
        "sent again": sum(r.resent for r in raters),
        "errors": [e for r in raters for e in r.errors][:5],
        "ms": {k: quantiles(t) for k, t in times.items()},
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, "
        f"Python {platform.python_version()}",
        "load before": round(load, 1),
        "load after": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(figures, indent=2))
    slow = max(figures["ms"][k].get("p95", 0) for k in ("page", "submit"))  # type: ignore[index]
    return 2 if figures["lost"] or doubled or over or figures["errors"] or slow >= 200 else 0


if __name__ == "__main__":
    sys.exit(main())
