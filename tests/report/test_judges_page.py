"""The page that compares judges: figures, struck rows and gaps, without text of any row."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.analysis.judged_sets import ScoringJudge, compare, labelled_rows, number_in, store_rows

from truing.analysis.judge_comparison import JudgesComparison
from truing.analysis.judge_figures import Speed
from truing.report.judge_names import short_set_names
from truing.report.judges_page import build_judge_sections, write_judges_page


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> JudgesComparison:
    folder = tmp_path_factory.mktemp("judged")
    benign = [row for row in labelled_rows(60) if not row["harmful"]]
    runs = [store_rows(folder, labelled_rows(), "all"), store_rows(folder, benign, "benign")]
    judges = [
        ScoringJudge("good", number_in, trained_on=["question 3"]),
        ScoringJudge("weak", lambda text: number_in(text) / 2 + (len(text) % 3) / 10),
        ScoringJudge("mute<b>", lambda _: None),
    ]
    return compare(runs, judges)


def test_sections_and_files(comparison: JudgesComparison, tmp_path: Path) -> None:
    sections = [section.id for section in build_judge_sections(comparison)]
    assert sections == [
        "accuracy",
        "rates",
        "alarms",
        "differences",
        "agreement",
        "training",
        "mistakes",
        "method",
    ]
    written = write_judges_page(comparison, tmp_path, title="Own page", created="2026-11-29")
    html, markdown, content = (written[e].read_text() for e in ("html", "md", "json"))
    assert html.startswith("<!doctype html>") and "<h1>Own page</h1>" in html
    assert "mute<b>" not in html and "mute&lt;b&gt;" in html
    assert not re.search(r'(?:src|href)="(?!#)', html)
    assert "it answered none of the" in html and "2 of 120" in html  # struck
    assert "## Recall at the same false alarms" in markdown
    data = json.loads(content)
    assert data["title"] == "Own page" and len(data["results"]) == 6
    assert data["results"][0]["recall_at"][0]["rate"] == 0.05
    # Ids and counts only: no prompt and no answer of any row.
    assert not any("question 1" in text or "answer 0" in text for text in (html, markdown, content))


def test_measured_times_are_shown(comparison: JudgesComparison) -> None:
    speed = Speed(rows=200, seconds=50.0, cpu_seconds=2.5, concurrency=16, peak_mib=1500.4)
    results = (replace(comparison.results[0], speed=speed), *comparison.results[1:])
    section = next(
        s for s in build_judge_sections(replace(comparison, results=results)) if s.id == "speed"
    )
    cells = [cell.text for cell in section.blocks[0].rows[0]]
    assert cells == ["good", "file:all.jsonl", "200", "12.5", "250", "16", "1,500 MiB"]


def test_short_names_differ(comparison: JudgesComparison) -> None:
    names = short_set_names(comparison)
    assert sorted(names.values()) == ["file:all.jsonl", "file:benign.jsonl"]
