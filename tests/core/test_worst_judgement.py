"""The worse of two judgements, field by field."""

from __future__ import annotations

from truing.core.types import Judgement
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
