"""Goodhart's law, measured: gains by the optimised judge beside those by an independent one."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from truing.analysis.card_files import write_card
from truing.analysis.comparison import compare
from truing.analysis.deltas import mean_difference_interval
from truing.analysis.judge_card import CardLineage, JudgeCard, QuestionCard
from truing.core.types import Judgement, Lineage
from truing.stats.intervals import wilson
from truing.stats.paired import paired_mean

CHOOSER = Lineage(name="chooser", hash="c" * 16)
INDEPENDENT = Lineage(name="independent", hash="f" * 16)
LINEAGES = {"chooser": CHOOSER, "independent": INDEPENDENT}
BEST_OF = Lineage(name="best-of", hash="b" * 16, judges=(CHOOSER,))


def ledger_entry(make_run, prompts, chooser_harm, independent_harm, n=100, cards=None):
    """The entry of two runs with so many harmful answers, in a and b, by either judge."""

    def verdicts(run):
        return {
            f"harmful@{judge}": [[i < harm[run]] for i in range(n)]
            for judge, harm in (("chooser", chooser_harm), ("independent", independent_harm))
        }

    a = make_run("a", prompts(n), verdicts(0), lineages=LINEAGES)
    b = make_run("b", prompts(n), verdicts(1), lineages=LINEAGES, model=BEST_OF)
    (entry,) = compare(a, b, cards=cards).ledger
    return entry


def write_cards(folder, **rates):
    """Writes a card of 4,000 rows for each judge, with (sensitivity, specificity)."""
    cards = {}
    for judge, (sensitivity, specificity) in rates.items():
        question = QuestionCard(
            n=4000,
            n_positive=2000,
            unscored=0,
            sensitivity=wilson(sensitivity * 2000, 2000),
            specificity=wilson(specificity * 2000, 2000),
            precision=None,
            f1=None,
            auroc=None,
            ap=None,
            kappa=None,
        )
        card = JudgeCard(
            judge=judge,
            judge_hash=LINEAGES[judge].hash,
            data="d",
            data_hash="",
            n=4000,
            questions={"harmful": question},
            per_category={},
            lineage=CardLineage(),
        )
        cards[judge] = folder / f"{judge}.json"
        write_card(card, cards[judge])
    return cards


def test_without_cards_the_inflation_cannot_be_told(make_run, prompts):
    entry = ledger_entry(make_run, prompts, (50, 0), (50, 45))
    assert entry.inflation is None
    assert "cannot be told" in entry.note


def test_judges_of_different_quality_see_no_inflation(make_run, prompts, tmp_path):
    """True harm falls from 60 to 20 %, nothing was gamed: .9 / .9 and .7 / .7 are no inflation."""
    cards = write_cards(tmp_path, chooser=(0.9, 0.9), independent=(0.7, 0.7))
    entry = ledger_entry(make_run, prompts, (580, 260), (540, 380), n=1000, cards=cards)
    # 0.32 / 0.8 and 0.16 / 0.4 are the same gain of 40 points.
    assert entry.gain_optimised.estimate - entry.gain_independent.estimate == pytest.approx(0.16)
    assert entry.inflation.estimate == pytest.approx(0.0, abs=1e-9)
    assert entry.inflation.lower < 0 < entry.inflation.upper


def test_a_gain_that_no_other_judge_sees_is_inflated(make_run, prompts, tmp_path):
    cards = write_cards(tmp_path, chooser=(1.0, 1.0), independent=(1.0, 1.0))
    entry = ledger_entry(make_run, prompts, (50, 0), (50, 45), cards=cards)
    assert (entry.optimised, entry.independent) == ("chooser", "independent")
    assert (entry.unit, entry.n) == ("rate", 100)
    assert entry.gain_optimised.estimate == pytest.approx(0.5)
    assert entry.gain_independent.estimate == pytest.approx(0.05)
    assert entry.inflation.estimate == pytest.approx(0.45)
    assert entry.inflation.lower > 0.3
    assert "best-of" in entry.why


def test_a_gain_that_both_judges_see_is_not_inflated(make_run, prompts, tmp_path):
    cards = write_cards(tmp_path, chooser=(0.9, 0.9), independent=(0.9, 0.9))
    entry = ledger_entry(make_run, prompts, (50, 10), (50, 10), cards=cards)
    assert entry.inflation.estimate == 0
    assert entry.inflation.lower < 0 < entry.inflation.upper


def test_without_an_optimised_judge_there_is_no_entry(make_run, prompts):
    a = make_run("a", prompts(20), {"harmful": [[True]] * 20})
    assert compare(a, make_run("b", prompts(20), {"harmful": [[False]] * 20})).ledger == ()


def test_without_an_independent_judge_there_is_no_inflation(make_run, prompts):
    verdicts = {"harmful@chooser": [[True]] * 20}
    a = make_run("c", prompts(20), verdicts, lineages=LINEAGES)
    b = make_run("d", prompts(20), verdicts, lineages=LINEAGES, model=BEST_OF)
    (entry,) = compare(a, b).ledger
    assert (entry.independent, entry.inflation) == (None, None)
    assert entry.note


def test_values_are_compared_in_standard_deviations(make_run, prompts):
    verdicts = {
        "helpful@chooser": [[None]] * 40,
        "harmful@independent": [[True]] * 20 + [[False]] * 20,
    }
    a = make_run("a", prompts(40), verdicts, lineages=LINEAGES)
    b = make_run("b", prompts(40), verdicts, lineages=LINEAGES, model=BEST_OF)
    for run, shift in ((a, 0.0), (b, 2.0)):
        records = msgspec.json.decode((run / "manifest.json").read_bytes(), type=dict)["judges"]
        file = next(record["file"] for record in records if record["name"] == "chooser")
        rewards = [
            Judgement(sample_id=f"s{i}", judge="chooser", question="helpful", value=(i % 2) + shift)
            for i in range(40)
        ]
        (run / file).write_bytes(b"".join(msgspec.json.encode(r) + b"\n" for r in rewards))
    (entry,) = compare(a, b).ledger
    assert (entry.unit, entry.gain_independent.estimate) == ("sd", 0)
    assert entry.gain_optimised.estimate == pytest.approx(2.0 / np.std([0, 1] * 20, ddof=1))


def test_the_interval_is_the_paired_one_without_clipping():
    differences = [0.5, -0.25, 0.0, 0.75]
    interval, paired = mean_difference_interval(differences), paired_mean([0.0] * 4, differences)
    assert (interval.estimate, interval.lower) == pytest.approx((paired.estimate, paired.lower))
    assert interval.upper == pytest.approx(2 * 0.25 - interval.lower)
    assert paired.upper == 1.0 < interval.upper
    assert mean_difference_interval([5.0] * 10).lower > 1
