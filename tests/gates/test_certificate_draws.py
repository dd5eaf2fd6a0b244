"""The prompts of a certificate: scores, grids, and the rows that need a label."""

from __future__ import annotations

import json

import pytest
from tests.gates.certificate_runs import REQUEST, build_scored_run, label_rows

from truing.analysis.label_draws import draw_rows, read_draws
from truing.analysis.labels import add_label
from truing.core.errors import DataError, PlanError, RunError
from truing.core.types import Judgement
from truing.gates.certificate_draws import (
    PROBABILITY_GRID,
    CertificateRequest,
    ScoredPrompt,
    draw_rows_to_label,
    read_scored_run,
    threshold_grid,
)
from truing.runs.folder import Run


def prompts_with_scores(*scores):
    return [ScoredPrompt(f"s{i}", 0, score, False) for i, score in enumerate(scores)]


def test_answers_without_a_score_never_pass():
    without, with_score = prompts_with_scores(None, 0.3)
    assert not without.passes(1.01)
    assert with_score.passes(0.31)
    assert not with_score.passes(0.3)


def test_the_grid_of_probabilities_is_fixed():
    assert threshold_grid(prompts_with_scores(0.2, None, 1.0), None) == list(PROBABILITY_GRID)
    assert threshold_grid(prompts_with_scores(0.2), 0.5)[-1] == 0.5
    with pytest.raises(PlanError, match="no threshold lies under"):
        threshold_grid(prompts_with_scores(0.2), -1)


def test_the_grid_of_other_scores_has_rounded_steps():
    grid = threshold_grid(prompts_with_scores(-3.0, 4.0), None)
    assert (grid[0], grid[1] - grid[0]) == pytest.approx((-3.0, 0.1))
    assert grid[-1] > 4.0  # lets every answer through


def test_only_rows_that_some_threshold_lets_through_need_a_label(make_run, prompts):
    run = build_scored_run(make_run, prompts, [[0.9 if i % 2 else 0.1] for i in range(400)])
    request = CertificateRequest(judge="test:harmful", loosest=0.5)
    draws = draw_rows_to_label(run, request, 40)
    assert len(draws) == 40
    assert all(int(draw.sample_id[1:]) % 2 == 0 for draw in draws)


def test_further_draws_continue_where_labels_end(make_run, prompts):
    run = build_scored_run(make_run, prompts, [[0.1]] * 50)
    first = draw_rows_to_label(run, REQUEST, 5)
    again = draw_rows_to_label(run, REQUEST, 5)
    assert [d.sample_id for d in again] == [d.sample_id for d in first]  # still unlabelled
    label_rows(run, REQUEST, 5)
    following = draw_rows_to_label(run, REQUEST, 5)
    assert [d.order for d in following] == [5, 6, 7, 8, 9]
    assert len(read_draws(run)) == 10  # each row is stored once


def test_labels_of_other_draws_count(make_run, prompts):
    run = build_scored_run(make_run, prompts, [[0.1]] * 10)
    for draw in draw_rows(run, 10):
        add_label(
            run,
            Judgement(sample_id=draw.sample_id, judge="human:a", question="harmful", verdict=False),
        )
    assert draw_rows_to_label(run, REQUEST, 3) == []


def test_best_of_n_takes_the_answer_of_the_lowest_score(make_run, prompts):
    run = Run(build_scored_run(make_run, prompts, [[0.9, 0.1, 0.5], [None, 0.2, 0.2]]))
    best_of = read_scored_run(run, CertificateRequest(judge="test:harmful", best_of=True))
    rail = read_scored_run(run, REQUEST)
    assert [(p.index, p.score) for p in best_of.prompts] == [(1, 0.1), (1, 0.2)]
    assert [(p.index, p.score) for p in rail.prompts] == [(0, 0.9), (0, None)]


def test_a_judge_without_scores_has_one_threshold(make_run, prompts):
    run = make_run("r", prompts(2), {"harmful": [[True], [False]]})
    file = next((run / "judgements").iterdir())
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row | {"score": None}) + "\n" for row in rows))
    assert [p.score for p in read_scored_run(Run(run), REQUEST).prompts] == [1.0, 0.0]


def test_errors(make_run, prompts):
    run = make_run("r", prompts(10), {"harmful": [[False]] * 10})
    with pytest.raises(DataError, match="at least one"):
        draw_rows_to_label(run, REQUEST, 0)
    with pytest.raises(RunError, match="did you mean 'test:harmful'"):
        read_scored_run(Run(run), CertificateRequest(judge="test:harmfu"))
    unscored = build_scored_run(make_run, prompts, [[None]] * 10, name="unscored")
    with pytest.raises(DataError, match="no scores"):
        read_scored_run(Run(unscored), REQUEST)
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    with pytest.raises(RunError, match="not complete"):
        read_scored_run(Run(run), REQUEST)
