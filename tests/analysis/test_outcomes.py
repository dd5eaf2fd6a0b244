"""The single outcome of an answer."""

import pytest

from truing.analysis.outcomes import outcome_name
from truing.analysis.verdict_table import ABSENT, ABSTAINED, ANSWERED, FAILED, NO, UNSCORED, YES


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
