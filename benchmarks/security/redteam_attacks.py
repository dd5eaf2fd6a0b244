"""Attacks on the red-teaming pages: guesses, lock-out, a flood, old links, deletion, file modes.

    python benchmarks/security/redteam_attacks.py [--db postgresql://postgres@127.0.0.1/empty]
        [--guesses 50] [--flood-seconds 10]

Starts `truing redteam serve` as users do and attacks it over HTTP. The attackers' addresses are set
by `x-forwarded-for`, as a proxy on the same machine sets it. Prints a table; the exit status is 1 if
an attack succeeds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from truing.annotation import people
from truing.annotation.sign_in_limits import MAX_GUESSES, MAX_GUESSES_OF_NAME
from truing.annotation.store import Store, open_store
from truing.annotation.tables import TableBase

PHRASE, NAME = "four plain words here", "calm-heron-417"
START_SECONDS = 120
ROWS: list[tuple[str, str, bool]] = []


def report(attack: str, outcome: str, withstood: bool) -> None:
    """Adds a row to the table."""
    ROWS.append((attack, outcome, withstood))
    print(f"| {attack} | {outcome} | {'yes' if withstood else '**NO**'} |", flush=True)


class Browser:
    """An HTTP client with cookies and an address of its own."""

    def __init__(self, base: str, address: str) -> None:
        headers = {"x-fetch": "1", "origin": base, "x-forwarded-for": address}
        self.client = httpx.AsyncClient(base_url=base, headers=headers, timeout=START_SECONDS)
        self.csrf = ""

    async def load(self, path: str) -> str:
        """Loads a page; remembers the token of its forms."""
        response = await self.client.get(path, headers={"x-fetch": "0"}, follow_redirects=True)
        token = re.search(r'name="csrf" value="([0-9a-f]+)"', response.text)
        self.csrf = token.group(1) if token else self.csrf
        return response.text

    async def submit(self, path: str, **fields: str) -> httpx.Response:
        """Submits a form."""
        return await self.client.post(path, data={"csrf": self.csrf} | fields)

    async def sign_in(self, name: str, phrase: str, address: str | None = None) -> int:
        """Submits the sign-in form; returns the status (422: checked and wrong)."""
        fields = {"csrf": self.csrf, "pseudonym": name, "phrase": phrase}
        headers = {"x-forwarded-for": address} if address else {}
        return (await self.client.post("/sign-in", data=fields, headers=headers)).status_code

    async def join(self, token: str, name: str) -> None:
        """Accepts an invitation."""
        await self.load(f"/join/{token}")
        answer = await self.submit(f"/join/{token}", pseudonym=name, phrase=PHRASE, again=PHRASE)
        assert answer.status_code == 200, answer.text


async def open_browsers(base: str, n: int) -> list[Browser]:
    """Returns browsers of strangers that have loaded the sign-in page."""
    browsers = [Browser(base, f"198.51.100.{i % 250}") for i in range(n)]
    for browser in browsers:
        await browser.load("/sign-in")
    return browsers


async def attack_guesses(base: str, owner: Browser, n: int) -> None:
    """Concurrent guesses from one address, then from many; can the owner still sign in?"""
    strangers = await open_browsers(base, 50)
    guesses = [
        strangers[i % 50].sign_in(NAME, f"a wrong phrase {i}", "192.0.2.1") for i in range(n)
    ]
    counts = Counter(await asyncio.gather(*guesses))
    checked = counts[422]
    report(f"{n} concurrent guesses, one address", f"{checked} checked", checked <= MAX_GUESSES)
    right = await strangers[0].sign_in(NAME, PHRASE, "192.0.2.1")
    report("the right phrase after that, same address", f"status {right}", right == 429)
    await owner.load("/sign-in")
    statuses = [await owner.sign_in(NAME, PHRASE, "192.0.2.1")]
    statuses.append(await strangers[1].sign_in(NAME, PHRASE, "192.0.2.2"))
    outcome = f"known browser {statuses[0]}, new browser elsewhere {statuses[1]}"
    report("lock-out of the owner by one address", outcome, statuses == [200, 200])
    spread = [
        strangers[2 + i % 48].sign_in(NAME, f"a wrong phrase {i}", f"203.0.113.{i % 100}")
        for i in range(4 * n)
    ]
    counts = Counter(await asyncio.gather(*spread))
    limit = MAX_GUESSES_OF_NAME
    attack = f"{4 * n} concurrent guesses, 100 addresses"
    report(attack, f"{counts[422]} checked", counts[422] + checked <= limit)
    await owner.submit("/sign-out")
    await owner.load("/sign-in")
    known = await owner.sign_in(NAME, PHRASE, "203.0.113.1")
    report("lock-out of the owner by 100 addresses", f"known browser {known}", known == 200)
    await owner.load("/settings")


async def measure_names(base: str) -> None:
    """Does the time of an answer tell whether a name exists?"""
    times: dict[str, list[float]] = {"known": [], "unknown": []}
    (browser,) = await open_browsers(base, 1)
    for i in range(40):
        for kind, name in (("known", "plain-lark"), ("unknown", "nobody-here")):
            started = time.perf_counter()
            await browser.sign_in(name, "a wrong phrase", f"10.{i}.{kind == 'known':d}.9")
            times[kind].append(1000 * (time.perf_counter() - started))
    known, unknown = (statistics.median(times[kind]) for kind in ("known", "unknown"))
    spread = statistics.stdev(times["known"])
    outcome = f"median {known:.0f} ms known, {unknown:.0f} ms unknown (s.d. {spread:.0f} ms)"
    report("time of a wrong phrase by name", outcome, abs(known - unknown) < 2 * spread)


async def measure_flood(base: str, rater: Browser, seconds: float) -> None:
    """How long do a rater's pages take while 100 strangers guess without a pause?"""

    async def load_pages(until: float) -> list[float]:
        times = []
        while time.monotonic() < until:
            started = time.perf_counter()
            answer = await rater.client.get("/review")
            assert answer.status_code == 200, answer.text
            times.append(1000 * (time.perf_counter() - started))
            await asyncio.sleep(0.3)
        return times

    quiet = await load_pages(time.monotonic() + seconds)
    strangers, counts = await open_browsers(base, 100), Counter[int]()
    until = time.monotonic() + seconds

    async def guess(number: int, browser: Browser) -> None:
        i = 0
        while time.monotonic() < until:
            i += 1
            address = f"10.{number}.{i // 250}.{i % 250}"
            counts[await browser.sign_in(f"name-{number}-{i}", "a wrong phrase", address)] += 1

    flood = asyncio.gather(*(guess(n, browser) for n, browser in enumerate(strangers)))
    busy = await load_pages(until)
    await flood
    medians = [statistics.median(times) for times in (quiet, busy)]
    rate = sum(counts.values()) / seconds
    outcome = (
        f"{rate:.0f} guesses a second; a rater's page {medians[0]:.0f} ms before, "
        f"{medians[1]:.0f} ms (worst {max(busy):.0f} ms) during it"
    )
    report("flood of guesses of unknown names", outcome, max(busy) < 5000)


async def attack_links(base: str, store: Store, owner: Browser) -> Browser:
    """Old, concurrent and second uses of links that set a new phrase; returns who got in."""
    older, newest = (
        store.write(lambda tx: people.create_phrase_reset(tx, NAME, by=None)) for _ in range(2)
    )
    strangers = await open_browsers(base, 8)
    fields = {"phrase": PHRASE, "again": PHRASE}
    first = await strangers[0].submit(f"/join/{older}", **fields)
    report(
        "the older of two renewal links", f"status {first.status_code}", first.status_code == 410
    )
    uses = await asyncio.gather(*(s.submit(f"/join/{newest}", **fields) for s in strangers))
    counts = Counter(answer.status_code for answer in uses)
    report("8 concurrent uses of the newest", f"{counts[200]} accepted", counts[200] == 1)
    page = (await owner.client.get("/settings")).status_code
    report("the old session after the renewal", f"status {page}", page == 401)
    return strangers[[answer.status_code for answer in uses].index(200)]


async def check_deletion(store: Store, owner: Browser) -> None:
    """What is left of a name after its account was deleted by its owner."""
    await owner.load("/settings")
    answer = await owner.submit("/settings/delete", sure=NAME)
    assert answer.json() == {"go": "/goodbye"}, answer.text
    tables = TableBase.metadata.sorted_tables
    rows = store.read(lambda tx: [str(r) for t in tables for r in tx.session.execute(select(t))])
    n_rows = sum(NAME in row for row in rows)
    report("rows that hold the name after the deletion", f"{n_rows} of {len(rows)}", n_rows == 0)
    if store.dialect == "sqlite":
        path = Path(str(store.engine.url.database))
        content = b"".join(p.read_bytes() for p in path.parent.glob(f"{path.name}*"))
        n_bytes = content.count(NAME.encode())
        outcome = f"{n_bytes} in {len(content):,} bytes"
        report("the name in the file, -wal and -shm", outcome, n_bytes == 0)


def check_modes(store: Store) -> None:
    """The modes of the database's files."""
    path = Path(str(store.engine.url.database))
    modes = {p.name: oct(p.stat().st_mode & 0o777) for p in path.parent.glob(f"{path.name}*")}
    report(
        "modes of the files, umask 022",
        str(sorted(modes.items())),
        set(modes.values()) == {"0o600"},
    )


async def attack(base: str, store: Store, arguments: argparse.Namespace) -> None:
    """Runs all attacks."""
    owner, rater = Browser(base, "192.0.2.100"), Browser(base, "192.0.2.101")
    for browser, name in ((owner, NAME), (rater, "plain-lark")):
        token = store.write(lambda tx: people.create_invitation(tx, ["rater"], by=None))
        await browser.join(token, name)
        page = await browser.load("/consent")
        categories: Any = re.findall(r'name="category" value="([^"]+)"', page)
        await browser.submit("/consent", category=categories, unsorted="1")
    await owner.load("/settings")
    await owner.submit("/sign-out")
    await attack_guesses(base, owner, arguments.guesses)
    await measure_names(base)
    await measure_flood(base, rater, arguments.flood_seconds)
    await check_deletion(store, await attack_links(base, store, owner))
    if store.dialect == "sqlite":
        check_modes(store)


def start_server(url: str) -> tuple[subprocess.Popen[bytes], str]:
    """Starts the pages; returns the process and its address once it answers."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "truing", "redteam", "serve", "--db", url, "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    base, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{base}/healthz", timeout=START_SECONDS)
            return process, base
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("the server does not start")


def main() -> int:
    """Runs the attacks and prints the table; returns 1 if one succeeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--db")
    parser.add_argument("--guesses", type=int, default=50)
    parser.add_argument("--flood-seconds", type=float, default=10)
    arguments = parser.parse_args()
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.db or f"sqlite:///{folder}/study.sqlite"
        process, base = start_server(url)
        store = open_store(url)
        load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        print(f"{store.dialect}, Python {platform.python_version()}, {load}\n")
        print("| attack | outcome | withstood |\n|---|---|---|")
        try:
            asyncio.run(attack(base, store, arguments))
        finally:
            process.terminate()
            process.wait()
            store.close()
    return 0 if all(withstood for _, _, withstood in ROWS) else 1


if __name__ == "__main__":
    sys.exit(main())
