"""The list of runs: states, figures, a folder that is too large, a run that is being written."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.serve.ui.pages import open_pages, path_of, write_run, write_small_run

from truing.runs.folder import Run, RunWriter
from truing.serve.ui.run_scan import ScanLimits


def test_states_and_figures(tmp_path: Path) -> None:
    write_small_run(tmp_path / "plan" / "good" / "data")
    write_small_run(tmp_path / "stopped", complete=False)
    for name, manifest in (
        ("damaged", "{ no json"),
        ("newer", json.dumps({"judges": "otherwise", "versions": {"truing": "9.1"}})),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(manifest)
    with open_pages(tmp_path) as visitor:
        page = visitor.text("/")
        assert "4 runs" in page
        for state in ("finished", "stopped at 4 answers", "damaged", "other version"):
            assert state in page
        assert "written by truing 9.1" in page
        assert "1 of 3" in page  # harmful, of the answers that were scored
        for name in ("damaged", "newer"):
            path = path_of(tmp_path, tmp_path / name)
            assert visitor.get(path).status_code == 200
            assert visitor.get(f"{path}/rows").status_code == 422
        assert "stopped" not in visitor.text("/?q=GOOD")


def test_a_running_run_and_its_progress(tmp_path: Path) -> None:
    path = write_small_run(tmp_path / "run", complete=False)
    writer = RunWriter(path, Run(path).manifest)
    with open_pages(tmp_path) as visitor:
        page = visitor.text("/")
        assert "status-running" in page and "4 of 4" in page
        assert 'data-refresh="2"' in page
        assert "plums" in visitor.text(f"{path_of(tmp_path, path)}/rows")
        assert "Judged so far" in visitor.text(path_of(tmp_path, path))
        writer.close()
        assert "status-running" not in visitor.text("/")


def test_a_folder_of_very_many_files_is_cut_and_says_so(tmp_path: Path) -> None:
    write_small_run(tmp_path / "a" / "run")
    (tmp_path / "many").mkdir()
    for number in range(300):
        (tmp_path / "many" / f"file-{number}").touch()
    limits = ScanLimits(entries=250, entries_of_folder=200)
    with open_pages(tmp_path, scan=limits) as visitor:
        page = visitor.text("/")
        assert "only the first 200 entries" in page
        assert "a/run" in page


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with open_pages(tmp_path) as visitor:
        assert "truing run --model" in visitor.text("/")
        assert visitor.get("/runs/ffffffffffff").status_code == 404
        assert visitor.get("/runs/..%2f..%2fetc").status_code == 404


def test_why_a_figure_is_struck_stands_below_the_table(tmp_path: Path) -> None:
    answers = [f"plums {number}" for number in range(8)]
    run = write_run(tmp_path / "a", answers, [[True, True, False]] * 8)
    manifest = json.loads((run / "manifest.json").read_bytes())
    for record in manifest["judges"][:2]:
        record["struck"] = "m was chosen by <one>"
    (run / "manifest.json").write_text(json.dumps(manifest))
    with open_pages(tmp_path) as visitor:
        for page in ("/", path_of(tmp_path, run)):
            text = visitor.text(page)
            reasons = re.findall(r"<li>struck: ([^<]+)</li>", text)
            assert reasons == ["m was chosen by &lt;one&gt;"]  # once, for the figures of two judges
            assert "</s><sup>1</sup>" in text


def test_a_form_that_is_refused_leads_back_to_its_page(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "a")
    with open_pages(tmp_path) as visitor:
        path = path_of(tmp_path, run)
        refused = visitor.submit(f"{path}/judge", {"judge": "keywords:a,b"}, page=path)
        assert refused.status_code == 422 and f'href="{path}">Back</a>' in refused.text
        assert ">Back</a>" not in visitor.get("/runs/nothing/rows").text
