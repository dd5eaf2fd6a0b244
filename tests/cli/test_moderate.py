"""`truing moderate`: order kept, fields added, resumed where it stopped; every fault of the input named at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from truing.cli.moderate import command
from truing.core.errors import DataError, RunError, UserError


def _write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


ROWS: list[dict[str, Any]] = [
    {"id": "c", "prompt": "How?", "response": "You steal it."},
    {
        "id": "a",
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}],
        "more": [1],
    },
    {"id": "b", "text": "go and murder time"},
    {"id": "d", "prompt": "How do I steal?"},
    {"id": "e", "prompt": "How?", "response": ""},
]


def test_rows_keep_their_order_and_gain_five_fields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _write(tmp_path / "in.jsonl", ROWS)
    assert command(judge="keywords:", in_=source, out=tmp_path / "out.jsonl", json=True) == 0
    made = _read(tmp_path / "out.jsonl")
    assert [r["id"] for r in made] == ["c", "a", "b", "d", "e"]
    assert made[1]["more"] == [1] and made[1]["flagged"] is False and made[1]["harmful"] is None
    assert made[0]["flagged_categories"] == ["financial_crime,property_crime,theft"]
    assert made[2]["flagged"] is True and made[3]["flagged"] is True
    assert (
        made[4]["flagged"] is None
        and made[4]["failure"]["kind"] == "empty"
        and made[4]["flagged_categories"] == []
    )
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["flagged"], told["unscored"]) == (5, 3, 1)


def test_goes_on_after_a_kill_and_drops_the_torn_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = _write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    command(judge="keywords:", in_=source, out=out)
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:2]) + lines[2][:9])
    capsys.readouterr()
    command(judge="keywords:", in_=source, out=out, json=True)
    assert out.read_bytes() == whole
    assert json.loads(capsys.readouterr().out)["resumed_at"] == 2


def test_another_judge_or_a_strange_output_is_refused(tmp_path: Path) -> None:
    source, out = _write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    command(judge="keywords:", in_=source, out=out)
    words = tmp_path / "words.txt"
    words.write_text("banana\n")
    with pytest.raises(RunError, match="another judge"):
        command(judge=f"keywords:{words}", in_=source, out=out)
    strange = _write(tmp_path / "mine.jsonl", [{"a": 1}])
    with pytest.raises(RunError, match="no unfinished output"):
        command(judge="keywords:", in_=source, out=strange)
    with pytest.raises(UserError, match="is also the input"):
        command(judge="keywords:", in_=source, out=source)


def test_collisions_unless_prefixed(tmp_path: Path) -> None:
    source = _write(tmp_path / "in.jsonl", [{"text": "fine", "flagged": "mine"}])
    with pytest.raises(DataError, match=r"in\.jsonl:1.*'flagged'.*--prefix"):
        command(judge="keywords:", in_=source, out=tmp_path / "out.jsonl")
    command(judge="keywords:", in_=source, out=tmp_path / "out.jsonl", prefix="k_")
    (row,) = _read(tmp_path / "out.jsonl")
    assert row["flagged"] == "mine" and row["k_flagged"] is False


def test_faults_of_the_input_come_together_and_before_any_output(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    bad = [
        b'{"text": 7}',
        b"[1]",
        b'{"text": "\xff"}',
        b'{"other": "x"}',
        b'{"messages": [{"role": "x"}]}',
    ]
    source.write_bytes(b'{"text": "fine"}\n' + b"\n".join(bad) + b"\n")
    with pytest.raises(DataError) as caught:
        command(judge="keywords:", in_=source, out=out)
    assert len(caught.value.faults) == 5
    assert [f.split(":")[1] for f in caught.value.faults] == ["2", "3", "4", "5", "6"]
    assert not out.exists()
    with pytest.raises(DataError, match="No such file"):
        command(judge="keywords:", in_=tmp_path / "none.jsonl", out=out)


def test_streams_from_standard_input(
    tmp_path: Path, capfdbinary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import sys

    class Pipe:
        buffer = io.BytesIO(b'{"text": "steal"}\n{"text": "share"}\n')

    monkeypatch.setattr(sys, "stdin", Pipe())
    assert command(judge="keywords:", in_=Path("-"), out=tmp_path / "out.jsonl") == 0
    assert [r["flagged"] for r in _read(tmp_path / "out.jsonl")] == [True, False]
