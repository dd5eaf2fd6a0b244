"""A private PostgreSQL server is stopped as by a crash and restarted while people rate."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from tests.annotation.test_queue import add_queue_item
from tests.requirements import skip_or_fail
from tests.serve.annotation.site import reserve_port, run_site

from truing.annotation.store import open_store
from truing.annotation.study import Study
from truing.annotation.tables import Rating

pytestmark = pytest.mark.slow
STUDY = Study(raters=2, gold_every=0, exposure_budget=10**6, break_after=10**6)


class PostgresCluster:
    """A PostgreSQL server in a folder."""

    def __init__(self, folder: Path) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")) or [
            Path(shutil.which("pg_ctl") or "")
        ]
        self.bin, self.folder = binaries[-1].parent, folder
        # Kept open: while PostgreSQL is away, nobody else gets the port.
        self.reservation = reserve_port()
        self.port = self.reservation.getsockname()[1]
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"
        self._run(
            str(self.bin / "initdb"),
            "-D",
            f"{folder}/data",
            "-U",
            "postgres",
            "--auth=trust",
            "--no-sync",
        )

    def _run(self, *arguments: str) -> None:
        as_postgres = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        subprocess.run([*as_postgres, *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self) -> None:
        """Starts the server; returns when it accepts connections."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self._run(
            str(self.bin / "pg_ctl"),
            "-D",
            f"{self.folder}/data",
            "-w",
            "-o",
            options,
            "-l",
            f"{self.folder}/log",
            "start",
        )

    def crash(self) -> None:
        """Stops the server as a crash would; it recovers from its write-ahead log."""
        self._run(str(self.bin / "pg_ctl"), "-D", f"{self.folder}/data", "-m", "immediate", "stop")


@pytest.fixture
def cluster() -> Iterator[PostgresCluster]:
    folder = Path(
        subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip()
    )
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
    try:
        postgres = PostgresCluster(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        skip_or_fail(f"the programs of a PostgreSQL server are not installed: {error}")
    postgres.start()
    yield postgres
    postgres.crash()
    postgres.reservation.close()
    shutil.rmtree(folder, ignore_errors=True)


def test_acknowledged_ratings_survive_crashes_of_the_database(cluster: PostgresCluster) -> None:
    acknowledged: list[str] = []
    with run_site(cluster.url, study=STUDY) as site:
        for n in range(60):
            add_queue_item(site.state.store, STUDY, f"k{n}")
        raters = [site.add_person(f"rater-{n}", "rater") for n in range(4)]
        stop = threading.Event()

        def rate_items(n: int) -> None:
            rater, path = raters[n], ""
            while not stop.is_set():
                try:
                    if not path:
                        path = rater.submit("/review/next").json().get("go", "")
                        continue
                    if path == "/review":
                        return
                    grades = dict.fromkeys(
                        re.findall(r'name="(grade-\d+)"', rater.get(path).text), "2"
                    )
                    if not grades:
                        path = ""
                        continue
                    answer = rater.submit(path, grades)
                    if answer.status_code == 200:
                        acknowledged.append(path)
                        path = answer.json()["go"]
                    time.sleep(0.02)
                except (httpx.HTTPError, ValueError):
                    time.sleep(0.1)

        threads = [threading.Thread(target=rate_items, args=(n,)) for n in range(4)]
        for t in threads:
            t.start()
        for _ in range(2):
            time.sleep(1.0)
            cluster.crash()
            time.sleep(1.0)
            cluster.start()
        for t in threads:
            t.join(60)
        stop.set()
    store = open_store(cluster.url)
    ratings = store.read(lambda tx: tx.session.scalars(select(Rating)).all())
    store.close()
    assert {path.rsplit("/", 1)[1] for path in acknowledged} <= {r.lease for r in ratings}
    assert len(ratings) == 120 and all(r.counted for r in ratings)
    assert set(Counter(r.item_id for r in ratings).values()) == {2}
