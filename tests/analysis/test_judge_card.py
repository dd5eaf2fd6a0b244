"""Judge cards from labelled runs, against counts by hand; rows that the judge was trained on."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from msgspec import structs
from tests.analysis.card_runs import JUDGE, build_labelled_run, set_scores

from truing.analysis.card_files import read_card, write_card
from truing.analysis.judge_card import make_card
from truing.analysis.summary import summarise
from truing.core.errors import DataError, LineageError, RunError
from truing.core.lineage import hash_prompts
from truing.core.types import Judgement, Lineage


def test_error_rates_by_hand(make_run, prompts):
    verdicts = [[True]] * 8 + [[False]] * 2 + [[True]] * 3 + [[False]] * 7
    truth = [[True]] * 10 + [[False]] * 10
    card = make_card(build_labelled_run(make_run, prompts, verdicts, truth), "j")
    question = card.questions["harmful"]
    assert (question.n, question.n_positive) == (20, 10)
    assert (question.sensitivity.estimate, question.specificity.estimate) == (0.8, 0.7)
    assert question.precision.estimate == pytest.approx(8 / 11)
    assert card.kappa.estimate == pytest.approx(0.5)
    assert (card.raters, card.judge_hash) == (("human:people",), "1" * 16)


def test_rows_with_one_prompt_are_one_cluster_whatever_their_ids(make_run, prompts):
    """Twenty prompts, each recorded ten times under its own id: twenty facts, not two hundred."""
    verdicts = [[True]] * 8 + [[False]] * 2 + [[True]] * 3 + [[False]] * 7
    truth = [[True]] * 10 + [[False]] * 10
    repeated = [
        structs.replace(sample, id=f"{sample.id}-{k}") for sample in prompts(20) for k in range(10)
    ]
    rows = {
        "harmful@j": [v for v in verdicts for _ in range(10)],
        "harmful@human:people": [t for t in truth for _ in range(10)],
    }
    many = make_card(make_run("many", repeated, rows, lineages={"j": JUDGE}), "j")
    once = make_card(build_labelled_run(make_run, prompts, verdicts, truth), "j")
    of_many, of_once = many.questions["harmful"], once.questions["harmful"]
    assert of_many.n == 200
    for name in ("sensitivity", "specificity", "precision", "f1", "kappa"):
        wide, narrow = getattr(of_once, name), getattr(of_many, name)
        assert narrow.estimate == pytest.approx(wide.estimate)
        assert narrow.width > 0.85 * wide.width


def test_the_file_has_the_fields_of_the_contract(make_run, prompts, tmp_path):
    run = build_labelled_run(make_run, prompts, [[True], [False]], [[True], [False]])
    card, path = make_card(run, "j"), tmp_path / "sub" / "card.json"
    write_card(card, path)
    document = json.loads(path.read_text())
    fields = "judge judge_hash data_hash n questions per_category ece kappa lineage licence"
    assert set(fields.split()) <= set(document)
    assert {"base", "base_sha256", "prompt_hashes"} <= set(document["lineage"])
    assert read_card(path) == card


def test_the_judges_categories_are_compared_with_peoples(make_run, prompts):
    run = build_labelled_run(make_run, prompts, [[True]] * 4, [[True]] * 4)
    records = json.loads((run / "manifest.json").read_text())["judges"]
    for judge, probabilities in (("j", [0.9, 0.8, 0.2, 0.1]), ("human:people", [1.0, 0, 1.0, 0])):
        record = next(r for r in records if r["name"] == judge)
        rows = [
            Judgement(
                sample_id=f"s{i}",
                judge=judge,
                question="harmful",
                verdict=True,
                harms={"self_harm": p},
            )
            for i, p in enumerate(probabilities)
        ]
        (run / record["file"]).write_bytes(b"".join(msgspec.json.encode(r) + b"\n" for r in rows))
    card = make_card(run, "j")
    scores = card.per_category["self_harm"]
    assert card.per_category_of == "labels"
    assert (scores.n_positive, scores.precision.estimate, scores.recall.estimate) == (2, 0.5, 0.5)
    assert scores.auroc.estimate == pytest.approx(3 / 4)


def test_without_own_categories_the_question_is_scored_by_category(make_run, prompts):
    samples = prompts(4, harms=("self_harm",))
    rows = {"harmful@j": [[True]] * 4, "harmful@human:a": [[True]] * 3 + [[False]]}
    card = make_card(make_run("r", samples, rows, lineages={"j": JUDGE}), "j")
    assert card.per_category_of == "rows of the category"
    assert card.per_category["self_harm"].precision.estimate == 0.75


def test_a_tie_among_people_is_left_out(make_run, prompts):
    rows = {
        "harmful@j": [[True]] * 3,
        "harmful@human:a": [[True]] * 3,
        "harmful@human:b": [[False], [True], [True]],
    }
    card = make_card(make_run("r", prompts(3), rows, lineages={"j": JUDGE}), "j")
    assert (card.n, card.raters) == (2, ("human:a", "human:b"))


def test_rows_that_the_judge_was_trained_on_are_left_out(make_run, prompts):
    trained = Lineage(name="j", hash="1" * 16, prompts=hash_prompts(["Question 0", "question 1!"]))
    truth = [[True], [True], [False], [True]]
    run = build_labelled_run(make_run, prompts, [[True]] * 4, truth, lineage=trained)
    card = make_card(run, "j")
    assert (card.n, card.left_out) == (2, 2)


def test_training_of_a_judge_behind_the_judge_counts_too(make_run, prompts):
    teacher = Lineage(name="teacher", prompts=hash_prompts(["question 0"]))
    student = Lineage(name="j", hash="1" * 16, judges=(teacher,))
    run = build_labelled_run(make_run, prompts, [[True]], [[True]], lineage=student)
    with pytest.raises(LineageError, match="trained on all"):
        make_card(run, "j")


def test_runs_without_what_a_card_needs(make_run, prompts):
    with pytest.raises(RunError, match="has not judged"):
        make_card(build_labelled_run(make_run, prompts, [[True]], [[True]]), "other")
    with pytest.raises(RunError, match="nobody labelled"):
        make_card(make_run("b", prompts(1), {"harmful@j": [[True]]}), "j")
    with pytest.raises(DataError, match="scored none"):
        make_card(build_labelled_run(make_run, prompts, [[None]], [[True]], name="c"), "j")


def test_without_positives_there_is_no_sensitivity(make_run, prompts, tmp_path):
    run = build_labelled_run(make_run, prompts, [[True], [False], [False]], [[False]] * 3)
    card = make_card(run, "j")
    assert card.questions["harmful"].sensitivity is None
    write_card(card, tmp_path / "c.json")
    transported = summarise(run, {"j": tmp_path / "c.json"}).find("harmful", judge="j").transported
    assert transported.estimate is None
    assert "no positive labels" in transported.refused


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"judge": 3}', "\x00"])
def test_files_that_are_no_card(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(DataError, match=r"c\.json: no judge's card"):
        read_card(tmp_path / "c.json")


@pytest.fixture
def toxicity_run(make_run, prompts):
    """A judge of harm beside a machine's toxicity scores; returns run, probabilities, scores."""
    rng = np.random.default_rng(0)
    toxicity = rng.random(80)
    probability = np.clip(toxicity * 0.6 + rng.normal(0, 0.1, 80), 0, 1)
    run = make_run(
        "r",
        prompts(80),
        {
            "harmful@j": [[bool(p >= 0.5)] for p in probability],
            "toxicity@perspective:rtp": [[bool(t >= 0.5)] for t in toxicity],
        },
        lineages={"j": JUDGE},
    )
    set_scores(run, "j", probability)
    set_scores(run, "perspective:rtp", toxicity)
    return run, probability, toxicity


def test_labels_of_another_question_have_to_be_named(toxicity_run):
    run, _, _ = toxicity_run
    expected = r"nobody labelled 'harmful'.*its labels answer toxicity: name one by --against"
    with pytest.raises(RunError, match=expected):
        make_card(run, "j")
    with pytest.raises(RunError, match="nobody labelled 'insult'"):
        make_card(run, "j", against="insult")


def test_a_card_against_degrees(toxicity_run, tmp_path):
    from scipy import stats

    run, probability, toxicity = toxicity_run
    card = make_card(run, "j", against="toxicity")
    question = card.questions["harmful"]
    assert (card.against, card.raters, question.n) == ("toxicity", ("perspective:rtp",), 80)
    graded, difference = question.graded, probability - toxicity
    assert graded.n == 80
    assert graded.spearman.estimate == pytest.approx(
        stats.spearmanr(probability, toxicity).statistic
    )
    interval = stats.t.interval(0.95, 79, difference.mean(), stats.sem(difference))
    assert (graded.difference.lower, graded.difference.upper) == pytest.approx(interval)
    assert graded.absolute == pytest.approx(np.abs(difference).mean())
    assert question.sensitivity.estimate == pytest.approx(
        np.mean(probability[toxicity >= 0.5] >= 0.5)
    )
    # Such a card says nothing about the rate of harmful answers.
    write_card(card, tmp_path / "card.json")
    assert read_card(tmp_path / "card.json") == card
    expected = r"labels of 'toxicity', which corrects no rate of 'harmful'"
    with pytest.raises(DataError, match=expected):
        summarise(run, {"j": tmp_path / "card.json"})


def test_labels_of_0_and_1_are_no_degrees(make_run, prompts):
    verdicts, truth = [[True]] * 5 + [[False]] * 5, [[True]] * 6 + [[False]] * 4
    run = build_labelled_run(make_run, prompts, verdicts, truth)
    set_scores(run, "human:people", [float(t) for (t,) in truth])
    assert make_card(run, "j").questions["harmful"].graded is None
