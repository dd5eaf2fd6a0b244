"""Which labels may enter a correction, and with which probabilities."""

from __future__ import annotations

import json

import pytest
from tests.analysis.labelled_runs import label_draw

from truing.analysis.label_draws import draw_rows
from truing.analysis.labels import (
    add_label,
    import_labels,
    majority_vote,
    read_labels,
    read_votes,
    unlabelled_draws,
)
from truing.analysis.verdict_table import read_verdict_table
from truing.core.errors import DataError
from truing.core.types import Judgement


def usable_labels(run):
    return read_labels(read_verdict_table(run))["harmful"]


def test_probabilities_are_of_all_draws_together(make_run, prompts):
    run = make_run("r", prompts(50), {"harmful": [[False, True]] * 50})
    for draw in draw_rows(run, 20) + draw_rows(run, 30):
        label_draw(run, draw, True)
    probabilities = {round(label.probability, 9) for label in usable_labels(run).rows.values()}
    assert probabilities == {0.5}


def test_even_and_active_draws_are_independent(make_run, prompts):
    run = make_run("r", prompts(40), {"harmful": [[True]] * 10 + [[False]] * 30})
    for draw in draw_rows(run, 10) + draw_rows(run, 10, active=True):
        label_draw(run, draw, False)
    weights = json.loads((run / "labels" / "weights-1.json").read_text())
    labels = usable_labels(run).rows
    assert len(labels) > 10, "of both draws"
    for (position, _), label in labels.items():
        expected = 1 - (1 - 10 / 40) * (1 - weights[position])
        assert label.probability == pytest.approx(expected)


def test_labels_after_a_gap_do_not_count(make_run, prompts):
    run = make_run("r", prompts(100), {"harmful": [[False]] * 100})
    draws = draw_rows(run, 10)
    for draw in [*draws[:4], draws[6]]:
        label_draw(run, draw, False)
    labels = usable_labels(run)
    assert (len(labels.rows), labels.drawn) == (4, 10)
    assert labels.ignored == {"not drawn, or after a gap": 1}
    assert [label.probability for label in labels.rows.values()] == pytest.approx([0.04] * 4)
    assert [draw.order for draw in unlabelled_draws(run, "harmful")] == [4, 5, 7, 8, 9]


def test_the_newest_label_of_each_rater_and_the_majority_of_raters(make_run, prompts):
    run = make_run("r", prompts(5), {"harmful": [[False]] * 5})
    draws = draw_rows(run, 5)
    for draw in draws:
        for judge, verdict in (("human:a", True), ("human:b", True), ("human:c", False)):
            label_draw(run, draw, verdict, judge=judge)
    label_draw(run, draws[0], False, judge="human:a")
    verdicts = [label.verdict for label in usable_labels(run).rows.values()]
    assert sorted(verdicts) == [False, True, True, True, True]


@pytest.mark.parametrize(
    ("votes", "majority"),
    [
        ([True, True, False], True),
        ([False], False),
        ([True, False], None),
        ([None, None], None),
        ([None, True], True),  # who cannot tell does not vote
    ],
)
def test_majority_vote(votes, majority):
    assert majority_vote(votes) is majority


def test_labels_of_rows_that_were_not_drawn_are_refused(make_run, prompts, tmp_path):
    run = make_run("r", prompts(30), {"harmful": [[False]] * 30})
    draws = draw_rows(run, 5)
    drawn = {draw.sample_id for draw in draws}
    not_drawn = next(f"s{i}" for i in range(30) if f"s{i}" not in drawn)
    label = Judgement(sample_id=not_drawn, judge="human:x", question="harmful", verdict=True)
    with pytest.raises(DataError, match="was not drawn"):
        add_label(run, label)
    file = tmp_path / "labels.jsonl"
    rows = [
        {"sample_id": sample_id, "index": 0, "question": "harmful", "verdict": False}
        for sample_id in (*sorted(drawn), not_drawn, "unknown")
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert import_labels(run, file) == (5, {"of rows not drawn": 1, "of rows not in the run": 1})
    assert {key[0] for key in read_votes(run)} == drawn
    with pytest.raises(DataError, match="no such file"):
        import_labels(run, tmp_path / "nowhere")


def test_labels_of_a_run_that_has_grown_do_not_count(make_run, prompts):
    run = make_run("r", prompts(10), {"harmful": [[False]] * 10})
    for draw in draw_rows(run, 5):
        label_draw(run, draw, False)
    table = read_verdict_table(run)
    table.response_states.append(bytearray([1] * 10))  # a second answer to each prompt
    labels = read_labels(table)["harmful"]
    assert labels.rows == {}
    assert sum(labels.ignored.values()) == 5
