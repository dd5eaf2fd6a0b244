"""Rows drawn at random for labelling, and the probabilities that are stored with them."""

from __future__ import annotations

import json
import random
from collections import Counter

import numpy as np
import pytest

from truing.analysis.label_draws import (
    _draw_probabilities,
    draw_rows,
    judge_uncertainty,
    labelable_rows,
    read_draws,
    read_weights,
    systematic_sample,
)
from truing.analysis.verdict_table import read_verdict_table
from truing.annotation.imports import read_draws as read_draws_of_rating_pages
from truing.core.errors import DataError, RunError


def test_even_draws_continue_one_random_order(make_run, prompts):
    run = make_run("r", prompts(50), {"harmful": [[False, True]] * 50})
    first = draw_rows(run, 20)
    assert len({(draw.sample_id, draw.index) for draw in first}) == 20
    assert {(draw.probability, draw.rows) for draw in first} == {(0.2, 100)}
    assert {draw.index for draw in first} == {0, 1}
    second = draw_rows(run, 30)
    assert len({(draw.sample_id, draw.index) for draw in first + second}) == 50
    assert [draw.order for draw in first + second] == list(range(50))
    assert {(draw.batch, draw.probability) for draw in second} == {(1, 0.5)}
    assert read_draws(run) == first + second


def test_no_more_rows_than_there_are(make_run, prompts):
    run = make_run("r", prompts(50), {"harmful": [[False, True]] * 50})
    with pytest.raises(DataError, match="at least one"):
        draw_rows(run, 0)
    assert len(draw_rows(run, 1000)) == 100
    with pytest.raises(DataError, match="all 100 answers"):
        draw_rows(run, 1)


def test_an_incomplete_run_cannot_be_drawn_from(make_run, prompts):
    run = make_run("r", prompts(10), {"harmful": [[False]] * 10})
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    with pytest.raises(RunError, match="not complete"):
        draw_rows(run, 3)


def test_the_rating_pages_read_the_file_of_draws(make_run, prompts):
    run = make_run("r", prompts(10), {"harmful": [[False]] * 10})
    draw_rows(run, 3)
    file = run / "labels" / "draws.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 3
    assert all({"sample_id", "index", "probability"} <= set(row) for row in rows)
    assert set(read_draws_of_rating_pages(file).values()) == {0.3}


def test_failed_answers_cannot_be_drawn(make_run, prompts):
    run = make_run("r", prompts(6), {"harmful": [[False]] * 6}, finish={(0, 0): "error"})
    assert labelable_rows(read_verdict_table(run)) == [(i, 0) for i in range(1, 6)]
    assert len(draw_rows(run, 6)) == 5


def test_systematic_sampling_keeps_its_probabilities():
    probabilities = np.array([0.9, 0.5, 0.3, 0.2, 0.1])
    samples = [systematic_sample(probabilities, random.Random(seed)) for seed in range(4000)]
    counts = Counter(row for sample in samples for row in sample)
    shares = [counts[row] / 4000 for row in range(5)]
    assert shares == pytest.approx(probabilities.tolist(), abs=0.03)
    assert {len(sample) for sample in samples} == {2}


def test_draw_probabilities_add_up_and_stay_below_one():
    weights = np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    probabilities = _draw_probabilities(weights, 4)
    # Half even: 0.5 / 10 * 4 = 0.2 each; the first would have 2.2, is cut to 1, and the other
    # nine share the remaining 3.
    assert probabilities == pytest.approx([1.0] + [1 / 3] * 9)
    assert _draw_probabilities(np.zeros(4), 2) == pytest.approx([0.5] * 4)


def test_an_active_draw_favours_rows_on_which_judges_disagree(make_run, prompts):
    verdicts = {"harmful@one": [[True]] * 50 + [[False]] * 450, "harmful@two": [[False]] * 500}
    run = make_run("r", prompts(500), verdicts)
    table = read_verdict_table(run, scores=True)
    uncertainty = judge_uncertainty(table, labelable_rows(table), "harmful")
    # Probabilities 0.9 and 0.1 have the mean 1/2, twice 0.1 has 0.1.
    assert (uncertainty[0], uncertainty[499]) == pytest.approx((0.5, 0.3))
    draws = draw_rows(run, 100, active=True)
    assert len(draws) == 100
    disputed = [d.probability for d in draws if int(d.sample_id[1:]) < 50]
    agreed = [d.probability for d in draws if int(d.sample_id[1:]) >= 50]
    assert len(disputed) >= 8
    assert min(disputed) > max(agreed)
    assert sum(read_weights(run, 0, 500)) == pytest.approx(100)
    with pytest.raises(RunError, match="500 probabilities for 499"):
        read_weights(run, 0, 499)
    with pytest.raises(RunError, match="cannot be used"):
        read_weights(run, 7, 500)


def test_an_active_draw_needs_a_judge(make_run, prompts):
    run = make_run("r", prompts(5), {"harmful": [[False]] * 5})
    with pytest.raises(DataError, match="needs a judge"):
        draw_rows(run, 5, question="refused", active=True)
