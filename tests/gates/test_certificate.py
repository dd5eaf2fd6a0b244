"""Certificates: by hand at 59 labels, by simulation, and the refusals to certify."""

from __future__ import annotations

import json

import numpy as np
import pytest

from truing.analysis.label_draws import draw_rows
from truing.analysis.labels import add_label
from truing.core.errors import DataError, LineageError, PlanError, RunError
from truing.core.lineage import hash_prompts
from truing.core.types import Judgement, Lineage
from truing.gates.certificate import certify
from truing.gates.certificate_draws import CertificateRequest, draw_rows_to_label
from truing.runs.folder import Run

ASK = CertificateRequest(judge="test:harmful")


def scored(run, scores):
    """Gives a run's judge these scores: one list a prompt."""
    record = json.loads((run / "manifest.json").read_text())["judges"][0]
    rows = [
        Judgement(
            sample_id=f"s{i}",
            index=k,
            judge=record["name"],
            question="harmful",
            verdict=None if s is None else s >= 0.5,
            score=s,
        )
        for i, of in enumerate(scores)
        for k, s in enumerate(of)
    ]
    import msgspec

    (run / record["file"]).write_bytes(b"".join(msgspec.json.encode(r) + b"\n" for r in rows))
    return run


def label(run, asked, n, harmful):
    """Labels n rows by a function of the sample's number and the answer's index."""
    for d in draw_rows_to_label(run, asked, n):
        add_label(
            run,
            Judgement(
                sample_id=d.sample_id,
                index=d.index,
                judge="human:a",
                question="harmful",
                verdict=harmful(int(d.sample_id[1:]), d.index),
            ),
        )


def test_none_of_59_certifies_five_per_cent(make_run, prompts):
    run = scored(make_run("r", prompts(100), {"harmful": [[False]] * 100}), [[0.1]] * 100)
    label(run, ASK, 58, lambda i, k: False)
    got = certify(run, ASK)
    assert (
        got.status == "not certifiable"
        and got.more_labels == 1
        and "1 more labels" in got.statement
    )
    label(run, ASK, 1, lambda i, k: False)
    got = certify(run, ASK)
    assert (
        got.status == "certified"
        and got.labels == 59
        and got.harm_upper == pytest.approx(0.0495, abs=1e-4)
    )
    assert got.threshold == 1.01 and got.refused.estimate == 0 and "exchangeable" in got.assumes


def test_the_loosest_threshold_that_holds(make_run, prompts):
    scores = [[i / 1000] for i in range(1000)]
    run = scored(
        make_run("r", prompts(1000, expect="comply"), {"harmful": [[False]] * 1000}), scores
    )
    label(
        run, ASK, 1000, lambda i, k: i >= 500 and i % 2 == 0
    )  # half of what scores over 0.5 is harmful
    got = certify(run, ASK)
    # With t = 0.5 + x, x / 2 of 1,000 rows get through harmful: at most 38 events of 1,000 certify 5 %.
    assert got.status == "certified" and got.threshold == pytest.approx(0.57) and got.events == 35
    assert got.refused.estimate == pytest.approx(
        0.43
    ) and got.refused_benign.estimate == pytest.approx(0.43)


def test_rows_that_nothing_lets_through_need_no_label(make_run, prompts):
    scores = [[0.9 if i % 2 else 0.1] for i in range(400)]
    run = scored(make_run("r", prompts(400), {"harmful": [[False]] * 400}), scores)
    ask = CertificateRequest(judge="test:harmful", loosest=0.5)
    drawn = draw_rows_to_label(run, ask, 40)
    assert len(drawn) == 40 and all(int(d.sample_id[1:]) % 2 == 0 for d in drawn)
    for d in drawn:
        add_label(
            run,
            Judgement(sample_id=d.sample_id, judge="human:a", question="harmful", verdict=False),
        )
    got = certify(run, ask)
    assert got.status == "certified" and got.labels > 59 and got.refused.estimate == 0.5


def test_unscored_answers_are_never_let_through(make_run, prompts):
    scores = [[None] if i < 50 else [0.2] for i in range(200)]
    run = scored(make_run("r", prompts(200), {"harmful": [[False]] * 200}), scores)
    label(run, ASK, 150, lambda i, k: i < 50)
    got = certify(run, ASK)
    assert got.status == "certified" and got.events == 0 and got.refused.estimate == 0.25


def test_who_cannot_tell_has_found_harm(make_run, prompts):
    run = scored(make_run("r", prompts(100), {"harmful": [[False]] * 100}), [[0.1]] * 100)
    label(run, ASK, 80, lambda i, k: None if i % 3 == 0 else False)
    assert certify(run, ASK).status == "hopeless"


def test_looking_again_and_again_has_its_price(make_run, prompts):
    run = scored(make_run("r", prompts(100), {"harmful": [[False]] * 100}), [[0.1]] * 100)
    label(run, ASK, 60, lambda i, k: False)
    ask = CertificateRequest(judge="test:harmful", anytime=True)
    assert certify(run, ask).more_labels == 8 and certify(run, ASK).status == "certified"
    label(run, ASK, 8, lambda i, k: False)
    assert certify(run, ask).status == "certified"


def test_hopeless_is_said(make_run, prompts):
    run = scored(make_run("r", prompts(100), {"harmful": [[True]] * 100}), [[0.4]] * 100)
    label(run, ASK, 60, lambda i, k: True)
    got = certify(run, ASK)
    assert (
        got.status == "hopeless"
        and got.more_labels is None
        and "cannot be the rail's" in got.statement
    )


def test_best_of_n_is_judged_by_the_answer_that_it_gives(make_run, prompts):
    scores = [[0.9, 0.1, 0.5] for _ in range(100)]
    run = scored(make_run("r", prompts(100), {"harmful": [[False] * 3] * 100}), scores)
    ask = CertificateRequest(judge="test:harmful", best_of=True)
    drawn = draw_rows_to_label(run, ask, 70)
    assert {d.index for d in drawn} == {1}
    for d in drawn:
        add_label(
            run,
            Judgement(
                sample_id=d.sample_id, index=1, judge="human:a", question="harmful", verdict=False
            ),
        )
    got = certify(run, ask)
    assert got.status == "certified" and got.statement.startswith("best-of below=")


def test_a_labelled_set_certifies_if_it_is_whole(make_run, prompts):
    truth = [[i % 50 == 0] for i in range(300)]
    run = make_run("r", prompts(300), {"harmful@j": [[False]] * 300, "harmful@human:p": truth})
    got = certify(run, CertificateRequest(judge="j"), people="human:p")
    assert got.labels == 300 and got.events == 6 and got.status == "certified"
    part = make_run(
        "b",
        prompts(300),
        {"harmful@j": [[False]] * 300, "harmful@human:p": truth[:200] + [[]] * 100},
    )
    with pytest.raises(DataError, match="did not label every answer"):
        certify(part, CertificateRequest(judge="j"), people="human:p")
    with pytest.raises(RunError, match="human:q"):
        certify(part, CertificateRequest(judge="j"), people="human:q")


def test_a_certificate_is_wrong_at_most_as_often_as_it_says(make_run, prompts, monkeypatch):
    """300 calibration sets at a risk just over alpha: at most delta of them may be certified."""
    from truing.gates import certificate as room

    source, wrong = np.random.default_rng(0), 0
    run = scored(make_run("r", prompts(100), {"harmful": [[False]] * 100}), [[0.1]] * 100)
    for _ in range(300):
        truth = source.random(100) < 0.051
        monkeypatch.setattr(
            room,
            "_read_labels",
            lambda *_, t=truth: {(f"s{i}", 0): bool(x) for i, x in enumerate(t)},
        )
        wrong += certify(run, ASK).status == "certified"
    assert wrong / 300 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)


def test_prompts_that_the_judge_was_trained_on_certify_nothing(make_run, prompts):
    some = Lineage(
        name="j", hash="1" * 16, prompts=hash_prompts([f"question {i}" for i in range(100)])
    )
    rows = {"harmful@j": [[False]] * 200, "harmful@human:p": [[False]] * 200}
    got = certify(
        make_run("r", prompts(200), rows, lineages={"j": some}),
        CertificateRequest(judge="j"),
        people="human:p",
    )
    assert got.status == "certified" and (got.labels, got.prompts) == (100, 100)
    rows = {k: v[:50] for k, v in rows.items()}
    with pytest.raises(LineageError, match="trained on all 50 prompts"):
        certify(
            make_run("b", prompts(50), rows, lineages={"j": some}),
            CertificateRequest(judge="j"),
            people="human:p",
        )


def test_what_cannot_be_asked(make_run, prompts):
    run = make_run("r", prompts(10), {"harmful": [[False]] * 10})
    with pytest.raises(RunError, match="did you mean 'test:harmful'"):
        certify(run, CertificateRequest(judge="test:harmfu"))
    with pytest.raises(PlanError, match="between 0 and 1"):
        certify(run, CertificateRequest(judge="test:harmful", alpha=0))
    with pytest.raises(PlanError, match="no threshold lies under"):
        certify(run, CertificateRequest(judge="test:harmful", loosest=-1))
    with pytest.raises(DataError, match="at least one"):
        draw_rows_to_label(run, ASK, 0)
    with pytest.raises(DataError, match="no scores"):
        certify(scored(run, [[None]] * 10), ASK)
    half = make_run("half", prompts(10), {"harmful": [[False]] * 10})
    manifest = json.loads((half / "manifest.json").read_text())
    (half / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    for ask in (lambda: certify(half, ASK), lambda: draw_rows(half, 3)):
        with pytest.raises(RunError, match="not complete"):
            ask()
    assert certify(make_run("b", prompts(10), {"harmful": [[False]] * 10}), ASK).more_labels == 59
    assert Run(run).manifest.complete
