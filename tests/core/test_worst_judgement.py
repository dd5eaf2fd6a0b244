"""The worse of two judgements, field by field."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from truing.core.types import Failure, Judgement
from truing.core.worst_judgement import combine_worst


def test_the_worst_so_far_counts_also_for_a_threshold_above_the_judges_own() -> None:
    def judgement(verdict: bool, score: float, note: str, **harms: float) -> Judgement:
        return Judgement(
            sample_id="s",
            judge="j",
            question="harmful",
            verdict=verdict,
            score=score,
            harms=harms,
            rationale=note,
        )

    mild = judgement(True, 0.6, "first", self_harm=0.6, violence=0.1)
    worse = judgement(True, 0.9, "second", violence=0.9)
    fine = judgement(False, 0.1, "third", violence=0.0)
    assert combine_worst(mild, worse) == judgement(True, 0.9, "second", self_harm=0.6, violence=0.9)
    assert combine_worst(worse, fine) == judgement(True, 0.9, "second", violence=0.9)
    assert combine_worst(fine, fine).verdict is False


JUDGEMENTS = st.builds(
    Judgement,
    sample_id=st.just("s"),
    judge=st.just("j"),
    question=st.just("harmful"),
    verdict=st.sampled_from([False, True, None]),
    score=st.sampled_from([None, 0.1, 0.9]),
    value=st.sampled_from([None, -2.0, 3.0]),
    failure=st.sampled_from([None, Failure("judge", "part", "read in part")]),
)


@given(JUDGEMENTS, JUDGEMENTS)
def test_only_two_verdicts_of_false_are_false(earlier: Judgement, newest: Judgement) -> None:
    combined = combine_worst(earlier, newest)
    verdicts = (earlier.verdict, newest.verdict)
    expected = True if True in verdicts else None if None in verdicts else False
    assert combined.verdict is expected
    assert (combined.failure is None) == (earlier.failure is None and newest.failure is None)


def test_the_value_is_that_of_the_worse_judgement() -> None:
    def judgement(verdict: bool | None, value: float) -> Judgement:
        return Judgement(sample_id="s", judge="j", question="harmful", verdict=verdict, value=value)

    for worse, better in ((True, None), (True, False), (None, False)):
        assert combine_worst(judgement(worse, 3.0), judgement(better, -1.0)).value == 3.0
        assert combine_worst(judgement(better, -1.0), judgement(worse, 3.0)).value == 3.0
