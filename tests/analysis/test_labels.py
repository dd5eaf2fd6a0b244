"""Draws with known probabilities, labels that count and labels that do not, and the rates corrected from them."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter

import numpy as np
import pytest

from truing.analysis.label_draws import (
    draw_rows,
    judge_uncertainty,
    labelable_rows,
    read_draws,
    systematic_sample,
)
from truing.analysis.labels import add_label, import_labels, read_labels, unlabelled_draws
from truing.analysis.summary import summarise
from truing.analysis.verdict_table import read_verdict_table
from truing.core.errors import DataError
from truing.core.types import Judgement
from truing.stats.intervals import clopper_pearson


def label(run, draw, verdict, judge="human:ann", rater=None):
    add_label(
        run,
        Judgement(
            sample_id=draw.sample_id,
            index=draw.index,
            judge=judge,
            question=draw.question,
            verdict=verdict,
            rater=rater,
        ),
    )


def test_an_even_draw_takes_each_row_once_and_stores_its_probability(make_run, prompts):
    run = make_run("r", prompts(50), {"harmful": [[False, True]] * 50})
    drawn = draw_rows(run, 20)
    assert len({(d.sample_id, d.index) for d in drawn}) == 20
    assert {d.probability for d in drawn} == {0.2} and {d.rows for d in drawn} == {100}
    assert {d.index for d in drawn} == {0, 1}
    more = draw_rows(run, 30)
    assert len({(d.sample_id, d.index) for d in drawn + more}) == 50
    for d in drawn + more:
        label(run, d, True)
    found = read_labels(read_verdict_table(run))["harmful"]
    assert {round(x.probability, 9) for x in found.rows.values()} == {0.5}
    with pytest.raises(DataError, match="at least one"):
        draw_rows(run, 0)
    draw_rows(run, 1000)
    with pytest.raises(DataError, match="all 100 answers"):
        draw_rows(run, 1)


def test_the_file_of_draws_names_rows_and_probabilities(make_run, prompts):
    run = make_run("r", prompts(10), {"harmful": [[False]] * 10})
    draw_rows(run, 3)
    rows = [json.loads(line) for line in (run / "labels" / "draws.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all({"sample_id", "index", "probability"} <= set(r) for r in rows)
    from truing.annotation.imports import read_draws as as_the_rating_pages_read_them

    assert set(as_the_rating_pages_read_them(run / "labels" / "draws.jsonl").values()) == {0.3}


def test_failed_answers_cannot_be_drawn(make_run, prompts):
    run = make_run("r", prompts(6), {"harmful": [[False]] * 6}, finish={(0, 0): "error"})
    assert len(draw_rows(run, 6)) == 5


def test_systematic_sampling_keeps_its_probabilities():
    chance = np.array([0.9, 0.5, 0.3, 0.2, 0.1])
    seen = Counter(i for s in range(4000) for i in systematic_sample(chance, random.Random(s)))
    assert [seen[i] / 4000 for i in range(5)] == pytest.approx(chance.tolist(), abs=0.03)
    assert {len(systematic_sample(chance, random.Random(s))) for s in range(50)} == {2}


def test_an_active_draw_goes_where_judges_disagree(make_run, prompts):
    verdicts = {"harmful@one": [[True]] * 50 + [[False]] * 450, "harmful@two": [[False]] * 500}
    run = make_run("r", prompts(500), verdicts)
    columns = read_verdict_table(run, scores=True)
    unsure = judge_uncertainty(columns, labelable_rows(columns), "harmful")
    assert unsure[0] > unsure[499]
    drawn = draw_rows(run, 100, active=True)
    assert len(drawn) == 100
    unsure_rows = [d for d in drawn if int(d.sample_id[1:]) < 50]
    assert len(unsure_rows) >= 8 and min(d.probability for d in unsure_rows) > max(
        d.probability for d in drawn if int(d.sample_id[1:]) >= 50
    )
    with pytest.raises(DataError, match="needs a judge"):
        draw_rows(run, 5, question="refused", active=True)


def test_only_what_was_labelled_without_a_gap_counts(make_run, prompts):
    run = make_run("r", prompts(100), {"harmful": [[False]] * 100})
    drawn = draw_rows(run, 10)
    for d in [*drawn[:4], drawn[6]]:
        label(run, d, False)
    found = read_labels(read_verdict_table(run))["harmful"]
    assert len(found.rows) == 4 and found.ignored == {"not drawn, or after a gap": 1}
    assert [x.probability for x in found.rows.values()] == pytest.approx([0.04] * 4)
    assert [d.order for d in unlabelled_draws(run, "harmful")] == [4, 5, 7, 8, 9]


def test_even_and_active_draws_join_their_probabilities(make_run, prompts):
    run = make_run("r", prompts(40), {"harmful": [[True]] * 10 + [[False]] * 30})
    even = draw_rows(run, 10)
    active = draw_rows(run, 10, active=True)
    for d in even + active:
        label(run, d, False)
    found = read_labels(read_verdict_table(run))["harmful"]
    weights = json.loads((run / "labels" / "weights-1.json").read_text())
    for (at, _), got in found.rows.items():
        assert got.probability == pytest.approx(1 - (1 - 10 / 40) * (1 - weights[at]))


def test_the_majority_of_raters_counts_and_the_newest_of_each(make_run, prompts):
    run = make_run("r", prompts(5), {"harmful": [[False]] * 5})
    drawn = draw_rows(run, 5)
    for d in drawn:
        for who, said in (("human:a", True), ("human:b", True), ("human:c", False)):
            label(run, d, said, judge=who)
    label(run, drawn[0], False, judge="human:a")
    rows = read_labels(read_verdict_table(run))["harmful"].rows
    assert sorted(v.verdict for v in rows.values()) == [False, True, True, True, True]


def test_labels_of_rows_that_were_not_drawn_never_enter(make_run, prompts, tmp_path):
    run = make_run("r", prompts(30), {"harmful": [[False]] * 30})
    drawn = draw_rows(run, 5)
    other = next(f"s{i}" for i in range(30) if f"s{i}" not in {d.sample_id for d in drawn})
    with pytest.raises(DataError, match="was not drawn"):
        add_label(
            run, Judgement(sample_id=other, judge="human:x", question="harmful", verdict=True)
        )
    file = tmp_path / "labels.jsonl"
    rows = [
        {"sample_id": d.sample_id, "index": 0, "question": "harmful", "verdict": False}
        for d in drawn
    ]
    rows += [
        {"sample_id": other, "index": 0, "question": "harmful", "verdict": True},
        {"sample_id": "not-here", "index": 0, "question": "harmful", "verdict": True},
    ]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert import_labels(run, file) == (5, {"of rows not drawn": 1, "of rows not in the run": 1})
    with pytest.raises(DataError, match="no such file"):
        import_labels(run, tmp_path / "nowhere")


def test_few_labels_are_exact(make_run, prompts):
    run = make_run("r", prompts(300), {"harmful": [[True]] * 30 + [[False]] * 270})
    for at, d in enumerate(draw_rows(run, 60)):
        label(run, d, at < 2)
    got = summarise(run).find("harmful")
    exact = clopper_pearson(2, 60)
    assert (got.corrected.estimate, got.corrected.lower, got.corrected.upper) == pytest.approx(
        (exact.estimate, exact.lower, exact.upper)
    )
    assert got.corrected.labels == 60 and got.corrected.method == "clopper-pearson"
    assert got.raw.estimate == 0.1


def test_many_labels_are_prediction_powered_and_truer_than_raw(make_run, prompts):
    source = np.random.default_rng(0)
    truth = source.random(3000) < 0.3
    judged = np.where(
        truth, source.random(3000) < 0.92, source.random(3000) > 0.39
    )  # garak's judge
    run = make_run("r", prompts(3000), {"harmful": [[bool(j)] for j in judged]})
    for d in draw_rows(run, 400):
        label(run, d, bool(truth[int(d.sample_id[1:])]))
    got = summarise(run).find("harmful")
    assert got.raw.estimate > 0.6 and got.corrected.method == "ppi++"
    assert got.corrected.lower < truth.mean() < got.corrected.upper < got.raw.lower


def test_a_weighted_draw_is_undone_in_the_rate(make_run, prompts):
    """Mean over 60 seeds of the corrected estimate from active draws lies at the truth, the plain mean does not."""
    from truing.analysis.corrections import collect_labelled_verdicts, corrected_interval

    source = np.random.default_rng(1)
    truth = np.concatenate([source.random(100) < 0.6, source.random(500) < 0.1])
    run = make_run(
        "r",
        prompts(600),
        {"harmful@one": [[True]] * 100 + [[False]] * 500, "harmful@two": [[False]] * 600},
    )
    got, plain = [], []
    for seed in range(60):
        shutil.rmtree(run / "labels", ignore_errors=True)
        drawn = draw_rows(run, 150, active=True, seed=seed)
        lines = [
            json.dumps(
                {
                    "sample_id": d.sample_id,
                    "index": 0,
                    "judge": "human:a",
                    "question": "harmful",
                    "verdict": bool(truth[int(d.sample_id[1:])]),
                }
            )
            for d in drawn
        ]
        (run / "labels" / "labels.jsonl").write_text("\n".join(lines) + "\n")
        columns = read_verdict_table(run)
        labels = read_labels(columns)["harmful"]
        got.append(
            corrected_interval(
                collect_labelled_verdicts(columns, columns.columns["one", "harmful"], labels)
            ).estimate
        )
        plain.append(np.mean([x.verdict for x in labels.rows.values()]))
    assert np.mean(got) == pytest.approx(truth.mean(), abs=0.012)
    assert np.mean(plain) > truth.mean() + 0.015


def test_people_who_cannot_tell_widen_the_rate(make_run, prompts):
    run = make_run("r", prompts(200), {"harmful": [[False]] * 200})
    for at, d in enumerate(draw_rows(run, 60)):
        label(run, d, None if at < 6 else False)
    got = summarise(run).find("harmful").corrected
    assert got.lower == 0.0 and got.upper == pytest.approx(clopper_pearson(6, 60).upper)
    assert "6 labels open" in got.method


def test_the_same_draws_correct_an_axis_and_a_category(make_run):
    from truing.core.types import Conversation, Sample

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
    for d in draw_rows(run, 100):
        label(run, d, False)
    summary = summarise(run)
    n = sum(int(d.sample_id[1:]) % 2 for d in read_draws(run))
    assert summary.find("attack_success").corrected.labels == n
    assert summary.find("harmful", "self_harm").corrected.labels == n


def test_labels_of_refusals_correct_the_share_of_answered_benign_prompts(make_run, prompts):
    """2,000 benign prompts, 12 % refused, 10 % of the others degenerate; the judge sees refusals with errors."""
    source = np.random.default_rng(3)
    refuses = source.random(2000) < 0.12
    broken = ~refuses & (source.random(2000) < 0.1)
    judged = np.where(refuses, source.random(2000) < 0.7, source.random(2000) < 0.05)
    run = make_run(
        "r",
        prompts(2000, expect="comply"),
        {"refused": [[bool(j)] for j in judged], "degenerate": [[bool(b)] for b in broken]},
    )
    for d in draw_rows(run, 500, question="refused"):
        label(run, d, bool(refuses[int(d.sample_id[1:])]))
    summary = summarise(run)
    got, mirror = summary.find("answers_benign"), summary.find("refuses_benign")
    truth = float((~refuses & ~broken).mean())
    assert got.raw.estimate == pytest.approx(float((~judged & ~broken).mean()))
    assert got.corrected.labels == 500 and got.corrected.covers == 2000
    assert got.corrected.lower < truth < got.corrected.upper
    # PPI++: the labels move it the other way round by what they move refusals among whole answers
    assert got.corrected.estimate - got.raw.estimate == pytest.approx(
        mirror.raw.estimate - mirror.corrected.estimate, abs=0.01
    )


def test_labels_of_refusals_correct_a_difference_in_answered_benign_prompts(make_run, prompts):
    from truing.analysis.comparison import compare

    source = np.random.default_rng(4)
    runs, truths = [], []
    for name, p in (("a", 0.3), ("b", 0.1)):
        refuses = source.random(800) < p
        judged = np.where(refuses, source.random(800) < 0.8, source.random(800) < 0.05)
        run = make_run(
            name, prompts(800, expect="comply"), {"refused": [[bool(j)] for j in judged]}
        )
        for d in draw_rows(run, 300, question="refused"):
            label(run, d, bool(refuses[int(d.sample_id[1:])]))
        runs.append(run)
        truths.append(1 - refuses.mean())
    got = compare(*runs).find("answers_benign")
    assert got.estimate < truths[1] - truths[0]  # the judge misses a fifth of the refusals
    assert got.corrected.lower < truths[1] - truths[0] < got.corrected.upper


def test_drawn_rows_may_be_labelled_in_the_rating_pages(make_run, prompts):
    rows = {"harmful@j": [[False]] * 200, "harmful@human:pages": [[i % 4 == 0] for i in range(200)]}
    run = make_run("r", prompts(200), rows)
    assert (
        summarise(run).find("harmful", judge="j").corrected is None
    )  # nothing was drawn: they prove nothing
    drawn = draw_rows(run, 80)
    got = summarise(run).find("harmful", judge="j").corrected
    assert got.labels == 80 and got.method == "ppi++"
    assert got.estimate == pytest.approx(
        sum(int(d.sample_id[1:]) % 4 == 0 for d in drawn) / 80, abs=0.01
    )
    assert unlabelled_draws(run, "harmful") == []


def test_draws_for_a_certificate_leave_corrections_alone(make_run, prompts):
    from truing.gates.certificate_draws import CertificateRequest, draw_rows_to_label

    run = make_run("r", prompts(30), {"harmful": [[False, False]] * 30})
    for d in draw_rows_to_label(run, CertificateRequest(judge="test:harmful"), 10):
        label(run, d, False)
    assert summarise(run).find("harmful").corrected is None
    for d in draw_rows(run, 20):
        label(run, d, False)
    assert summarise(run).find("harmful").corrected.labels >= 20
