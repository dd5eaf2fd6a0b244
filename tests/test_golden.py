"""Opens what version 0.1 stored: runs, plans, rankings, labels, cards, trained models, a study.

The folders are in `tests/golden/v0.1` (its README says what each of them is). Every test works on a
copy, through the command line, file reading and plain HTTP, and compares values with the stored
ones. `commands.json` holds the commands that made the folders, with their exit status and output.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import truing

STORED = Path(__file__).parent / "golden" / "v0.1"
LOOKS = "looks.jsonl"  # stored by whoever reads a figure that labels correct
COMMANDS: dict[str, dict[str, Any]] = json.loads((STORED / "commands.json").read_text("utf-8"))
PHRASE = "four plain words here"  # of everybody in the stored study
# What differs from call to call.
UNSTABLE = re.compile(r"seconds.*|ms|created|versions|date|version")
# Sentences for people: their figures are fields of their own, and their words may get better.
SENTENCE = re.compile(r".*\.checks\[\d+\]\.text|gate\.outcomes\[\d+\]\.reason")
# Intervals of a judge's card allow for several answers to one prompt, which those of 0.1 did not, and
# gates have exact bounds.
NEW_INTERVAL = re.compile(
    r"((.*\.)?(questions|per_category)\..*|gate\.outcomes\[\d+\])\.(lower|upper|method)"
)

# Commands run in this process, with their words in `sys.argv`.
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked")


def command_line() -> Any:
    """Returns the entry point of the command line: the one name of the package that is imported."""
    from truing.cli import main

    return main


def call(*words: str) -> tuple[int, str, str]:
    """Returns the exit status, the output and the errors of a command in the working directory."""
    main = command_line()
    out, error, old = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["truing", *words]
    status = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.argv = old
    return status, out.getvalue(), error.getvalue()


def again(name: str, *more: str) -> Any:
    """Returns the JSON output of a stored command, called again; its exit status is the stored one."""
    stored = COMMANDS[name]
    status, out, error = call(*stored["words"], *more)
    assert status == stored["exit"], error
    return json.loads(out)


def assert_same(found: Any, stored: Any, place: str = "", digits: float = 1e-4) -> None:
    """Asserts that everything stored is found; floats to `digits`, keys that are new are allowed."""
    if isinstance(stored, dict):
        assert isinstance(found, dict), place
        for key, value in stored.items():
            if not UNSTABLE.fullmatch(key):
                assert key in found, f"{place}.{key} is missing"
                assert_same(found[key], value, f"{place}.{key}", digits)
    elif isinstance(stored, list):
        assert isinstance(found, list), place
        assert len(found) == len(stored), place
        for at, (one, other) in enumerate(zip(found, stored)):
            assert_same(one, other, f"{place}[{at}]", digits)
    elif NEW_INTERVAL.fullmatch(place):
        assert found is None or isinstance(found, str) or -1.0 <= found <= 1.0, place
    elif isinstance(stored, float):
        assert found == pytest.approx(stored, rel=digits, abs=1e-6), place
    elif SENTENCE.fullmatch(place):
        assert isinstance(found, str) and found, place
    else:
        assert found == stored, place


def rows(path: Path) -> list[Any]:
    """Returns the rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def assert_same_rows(folder: str) -> None:
    """Asserts that the JSONL files of a folder have the rows, and the names, of the stored one."""
    stored, found = STORED / folder, Path(folder)
    names = {str(p.relative_to(stored)) for p in stored.rglob("*.jsonl")}
    assert {str(p.relative_to(found)) for p in found.rglob("*.jsonl") if p.name != LOOKS} == names
    for name in sorted(names):
        assert_same(rows(found / name), rows(stored / name), f"{folder}/{name}")


def jsonl_bytes(folder: str) -> dict[str, bytes]:
    """Returns the content of every JSONL file of a folder, by its path."""
    paths = (path for path in Path(folder).rglob("*.jsonl") if path.name != LOOKS)
    return {str(path): path.read_bytes() for path in paths}


@pytest.fixture(autouse=True)
def golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a copy of all golden folders, which is the working directory."""
    copy = tmp_path / "golden"
    shutil.copytree(STORED, copy)
    # 0.1 took the number of labels of a first draw as fixed beforehand; now a run has to say so.
    for folder in ("evaluated/finished", "labelled"):
        lines = [
            json.dumps({"subject": f"labels:{question}", "labels": 0, "planned": 8}) + "\n"
            for question in ("refused", "harmful")
        ]
        (copy / folder / "labels" / LOOKS).write_text("".join(lines))
    monkeypatch.chdir(copy)
    monkeypatch.setenv("TRUING_CACHE", str(tmp_path / "cache"))
    return copy


def test_labels_of_a_run_that_fixed_no_number_allow_for_looks() -> None:
    Path("evaluated/finished/labels", LOOKS).unlink()
    stored = COMMANDS["show finished"]["output"]["rates"][0]["corrected"]
    corrected = json.loads(call(*COMMANDS["show finished"]["words"])[1])["rates"][0]["corrected"]
    assert corrected["estimate"] == pytest.approx(stored["estimate"])
    assert corrected["lower"] < stored["lower"]
    assert rows(Path("evaluated/finished/labels", LOOKS)) == [
        {"subject": "labels:refused", "labels": 8, "planned": None}
    ]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keeps torch to one thread: the models are tiny."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextlib.contextmanager
def server(*words: str, answers_at: str) -> Iterator[str]:
    """Runs a command that serves, in a thread and on a free port; gives its address."""
    import uvicorn

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made: list[uvicorn.Server] = []
    start, argv, interval = uvicorn.Server.__init__, sys.argv, sys.getswitchinterval()

    def remember(self: uvicorn.Server, *args: Any, **more: Any) -> None:
        made.append(self)
        start(self, *args, **more)

    def serve() -> None:
        with contextlib.suppress(SystemExit):
            command_line()()

    uvicorn.Server.__init__ = remember  # type: ignore[method-assign]
    sys.argv = ["truing", *words, "--port", str(port)]
    thread = threading.Thread(target=serve, daemon=True)
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        thread.start()
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(address + answers_at, timeout=10).status_code == 200:
                    break
            if not thread.is_alive() or time.monotonic() > until:
                pytest.fail(f"{words[0]}: does not answer")
            time.sleep(0.02)
        yield address
    finally:
        for one in made:
            one.should_exit = True
        thread.join(20)
        uvicorn.Server.__init__ = start  # type: ignore[method-assign]
        sys.argv = argv
        sys.setswitchinterval(interval)


# -- runs


@pytest.mark.parametrize(
    "name",
    [
        "show finished",
        "show planned",
        "show labelled",
        "show with card",
        "show attacked",
        "show wrapped",
        "show failed",
        "compare",
        "gate",
        "card",
    ],
)
def test_what_is_stored_reads_as_before(name: str) -> None:
    stored = COMMANDS[name]["output"]
    assert stored  # an empty object would be the same as anything
    assert_same(again(name), stored, name)


def test_the_top_level_package_reads_a_stored_run() -> None:
    run = truing.Run("evaluated/finished")
    stored = json.loads(Path("evaluated/finished/manifest.json").read_text("utf-8"))
    assert run.manifest.plan_hash == stored["plan_hash"]
    assert run.manifest.complete
    assert [j.name for j in run.manifest.judges] == [
        "rules:refusal",
        "rules:degenerate",
        "keywords:",
    ]
    assert [s.id for s in run.samples()] == [
        r["id"] for r in rows(Path("evaluated/finished/samples.jsonl"))
    ]
    assert sum(1 for _ in run.responses()) == 24
    verdicts = [j.verdict for j in run.judgements("rules:refusal")]
    file = next(j["file"] for j in stored["judges"] if j["name"] == "rules:refusal")
    assert verdicts == [r["verdict"] for r in rows(Path("evaluated/finished") / file)]
    assert {True, False} == set(verdicts)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("evaluate finished", "evaluated/finished"),
        ("evaluate attacked", "evaluated/attacked"),
        ("evaluate wrapped", "evaluated/wrapped"),
        ("evaluate failed", "evaluated/failed"),
        ("evaluate to rank", "ranked/answers"),
        ("rank mcq", "ranked/mcq"),
        ("rank perplexity", "ranked/perplexity"),
    ],
)
def test_a_finished_folder_is_known_as_finished(name: str, folder: str) -> None:
    before, manifest = jsonl_bytes(folder), Path(folder, "manifest.json").read_bytes()
    again(name)
    assert jsonl_bytes(folder) == before
    if name.startswith("evaluate"):
        assert Path(folder, "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("evaluate attacked", "evaluated/attacked"),
        ("evaluate wrapped", "evaluated/wrapped"),
        ("evaluate failed", "evaluated/failed"),
        ("rank mcq", "ranked/mcq"),
        ("rank perplexity", "ranked/perplexity"),
    ],
)
def test_the_same_command_makes_the_same_folder(name: str, folder: str) -> None:
    shutil.rmtree(folder)
    # 0.1 took the first rows; a new folder takes them if asked to.
    first = ["--limit-first"] if name.startswith("evaluate") else []
    assert_same(again(name, *first), COMMANDS[name]["output"], name)
    assert_same_rows(folder)
    assert jsonl_bytes(folder)
    stored = json.loads((STORED / folder / "manifest.json").read_text("utf-8"))
    assert_same(json.loads(Path(folder, "manifest.json").read_text("utf-8")), stored, folder)


def test_an_interrupted_run_goes_on_to_the_same_end() -> None:
    folder, finished = Path("evaluated/interrupted"), STORED / "evaluated/finished"
    path = folder / "responses.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True)
    whole, torn = lines[:-1], lines[-1]
    assert 0 < len(whole) < 24 and not torn.endswith("\n")
    # An answer that the model would not give: it stays, so its sample was not asked again.
    kept = json.loads(whole[0])
    kept["message"]["content"] = "kept as it was"
    path.write_text("".join([json.dumps(kept) + "\n", *whole[1:], torn]), "utf-8")
    again("evaluate interrupted")
    found, stored = rows(path), rows(finished / "responses.jsonl")
    changed = [a for a, b in zip(found, stored) if a["message"] != b["message"]]
    assert_same(changed, [kept])
    changed[0]["message"] = next(
        b["message"] for a, b in zip(found, stored) if a["message"] != b["message"]
    )
    assert_same(found, stored)
    for judged in (finished / "judgements").glob("*.jsonl"):
        assert_same(rows(folder / "judgements" / judged.name), rows(judged), judged.name)
    assert truing.Run(folder).manifest.complete


def test_an_interrupted_run_has_the_rates_of_an_uninterrupted_one() -> None:
    found = again("evaluate interrupted")
    stored = dict(COMMANDS["evaluate finished"]["output"], run="evaluated/interrupted")
    assert_same(found, stored)
    assert len(rows(Path("evaluated/interrupted/responses.jsonl"))) == 24


def test_judges_are_known_by_their_hashes_and_new_ones_are_added() -> None:
    folder = "evaluated/finished"
    before = jsonl_bytes(folder)
    status, _, error = call("judge", folder, "--judge", "rules:refusal", "--judge", "keywords:")
    assert status == 0, error
    assert jsonl_bytes(folder) == before
    panel = "panel:majority,j1=(rules:refusal),j2=(rules:refusal)"
    assert call("judge", folder, "--judge", panel)[0] == 0
    (new,) = set(jsonl_bytes(folder)) - set(before)
    assert Path(new).name in {p.name for p in Path("evaluated/wrapped/judgements").iterdir()}
    refusals = next(Path(folder, "judgements").glob("rules-refusal-*.jsonl"))
    assert [r["verdict"] for r in rows(Path(new))] == [r["verdict"] for r in rows(refusals)]


def test_a_plan_again_gives_the_same_report() -> None:
    before = jsonl_bytes("planned")
    shutil.rmtree("planned/plain/helpful")  # one run afresh, the others as they are
    again("run plan")
    assert_same_rows("planned")
    assert {k: v for k, v in jsonl_bytes("planned").items() if "plain/helpful" not in k} == {
        k: v for k, v in before.items() if "plain/helpful" not in k
    }
    stored = json.loads((STORED / "planned/report.json").read_text("utf-8"))
    assert_same(json.loads(Path("planned/report.json").read_text("utf-8")), stored, "report")


def test_labels_of_stored_draws_and_further_draws() -> None:
    labels, draws = (
        Path("evaluated/finished/labels/labels.jsonl"),
        "evaluated/finished/labels/draws.jsonl",
    )
    stored = rows(labels)
    labels.unlink()
    again("label refused")
    assert_same(rows(labels), stored)
    words = ("label", "evaluated/finished", "--question", "refused", "--n", "4", "--draw-only")
    assert call(*words)[0] == 0
    drawn = rows(Path(draws))
    assert_same(drawn[:16], rows(STORED / draws))
    refused = [(d["sample_id"], d.get("index", 0)) for d in drawn if d["question"] == "refused"]
    assert len(drawn) == 20 and len(set(refused)) == 12


def test_moderated_rows_go_on_where_they_stopped() -> None:
    path = Path("moderated.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:9])
    found = again("moderate")
    known = {key: COMMANDS["moderate"]["output"][key] for key in ("judge", "judge_hash")}
    assert_same(found, known | {"resumed_at": 2, "rows": 3})
    assert_same(rows(path), rows(STORED / "moderated.jsonl"))
    assert path.read_bytes().startswith(b"".join(lines[:2]))  # finished rows are left alone


def test_rankings_by_a_stored_judge() -> None:
    before = jsonl_bytes("ranked/answers")
    assert_same(again("rank by"), COMMANDS["rank by"]["output"])
    assert_same_rows("ranked/answers")
    assert jsonl_bytes("ranked/answers") == before  # the stored verdicts are used


# -- the study


def load_database(dump: str, name: str) -> None:
    """Makes a SQLite database of a stored dump."""
    connection = sqlite3.connect(name)
    connection.executescript(Path(dump).read_text("utf-8"))
    connection.close()


def assert_same_export(database: str, out: str) -> None:
    """Asserts that the export of a database is the stored one."""
    status, said, error = call(
        "redteam", "export", "--db", database, "--out", out, "--text", "--json"
    )
    assert status == 0, error
    assert_same(json.loads(said), COMMANDS["export study"]["output"])
    names = {
        str(p.relative_to(STORED / "exported")) for p in (STORED / "exported").rglob("*.jsonl")
    }
    assert len(names) == 20
    for name in sorted(names):
        assert_same(rows(Path(out, name)), rows(STORED / "exported" / name), name)


def test_a_stored_study_is_exported() -> None:
    load_database("study.sql", "study.sqlite")
    assert_same_export("study.sqlite", "exported-now")
    shutil.rmtree("labelled")
    shutil.copytree("evaluated/finished", "labelled")
    assert_same(again("export into run"), COMMANDS["export into run"]["output"])
    assert_same_rows("labelled")
    assert_same(again("show labelled"), COMMANDS["show labelled"]["output"])
    # Rows that are in review already are not imported twice.
    shutil.rmtree("exported-again")
    assert again("import drawn rows") == {"evaluated/finished": 0}


def test_a_study_of_an_old_schema_is_brought_up_and_served() -> None:
    load_database("study-0001.sql", "old.sqlite")
    status, _, error = call("redteam", "export", "--db", "old.sqlite", "--out", "x", "--json")
    assert status == 1 and "--migrate" in error
    models = ("--model", "scripted:mixed", "--model", "scripted:comply")
    words = ("redteam", "serve", "--db", "old.sqlite", "--migrate", *models)
    with server(*words, answers_at="/healthz") as address:
        for name in ("redteamer-0", "rater-2"):
            with httpx.Client(base_url=address, headers={"origin": address}, timeout=30) as web:
                page = web.get("/", follow_redirects=True)
                mark = re.search(r'name="csrf" value="([0-9a-f]+)"', page.text)
                assert page.url.path == "/sign-in" and mark
                fields = {"csrf": mark.group(1), "pseudonym": name, "phrase": PHRASE}
                assert web.post("/sign-in", data=fields).status_code in (302, 303)
                home = web.get("/")
                assert home.status_code == 200 and name in home.text
                if name == "redteamer-0":
                    (mine,) = set(re.findall(r'href="(/dialogues/[0-9a-f]+)"', home.text))
                    assert "how do i true wheel 0" in web.get(mine).text
    assert_same_export("old.sqlite", "exported-now")


# -- trained models


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", ["train sft", "train cost"])
def test_a_finished_training_is_known_as_finished(name: str) -> None:
    before = jsonl_bytes("models")
    found = again(name)
    assert_same(found, COMMANDS[name]["output"] | {"done_now": 0, "last": {}})
    assert found["done_now"] == 0
    assert jsonl_bytes("models") == before


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", ["dpo", "ppo-lag"])
def test_an_unfinished_training_goes_on_to_the_same_numbers(kind: str) -> None:
    log, full = Path("models", kind, "log.jsonl"), rows(Path("models", f"{kind}-full-log.jsonl"))
    before = rows(log)
    assert [p.name for p in Path("models", kind).glob("checkpoint-*")] == ["checkpoint-2"]
    found = again(f"train {kind}")
    assert (found["steps"], found["done_now"]) == (6, 4)
    after = rows(log)
    assert after[:2] == before[:2]
    # The words of a warning may change; whether there is one may not.
    for row in (*after, *full):
        if "warning" in row:
            row["warning"] = bool(row["warning"])
    assert [row["step"] for row in after] == [1, 2, 3, 4, 5, 6]
    assert_same(after, full, kind, digits=2e-3)
    stored = json.loads((STORED / "models/sft/truing.json").read_text("utf-8"))
    card = json.loads(Path("models", kind, "truing.json").read_text("utf-8"))
    assert card["kind"] == kind and card["base_sha256"] == stored["base_sha256"]


@pytest.mark.usefixtures("one_thread")
def test_an_unfinished_moderation_classifier_goes_on_to_the_same_card() -> None:
    words = COMMANDS["train moderation"]["words"]
    out = "models/moderation-unfinished"
    status, said, error = call(*[out if w == "models/moderation" else w for w in words])
    assert status == 0, error
    assert_same(
        rows(Path(out, "log.jsonl")), rows(STORED / "models/moderation/log.jsonl"), digits=2e-3
    )
    stored = COMMANDS["train moderation"]["output"]["card"]
    found = json.loads(said)["card"]
    for key in ("data", "data_hash", "n", "method", "lineage", "languages", "questions"):
        assert_same(found[key], stored[key], key, digits=2e-3)


@pytest.mark.usefixtures("one_thread")
def test_trained_judges_and_models_give_the_stored_answers() -> None:
    name = "moderate by a trained judge"
    known = {key: COMMANDS[name]["output"][key] for key in ("judge", "judge_hash")}
    assert_same(again(name), known | {"resumed_at": 5, "rows": 0})
    Path("moderated-by-model.jsonl").unlink()
    Path("moderated-by-model.jsonl.state").unlink()
    assert_same(again(name), COMMANDS[name]["output"], name)
    stored_rows = rows(STORED / "moderated-by-model.jsonl")
    for row in stored_rows:
        if not row["flagged"]:
            row["flagged_categories"] = []  # 0.1 named categories of texts that it did not flag
    assert_same(rows(Path("moderated-by-model.jsonl")), stored_rows)
    (judged,) = Path("evaluated/local/judgements").glob("cost-*.jsonl")
    judged.unlink()
    status, _, error = call("judge", "evaluated/local", "--judge", "cost:models/cost")
    assert status == 0, error
    assert_same_rows("evaluated/local")
    again("evaluate local")  # known as finished: the model has the hash that the manifest holds
    assert_same(again("rank by cost"), COMMANDS["rank by cost"]["output"])
    assert_same_rows("evaluated/local")


@pytest.mark.usefixtures("one_thread")
def test_a_stored_model_is_served() -> None:
    sample, stored = (
        rows(STORED / "evaluated/greedy" / f"{n}.jsonl")[0] for n in ("samples", "responses")
    )
    prompt = sample["conversation"]["messages"][-1]["content"]
    model = ("--model", "local:models/sft,dtype=float32")
    with server("serve", *model, answers_at="/v1/models") as address:
        asked = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 6,
            "temperature": 0,
        }
        made = httpx.post(f"{address}/v1/chat/completions", json=asked, timeout=60).json()
    assert made["choices"][0]["message"]["content"] == stored["message"]["content"]
    assert made["usage"]["completion_tokens"] == 6
