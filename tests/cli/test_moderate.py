"""`truing moderate`: order, added fields, resuming, and the faults of the input."""

from __future__ import annotations

import codecs
import csv
import datetime
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command_line import run_truing, truing

from truing.bulk.row_files import read_conversation
from truing.cli import main
from truing.cli.moderate import command
from truing.cli.moderate_rows import RowFlags
from truing.core.errors import DataError, RunError, UserError

ROWS: list[dict[str, Any]] = [
    {"id": "c", "prompt": "How?", "response": "You steal it."},
    {
        "id": "a",
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}],
        "extra": [1],
    },
    {"id": "b", "text": "go and murder time"},
    {"id": "d", "prompt": "How do I steal?"},
    {"id": "e", "prompt": "How?", "response": ""},
]


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", ROWS)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_rows_keep_their_order_and_gain_five_fields(
    source: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(judge="keywords:", in_=source, out=out, json=True) == 0
    with_response, with_messages, with_text, with_prompt, empty = read_rows(out)
    assert [row["id"] for row in read_rows(out)] == ["c", "a", "b", "d", "e"]
    assert with_response["flagged_categories"] == ["financial_crime,property_crime,theft"]
    assert with_messages["extra"] == [1]
    assert with_messages["flagged"] is False
    assert with_messages["harmful"] is None  # a rule has no probability
    assert with_text["flagged"] is True
    assert with_prompt["flagged"] is True
    assert empty["flagged"] is None
    assert empty["failure"]["kind"] == "empty"
    assert empty["flagged_categories"] == []
    counts = json.loads(capsys.readouterr().out)
    assert (counts["rows"], counts["flagged"], counts["unscored"]) == (5, 3, 1)


@pytest.mark.parametrize("chunk_size", [1, 2, 256])
def test_the_size_of_the_chunks_changes_nothing(
    source: Path, out: Path, chunk_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truing.bulk.row_judgements.CHUNK_SIZE", chunk_size)
    command(judge="keywords:", in_=source, out=out)
    assert [row["flagged"] for row in read_rows(out)] == [True, False, True, True, None]


def test_resumes_after_a_kill_and_drops_the_torn_line(
    source: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(judge="keywords:", in_=source, out=out)
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:2]) + lines[2][:9])
    capsys.readouterr()
    command(judge="keywords:", in_=source, out=out, json=True)
    assert out.read_bytes() == whole
    assert json.loads(capsys.readouterr().out)["resumed_at"] == 2


def test_an_output_of_another_judge_or_command_is_refused(
    source: Path, out: Path, tmp_path: Path
) -> None:
    command(judge="keywords:", in_=source, out=out)
    words = tmp_path / "words.txt"
    words.write_text("banana\n")
    with pytest.raises(RunError, match="another judge"):
        command(judge=f"keywords:{words}", in_=source, out=out)
    unrelated = write_rows(tmp_path / "unrelated.jsonl", [{"a": 1}])
    with pytest.raises(RunError, match="no unfinished output"):
        command(judge="keywords:", in_=source, out=unrelated)
    with pytest.raises(UserError, match="is also the input"):
        command(judge="keywords:", in_=source, out=source)


def test_a_name_collision_needs_a_prefix(tmp_path: Path, out: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "fine", "flagged": "by hand"}])
    with pytest.raises(DataError, match=r"in\.jsonl:1.*'flagged'.*--prefix"):
        command(judge="keywords:", in_=source, out=out)
    command(judge="keywords:", in_=source, out=out, prefix="k_")
    (row,) = read_rows(out)
    assert row["flagged"] == "by hand"
    assert row["k_flagged"] is False


def test_all_faults_of_the_input_are_reported_before_any_output(tmp_path: Path, out: Path) -> None:
    source = tmp_path / "in.jsonl"
    bad_lines = [
        b'{"text": 7}',
        b"[1]",
        b'{"text": "\xff"}',
        b'{"other": "x"}',
        b'{"messages": [{"role": "x"}]}',
    ]
    source.write_bytes(b'{"text": "fine"}\n' + b"\n".join(bad_lines) + b"\n")
    with pytest.raises(DataError) as caught:
        command(judge="keywords:", in_=source, out=out)
    assert [fault.split(":")[1] for fault in caught.value.faults] == ["2", "3", "4", "5", "6"]
    assert not out.exists()
    with pytest.raises(DataError, match="No such file"):
        command(judge="keywords:", in_=tmp_path / "none.jsonl", out=out)


def test_reads_standard_input(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class StandardInput:
        buffer = io.BytesIO(b'{"text": "steal"}\n{"text": "share"}\n')

    monkeypatch.setattr(sys, "stdin", StandardInput())
    assert command(judge="keywords:", in_=Path("-"), out=out) == 0
    assert [row["flagged"] for row in read_rows(out)] == [True, False]


@pytest.mark.parametrize(
    ("fields", "prompt", "response"),
    [
        ({"prompt": "p", "response": "r"}, "p", "r"),
        ({"prompt": "p"}, "p", None),
        ({"response": "r"}, "", "r"),
        ({"text": "t"}, "", "t"),
        ({"text": "t", "prompt": "p"}, "p", None),
        ({"messages": [{"role": "user", "content": "p"}]}, "p", None),
        ({"messages": [{"role": "user", "content": "p"}], "response": "r"}, "p", "r"),
    ],
)
def test_what_is_judged(fields: dict[str, Any], prompt: str, response: str | None) -> None:
    conversation, judged_response = read_conversation(fields)
    assert "".join(m.content for m in conversation.messages) == prompt
    assert (judged_response.content if judged_response else None) == response


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_every_message_of_a_prompt_is_judged(tmp_path: Path, out: Path, role: str) -> None:
    bad, good = {"role": role, "content": "steal"}, {"role": "user", "content": "share"}
    call = {"function": {"name": "run", "arguments": '{"a": "steal"}'}}
    rows = [
        {"messages": [bad, good]},
        {"messages": [good]},
        {"messages": [good, {"role": "assistant", "content": "", "tool_calls": [call]}]},
    ]
    source = write_rows(tmp_path / "in.jsonl", rows)
    assert command(judge="keywords:", in_=source, out=out) == 0
    assert [row["flagged"] for row in read_rows(out)] == [True, False, True]


def test_a_flagged_row_has_a_category_or_is_uncategorised(tmp_path: Path, out: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("FORBIDDEN\nself_harm: HURT\n")
    rows = [{"text": "FORBIDDEN"}, {"text": "HURT"}, {"text": "fine"}, {"text": " "}]
    source = write_rows(tmp_path / "in.jsonl", rows)
    assert command(judge=f"keywords:{words}", in_=source, out=out) == 0
    added = [(r["flagged"], r["flagged_categories"], r["uncategorised"]) for r in read_rows(out)]
    assert added == [
        (True, [], True),
        (True, ["self_harm"], False),
        (False, [], False),
        (None, [], False),
    ]


TABLE = 'id,prompt,response,note\r\n1,How?,"You steal\r\nit, ""now"".",x\r\n2,Hi,Hello.,\r\n'


def read_table(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream, delimiter=delimiter))


@pytest.mark.parametrize(
    ("name", "delimiter", "encoding"),
    [
        ("a.csv", ",", "utf-8"),
        ("a.csv", ",", "utf-8-sig"),
        ("a.csv", ";", "utf-16"),
        ("a.csv", "\t", "utf-16"),
        ("a.tsv", "\t", "utf-8"),
    ],
)
def test_a_table_stays_a_table(tmp_path: Path, name: str, delimiter: str, encoding: str) -> None:
    text = TABLE if delimiter == "," else TABLE.replace(",", delimiter)
    source, out = tmp_path / name, tmp_path / f"out{Path(name).suffix}"
    source.write_bytes(text.encode(encoding))
    assert command(judge="keywords:", in_=source, out=out) == 0
    first, second = read_table(out, delimiter)
    assert list(first)[:5] == ["id", "prompt", "response", "note", "harmful"]
    assert first["response"] == f'You steal\r\nit{delimiter} "now".'
    assert (first["flagged"], second["flagged"]) == ("true", "false")
    assert json.loads(first["flagged_categories"]) == ["financial_crime,property_crime,theft"]
    assert second["harmful"] == second["failure"] == second["note"] == ""
    assert out.read_bytes().startswith(codecs.BOM_UTF8) == (encoding != "utf-8")


def test_a_table_resumes_where_its_last_whole_row_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(TABLE, newline="")
    command(judge="keywords:", in_=source, out=out)
    whole = out.read_bytes()
    # In the header, inside of the quotes, in the second row, and after it.
    for end in (4, whole.index(b"it, "), whole.index(b"Hello") + 2, len(whole)):
        out.write_bytes(whole[:end])
        capsys.readouterr()
        command(judge="keywords:", in_=source, out=out, json=True)
        assert out.read_bytes() == whole, end
    assert json.loads(capsys.readouterr().out)["resumed_at"] == 2


def test_a_table_streams_behind_what_the_output_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StandardStream:
        def __init__(self, stream: Any) -> None:
            self.buffer = stream

    written = tmp_path / "written.csv"
    with written.open("wb") as stream:
        stream.write(b"of another command\n")
        monkeypatch.setattr(sys, "stdin", StandardStream(io.BytesIO(b"text\nsteal\n")))
        monkeypatch.setattr(sys, "stdout", StandardStream(stream))
        command(judge="keywords:", in_=Path("-"), out=Path("-"), rows=RowFlags("csv"))
    first, header, row = written.read_text().splitlines()
    assert (first, header.split(",")[:3]) == (
        "of another command",
        ["text", "harmful", "flagged"],
    )
    assert row.startswith("steal,,true,")


def test_columns_are_named_by_flags(tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("Question,Reply\nHow?,steal\n")
    with pytest.raises(DataError, match=r"in\.csv:1: no column prompt.*Question, Reply") as caught:
        command(judge="keywords:", in_=source, out=out)
    assert len(caught.value.faults) == 1
    with pytest.raises(DataError, match="--response: no column 'Repli'; did you mean 'Reply'"):
        command(judge="keywords:", in_=source, out=out, rows=RowFlags(response="Repli"))
    columns = RowFlags(prompt="Question", response="Reply")
    command(judge="keywords:", in_=source, out=out, rows=columns)
    assert read_table(out)[0]["flagged"] == "true"


def test_malformed_rows_are_errors_or_skipped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b"text,n\nsteal,1\nshort\n\xff,2\nshare,3\n")
    with pytest.raises(DataError) as caught:
        command(judge="keywords:", in_=source, out=out)
    assert [fault.split(":")[1] for fault in caught.value.faults] == ["3", "4"]
    assert not out.exists()
    capsys.readouterr()
    command(judge="keywords:", in_=source, out=out, rows=RowFlags(skip_malformed=True), json=True)
    counts = json.loads(capsys.readouterr().out)
    assert (counts["rows"], counts["skipped"]) == (2, 2)
    assert [row["n"] for row in read_table(out)] == ["1", "3"]


def test_what_hides_the_rest_of_a_table_is_never_skipped(tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('text,n\n"steal,1\nshare,2\n')
    with pytest.raises(DataError, match=r"in\.csv:2: not CSV"):
        command(judge="keywords:", in_=source, out=out, rows=RowFlags(skip_malformed=True))
    source.write_text("text,flagged\na,b\n")
    with pytest.raises(DataError, match=r"in\.csv:1: .*'flagged'; give --prefix"):
        command(judge="keywords:", in_=source, out=out, rows=RowFlags(skip_malformed=True))
    assert not out.exists()


def test_a_table_with_another_ending_is_one_error(tmp_path: Path, out: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("text\n" + "steal\n" * 50)
    with pytest.raises(DataError, match="--format csv") as caught:
        command(judge="keywords:", in_=source, out=out)
    assert len(caught.value.faults) == 1
    assert command(judge="keywords:", in_=source, out=tmp_path / "o", rows=RowFlags("csv")) == 0
    with pytest.raises(UserError, match="format of the input, csv"):
        command(judge="keywords:", in_=source, out=out, rows=RowFlags("csv"))
    with pytest.raises(UserError, match=r"\.xlsx is not read"):
        command(judge="keywords:", in_=tmp_path / "a.xlsx", out=out)


def test_a_dash_is_standard_input_and_output(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b'{"text": "a bird"}\n'))
    monkeypatch.setattr(sys, "stdin", stdin)
    words = ["truing", "moderate", "--judge", "keywords:", "--in", "-", "--out", "-"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert json.loads(capsysbinary.readouterr().out)["flagged"] is False


def test_parquet_is_read_and_json_lines_are_written(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    source, out = tmp_path / "rows.parquet", tmp_path / "judged.jsonl"
    table = pa.table(
        {
            "question": ["Hi", "Bye", "Why"],
            "reply": ["Hello", "a FORBIDDEN word", None],
            "at": [datetime.date(2026, 11, 29)] * 3,
        }
    )
    parquet.write_table(table, source)
    (tmp_path / "words.txt").write_text("FORBIDDEN\n")
    command = f"moderate --judge keywords:{tmp_path / 'words.txt'} --in {source} --out {out}"
    missing = truing(command)
    assert missing.status == 1 and "no column prompt, response, text" in missing.err
    assert "columns: question, reply, at" in missing.err

    run_truing(f"{command} --prompt question --response reply")
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["flagged"] for row in rows[:2]] == [False, True]
    assert [row["at"] for row in rows] == ["2026-11-29"] * 3

    # As after a crash in the middle of a line.
    whole = out.read_bytes()
    out.write_bytes(whole[:-20])
    run_truing(f"{command} --prompt question --response reply")
    assert out.read_bytes() == whole


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--in - --format parquet --out x.jsonl", "cannot be read from standard input"),
        ("--in {rows} --out x.csv --text text", "the format of the input, jsonl"),
        ("--in {rows} --out x.jsonl --text text", "not Parquet"),
        ("--in {sheet} --out x.jsonl --text text", "CSV, TSV or Parquet"),
    ],
)
def test_parquet_that_cannot_be_read_is_one_error(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.parquet").write_text("text\nno table\n")
    Path("sheet.xlsx").write_text("")
    flags = words.format(rows="rows.parquet", sheet="sheet.xlsx")
    result = truing(f"moderate --judge keywords: {flags}")
    assert result.status == 1 and message in result.err
