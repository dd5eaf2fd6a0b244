"""Sets to be judged: a sample that does not depend on the order of rows, and what is read back."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from tests.analysis.judged_sets import ScoringJudge, labelled_rows, number_in, store_rows

from truing.core.errors import RunError
from truing.evaluation.judge_sets import LabelledRows, is_judged, judge_set, store_set
from truing.specs.resolve import resolve


def rows_of(path: Path, rows: list[dict[str, object]], **options: int) -> LabelledRows:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return LabelledRows(resolve(f"file:{path}", "data"), **options)


def test_a_sample_goes_by_prompts_and_not_by_order(tmp_path: Path) -> None:
    rows = labelled_rows(60)
    drawn = rows_of(tmp_path / "a.jsonl", rows, sample=10)
    texts = {row.responses[0].text for row in drawn.rows()}
    prompts = [row.sample.prompt for row in drawn.rows()]
    assert len(texts) == 10 and len(set(prompts)) == 5  # two rows a prompt, drawn together
    turned = rows_of(tmp_path / "b.jsonl", rows[::-1], sample=10)
    assert {row.responses[0].text for row in turned.rows()} == texts
    other = rows_of(tmp_path / "a.jsonl", rows, sample=10, seed=1)
    assert {row.responses[0].text for row in other.rows()} != texts
    assert drawn.info.spec.endswith("(sample of 10, seed 0)")
    assert len(list(rows_of(tmp_path / "a.jsonl", rows, sample=1000).rows())) == 60
    assert len(list(rows_of(tmp_path / "a.jsonl", rows, sample=7).rows())) == 7


def test_a_sample_holds_whole_prompts_whatever_the_order(tmp_path: Path) -> None:
    """Goals of many rows, of which one does not fit whole into the sample."""
    rows = [{**row, "goal": f"goal {k % 6}"} for k, row in enumerate(labelled_rows(60))]
    for seed in range(4):
        goals = []
        for name, order in (("a", rows), ("b", rows[::-1]), ("c", rows[30:] + rows[:30])):
            drawn = rows_of(tmp_path / f"{name}.jsonl", order, sample=25, seed=seed)
            goals.append(Counter(row.sample.tags["goal"] for row in drawn.rows()))
        assert goals[0] == goals[1] == goals[2]
        assert sorted(goals[0].values()) == [5, 10, 10]


def test_what_is_judged_is_read_back(tmp_path: Path) -> None:
    run = store_rows(tmp_path, labelled_rows(12))
    judge = ScoringJudge("good", number_in)
    assert not is_judged(run, judge.name, judge.lineage.hash)
    assert judge_set(run, judge).rows == 12
    assert is_judged(run, judge.name, judge.lineage.hash)
    assert judge_set(run, judge).rows == 0
    again = store_rows(tmp_path, labelled_rows(12))
    assert is_judged(again, judge.name, judge.lineage.hash)


def test_a_folder_of_other_rows_is_refused(tmp_path: Path) -> None:
    store_set(rows_of(tmp_path / "a.jsonl", labelled_rows(6)), tmp_path / "set")
    with pytest.raises(RunError, match="holds a run of another plan"):
        store_set(rows_of(tmp_path / "a.jsonl", labelled_rows(8)), tmp_path / "set")
