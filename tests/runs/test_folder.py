"""The run folder by itself: torn lines, order, mending, and the compact index."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import RunError
from truing.core.types import Conversation, Judgement, Message, Response, Sample
from truing.runs.folder import (
    AppendOnlyFile,
    Manifest,
    Run,
    RunWriter,
    encode_line,
    judgement_file,
    truncate_partial_line,
)
from truing.runs.index import IdIndex, LineSpans, SampleStore


@given(
    st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b" ")), max_size=6),
    st.binary(max_size=70000),
)
def test_only_a_torn_last_line_is_cut(lines: list[bytes], tail: bytes) -> None:
    import tempfile

    tail = tail.replace(b"\n", b" ")
    whole = b"".join(line + b"\n" for line in lines)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jsonl"
        path.write_bytes(whole + tail)
        assert truncate_partial_line(path) == len(tail)
        assert path.read_bytes() == whole


@given(st.lists(st.text(max_size=8), unique=True, max_size=3000))
def test_the_index_knows_what_a_dict_knows(ids: list[str]) -> None:
    index, plain = IdIndex(), {}
    for at, id_ in enumerate(ids):
        assert index.add(id_, at)
        plain[id_] = at
    assert len(index) == len(plain)
    assert all(index.get(i) == at for i, at in plain.items())
    assert index.get("another id altogether") is None
    if ids:
        assert not index.add(ids[0], 99)
        assert index.get(ids[0]) == 0


def test_the_index_is_compact() -> None:
    index = IdIndex()
    for i in range(100_000):
        index.add(f"sample-{i}", i)
    assert index.get("sample-77777") == 77_777
    assert index._size * 12 <= 3_200_000


def test_lines_are_put_in_order_and_strays_dropped(tmp_path: Path) -> None:
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


def test_a_journal_takes_back_what_it_could_not_write_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = AppendOnlyFile(tmp_path / "x.jsonl")
    journal.append(b"one\n")
    real = __import__("os").write
    calls = []

    def write(fd: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) == 1:
            return int(real(fd, data[:3]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("truing.runs.folder.os.write", write)
    with pytest.raises(RunError, match=r"x\.jsonl: the disk is full"):
        journal.append(b"second line\n")
    assert (tmp_path / "x.jsonl").read_bytes() == b"one\n"
    monkeypatch.setattr("truing.runs.folder.os.write", lambda fd, data: real(fd, data[:2]))
    assert journal.append(b"third\n") == 4
    assert (tmp_path / "x.jsonl").read_bytes() == b"one\nthird\n"
    journal.close()
    journal.close()


def test_reading_a_folder(tmp_path: Path) -> None:
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


def test_samples_by_position(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    samples = [Sample(id=f"s{i}", conversation=Conversation.of("x" * i)) for i in range(20)]
    path.write_bytes(b"".join(map(encode_line, samples)))
    store = SampleStore(path)
    assert len(store) == 20
    assert store.read(13) == samples[13]
    assert store.ids.get("s7") == 7
    store.close()
    path.write_bytes(encode_line(samples[0]) * 2)
    with pytest.raises(RunError, match="occurs more than once"):
        SampleStore(path)


def test_judgement_files() -> None:
    name = judgement_file("llm:harm,model=(openai:X)", "0123456789abcdef")
    assert name == "judgements/llm-harm-model-openai-x-01234567.jsonl"
    assert judgement_file("%%", "") == "judgements/judge-00000000.jsonl"
