"""The fifth round of the study of levers: written pairs, and the order of requests."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from truing.core.lineage import hash_prompt


def test_pairs_are_distinct_and_have_two_sides_alike_in_length(load: Any) -> None:
    written: ModuleType = load("study_written")
    pairs = written.written_pairs()
    assert len(pairs) == 2819 == len({pair["pair"] for pair in pairs})
    sides = [[pair[side] for pair in pairs] for side in ("harmful", "benign")]
    assert len({hash_prompt(text) for side in sides for text in side}) == 2 * len(pairs)
    words = [np.mean([len(text.split()) for text in side]) for side in sides]
    questions = [sum("?" in text for text in side) for side in sides]
    assert abs(words[0] / words[1] - 1) < 0.02
    assert abs(questions[0] - questions[1]) < 0.02 * len(pairs)


def test_no_written_prompt_develops_or_measures(load: Any) -> None:
    written, prompts = load("study_written"), load("study_prompts")
    used = {s.id for name in prompts.PROMPT_SETS for s in prompts.build_prompt_set(name).samples}
    texts = [pair[side] for pair in written.written_pairs() for side in ("harmful", "benign")]
    assert not used & {hash_prompt(text) for text in texts}


def test_a_pair_trains_or_stays_unseen_and_nobody_at_risk_is_refused(load: Any) -> None:
    written: ModuleType = load("study_written")
    seen, unseen = (written.pair_requests("refuse", unseen=k) for k in (False, True))
    assert len(seen) > 1000 and len(unseen) > 300 and not set(seen) & set(unseen)
    at_risk = {p["harmful"] for p in written.written_pairs() if p["category"] in written.AT_RISK}
    assert len(at_risk) > 100 and not at_risk & {*seen, *unseen}
    forms = [written.in_form(seen, cell) for cell in written.CELLS[:2]]
    assert sorted([*forms[0], *forms[1]]) == sorted(seen)


def test_order_counts_ties_as_half(load: Any) -> None:
    order: ModuleType = load("study_order")
    # Of the six comparisons 3 > 1, 3 > 2, 2 > 1 and 3 > 2 are right, and 2 = 2 is a tie, twice.
    assert order.order([3.0, 2.0], [1.0, 2.0, 2.0]) == pytest.approx((3 + 1 + 2 * 0.5) / 6)


def test_a_probe_finds_a_direction_and_not_one_that_is_not_there(load: Any) -> None:
    order: ModuleType = load("study_order")
    draw = np.random.default_rng(3)
    harmful, benign = draw.normal(0.0, 1.0, (2, 400, 6))
    fold = draw.integers(0, order.FOLDS, 400)
    assert abs(order.cross_validated(harmful, benign, fold, 0.1) - 0.5) < 0.06
    harmful[:, 2] += 2.0  # the AUC of two normal scores two deviations apart is 0.921
    assert order.cross_validated(harmful, benign, fold, 0.1) == pytest.approx(0.921, abs=0.02)
