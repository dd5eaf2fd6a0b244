"""A PostgreSQL of its own that is stopped as a crash would stop it, and started again, while people work."""

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
from tests.annotation.test_queue import put
from tests.serve.annotation.site import free_port, site

from truing.annotation.store import open_store
from truing.annotation.study import Study
from truing.annotation.tables import Rating

pytestmark = pytest.mark.slow
STUDY = Study(raters=2, gold_every=0, exposure_budget=10**6, break_after=10**6)


class Cluster:
    """A PostgreSQL server in a folder."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")) or [
            Path(shutil.which("pg_ctl") or "")
        ]
        self.bin, self.folder, self.port = found[-1].parent, folder, free_port()
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"
        self._do(
            str(self.bin / "initdb"),
            "-D",
            f"{folder}/data",
            "-U",
            "postgres",
            "--auth=trust",
            "--no-sync",
        )

    def _do(self, *words: str) -> None:
        who = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        subprocess.run([*who, *words], check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self) -> None:
        """Until it takes connections."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self._do(
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
        """Without a farewell: recovery comes from the write-ahead log."""
        self._do(str(self.bin / "pg_ctl"), "-D", f"{self.folder}/data", "-m", "immediate", "stop")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    folder = Path(
        subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip()
    )
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
    try:
        made = Cluster(folder)
    except (OSError, subprocess.CalledProcessError, LookupError):
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("no PostgreSQL here")
    made.start()
    yield made
    made.crash()
    shutil.rmtree(folder, ignore_errors=True)


def test_what_was_acknowledged_is_there_after_two_crashes_of_the_database(cluster: Cluster) -> None:
    taken: list[str] = []
    with site(cluster.url, study=STUDY) as here:
        for n in range(60):
            put(here.state.store, STUDY, f"k{n}")
        raters = [here.person(f"rater-{n}", "rater") for n in range(4)]
        stop = threading.Event()

        def work(n: int) -> None:
            rater, where = raters[n], ""
            while not stop.is_set():
                try:
                    if not where:
                        where = rater.send("/review/next").json().get("go", "")
                        continue
                    if where == "/review":
                        return
                    given = dict.fromkeys(
                        re.findall(r'name="(grade-\d+)"', rater.get(where).text), "2"
                    )
                    if not given:
                        where = ""
                        continue
                    answer = rater.send(where, given)
                    if answer.status_code == 200:
                        taken.append(where)
                        where = answer.json()["go"]
                    time.sleep(0.02)
                except (httpx.HTTPError, ValueError):
                    time.sleep(0.1)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
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
    assert {where.rsplit("/", 1)[1] for where in taken} <= {r.lease for r in ratings}
    assert len(ratings) == 120 and all(r.counted for r in ratings)
    assert set(Counter(r.item_id for r in ratings).values()) == {2}
