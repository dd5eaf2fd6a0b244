"""`truing redteam`: invitations, import, export, and everything that can be wrong at a start."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from tests.cli.command_line import run_truing, truing

from truing.annotation import people
from truing.annotation.store import make_engine, migrate, open_store
from truing.core.types import Answer, Conversation, Response, Sample
from truing.runs.folder import Manifest, RunWriter


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of four answers."""
    writer = RunWriter(tmp_path / "run", Manifest(plan_hash="p", model="m", created="now"))
    for n in range(4):
        sample = Sample(id=f"s{n}", conversation=Conversation.of(f"question {n}"))
        writer.append("samples.jsonl", sample)
        writer.append("responses.jsonl", Response.of(f"s{n}", 0, "m", Answer.of(f"answer {n}")))
    writer.close()
    return tmp_path / "run"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "study.sqlite"


def test_invitations_have_the_roles(db: Path) -> None:
    flags = "--role rater --role redteamer --count 3 --url https://study.example/ --json --db"
    links = json.loads(run_truing(f"redteam invite {flags}", db))
    assert len(set(links)) == 3
    assert all(link.startswith("https://study.example/join/") for link in links)
    token = links[0].rsplit("/", 1)[1]
    store = open_store(str(db))
    roles = store.read(lambda tx: people.find_invitation(tx, token).roles)
    store.close()
    assert json.loads(roles) == ["redteamer", "rater"]
    link = run_truing("redteam invite --role admin --db", db)
    assert link.startswith("http://127.0.0.1:8100/join/")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--role rater --count 0", "--count must be from 1 to 1000"),
        ("--role rater --days 0", "--days above 0 and at most 365"),
        ("--role rater --days 1000", "--days above 0 and at most 365"),
        ("", "give --role"),
        ("--role rater --person x", "give --role"),
        ("--person x", "no such"),
    ],
)
def test_wrong_invitations(db: Path, flags: str, message: str) -> None:
    result = truing(f"redteam invite {flags} --db", db)
    assert result.status == 1
    assert message in result.err


def test_an_unknown_role_is_an_error(db: Path) -> None:
    result = truing("redteam invite --role emperor --db", db)
    assert result.status == 1
    assert 'Invalid value "emperor" for --role' in " ".join(result.err.split())
    assert not db.exists()


def test_import_and_export(db: Path, run: Path, tmp_path: Path) -> None:
    gold = tmp_path / "gold.jsonl"
    gold.write_text(json.dumps({"prompt": "hi", "response": "hello", "low": 1, "high": 1}) + "\n")
    counts = json.loads(run_truing("redteam import --json", run, "--gold", gold, "--db", db))
    assert counts == {str(run): 4, str(gold): 1}
    # The same responses are not imported twice.
    assert f"{run}: 0 new items" in run_truing("redteam import", run, "--db", db)

    export = ("redteam export --db", db, "--out")
    exported = json.loads(run_truing(*export, tmp_path / "out", "--run", run, "--json"))
    assert exported["labels"] == {str(run): 0}
    for form in ("csv", "parquet"):
        run_truing(*export, tmp_path / form, "--format", form)
        assert (tmp_path / form / f"ratings.{form}").is_file()
    result = truing(*export, tmp_path / "out")
    assert result.status == 1
    assert "not empty" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "give a run folder"),
        ("RUN RUN --draws x", "--draws needs exactly one run"),
        ("nowhere", "no run folder"),
        ("RUN --draws nowhere", "no such file of draws"),
        ("--gold nowhere", "no such file of gold"),
    ],
)
def test_wrong_imports(db: Path, run: Path, arguments: str, message: str) -> None:
    words = [word.replace("RUN", str(run)) for word in arguments.split()]
    result = truing("redteam import --db", db, *words)
    assert result.status == 1
    assert message in result.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--db DB", "its schema is old (0001"),
        ("--db mysql://x/y", "sqlite:///FILE or postgresql"),
        ("--db no/such/folder.sqlite", "there is no folder"),
        ("--db DB --study STUDY", "raterz"),
        ("--db DB --study none.toml", "none.toml"),
        ("--db DB --model scriptd:mixed", "did you mean 'scripted'"),
    ],
)
def test_wrong_starts(db: Path, tmp_path: Path, flags: str, message: str) -> None:
    engine = make_engine(str(db))
    migrate(engine, "0001")
    engine.dispose()
    study = tmp_path / "study.toml"
    study.write_text("raterz = 3\n")
    words = flags.replace("DB", str(db)).replace("STUDY", str(study)).split()
    result = truing("redteam serve", *words)
    assert result.status == 1
    assert message in result.err


def wait_until_healthy(url: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/healthz", timeout=120)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"{url} does not answer")


def test_the_first_start_prints_the_link_of_the_first_account(db: Path) -> None:
    from tests.serve.annotation.site import Visitor, free_port

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    flags = ["--model", "scripted:mixed", "--db", str(db), "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "truing", "redteam", "serve", *flags],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        account_line, address_line = process.stderr.readline(), process.stderr.readline()
        assert "the first account: http" in account_line
        assert f"scripted:mixed at {url}" in address_line
        wait_until_healthy(url)
        visitor = Visitor(url)
        link = account_line.strip().rsplit(" ", 1)[1]
        visitor.join(link.removeprefix(url), "boss-crane")
        assert visitor.get("/admin").status_code == 200
        visitor.client.close()
    finally:
        process.terminate()
        assert process.wait(30) in (0, -15)  # uvicorn shuts down, then raises the signal again
        process.stderr.close()
