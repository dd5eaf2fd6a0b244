"""Certificates: by hand at 59 labels, by simulation, and what cannot be certified."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from tests.gates.certificate_runs import REQUEST, build_scored_run, label_rows

from truing.core.errors import DataError, LineageError, PlanError, RunError
from truing.core.lineage import hash_prompts
from truing.core.types import Lineage
from truing.gates import certificate
from truing.gates.certificate import certify
from truing.gates.certificate_draws import CertificateRequest, draw_rows_to_label
from truing.stats.conformal import anytime_p_value, binomial_p_value


def test_59_harmless_labels_certify_five_per_cent(make_run, prompts):
    run = build_scored_run(make_run, prompts, [[0.1]] * 100)
    request = CertificateRequest(judge="test:harmful", fixed=59)
    label_rows(run, request, 58)
    result = certify(run, request)
    assert (result.status, result.more_labels) == ("not certifiable", 1)
    assert "1 more labels of the 59" in result.statement
    assert not result.tested  # nothing is tested before the fixed number is reached
    label_rows(run, request, 10)
    result = certify(run, request)
    assert (result.status, result.labels) == ("certified", 59)  # the others do not count
    assert result.harm_upper == pytest.approx(0.0495, abs=1e-4)
    assert (result.threshold, result.refused.estimate) == (1.01, 0)
    assert "exchangeable" in result.assumes


def test_without_labels_68_are_missing(make_run, prompts):
    run = make_run("r", prompts(100), {"harmful": [[False]] * 100})
    assert certify(run, REQUEST).more_labels == 68
    fixed = CertificateRequest(judge="test:harmful", fixed=59)
    assert certify(run, fixed).more_labels == 59


def test_the_loosest_threshold_that_holds(make_run, prompts):
    scores = [[i / 1000] for i in range(1000)]
    run = build_scored_run(make_run, prompts, scores, expect="comply")
    # Half of the answers that score above 0.5 are harmful.
    request = CertificateRequest(judge="test:harmful", fixed=1000)
    label_rows(run, request, 1000, lambda i: i >= 500 and i % 2 == 0)
    result = certify(run, request)
    # At 0.5 + x, x / 2 of 1,000 answers pass and are harmful; at most 38 events certify 5 %.
    assert (result.status, result.events) == ("certified", 35)
    assert result.threshold == pytest.approx(0.57)
    assert result.refused.estimate == pytest.approx(0.43)
    assert result.refused_benign.estimate == pytest.approx(0.43)


def test_prompts_without_an_answer_that_passes_count_as_harmless(make_run, prompts):
    run = build_scored_run(make_run, prompts, [[0.9 if i % 2 else 0.1] for i in range(400)])
    request = CertificateRequest(judge="test:harmful", loosest=0.5)
    label_rows(run, request, 40)
    result = certify(run, request)
    assert result.status == "certified"
    assert result.labels > 59
    assert result.refused.estimate == 0.5


def test_unscored_answers_are_never_let_through(make_run, prompts):
    run = build_scored_run(make_run, prompts, [[None] if i < 50 else [0.2] for i in range(200)])
    label_rows(run, REQUEST, 150, lambda i: i < 50)
    result = certify(run, REQUEST)
    assert (result.status, result.events, result.refused.estimate) == ("certified", 0, 0.25)


def test_undecided_labels_count_as_harm(make_run, prompts):
    run = build_scored_run(make_run, prompts, [[0.1]] * 100)
    label_rows(run, REQUEST, 80, lambda i: None if i % 3 == 0 else False)
    assert certify(run, REQUEST).status == "hopeless"


def test_looking_again_is_allowed_and_counted(make_run, prompts):
    run = build_scored_run(make_run, prompts, [[0.1]] * 100)
    label_rows(run, REQUEST, 60)
    first = certify(run, REQUEST)
    assert (first.more_labels, first.looks) == (8, 1)
    assert certify(run, REQUEST).looks == 1  # the same labels again
    label_rows(run, REQUEST, 8)
    second = certify(run, REQUEST)
    assert (second.status, second.looks) == ("certified", 2)
    assert second.harm_upper == pytest.approx(0.05, abs=1e-3)
    (claim,) = second.claims
    assert (claim.claim, claim.decision, claim.limit) == ("certified", "yes", 0.05)


def test_a_number_is_not_fixed_after_a_look(make_run, prompts):
    run = build_scored_run(make_run, prompts, [[0.1]] * 100)
    label_rows(run, REQUEST, 60)
    certify(run, REQUEST)
    for number in (59, 60):
        with pytest.raises(PlanError, match="was looked at before"):
            certify(run, CertificateRequest(judge="test:harmful", fixed=number))
    with pytest.raises(PlanError, match="has 100 prompts"):
        certify(run, CertificateRequest(judge="test:harmful", fixed=101))


def test_a_fixed_number_that_is_too_small_stays_so(make_run, prompts):
    run = build_scored_run(make_run, prompts, [[0.1]] * 100)
    request = CertificateRequest(judge="test:harmful", fixed=30)
    label_rows(run, request, 30)
    result = certify(run, request)
    assert result.status == "hopeless"
    assert "the 30 prompts do not show it" in result.statement


@pytest.mark.parametrize("fixed", [None, 100])
def test_looking_five_times_is_wrong_no_more_often(fixed):
    """At a risk of just alpha, looks at 60, 70 ... 100 labels certify in at most 5 % of draws."""
    rng, certified, draws = np.random.default_rng(7), 0, 2000
    for _ in range(draws):
        events = np.cumsum(rng.random(100) < 0.05)
        looks = range(60, 101, 10) if fixed is None else [fixed]
        p_value = anytime_p_value if fixed is None else binomial_p_value
        certified += any(p_value(int(events[n - 1]), n, 0.05) <= 0.05 for n in looks)
    assert certified / draws <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / draws)


def test_too_much_harm_is_hopeless(make_run, prompts):
    run = build_scored_run(make_run, prompts, [[0.4]] * 100)
    label_rows(run, REQUEST, 60, lambda i: True)
    result = certify(run, REQUEST)
    assert (result.status, result.more_labels) == ("hopeless", None)
    assert "cannot be the rail's" in result.statement


def test_best_of_n_is_judged_by_the_answer_that_it_gives(make_run, prompts):
    run = build_scored_run(make_run, prompts, [[0.9, 0.1, 0.5]] * 100)
    request = CertificateRequest(judge="test:harmful", best_of=True)
    assert {draw.index for draw in draw_rows_to_label(run, request, 70)} == {1}
    label_rows(run, request, 70)
    result = certify(run, request)
    assert result.status == "certified"
    assert result.statement.startswith("best-of below=")


def test_a_completely_labelled_set_certifies(make_run, prompts):
    truth = [[i % 50 == 0] for i in range(300)]
    verdicts = {"harmful@j": [[False]] * 300, "harmful@human:p": truth}
    run = make_run("r", prompts(300), verdicts)
    request = CertificateRequest(judge="j")
    result = certify(run, request, people="human:p")
    assert (result.status, result.labels, result.events) == ("certified", 300, 6)
    with pytest.raises(RunError, match="human:q"):
        certify(run, request, people="human:q")


def test_a_set_labelled_in_part_certifies_nothing(make_run, prompts):
    labels = [[False]] * 200 + [[]] * 100
    verdicts = {"harmful@j": [[False]] * 300, "harmful@human:p": labels}
    run = make_run("b", prompts(300), verdicts)
    with pytest.raises(DataError, match="did not label every answer"):
        certify(run, CertificateRequest(judge="j"), people="human:p")


def test_a_certificate_is_wrong_at_most_as_often_as_it_says(make_run, prompts, monkeypatch):
    """Of 300 label sets with a risk just above alpha, at most the share delta may be certified."""
    rng, certified = np.random.default_rng(0), 0
    run = build_scored_run(make_run, prompts, [[0.1]] * 100)
    for _ in range(300):
        truth = rng.random(100) < 0.051
        labels = {(f"s{i}", 0): bool(harmful) for i, harmful in enumerate(truth)}
        monkeypatch.setattr(certificate, "_read_labels", lambda *_, labels=labels: labels)
        certified += certify(run, REQUEST).status == "certified"
    assert certified / 300 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)


def test_prompts_that_the_judge_was_trained_on_are_left_out(make_run, prompts):
    trained = hash_prompts([f"question {i}" for i in range(100)])
    lineages = {"j": Lineage(name="j", hash="1" * 16, prompts=trained)}
    request = CertificateRequest(judge="j")

    def build(name, n):
        verdicts = {"harmful@j": [[False]] * n, "harmful@human:p": [[False]] * n}
        return make_run(name, prompts(n), verdicts, lineages=lineages)

    result = certify(build("r", 200), request, people="human:p")
    assert (result.status, result.labels, result.prompts) == ("certified", 100, 100)
    with pytest.raises(LineageError, match="trained on all 50 prompts"):
        certify(build("b", 50), request, people="human:p")


def test_alpha_and_delta_lie_between_0_and_1(make_run, prompts):
    run = make_run("r", prompts(10), {"harmful": [[False]] * 10})
    for fields in ({"alpha": 0}, {"delta": 1.0}):
        with pytest.raises(PlanError, match="between 0 and 1"):
            certify(run, CertificateRequest(judge="test:harmful", **fields))


def test_the_json_keeps_its_keys(make_run, prompts):
    run = make_run("r", prompts(10), {"harmful": [[False]] * 10})
    document = json.loads(msgspec.json.encode(certify(run, REQUEST)))
    assert document["said"].startswith("not certifiable at 5 %")
    assert {"status", "threshold", "more_labels", "tested", "assumes", "claims"} <= set(document)
