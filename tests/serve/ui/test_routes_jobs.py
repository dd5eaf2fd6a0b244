"""Actions: the real commands as processes, their state, and what may not be started."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.serve.ui.pages import Visitor, open_pages, path_of, write_small_run

from truing.runs.folder import Run
from truing.serve.ui.jobs import Job, JobQueue
from truing.serve.ui.routes_jobs import REPORT_POLICY

PATIENCE = 120.0


def _wait(queue: JobQueue, id_: str) -> Job:
    deadline = time.monotonic() + PATIENCE
    while not queue.find(id_).is_over and time.monotonic() < deadline:
        time.sleep(0.05)
    return queue.find(id_)


def _start(visitor: Visitor, path: str, fields: dict[str, object], page: str) -> Job:
    response = visitor.submit(path, fields, page=page)
    assert response.status_code == 303, response.text
    return _wait(visitor.state.jobs, response.headers["location"].rpartition("/")[2])


@pytest.mark.slow
def test_judge_report_and_gate_are_the_commands(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    (tmp_path / "rules.toml").write_text('rules = ["refused.upper < 0.01"]\n')
    with open_pages(tmp_path) as visitor:
        path = path_of(tmp_path, run)
        judged = _start(visitor, f"{path}/judge", {"judge": "rules:refusal"}, path)
        assert judged.status == "done", judged.output
        assert [j.name for j in Run(run).manifest.judges][-1] == "rules:refusal"
        assert "rules:refusal" in visitor.text(f"{path}/rows")
        gate = _start(visitor, f"{path}/gate", {"rules": "rules.toml"}, path)
        assert gate.status in ("finding", "inconclusive") and "refused.upper" in gate.output
        assert visitor.get(f"{path}/report").status_code == 404
        report = _start(visitor, f"{path}/report", {}, path)
        assert report.status == "done", report.output
        page = visitor.get(f"{path}/report")
        assert page.status_code == 200 and "<title>" in page.text
        assert page.headers["content-security-policy"] == REPORT_POLICY
        assert "See the result" in visitor.text(f"/jobs/{report.id}")
        listed = visitor.text("/jobs")
        assert listed.index("Report") < listed.index("Gate") < listed.index("Judge by")


def test_the_commands_get_what_the_forms_say(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    other = write_small_run(tmp_path / "other")
    (tmp_path / "rules.toml").touch()
    with open_pages(tmp_path) as visitor:
        visitor.state.jobs = JobQueue(("/bin/echo",))
        path, beside = path_of(tmp_path, run), path_of(tmp_path, other).rpartition("/")[2]
        forms: dict[str, dict[str, object]] = {
            "judge": {"judge": "rules:refusal"},
            "report": {"beside": beside, "with_text": "1"},
            "gate": {"rules": "rules.toml", "baseline": beside},
        }
        outputs = [_start(visitor, f"{path}/{name}", forms[name], path).output for name in forms]
    assert outputs == [
        f"judge {run} --judge=rules:refusal\n",
        f"report {run} {other} --out {run} --with-text\n",
        f"gate {run} {tmp_path}/rules.toml --baseline {other}\n",
    ]


@pytest.mark.parametrize(
    ("action", "fields", "message"),
    [
        ("judge", {"judge": ""}, "Give the spec of a judge"),
        ("judge", {"judge": "x" * 3000}, "Give the spec of a judge"),
        ("judge", {"judge": "rules:(("}, "no spec of a judge"),
        ("judge", {"judge": "python:os:system"}, "From a page"),
        ("judge", {"judge": "llm:harm,model=(agent,of=(scripted:echo))"}, "From a page"),
        ("gate", {"rules": "../rules.toml"}, "no such file"),
        ("gate", {"rules": "/etc/passwd"}, "no such file"),
        ("gate", {"rules": "run/manifest.json"}, "no such file"),
        ("gate", {"rules": "rules.toml", "baseline": "ffffffffffff"}, "no such run"),
        ("report", {"beside": "../x"}, "no such run"),
    ],
)
def test_what_may_not_be_started(
    tmp_path: Path, action: str, fields: dict[str, str], message: str
) -> None:
    run = write_small_run(tmp_path / "run")
    (tmp_path / "rules.toml").touch()
    with open_pages(tmp_path) as visitor:
        path = path_of(tmp_path, run)
        response = visitor.submit(f"{path}/{action}", fields, page=path)
        assert response.status_code in (404, 422) and message in response.text
        assert visitor.state.jobs.newest() == []


def test_a_judge_that_the_operator_named_is_started(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    with open_pages(tmp_path, judges=("reward:models/reward",)) as visitor:
        visitor.state.jobs = JobQueue(("/bin/echo",))
        path = path_of(tmp_path, run)
        assert '<option value="reward:models/reward">' in visitor.text(path)
        job = _start(visitor, f"{path}/judge", {"judge": "reward:models/reward"}, path)
    assert job.output == f"judge {run} --judge=reward:models/reward\n"


def test_a_report_that_is_a_link_is_not_shown(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    secret = tmp_path / "secret.html"
    secret.write_text("secret words")
    (run / "report.html").symlink_to(secret)
    with open_pages(tmp_path) as visitor:
        response = visitor.get(f"{path_of(tmp_path, run)}/report")
        assert response.status_code == 422 and "secret words" not in response.text


def test_a_job_is_stopped_and_the_queue_is_bounded() -> None:
    queue = JobQueue(("/bin/sh", "-c", 'echo begun; sleep "$1"', "sh"))
    job = queue.add("sleep", "", ["60"], "sleep")
    waiting = [queue.add("sleep", "", ["60"], "sleep") for _ in range(19)]
    with pytest.raises(Exception, match="Many actions"):
        queue.add("sleep", "", ["60"], "sleep")
    deadline = time.monotonic() + PATIENCE
    while "begun" not in job.output and time.monotonic() < deadline:
        time.sleep(0.02)
    for other in waiting:
        queue.stop(other.id)
    queue.stop(job.id)
    assert job.status in ("stopping", "stopped")
    assert _wait(queue, job.id).status == "stopped"
    last = queue.add("sleep", "", ["0"], "sleep")
    assert _wait(queue, last.id).status == "done"
    queue.close()


@pytest.mark.parametrize("end", ["stop", "close"])
def test_a_process_that_ignores_the_signal_is_killed(end: str) -> None:
    queue = JobQueue(("/bin/sh", "-c", 'trap "" TERM; echo begun; sleep 600'), stop_seconds=0.2)
    job = queue.add("sleep", "", [], "sleep")
    deadline = time.monotonic() + PATIENCE
    while "begun" not in job.output and time.monotonic() < deadline:
        time.sleep(0.02)
    if end == "stop":
        queue.stop(job.id)
        assert job.status == "stopping" and not job.is_over
        assert _wait(queue, job.id).status == "stopped"
    queue.close()
    assert job.is_over


def test_modules_of_the_working_directory_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = "open('imported', 'w').close()\nraise SystemExit(1)\n"
    for name in ("msgspec.py", "cyclopts.py", "json.py"):
        (tmp_path / name).write_text(planted)
    monkeypatch.chdir(tmp_path)
    queue = JobQueue()
    job = _wait(queue, queue.add("version", "", ["--version"], "truing --version").id)
    queue.close()
    assert job.status == "done", job.output
    assert not (tmp_path / "imported").exists()


def test_a_program_that_is_not_there_is_a_failed_job() -> None:
    queue = JobQueue(("/nowhere/at/all",))
    job = queue.add("nothing", "", [], "nothing")
    assert _wait(queue, job.id).status == "failed"
    queue.close()
