"""The comparison page shows what the claims engine says, and leads to the rows that changed."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.serve.ui.pages import open_pages, path_of, write_run, write_small_run

from truing.analysis.comparison import adjust_comparisons, compare


def test_the_claims_are_those_of_the_command(tmp_path: Path) -> None:
    answers = [f"answer {n}" for n in range(80)]
    a = write_run(tmp_path / "a", answers, [[n % 2 == 0, n % 2 == 0, False] for n in range(80)])
    b = write_run(tmp_path / "b", answers, [[n % 8 == 0, n % 8 == 0, False] for n in range(80)])
    (expected,) = adjust_comparisons([compare(a, b)])
    with open_pages(tmp_path) as visitor:
        a_id, b_id = (path_of(tmp_path, run).rpartition("/")[2] for run in (a, b))
        page = visitor.text(f"/compare?a={a_id}&b={b_id}")
        assert f"is {expected.claim.word}" in page
        for claim in expected.claims:
            assert f"decision-{claim.decision}" in page
        assert "30 rows with another outcome" in page
        changed = visitor.text(f"/runs/{a_id}/rows?beside={b_id}&flips=1")
        assert "30 rows" in changed
        assert f"/compare?a={b_id}&amp;b={a_id}" in page
        assert "compare with it" in visitor.text(f"/runs/{a_id}")


def test_pairs_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    a = write_small_run(tmp_path / "a")
    empty = write_run(tmp_path / "empty", [], [])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "manifest.json").write_text("{")
    with open_pages(tmp_path) as visitor:
        ids = {
            name: path_of(tmp_path, tmp_path / name).rpartition("/")[2]
            for name in ("a", "bad", "empty")
        }
        assert "Compare two runs" in visitor.text("/compare")
        for pair, status in (
            (f"a={ids['a']}&b={ids['a']}", 422),
            (f"a={ids['a']}&b={ids['bad']}", 422),
            (f"a={ids['a']}&b={ids['empty']}", 422),
            (f"a={ids['a']}&b=ffffffffffff", 404),
        ):
            assert visitor.get(f"/compare?{pair}").status_code == status
        assert empty.exists()
        shutil.rmtree(a)
        assert visitor.get(f"/compare?a={ids['a']}&b={ids['empty']}").status_code == 410
