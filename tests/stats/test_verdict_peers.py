"""Figures that verdicts rest on against evalstats and statsmodels, on the same inputs.

Both run in the environment `evalstats` of tests/peers.py (statsmodels is a dependency of it). Corrected means against ppi-python: `test_judge_error`.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import numpy as np
import pytest
from tests.peers import peer_python

from truing.stats.intervals import clustered_wilson, wilson
from truing.stats.judge_error import corrected_difference, corrected_rate, ppi_mean
from truing.stats.paired import holm, mcnemar_exact, paired_mean

pytestmark = [pytest.mark.peers, pytest.mark.timeout(900)]

PEER_SCRIPT = """
import json, sys
import numpy as np
import evalstats
import statsmodels.api as sm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

case = {name: np.array(v, float) for name, v in json.load(sys.stdin).items()}
rate = evalstats.mean_ci(case["judged_a"])
debiased = evalstats.judge_debias_mean_ci(case["judged_a"], case["labels_a"], rng=1)
paired = evalstats.tests.ttest(
    case["judged_b"], case["judged_a"], case["labels_b"], case["labels_a"],
    paired=True, rng=1, print_result=False,
)
change = case["means_b"] - case["means_a"]
by_prompt = sm.OLS(change, np.ones(len(change))).fit()
by_answer = sm.OLS(case["answers"].ravel(), np.ones(case["answers"].size)).fit(
    cov_type="cluster",
    cov_kwds={"groups": np.repeat(np.arange(len(case["answers"])), case["answers"].shape[1])},
    use_t=True,
)
print(json.dumps({
    "rate": [rate.mean, rate.ci_low, rate.ci_high],
    "debiased": [debiased.mean, debiased.ci_low, debiased.ci_high],
    "paired": [paired.corrected_estimate, *paired.corrected_ci],
    "by_prompt": [by_prompt.params[0], *by_prompt.conf_int()[0]],
    "by_answer": [by_answer.params[0], *by_answer.conf_int()[0]],
    "mcnemar": mcnemar(case["table"].astype(int), exact=True).pvalue,
    "holm": multipletests(case["p"], method="holm")[1].tolist(),
}), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    """Two judged runs of 1,000 prompts, 300 of them labelled; prompts of several answers."""
    rng = np.random.default_rng(20261129)
    n, labelled = 1000, 300
    case: dict[str, Any] = {}
    for name, rate, sensitivity in (("a", 0.35, 0.9), ("b", 0.2, 0.7)):
        truth = rng.random(n) < rate
        judged = rng.random(n) < np.where(truth, sensitivity, 0.08)
        case[f"judged_{name}"] = judged.astype(float)
        case[f"labels_{name}"] = np.where(np.arange(n) < labelled, truth.astype(float), np.nan)
    for name, a, b in (("a", 2, 3), ("b", 2, 5)):
        case[f"means_{name}"] = rng.binomial(5, rng.beta(a, b, 120)) / 5
    case["answers"] = (rng.random((80, 10)) < rng.beta(0.6, 0.9, 80)[:, None]).astype(float)
    case["table"] = [[400, 60], [95, 445]]
    case["p"] = [0.01, 0.04, 0.03, 0.2, 0.004]
    return case


@pytest.fixture(scope="module")
def peer(case: dict[str, Any]) -> dict[str, Any]:
    """The same figures by the peers."""
    encoded = json.dumps({name: np.asarray(v).tolist() for name, v in case.items()})
    command = [peer_python("evalstats"), "-W", "ignore", "-c", PEER_SCRIPT]
    done = subprocess.run(command, input=encoded, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    # Its reports go to stdout, and some of its notes to stderr.
    figures: dict[str, Any] = json.loads(done.stderr.strip().splitlines()[-1])
    return figures


def test_a_rate_is_that_of_evalstats(case: dict[str, Any], peer: dict[str, Any]) -> None:
    i = wilson(int(case["judged_a"].sum()), len(case["judged_a"]))
    assert [i.estimate, i.lower, i.upper] == pytest.approx(peer["rate"], abs=1e-6)


def test_a_corrected_rate_is_that_of_evalstats(case: dict[str, Any], peer: dict[str, Any]) -> None:
    chance = np.full(1000, 0.3)
    i = corrected_rate(case["judged_a"], case["labels_a"], chance)
    assert i.estimate == pytest.approx(peer["debiased"][0], abs=0.005)
    assert i.width == pytest.approx(peer["debiased"][2] - peer["debiased"][1], rel=0.15)


def test_a_corrected_difference_is_that_of_evalstats(
    case: dict[str, Any], peer: dict[str, Any]
) -> None:
    chance = np.full(1000, 0.3)
    a, b = (ppi_mean(case[f"judged_{r}"], case[f"labels_{r}"], chance) for r in "ab")
    i = corrected_difference(a, b)
    # Tuned for each run here, for the difference there.
    assert i.estimate == pytest.approx(peer["paired"][0], abs=0.01)
    assert i.width == pytest.approx(peer["paired"][2] - peer["paired"][1], rel=0.2)


def test_a_change_by_prompt_is_that_of_statsmodels(
    case: dict[str, Any], peer: dict[str, Any]
) -> None:
    i = paired_mean(case["means_a"].tolist(), case["means_b"].tolist())
    estimate, lower, upper = peer["by_prompt"]
    assert i.estimate == pytest.approx(estimate)
    # Ours has one pseudo-pair more in the variance.
    assert upper - lower <= i.width <= 1.15 * (upper - lower)


def test_a_rate_over_clusters_is_that_of_statsmodels(
    case: dict[str, Any], peer: dict[str, Any]
) -> None:
    i = clustered_wilson(case["answers"].sum(1).tolist(), [10] * 80)
    estimate, lower, upper = peer["by_answer"]
    assert i.estimate == pytest.approx(estimate)
    assert i.width == pytest.approx(upper - lower, rel=0.05)  # Wilson's form and Wald's


def test_p_values_are_those_of_statsmodels(case: dict[str, Any], peer: dict[str, Any]) -> None:
    (_, only_a), (only_b, _) = case["table"]
    assert mcnemar_exact(only_a, only_b) == pytest.approx(peer["mcnemar"])
    assert holm(case["p"]) == pytest.approx(peer["holm"])
