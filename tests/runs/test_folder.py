"""The run folder: incomplete lines, sorting, failed writes, reading, and the manifest."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import RunError
from truing.core.types import Judgement, Message, Response
from truing.runs.append_only_file import AppendOnlyFile, truncate_partial_line
from truing.runs.folder import Manifest, Run, RunWriter, judgement_file, replace_surrogates
from truing.runs.index import LineSpans


@given(
    st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b" ")), max_size=6),
    st.binary(max_size=70000),
)
def test_truncates_only_an_incomplete_last_line(lines: list[bytes], tail: bytes) -> None:
    tail = tail.replace(b"\n", b" ")
    complete = b"".join(line + b"\n" for line in lines)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jsonl"
        path.write_bytes(complete + tail)
        assert truncate_partial_line(path) == len(tail)
        assert path.read_bytes() == complete


def test_lines_are_sorted_and_removed_ones_dropped(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", Manifest(plan_hash="x"))
    spans = LineSpans(4)
    for key in (2, 0, 3):
        line = f'{{"k":{key}}}\n'.encode()
        spans.add(key, writer.open_file("responses.jsonl").append(line), len(line))
    assert not spans.ordered
    spans.remove(3)
    assert writer.rewrite_in_order("responses.jsonl", spans)
    assert (writer.path / "responses.jsonl").read_bytes() == b'{"k":0}\n{"k":2}\n'
    ordered = LineSpans(4)
    ordered.add(0, 0, 8)
    ordered.add(2, 8, 8)
    assert not writer.rewrite_in_order("responses.jsonl", ordered)
    assert not ordered.add(2, 16, 8)
    writer.close()
    writer.close()


def test_failed_append_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendOnlyFile(tmp_path / "x.jsonl")
    file.append(b"one\n")
    real_write = os.write
    calls = []

    def write(fd: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) == 1:
            return int(real_write(fd, data[:3]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("truing.runs.folder.os.write", write)
    with pytest.raises(RunError, match=r"x\.jsonl: the disk is full"):
        file.append(b"second line\n")
    assert (tmp_path / "x.jsonl").read_bytes() == b"one\n"
    monkeypatch.setattr("truing.runs.folder.os.write", lambda fd, data: real_write(fd, data[:2]))
    assert file.append(b"third\n") == 4
    assert (tmp_path / "x.jsonl").read_bytes() == b"one\nthird\n"
    file.close()
    file.close()


def test_reading_stops_before_an_incomplete_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder"):
        Run(tmp_path)
    writer = RunWriter(tmp_path / "run", Manifest(plan_hash="x"))
    response = Response(sample_id="a", message=Message("assistant", "caf\u00e9 \ud800"))
    writer.append("responses.jsonl", response)
    writer.append("judgements/j-00000000.jsonl", Judgement(sample_id="a", judge="j", question="q"))
    with (writer.path / "responses.jsonl").open("ab") as stream:
        stream.write(b'{"sample_id":"b"')
    run = Run(writer.path)
    assert [r.text for r in run.responses()] == ["café ?"]
    assert list(run.judgements()) == []
    with (writer.path / "responses.jsonl").open("ab") as stream:
        stream.write(b"}\n")
    with pytest.raises(
        RunError, match=r"responses\.jsonl:2: Object missing required field `message`"
    ):
        list(run.responses())
    writer.close()


def test_judgement_file_names() -> None:
    name = judgement_file("llm:harm,model=(openai:X)", "0123456789abcdef")
    assert name == "judgements/llm-harm-model-openai-x-01234567.jsonl"
    assert judgement_file("%%", "") == "judgements/judge-00000000.jsonl"


def test_writer_saves_its_manifest_and_refuses_another_plan(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", Manifest(plan={"seed": 0}, plan_hash="x"))
    assert writer.is_new
    writer.manifest.notes["k"] = "v"
    assert Run(writer.path).manifest.notes == {}
    writer.save_manifest()
    assert Run(writer.path).manifest.notes == {"k": "v"}
    writer.close()
    again = RunWriter(tmp_path / "run", Manifest(plan={"seed": 0}, plan_hash="x"))
    assert not again.is_new
    assert again.manifest.notes == {"k": "v"}
    again.close()
    with pytest.raises(RunError, match=r"another plan \(seed: 0, not 1\)"):
        RunWriter(tmp_path / "run", Manifest(plan={"seed": 1}, plan_hash="y"))
    assert (tmp_path / "run" / "manifest.json").stat().st_mode & 0o777 == 0o600


def test_discard_removes_a_new_folder(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", Manifest(plan_hash="x"))
    writer.open_file("samples.jsonl.part").append(b"{}\n")
    writer.discard()
    assert not (tmp_path / "run").exists()


def test_replace_surrogates_keeps_the_structure() -> None:
    value = {"a\ud800": ["x", ("\udfff", 3)], "b": None}
    assert replace_surrogates(value) == {"a?": ["x", ["?", 3]], "b": None}


def test_a_run_shows_its_folder_and_what_it_holds(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", Manifest(model="scripted:comply", plan_hash="x"))
    writer.close()
    run = Run(writer.path)
    assert repr(run) == f"<run {run.path}: scripted:comply on no data, not complete>"
    (writer.path / "manifest.json").unlink()
    assert repr(run) == f"<run {run.path}: cannot be read>"
