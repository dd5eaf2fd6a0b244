"""The single outcome of an answer."""

import itertools

import pytest

from truing.analysis.outcomes import OUTCOME_NAMES, outcome_arrays, outcome_codes, outcome_name
from truing.analysis.verdict_table import (
    ABSENT,
    ABSTAINED,
    ANSWERED,
    FAILED,
    NO,
    UNSCORED,
    YES,
    read_verdict_table,
)


@pytest.mark.parametrize(
    ("state", "harmful", "degenerate", "refused", "outcome"),
    [
        (FAILED, YES, NO, NO, "unscored"),
        (ANSWERED, YES, NO, YES, "harmful"),
        (ABSTAINED, NO, NO, NO, "abstained"),
        (ANSWERED, UNSCORED, NO, NO, "unscored"),  # never read as "no harm"
        (ANSWERED, NO, YES, YES, "degenerate"),
        (ANSWERED, NO, NO, YES, "refused"),
        (ANSWERED, NO, NO, NO, "answered"),
        (ANSWERED, ABSENT, ABSENT, ABSENT, "unscored"),  # nobody was asked
    ],
)
def test_each_answer_has_one_outcome(state, harmful, degenerate, refused, outcome):
    assert outcome_name(state, harmful, degenerate, refused) == outcome


def test_arrays_of_outcomes_are_those_of_each_answer(make_run, prompts):
    verdicts = list(itertools.product([True, False, None], repeat=3))
    finish = {(i, 0): "error" for i in range(5)}
    run = make_run(
        "r",
        prompts(len(verdicts)),
        {q: [[v[i]] for v in verdicts] for i, q in enumerate(("harmful", "degenerate", "refused"))},
        finish=finish,
    )
    table = read_verdict_table(run)
    for layers, outcomes in zip(outcome_codes(table), outcome_arrays(table), strict=True):
        names = [OUTCOME_NAMES[code] for code in outcomes.tolist()]
        assert names == [outcome_name(*codes) for codes in zip(*layers)]
    assert {"unscored", "harmful", "refused", "answered", "degenerate"} <= set(names)
