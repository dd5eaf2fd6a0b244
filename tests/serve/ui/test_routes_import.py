"""Logs of other tools become runs; only files of the folder, only new runs."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path

import pytest
from tests.serve.ui.pages import Visitor, open_pages, path_of

from truing.serve.ui.jobs import Job, JobQueue

RESULT = {
    "prompt": {"raw": "pears?"},
    "response": {"output": "plums"},
    "gradingResult": {"pass": True, "score": 1.0, "componentResults": []},
    "provider": {"id": "openai:m"},
}


def _write_logs(folder: Path) -> None:
    (folder / "logs").mkdir()
    content = {"results": {"version": 3, "results": [RESULT]}}
    (folder / "logs" / "results.json").write_text(json.dumps(content))
    with zipfile.ZipFile(folder / "logs" / "a.eval", "w") as log:
        log.writestr("header.json", json.dumps({"eval": {"model": "m"}}))
        answer = {"completion": "figs"}
        log.writestr(
            "samples/1_epoch_1.json", json.dumps({"id": 1, "input": "q", "output": answer})
        )


def _start(visitor: Visitor, **fields: str) -> Job:
    response = visitor.submit("/import", fields, page="/import")
    assert response.status_code == 303, response.text
    id_ = response.headers["location"].rpartition("/")[2]
    deadline = time.monotonic() + 120
    while not visitor.state.jobs.find(id_).is_over and time.monotonic() < deadline:
        time.sleep(0.05)
    return visitor.state.jobs.find(id_)


@pytest.mark.slow
def test_inspect_and_promptfoo_become_runs(tmp_path: Path) -> None:
    _write_logs(tmp_path)
    with open_pages(tmp_path) as visitor:
        for tool, file, name, word in (
            ("inspect", "logs/a.eval", "mine", "figs"),
            ("promptfoo", "logs/results.json", "", "plums"),
        ):
            job = _start(visitor, tool=tool, file=file, name=name)
            assert job.status == "done", job.output
            path = path_of(tmp_path, tmp_path / "imported" / (name or "results"))
            assert job.result == path
            assert word in visitor.text(f"{path}/rows")


def test_what_is_no_import(tmp_path: Path) -> None:
    _write_logs(tmp_path)
    (tmp_path / "imported" / "taken").mkdir(parents=True)
    outside = tmp_path.parent / "outside.eval"
    outside.touch()
    (tmp_path / "link.eval").symlink_to(outside)
    good = {"tool": "inspect", "file": "logs/a.eval", "name": "new"}
    with open_pages(tmp_path) as visitor:
        assert "logs/a.eval" in visitor.text("/import")
        for change in (
            {"tool": "other"},
            {"file": "logs/results.json"},
            {"file": "../outside.eval"},
            {"file": str(outside)},
            {"file": "link.eval"},
            {"name": "taken"},
            {"name": "../up"},
            {"name": ".hidden"},
            {"name": "a/b"},
            {"name": "x" * 90},
        ):
            response = visitor.submit("/import", good | change, page="/import")
            assert response.status_code in (404, 422), change
        assert visitor.state.jobs.newest() == []
        visitor.state.jobs = JobQueue(("/bin/echo",))
        job = _start(visitor, **good)
        assert (
            job.output == f"import inspect {tmp_path}/logs/a.eval --out {tmp_path}/imported/new\n"
        )
