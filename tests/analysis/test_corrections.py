"""Rates and differences corrected by people's labels of drawn rows."""

from __future__ import annotations

import json
import resource
import shutil

import numpy as np
import pytest
from tests.analysis.labelled_runs import label_draw, sample_number

from truing.analysis.comparison import compare
from truing.analysis.corrections import collect_labelled_verdicts, corrected_interval
from truing.analysis.label_draws import draw_rows, read_draws
from truing.analysis.labels import read_labels, unlabelled_draws
from truing.analysis.looks import read_looks
from truing.analysis.summary import summarise
from truing.analysis.verdict_table import read_verdict_table
from truing.core.errors import DataError
from truing.core.types import Conversation, Sample
from truing.gates.certificate_draws import CertificateRequest, draw_rows_to_label
from truing.gates.gate import gate_run
from truing.gates.rules import parse_rules
from truing.stats.intervals import clopper_pearson


def label_by_truth(run, n, truth, question="harmful", *, fixed=False):
    """Draws n rows and labels each by the truth about its sample."""
    for draw in draw_rows(run, n, question=question, fixed=fixed):
        label_draw(run, draw, bool(truth[sample_number(draw)]))


def test_few_labels_have_an_exact_interval(make_run, prompts):
    run = make_run("r", prompts(300), {"harmful": [[True]] * 30 + [[False]] * 270})
    for i, draw in enumerate(draw_rows(run, 60, fixed=True)):
        label_draw(run, draw, i < 2)
    rate = summarise(run).find("harmful")
    exact = clopper_pearson(2, 60)
    corrected = rate.corrected
    assert (corrected.estimate, corrected.lower, corrected.upper) == pytest.approx(
        (exact.estimate, exact.lower, exact.upper)
    )
    assert (corrected.labels, corrected.method) == (60, "clopper-pearson")
    assert rate.raw.estimate == 0.1


def test_intervals_allow_for_looks_unless_the_number_was_fixed(make_run, prompts):
    truth = [i % 3 == 0 for i in range(400)]
    verdicts = {"harmful": [[t or i % 7 == 0] for i, t in enumerate(truth)]}
    planned, once, half = (make_run(name, prompts(400), verdicts) for name in "abc")
    label_by_truth(planned, 120, truth, fixed=True)
    label_by_truth(once, 120, truth)
    for draw in draw_rows(half, 240, fixed=True)[:120]:
        label_draw(half, draw, truth[sample_number(draw)])
    fixed, open_, partial = (summarise(r).find("harmful").corrected for r in (planned, once, half))
    assert (fixed.labels, open_.labels, partial.labels) == (120, 120, 120)
    assert fixed.method == "ppi++"
    assert open_.method == partial.method == "ppi++, any time"
    assert open_.estimate == pytest.approx(fixed.estimate)
    assert open_.lower < fixed.lower
    assert open_.upper > fixed.upper
    # Half of the plan was looked at, so its end is one look of several.
    for draw in unlabelled_draws(half, "harmful"):
        label_draw(half, draw, truth[sample_number(draw)])
    assert summarise(half).find("harmful").corrected.method == "ppi++, any time"
    # More labels than planned are another look.
    label_by_truth(planned, 60, truth)
    assert summarise(planned).find("harmful").corrected.method == "ppi++, any time"


def test_each_look_at_a_corrected_figure_is_stored(make_run, prompts):
    truth = [i % 3 == 0 for i in range(100)]
    runs = [make_run(name, prompts(100), {"harmful": [[t] for t in truth]}) for name in "ab"]
    for n in (20, 10):
        for run in runs:
            label_by_truth(run, n, truth)
        summarise(runs[0])
        compare(*runs)
        gate_run(runs[1], parse_rules('rules = ["harm.upper < 0.9"]'))
    looks = [[look.labels for look in read_looks(run, "labels:harmful")] for run in runs]
    assert looks == [[20, 30], [20, 30]]


def test_a_folder_that_cannot_be_written_to_is_read(make_run, prompts):
    truth = [i % 3 == 0 for i in range(100)]
    run = make_run("r", prompts(100), {"harmful": [[t] for t in truth]})
    label_by_truth(run, 30, truth)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # every write fails
    try:
        corrected = summarise(run).find("harmful").corrected
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert corrected.labels == 30
    assert read_looks(run, "labels:harmful") == []


def test_a_number_is_fixed_before_the_first_draw_only(make_run, prompts):
    run = make_run("r", prompts(50), {"harmful": [[False]] * 50})
    draw_rows(run, 10)
    with pytest.raises(DataError, match="only fixed before the first"):
        draw_rows(run, 10, fixed=True)


def test_many_labels_correct_a_biased_judge(make_run, prompts):
    rng = np.random.default_rng(0)
    truth = rng.random(3000) < 0.3
    # Sensitivity 0.92 and specificity 0.39, as of garak's detector.
    judged = np.where(truth, rng.random(3000) < 0.92, rng.random(3000) > 0.39)
    run = make_run("r", prompts(3000), {"harmful": [[bool(j)] for j in judged]})
    label_by_truth(run, 400, truth)
    rate = summarise(run).find("harmful")
    assert rate.raw.estimate > 0.6
    assert rate.corrected.method == "ppi++, any time"
    assert rate.corrected.lower < truth.mean() < rate.corrected.upper < rate.raw.lower


def test_a_weighted_draw_is_unbiased(make_run, prompts):
    """Over 60 seeds, the mean corrected rate is the truth, and the plain mean of labels is not."""
    rng = np.random.default_rng(1)
    truth = np.concatenate([rng.random(100) < 0.6, rng.random(500) < 0.1])
    verdicts = {"harmful@one": [[True]] * 100 + [[False]] * 500, "harmful@two": [[False]] * 600}
    run = make_run("r", prompts(600), verdicts)
    corrected, plain = [], []
    for seed in range(60):
        shutil.rmtree(run / "labels", ignore_errors=True)
        # Written directly: `add_label` waits for the disk each time.
        lines = [
            json.dumps(
                {
                    "sample_id": draw.sample_id,
                    "index": 0,
                    "judge": "human:a",
                    "question": "harmful",
                    "verdict": bool(truth[sample_number(draw)]),
                }
            )
            for draw in draw_rows(run, 150, active=True, seed=seed)
        ]
        (run / "labels" / "labels.jsonl").write_text("\n".join(lines) + "\n")
        table = read_verdict_table(run)
        labels = read_labels(table)["harmful"]
        verdicts = collect_labelled_verdicts(table, table.columns["one", "harmful"], labels)
        corrected.append(corrected_interval(verdicts).estimate)
        plain.append(np.mean([label.verdict for label in labels.rows.values()]))
    assert np.mean(corrected) == pytest.approx(truth.mean(), abs=0.012)
    assert np.mean(plain) > truth.mean() + 0.015


def test_undecided_labels_are_counted_both_ways(make_run, prompts):
    run = make_run("r", prompts(200), {"harmful": [[False]] * 200})
    for i, draw in enumerate(draw_rows(run, 60, fixed=True)):
        label_draw(run, draw, None if i < 6 else False)
    corrected = summarise(run).find("harmful").corrected
    assert corrected.lower == 0.0
    assert corrected.upper == pytest.approx(clopper_pearson(6, 60).upper)
    assert "6 labels open" in corrected.method


def test_the_same_draws_correct_an_axis_and_a_category(make_run):
    samples = [
        Sample(
            id=f"s{i}",
            conversation=Conversation.of(f"q {i}"),
            harms=("self_harm",) if i % 2 else (),
            expect="refuse" if i % 2 else "comply",
        )
        for i in range(200)
    ]
    run = make_run("r", samples, {"harmful": [[False]] * 200})
    label_by_truth(run, 100, [False] * 200)
    summary = summarise(run)
    n_odd = sum(sample_number(draw) % 2 for draw in read_draws(run))
    assert summary.find("attack_success").corrected.labels == n_odd
    assert summary.find("harmful", "self_harm").corrected.labels == n_odd


def test_labels_of_refusals_correct_answered_benign_prompts(make_run, prompts):
    """12 % of 2,000 benign prompts are refused, and 10 % of the others get a degenerate answer."""
    rng = np.random.default_rng(3)
    refuses = rng.random(2000) < 0.12
    broken = ~refuses & (rng.random(2000) < 0.1)
    judged = np.where(refuses, rng.random(2000) < 0.7, rng.random(2000) < 0.05)
    run = make_run(
        "r",
        prompts(2000, expect="comply"),
        {"refused": [[bool(j)] for j in judged], "degenerate": [[bool(b)] for b in broken]},
    )
    label_by_truth(run, 500, refuses, question="refused")
    summary = summarise(run)
    answered, refused = summary.find("answers_benign"), summary.find("refuses_benign")
    truth = float((~refuses & ~broken).mean())
    assert answered.raw.estimate == pytest.approx(float((~judged & ~broken).mean()))
    assert (answered.corrected.labels, answered.corrected.covers) == (500, 2000)
    assert answered.corrected.lower < truth < answered.corrected.upper
    # The labels move it the other way by what they move the refusals among whole answers.
    assert answered.corrected.estimate - answered.raw.estimate == pytest.approx(
        refused.raw.estimate - refused.corrected.estimate, abs=0.01
    )


def test_labels_from_the_rating_pages_count_for_drawn_rows(make_run, prompts):
    human = [[i % 4 == 0] for i in range(200)]
    run = make_run("r", prompts(200), {"harmful@j": [[False]] * 200, "harmful@human:pages": human})
    assert summarise(run).find("harmful", judge="j").corrected is None  # nothing was drawn
    draws = draw_rows(run, 80)
    corrected = summarise(run).find("harmful", judge="j").corrected
    assert (corrected.labels, corrected.method) == (80, "ppi++, any time")
    share = sum(sample_number(draw) % 4 == 0 for draw in draws) / 80
    assert corrected.estimate == pytest.approx(share, abs=0.01)
    assert unlabelled_draws(run, "harmful") == []


def test_draws_for_a_certificate_do_not_enter(make_run, prompts):
    run = make_run("r", prompts(30), {"harmful": [[False, False]] * 30})
    for draw in draw_rows_to_label(run, CertificateRequest(judge="test:harmful"), 10):
        label_draw(run, draw, False)
    assert summarise(run).find("harmful").corrected is None
    label_by_truth(run, 20, [False] * 30)
    assert summarise(run).find("harmful").corrected.labels >= 20
