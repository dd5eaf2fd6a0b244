"""Pages of rows: filters, search, several runs side by side, links to a row, damage, deletion."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import pytest
from msgspec import structs
from tests.serve.ui.pages import open_pages, path_of, write_run, write_small_run

from truing.core.episodes import AgentTurn, CallRecord, Episode
from truing.core.types import Response

ROW = re.compile(r"Row (\d+)</a>")


QUERIES: dict[str, list[int]] = {
    "": [1, 2, 3, 4],
    "outcome=harmful": [1],
    "outcome=refused": [3],
    "outcome=unscored": [4],
    "disagrees=1": [2],
    "unscored=1": [4],
    "category=privacy": [2],
    "judge=1&verdict=yes": [1, 2],
    "judge=0&verdict=unscored": [4],
    "words=plums": [1, 2],
    "words=PLUMS+pears": [1],
    "words=%22and+plums%22": [1],
    "words=%22plums+and%22": [],
    "words=number2": [3],
    "words=reason3": [4],
    "words=plu": [],
    "words=plu*": [1, 2],
    "words=%22and+pl%22*": [],
    "words=好吃": [4],
    "words=apples": [1, 2, 3, 4],
    "words=*+OR+%22": [],
    "words=plums&outcome=harmful": [1],
    "page=99999": [1, 2, 3, 4],
    "judge=77&outcome=nonsense&verdict=maybe&page=-1&beside=../..": [1, 2, 3, 4],
}


def test_filters_and_search(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run", categories=["", "privacy", "", ""])
    with open_pages(tmp_path) as visitor:
        shown = {
            query: [
                int(n) for n in ROW.findall(visitor.text(f"{path_of(tmp_path, run)}/rows?{query}"))
            ]
            for query in QUERIES
        }
    assert shown == QUERIES


def test_texts_are_escaped_and_hidden_until_asked_for(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    with open_pages(tmp_path) as visitor:
        for path in ("rows", "row?sample=s1"):
            page = visitor.text(f"{path_of(tmp_path, run)}/{path}")
            assert "<script>alert" not in page
            assert "&lt;script&gt;alert" in page
            assert "texts-hidden" in page
            assert "because of reason1 by two" in page


def test_texts_of_builtin_data_are_shown(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run", data="builtin:safety")
    with open_pages(tmp_path) as visitor:
        assert "texts-hidden" not in visitor.text(f"{path_of(tmp_path, run)}/rows")


def test_runs_side_by_side_and_what_flipped(tmp_path: Path) -> None:
    base = write_small_run(tmp_path / "plan" / "base" / "data")
    other = write_run(
        tmp_path / "plan" / "other" / "data",
        ["grapes", "plums", "no thanks"],
        [[False, False, False], [False, True, False], [False, False, True]],
    )
    with open_pages(tmp_path) as visitor:
        path, beside = path_of(tmp_path, base), path_of(tmp_path, other).rpartition("/")[2]
        assert f"beside={beside}" in visitor.text(path)  # variants of one plan
        page = visitor.text(f"{path}/rows?beside={beside}")
        assert page.count('class="answer') == 7 + 4  # answers and their lists
        flips = visitor.text(f"{path}/rows?beside={beside}&flips=1")
        assert ROW.findall(flips) == ["1"]
        assert "differs" in flips
        # Words of any of the answers side by side count.
        assert ROW.findall(visitor.text(f"{path}/rows?beside={beside}&words=grapes")) == ["1"]
        row = visitor.text(f"{path}/row?sample=s0&beside={beside}&flips=1")
        assert "grapes" in row and "pears" in row
        shutil.rmtree(other)  # while the page is open
        assert "pears" in visitor.text(f"{path}/row?sample=s0&beside={beside}")


def test_a_link_to_a_row_knows_its_neighbours(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    with open_pages(tmp_path) as visitor:
        path = path_of(tmp_path, run)
        page = visitor.text(f"{path}/row?sample=s1&words=plums")
        assert "2 of 2 shown" in page
        assert "sample=s0" in page and "data-next" not in page
        assert visitor.get(f"{path}/row?sample=nobody").status_code == 404
        assert visitor.get(f"{path}/row?sample=s1&index=99").status_code == 404


def test_pages_of_many_rows(tmp_path: Path) -> None:
    answers = [f"answer {number}" for number in range(60)]
    run = write_run(tmp_path / "run", answers, [[False, False, False]] * 60)
    with open_pages(tmp_path) as visitor:
        path = path_of(tmp_path, run)
        assert ROW.findall(visitor.text(f"{path}/rows?page=3")) == [str(n) for n in range(51, 61)]
        assert "Page 1 of 3" in visitor.text(f"{path}/rows")


@pytest.mark.parametrize("file", ["samples.jsonl", "responses.jsonl", "judgements"])
def test_a_damaged_run_is_named_with_its_line(tmp_path: Path, file: str) -> None:
    run = write_small_run(tmp_path / "run")
    target = next((run / file).iterdir()) if file == "judgements" else run / file
    lines = target.read_bytes().splitlines(keepends=True)
    lines[1] = b"\0" * 30 + b"\n"
    target.write_bytes(b"".join(lines))
    with open_pages(tmp_path) as visitor:
        for path in ("rows", "row?sample=s0"):
            response = visitor.get(f"{path_of(tmp_path, run)}/{path}")
            assert response.status_code == 422
            assert f"{target.name}:2" in response.text
        assert "damaged" in visitor.text("/")


def test_a_line_that_only_the_index_can_read_is_named(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    path = run / "responses.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert '"sample_id":"s1"' in lines[1]
    lines[1] = lines[1].replace("{", '{"index":0,"finish_reason":7,', 1)
    path.write_text("".join(lines))
    with open_pages(tmp_path) as visitor:
        page = f"{path_of(tmp_path, run)}/rows"
        for _ in range(2):
            response = visitor.get(page)
            while "data-reload" in response.text and "being indexed" in response.text:
                response = visitor.get(page)
            assert response.status_code == 422, response.text
            assert "responses.jsonl:2:" in response.text and "data-reload" not in response.text


def test_what_an_agent_did_is_shown(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    path = run / "responses.jsonl"
    calls = tuple(
        CallRecord(id=str(n), name="send_mail", arguments='{"to": "ada"}', result="sent <b>it</b>")
        for n in range(2)
    )
    turn = AgentTurn(text="first a look", calls=calls)
    first, *rest = path.read_bytes().splitlines(keepends=True)
    response = msgspec.json.decode(first, type=Response)
    response = structs.replace(response, episode=Episode(turns=(turn,)))
    path.write_bytes(b"".join([msgspec.json.encode(response) + b"\n", *rest]))
    with open_pages(tmp_path) as visitor:
        base = path_of(tmp_path, run)
        visitor.submit("/name", {"name": "Ada", "back": "/"}, page=f"{base}/label")
        for page in (f"{base}/row?sample=s0", f"{base}/label?sample=s0"):
            text = visitor.text(page)
            assert text.count("<code>send_mail</code>") == 2 and "first a look" in text
            assert "executed" in text and "sent &lt;b&gt;it&lt;/b&gt;" in text
            assert text.index("first a look") < text.index("send_mail") < text.index("pears and")
        assert "send_mail" not in visitor.text(f"{base}/row?sample=s1")


def test_a_run_that_is_deleted_or_changed_while_the_page_is_open(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    with open_pages(tmp_path) as visitor:
        path = path_of(tmp_path, run)
        assert "plums" in visitor.text(f"{path}/rows")
        shutil.rmtree(run)
        for page in (path, f"{path}/rows", f"{path}/row?sample=s0"):
            response = visitor.get(page)
            assert response.status_code == 410
            assert "deleted" in response.text
        write_small_run(run, answers=["now it is figs", "b", "c", "d"])
        assert "figs" in visitor.text(f"{path}/rows")


def test_an_unfinished_run_without_answers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [], [], complete=False)
    with open_pages(tmp_path) as visitor:
        assert "No row is like that" in visitor.text(f"{path_of(tmp_path, run)}/rows")
