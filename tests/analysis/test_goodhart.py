"""The Goodhart ledger, corrected differences of two runs, and figures of runs that were stopped."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from truing.analysis.comparison import compare
from truing.analysis.label_draws import draw_rows
from truing.analysis.labels import add_label
from truing.analysis.summary import summarise
from truing.core.types import Judgement, Lineage

CHOOSER, FREE = Lineage(name="chooser", hash="c" * 16), Lineage(name="free", hash="f" * 16)
BEST = Lineage(name="best-of", hash="b" * 16, judges=(CHOOSER,))


def two(make_run, prompts, chosen, free, n=100):
    lineages = {"chooser": CHOOSER, "free": FREE}

    def rows(yes):
        return [[True]] * yes + [[False]] * (n - yes)

    a = make_run(
        "a",
        prompts(n),
        {"harmful@chooser": rows(chosen[0]), "harmful@free": rows(free[0])},
        lineages=lineages,
    )
    b = make_run(
        "b",
        prompts(n),
        {"harmful@chooser": rows(chosen[1]), "harmful@free": rows(free[1])},
        lineages=lineages,
        model=BEST,
    )
    return compare(a, b)


def test_the_gain_that_no_other_judge_sees(make_run, prompts):
    (line,) = two(make_run, prompts, (50, 0), (50, 45)).ledger
    assert (line.optimised, line.independent, line.unit, line.n) == ("chooser", "free", "rate", 100)
    assert line.gain_optimised.estimate == pytest.approx(
        0.5
    ) and line.gain_independent.estimate == pytest.approx(0.05)
    assert line.inflation.estimate == pytest.approx(0.45) and line.inflation.lower > 0.3
    assert "best-of" in line.why


def test_a_gain_that_both_see_is_not_inflated(make_run, prompts):
    (line,) = two(make_run, prompts, (50, 10), (50, 10)).ledger
    assert line.inflation.estimate == 0 and line.inflation.lower < 0 < line.inflation.upper


def test_no_lever_no_ledger_and_no_witness_is_said(make_run, prompts):
    a = make_run("a", prompts(20), {"harmful": [[True]] * 20})
    assert compare(a, make_run("b", prompts(20), {"harmful": [[False]] * 20})).ledger == ()
    one = {"harmful@chooser": [[True]] * 20}
    a = make_run("c", prompts(20), one, lineages={"chooser": CHOOSER})
    b = make_run("d", prompts(20), one, lineages={"chooser": CHOOSER}, model=BEST)
    (line,) = compare(a, b).ledger
    assert line.independent is None and line.inflation is None and "nothing confirms" in line.note


def test_a_judge_that_gives_values_is_counted_in_deviations(make_run, prompts):
    rows = {"helpful@chooser": [[None]] * 40, "harmful@free": [[True]] * 20 + [[False]] * 20}
    lineages = {"chooser": CHOOSER, "free": FREE}
    a = make_run("a", prompts(40), rows, lineages=lineages)
    b = make_run("b", prompts(40), rows, lineages=lineages, model=BEST)
    for run, shift in ((a, 0.0), (b, 2.0)):
        records = msgspec.json.decode((run / "manifest.json").read_bytes(), type=dict)["judges"]
        file = next(r["file"] for r in records if r["name"] == "chooser")
        given = [
            Judgement(sample_id=f"s{i}", judge="chooser", question="helpful", value=(i % 2) + shift)
            for i in range(40)
        ]
        (run / file).write_bytes(b"".join(msgspec.json.encode(g) + b"\n" for g in given))
    (line,) = compare(a, b).ledger
    assert line.unit == "sd" and line.gain_independent.estimate == 0
    assert line.gain_optimised.estimate == pytest.approx(2.0 / np.std([0, 1] * 20, ddof=1))


def label_all(run, truth, n):
    for d in draw_rows(run, n):
        add_label(
            run,
            Judgement(
                sample_id=d.sample_id,
                judge="human:a",
                question="harmful",
                verdict=bool(truth[int(d.sample_id[1:])]),
            ),
        )


def test_a_corrected_difference_sees_what_a_lenient_judge_hides(make_run, prompts):
    source = np.random.default_rng(5)
    n = 1500
    truth_a, truth_b = source.random(n) < 0.5, source.random(n) < 0.2
    judged = {}
    for name, truth in (("a", truth_a), ("b", truth_b)):
        seen = np.where(truth, source.random(n) < 0.7, source.random(n) < 0.1)
        judged[name] = make_run(name, prompts(n), {"harmful": [[bool(s)] for s in seen]})
        label_all(judged[name], truth, 250)
    got = compare(judged["a"], judged["b"]).find("harmful")
    true = truth_b.mean() - truth_a.mean()
    assert got.corrected.method == "ppi++ difference"
    assert got.corrected.lower < true < got.corrected.upper and got.corrected.upper < 0
    assert got.estimate > got.corrected.estimate


def test_few_labels_give_a_wide_difference_and_one_arm_none(make_run, prompts):
    a = make_run("a", prompts(100), {"harmful": [[True]] * 50 + [[False]] * 50})
    b = make_run("b", prompts(100), {"harmful": [[False]] * 100})
    label_all(a, np.arange(100) < 50, 20)
    assert compare(a, b).find("harmful").corrected is None
    label_all(b, np.zeros(100), 20)
    got = compare(a, b).find("harmful").corrected
    assert (
        got.method.startswith("square-and-add") and -1 <= got.lower < got.estimate < got.upper <= 1
    )


def stop(run, seed=0):
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["notes"] = {"until": "stopped after 200 of 200 draws"}
    (run / "manifest.json").write_text(json.dumps(manifest))
    return run


def test_a_stopped_run_reports_its_sequence_and_never_wilson(make_run, prompts):
    verdicts = {"harmful": [[i % 4 == 0] for i in range(200)]}
    plain = summarise(make_run("p", prompts(200, expect="refuse", harms=("self_harm",)), verdicts))
    got = summarise(
        stop(make_run("r", prompts(200, expect="refuse", harms=("self_harm",)), verdicts))
    )
    for question in ("harmful", "attack_success"):
        rate = got.find(question)
        assert rate.raw.method == "betting sequence" and rate.raw.estimate == pytest.approx(0.25)
        assert rate.raw.width > plain.find(question).raw.width
    assert got.find("harmful", "self_harm").raw.method == "betting sequence"


def test_a_stopped_run_is_compared_by_a_sequence(make_run, prompts):
    a = make_run("a", prompts(200), {"harmful": [[True]] * 200})
    b = stop(make_run("b", prompts(200), {"harmful": [[False]] * 200}))
    got = compare(a, b).find("harmful")
    assert got.method.startswith("paired betting") and got.upper < -0.7 and got.p is None


def test_the_plane_of_a_stopped_run_has_its_sequence_too(make_run, prompts):
    rows = {"refused": [[i % 2 == 0] for i in range(200)]}
    a = make_run("a", prompts(200, expect="comply"), rows)
    b = stop(make_run("b", prompts(200, expect="comply"), rows))
    assert [p.helpful.method for p in compare(a, b).points] == ["wilson", "betting sequence"]
