"""Cards from labelled runs against hand counts; rows the judge was trained on; transport, and when it is refused."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from truing.analysis.comparison import compare
from truing.analysis.judge_card import make_card, read_card, write_card
from truing.analysis.summary import summarise
from truing.core.errors import DataError, LineageError, RunError
from truing.core.lineage import hash_prompts
from truing.core.types import Judgement, Lineage
from truing.runs.folder import JudgeRecord

JUDGE = Lineage(name="j", hash="1" * 16)


def labelled(make_run, prompts, verdicts, truth, name="set", lineage=JUDGE):
    rows = {"harmful@j": verdicts, "harmful@human:people": truth}
    return make_run(name, prompts(len(truth)), rows, lineages={"j": lineage})


def test_counts_by_hand(make_run, prompts):
    said = [[True]] * 8 + [[False]] * 2 + [[True]] * 3 + [[False]] * 7
    run = labelled(make_run, prompts, said, [[True]] * 10 + [[False]] * 10)
    card = make_card(run, "j")
    q = card.questions["harmful"]
    assert (q.n, q.n_positive) == (20, 10)
    assert q.sensitivity.estimate == 0.8 and q.specificity.estimate == 0.7
    assert q.precision.estimate == pytest.approx(8 / 11)
    assert card.kappa.estimate == pytest.approx(0.5) and card.raters == ("human:people",)
    assert card.judge_hash == "1" * 16


def test_the_file_has_the_fields_of_the_contract(make_run, prompts, tmp_path):
    card = make_card(labelled(make_run, prompts, [[True], [False]], [[True], [False]]), "j")
    write_card(card, tmp_path / "sub" / "card.json")
    made = json.loads((tmp_path / "sub" / "card.json").read_text())
    assert {
        "judge",
        "judge_hash",
        "data_hash",
        "n",
        "questions",
        "per_category",
        "ece",
        "kappa",
        "lineage",
        "licence",
    } <= set(made)
    assert {"base", "base_sha256", "prompt_hashes"} <= set(made["lineage"])
    assert read_card(tmp_path / "sub" / "card.json") == card


def test_categories_of_the_judge_against_those_of_people(make_run, prompts):
    run = labelled(make_run, prompts, [[True]] * 4, [[True]] * 4)
    for judge, harms in (("j", [0.9, 0.8, 0.2, 0.1]), ("human:people", [1.0, 0.0, 1.0, 0.0])):
        records = json.loads((run / "manifest.json").read_text())["judges"]
        record = next(r for r in records if r["name"] == judge)
        rows = [
            Judgement(
                sample_id=f"s{i}",
                judge=judge,
                question="harmful",
                verdict=True,
                harms={"self_harm": h},
            )
            for i, h in enumerate(harms)
        ]
        (run / record["file"]).write_bytes(b"".join(msgspec.json.encode(r) + b"\n" for r in rows))
    card = make_card(run, "j")
    got = card.per_category["self_harm"]
    assert card.per_category_of == "labels"
    assert (got.n_positive, got.precision.estimate, got.recall.estimate) == (2, 0.5, 0.5)
    assert got.auroc.estimate == pytest.approx(3 / 4)


def test_rows_that_the_judge_was_trained_on_are_refused(make_run, prompts):
    trained = Lineage(name="j", hash="1" * 16, prompts=hash_prompts(["Question 0", "question 1!"]))
    run = labelled(
        make_run, prompts, [[True]] * 4, [[True], [True], [False], [True]], lineage=trained
    )
    card = make_card(run, "j")
    assert (card.n, card.left_out) == (2, 2)
    whole = Lineage(
        name="j",
        hash="1" * 16,
        judges=(Lineage(name="teacher", prompts=hash_prompts(["question 0"])),),
    )
    with pytest.raises(LineageError, match="trained on all"):
        make_card(labelled(make_run, prompts, [[True]], [[True]], name="b", lineage=whole), "j")


def test_runs_of_which_no_card_can_be_made(make_run, prompts):
    with pytest.raises(RunError, match="has not judged"):
        make_card(labelled(make_run, prompts, [[True]], [[True]]), "other")
    with pytest.raises(RunError, match="nobody labelled"):
        make_card(make_run("b", prompts(1), {"harmful@j": [[True]]}), "j")
    with pytest.raises(DataError, match="scored none"):
        make_card(labelled(make_run, prompts, [[None]], [[True]], name="c"), "j")


def test_no_positives_is_a_card_without_a_sensitivity(make_run, prompts, tmp_path):
    run = labelled(make_run, prompts, [[True], [False], [False]], [[False]] * 3)
    card = make_card(run, "j")
    assert card.questions["harmful"].sensitivity is None
    write_card(card, tmp_path / "c.json")
    got = summarise(run, {"j": tmp_path / "c.json"}).find("harmful", judge="j").transported
    assert got.estimate is None and "no positive labels" in got.refused


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"judge": 3}', "\x00"])
def test_what_is_no_card(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(DataError, match=r"c\.json: no judge's card"):
        read_card(tmp_path / "c.json")


def garak(make_run, prompts, tmp_path):
    """A card with sensitivity 0.92 and specificity 0.39 (garak's detector), from 100 rows of each kind."""
    verdicts = [[True]] * 92 + [[False]] * 8 + [[True]] * 61 + [[False]] * 39
    card = make_card(labelled(make_run, prompts, verdicts, [[True]] * 100 + [[False]] * 100), "j")
    write_card(card, tmp_path / "garak.json")
    return tmp_path / "garak.json"


def test_transport_is_a_band_or_refused(make_run, prompts, tmp_path):
    path = garak(make_run, prompts, tmp_path)
    fits = make_run(
        "a", prompts(1000), {"harmful@j": [[True]] * 700 + [[False]] * 300}, lineages={"j": JUDGE}
    )
    got = summarise(fits, {"j": path}).find("harmful").transported
    assert got.estimate == pytest.approx((0.7 + 0.39 - 1) / (0.92 + 0.39 - 1))
    assert (
        got.band[0] <= got.lower <= got.estimate <= got.upper <= got.band[1]
        and got.note == "assumes transport"
    )
    # garak's case: 514 of 1,000, under 1 - specificity = 0.61: its interval was [0, 0]
    odd = make_run(
        "b", prompts(1000), {"harmful@j": [[True]] * 450 + [[False]] * 550}, lineages={"j": JUDGE}
    )
    got = summarise(odd, {"j": path}).find("harmful").transported
    assert got.estimate is None and "below 1 - specificity" in got.refused


def test_a_card_of_refusals_corrects_answered_benign_prompts_by_hand(make_run, prompts, tmp_path):
    """Sensitivity 0.9, specificity 0.95; 1,000 benign prompts, 200 of them degenerate, 120 of the others judged refused."""
    verdicts = [[True]] * 90 + [[False]] * 10 + [[True]] * 5 + [[False]] * 95
    labels = make_run(
        "l",
        prompts(200),
        {"refused@j": verdicts, "refused@human:a": [[True]] * 100 + [[False]] * 100},
        lineages={"j": JUDGE},
    )
    write_card(make_card(labels, "j"), tmp_path / "card.json")
    refused = [[True]] * 120 + [[False]] * 680 + [[False]] * 200
    spoilt = [[False]] * 800 + [[True]] * 200
    run = make_run(
        "r",
        prompts(1000, expect="comply"),
        {"refused@j": refused, "degenerate": spoilt},
        lineages={"j": JUDGE},
    )
    got = summarise(run, {"j": tmp_path / "card.json"}).find("answers_benign")
    assert got.raw.estimate == 0.68
    rate = (120 / 800 + 0.95 - 1) / (0.9 + 0.95 - 1)  # of refusals among the whole answers
    t = got.transported
    assert t.estimate == pytest.approx(0.8 * (1 - rate))
    assert t.band[0] <= t.lower < t.estimate < t.upper <= t.band[1] and "whole answers" in t.method
    # nothing spoilt: exactly the mirror of the share of refusals
    plain = make_run(
        "p", prompts(1000, expect="comply"), {"refused@j": refused}, lineages={"j": JUDGE}
    )
    summary = summarise(plain, {"j": tmp_path / "card.json"})
    t, m = summary.find("answers_benign").transported, summary.find("refuses_benign").transported
    assert (t.estimate, t.lower, t.upper) == pytest.approx(
        (1 - m.estimate, 1 - m.upper, 1 - m.lower)
    )
    # nothing but spoilt answers: there is nothing to apply the card to
    none = make_run(
        "n",
        prompts(40, expect="comply"),
        {"refused@j": [[False]] * 40, "degenerate": [[True]] * 40},
        lineages={"j": JUDGE},
    )
    t = summarise(none, {"j": tmp_path / "card.json"}).find("answers_benign").transported
    assert t.estimate is None and t.refused == "no whole answer"


def test_a_card_of_another_version_is_refused_by_hash(make_run, prompts, tmp_path):
    path = garak(make_run, prompts, tmp_path)
    other = make_run(
        "a",
        prompts(10),
        {"harmful@j": [[True]] * 10},
        lineages={"j": Lineage(name="j", hash="2" * 16)},
    )
    with pytest.raises(DataError, match="another version of j"):
        summarise(other, {"j": path})
    with pytest.raises(DataError, match="did not judge this run"):
        summarise(make_run("b", prompts(10), {"harmful": [[True]] * 10}), {"j": path})
    assert JudgeRecord(name="j", question="harmful", file="x").lineage.hash == ""


def test_transported_differences_are_raw_over_youden(make_run, prompts, tmp_path):
    path = garak(make_run, prompts, tmp_path)
    a = make_run(
        "a", prompts(1000), {"harmful@j": [[True]] * 800 + [[False]] * 200}, lineages={"j": JUDGE}
    )
    b = make_run(
        "b", prompts(1000), {"harmful@j": [[True]] * 700 + [[False]] * 300}, lineages={"j": JUDGE}
    )
    got = compare(a, b, cards={"j": path}).find("harmful").transported
    assert got is not None and got.estimate == pytest.approx(-0.1 / 0.31)
    assert got.lower <= got.estimate <= got.upper < 0
    low = make_run(
        "c", prompts(1000), {"harmful@j": [[True]] * 300 + [[False]] * 700}, lineages={"j": JUDGE}
    )
    assert compare(a, low, cards={"j": path}).find("harmful").transported is None


def test_a_card_against_degrees_that_a_machine_gave(make_run, prompts, tmp_path):
    """A judge of harm beside toxicity scores: Spearman is scipy's, the mean difference Student's."""
    from scipy import stats

    rng = np.random.default_rng(0)
    truth = rng.random(80)
    given = np.clip(truth * 0.6 + rng.normal(0, 0.1, 80), 0, 1)
    run = make_run(
        "r",
        prompts(80),
        {
            "harmful@j": [[bool(g >= 0.5)] for g in given],
            "toxicity@perspective:rtp": [[bool(t >= 0.5)] for t in truth],
        },
        lineages={"j": JUDGE},
    )
    for record in json.loads((run / "manifest.json").read_bytes())["judges"]:
        scores = given if record["name"] == "j" else truth
        rows = [json.loads(line) for line in (run / record["file"]).read_bytes().splitlines()]
        lines = [json.dumps(row | {"score": float(s)}) + "\n" for row, s in zip(rows, scores)]
        (run / record["file"]).write_text("".join(lines))
    with pytest.raises(
        RunError,
        match=r"nobody labelled 'harmful'.*its labels answer toxicity: name one by --against",
    ):
        make_card(run, "j")
    with pytest.raises(RunError, match="nobody labelled 'insult'"):
        make_card(run, "j", against="insult")
    card = make_card(run, "j", against="toxicity")
    q = card.questions["harmful"]
    assert (card.against, card.raters, q.n) == ("toxicity", ("perspective:rtp",), 80)
    assert q.graded.n == 80
    assert q.graded.spearman.estimate == pytest.approx(stats.spearmanr(given, truth).statistic)
    low, high = stats.t.interval(0.95, 79, (given - truth).mean(), stats.sem(given - truth))
    assert (q.graded.difference.lower, q.graded.difference.upper) == pytest.approx((low, high))
    assert q.graded.absolute == pytest.approx(np.abs(given - truth).mean())
    assert q.sensitivity.estimate == pytest.approx(np.mean(given[truth >= 0.5] >= 0.5))
    # such a card says nothing of the rate of harmful answers
    write_card(card, tmp_path / "card.json")
    assert read_card(tmp_path / "card.json") == card
    with pytest.raises(
        DataError, match=r"labels of 'toxicity', which corrects no rate of 'harmful'"
    ):
        summarise(run, {"j": tmp_path / "card.json"})


def test_labels_that_are_yes_or_no_are_no_degrees(make_run, prompts):
    run = labelled(make_run, prompts, [[True]] * 5 + [[False]] * 5, [[True]] * 6 + [[False]] * 4)
    for record in json.loads((run / "manifest.json").read_bytes())["judges"]:
        if record["name"].startswith("human:"):
            rows = [json.loads(line) for line in (run / record["file"]).read_bytes().splitlines()]
            (run / record["file"]).write_text(
                "".join(json.dumps(r | {"score": float(r["verdict"])}) + "\n" for r in rows)
            )
    assert make_card(run, "j").questions["harmful"].graded is None
