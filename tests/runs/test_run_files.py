"""The files that a received run folder names are plain files inside it, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.run_folders import build_run

from truing.core.errors import RunError
from truing.core.types import Conversation, Judgement, Sample
from truing.runs.folder import Run, RunWriter, judgement_file
from truing.runs.parts import read_run_records
from truing.runs.run_files import delete_run_file, is_judgement_file, locate_run_file, open_run_file

SAMPLES = [Sample(id="s0", conversation=Conversation.of("a question"))]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "/etc/passwd",
        "a/../../x",
        "a\\b",
        "a\nb",
        "a\0b",
        "\x1b]52;x",
        "x" * 999,
    ],
)
def test_names_that_lead_out_of_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no file inside this folder"):
        locate_run_file(tmp_path, name)


@given(st.text(max_size=40))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    folder = Path("/nowhere/run")
    try:
        path = locate_run_file(folder, name)
    except RunError:
        return
    assert Path(os.path.normpath(path)).is_relative_to(folder)
    assert Path(os.path.normpath(path)) != folder


def test_links_pipes_and_folders_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.jsonl").write_text("{}\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "link.jsonl").symlink_to(outside / "x.jsonl")
    (run / "dangling.jsonl").symlink_to(outside / "not-there")
    (run / "linked").symlink_to(outside)
    (run / "device.jsonl").symlink_to("/dev/zero")
    os.mkfifo(run / "pipe.jsonl")
    (run / "folder.jsonl").mkdir()
    for name in ("link", "dangling", "linked/x", "device", "pipe", "folder"):
        for access in (locate_run_file, delete_run_file, open_run_file):
            with pytest.raises(RunError, match=r"plain files inside it"):
                access(run, f"{name}.jsonl")
        with pytest.raises(RunError, match=r"plain files inside it"):
            list(read_run_records(run, f"{name}.jsonl", Judgement))
    assert (outside / "x.jsonl").read_text() == "{}\n"
    assert not (outside / "not-there").exists()


def test_a_file_that_does_not_exist_has_no_records(tmp_path: Path) -> None:
    assert list(read_run_records(tmp_path, "judgements/x.jsonl", Judgement)) == []
    delete_run_file(tmp_path, "judgements/x.jsonl")


@pytest.mark.parametrize(
    "file",
    [
        "../../precious.txt",
        "/etc/passwd",
        "samples.jsonl",
        "manifest.json",
        "judgements/../samples.jsonl",
        "judgements/.jsonl",
        "judgements/x.txt",
        "labels/labels.jsonl",
    ],
)
def test_manifest_that_names_other_files(file: str, tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", SAMPLES, {"harmful@human:review": [[True]]})
    fields = msgspec.json.decode((folder / "manifest.json").read_bytes())
    fields["judges"][0]["file"] = file
    (folder / "manifest.json").write_bytes(msgspec.json.encode(fields))
    for open_run in (lambda: Run(folder).manifest, lambda: RunWriter(folder, Run(folder).manifest)):
        with pytest.raises(RunError, match=r"manifest\.json: judges\[0\]\.file"):
            open_run()


def test_manifest_whose_judges_share_a_file(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", SAMPLES, {"harmful": [[True]], "refused": [[False]]})
    fields = msgspec.json.decode((folder / "manifest.json").read_bytes())
    fields["judges"][0]["file"] = fields["judges"][1]["file"]
    (folder / "manifest.json").write_bytes(msgspec.json.encode(fields))
    with pytest.raises(RunError, match="two judges name the same file"):
        _ = Run(folder).manifest


@given(st.text(max_size=30), st.text(max_size=12))
def test_every_judge_has_a_file_that_a_manifest_may_name(name: str, hash_: str) -> None:
    assert is_judgement_file(judgement_file(name, hash_))


def test_writing_into_a_folder_with_links(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine\n")
    folder = build_run(tmp_path / "run", SAMPLES, {"harmful": [[True]]})
    for name in ("summary.json", "manifest.json.tmp", "extra.jsonl", "lock"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(precious)
    with pytest.raises(RunError, match="lock: is a link"):
        RunWriter(folder, Run(folder).manifest)
    (folder / "lock").unlink()
    writer = RunWriter(folder, Run(folder).manifest)
    for write in (
        lambda: writer.replace("summary.json", b"{}"),
        lambda: writer.append("extra.jsonl", SAMPLES[0]),
        lambda: writer.delete("summary.json"),
    ):
        with pytest.raises(RunError, match="is a link"):
            write()
    writer.save_manifest()
    writer.close()
    assert precious.read_text() == "mine\n"
