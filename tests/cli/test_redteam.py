"""`truing redteam`: invitations, import, export and every way in which a start can go wrong, from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from truing.annotation import people
from truing.annotation.store import make_engine, migrate, open_store
from truing.cli import main
from truing.core.types import Answer, Conversation, Response, Sample
from truing.runs.folder import Manifest, RunWriter


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    old = sys.argv
    sys.argv = ["truing", *map(str, words)]
    try:
        main()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.argv = old
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def run(tmp_path: Path) -> Path:
    writer = RunWriter(tmp_path / "run", Manifest(plan_hash="p", model="m", created="now"))
    for n in range(4):
        writer.append(
            "samples.jsonl", Sample(id=f"s{n}", conversation=Conversation.of(f"question {n}"))
        )
        writer.append("responses.jsonl", Response.of(f"s{n}", 0, "m", Answer.of(f"answer {n}")))
    writer.close()
    return tmp_path / "run"


def test_invitations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = tmp_path / "study.sqlite"
    status, out, _ = call(
        capsys,
        "redteam",
        "invite",
        "--role",
        "rater",
        "--role",
        "redteamer",
        "--count",
        3,
        "--db",
        db,
        "--url",
        "https://study.example/",
        "--json",
    )
    links = json.loads(out)
    assert (
        status == 0
        and len(set(links)) == 3
        and all(k.startswith("https://study.example/join/") for k in links)
    )
    store = open_store(str(db))
    roles = store.read(lambda tx: people.find_invitation(tx, links[0].rsplit("/", 1)[1]).roles)
    store.close()
    assert json.loads(roles) == ["redteamer", "rater"]
    status, out, _ = call(capsys, "redteam", "invite", "--role", "admin", "--db", db)
    assert status == 0 and out.startswith("http://127.0.0.1:8100/join/")
    for options in (("--count", 0), ("--days", 0), ("--days", 1000)):
        status, _, error = call(
            capsys, "redteam", "invite", "--role", "rater", "--db", db, *options
        )
        assert status == 1 and "--count must be from 1 to 1000" in error
    for words, message in (
        ((), "give --role"),
        (("--role", "rater", "--person", "x"), "give --role"),
        (("--person", "x"), "no such"),
    ):
        status, _, error = call(capsys, "redteam", "invite", "--db", db, *words)
        assert status == 1 and message in error, words
    assert call(capsys, "redteam", "invite", "--role", "emperor", "--db", db)[0] != 0


def test_import_and_export(tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = tmp_path / "study.sqlite"
    gold = tmp_path / "gold.jsonl"
    gold.write_text(json.dumps({"prompt": "hi", "response": "hello", "low": 1, "high": 1}) + "\n")
    status, out, _ = call(capsys, "redteam", "import", run, "--gold", gold, "--db", db, "--json")
    assert status == 0 and json.loads(out) == {str(run): 4, str(gold): 1}
    status, out, _ = call(capsys, "redteam", "import", run, "--db", db)
    assert status == 0 and f"{run}: 0 new items" in out
    status, out, _ = call(
        capsys, "redteam", "export", "--db", db, "--out", tmp_path / "out", "--run", run, "--json"
    )
    assert status == 0 and json.loads(out)["labels"] == {str(run): 0}
    for form in ("csv", "parquet"):
        assert (
            call(
                capsys, "redteam", "export", "--db", db, "--out", tmp_path / form, "--format", form
            )[0]
            == 0
        )
        assert (tmp_path / form / f"ratings.{form}").is_file()
    status, _, error = call(capsys, "redteam", "export", "--db", db, "--out", tmp_path / "out")
    assert status == 1 and "not empty" in error


def test_wrong_imports(tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = tmp_path / "study.sqlite"
    for words, message in (
        ((), "give a run folder"),
        ((run, run, "--draws", "x"), "--draws needs exactly one run"),
        ((tmp_path / "none",), "no run folder"),
        ((run, "--draws", tmp_path / "none"), "no such file of draws"),
        (("--gold", tmp_path / "none"), "no such file of gold"),
    ):
        status, _, error = call(capsys, "redteam", "import", *words, "--db", db)
        assert status == 1 and message in error, words


def test_wrong_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = tmp_path / "study.sqlite"
    engine = make_engine(str(db))
    migrate(engine, "0001")
    engine.dispose()
    study = tmp_path / "study.toml"
    study.write_text("raterz = 3\n")
    for words, message in (
        (("--db", db), "its schema is old (0001"),
        (("--db", "mysql://x/y"), "sqlite:///FILE or postgresql"),
        (("--db", tmp_path / "no" / "such.sqlite"), "there is no folder"),
        (("--study", study, "--db", db), "raterz"),
        (("--model", "scriptd:mixed", "--db", db), "did you mean 'scripted'"),
        (("--study", tmp_path / "none.toml", "--db", db), "none.toml"),
    ):
        status, _, error = call(capsys, "redteam", "serve", *words)
        assert status == 1 and message in error, (words, error)


def test_the_first_start_prints_the_first_account(tmp_path: Path) -> None:
    from tests.serve.annotation.site import Visitor, free_port

    port = free_port()
    words = [
        "redteam",
        "serve",
        "--model",
        "scripted:mixed",
        "--db",
        str(tmp_path / "s.sqlite"),
        "--port",
        str(port),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "truing", *words], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        first, second = process.stderr.readline(), process.stderr.readline()
        assert "the first account: http" in first and "scripted:mixed at http" in second
        link = first.strip().rsplit(" ", 1)[1]
        visitor = Visitor(f"http://127.0.0.1:{port}")
        for _ in range(100):
            try:
                visitor.client.get("/healthz")
                break
            except Exception:
                import time

                time.sleep(0.1)
        visitor.join(link.removeprefix(f"http://127.0.0.1:{port}"), "boss-crane")
        assert visitor.get("/admin").status_code == 200
    finally:
        process.terminate()
        assert process.wait(30) in (0, -15)  # uvicorn ends, then raises the signal again
        process.stderr.close()
