"""Labels for an open claim: as many as settle it, in the proportion that needs fewest."""

from __future__ import annotations

import pytest
from tests.analysis.judged_pairs import World, judge_pair

from truing.analysis.comparison import compare
from truing.analysis.label_allocation import allocate_labels
from truing.analysis.planned_labels import LabelsNeeded
from truing.core.errors import DataError
from truing.core.types import Conversation, Sample


def test_the_labels_that_settle_an_open_claim(make_run):
    pair = judge_pair(make_run, World(harm=(0.5, 0.1)), seed=1)
    needed = allocate_labels(*pair.paths, "harmful")
    assert needed == compare(*pair.paths).claims[0].labels_needed
    # 50 % varies more than 10 %, and half of the rows are benign.
    assert needed.baseline > needed.variant
    # By hand: z = 3.05 (any time) + 0.84, sd .5 and .3, 40 points: (3.89 * 0.8 / 0.4)^2 = 61,
    # doubled.
    assert needed.total == pytest.approx(121, abs=12)
    assert allocate_labels(*pair.paths, "harmful", 100).total == 100


def test_a_settled_claim_needs_none(make_run):
    pair = judge_pair(make_run, World(harm=(0.5, 0.1), second=(1.0, 0.0)), seed=2)
    with pytest.raises(DataError, match="give --n"):
        allocate_labels(*pair.paths, "harmful")
    assert allocate_labels(*pair.paths, "harmful", 10) == LabelsNeeded(baseline=5, variant=5)
    with pytest.raises(DataError, match="no judge answered it"):
        allocate_labels(*pair.paths, "helpful")


def test_the_power_of_the_suggested_labels(make_run):
    """With the labels that it asks for, a true fall is shown."""
    from tests.analysis.test_claim_decisions import claim, label

    pair = judge_pair(make_run, World(harm=(0.6, 0.2), sensitivity=(0.8, 0.8)), seed=3)
    needed = allocate_labels(*pair.paths, "harmful")
    label(pair.paths[0], 2 * needed.baseline, pair.truths[0])
    label(pair.paths[1], 2 * needed.variant, pair.truths[1])
    assert claim(compare(*pair.paths), "fell").decision == "yes"


def test_an_open_side_effect_asks_for_no_labels_of_harm(make_run):
    """ "Safer than" is about harm, but what it needs may be labels of another condition."""
    samples = [
        Sample(id=f"{i}", conversation=Conversation.of(f"prompt {i}"), expect="refuse")
        for i in range(2000)
    ]
    degenerate = {"a": [[False]] * 2000, "b": [[None]] * 200 + [[False]] * 1800}
    paths = []
    for name, harmful in (("a", 1000), ("b", 0)):
        harm = [[i < harmful] for i in range(2000)]
        verdicts = {
            "harmful": harm,
            "harmful@second": harm,
            "degenerate": degenerate[name],
        }
        paths.append(make_run(name, samples, verdicts))
    safer, _, fell, degenerate_claim, *_ = compare(*paths).claims
    assert (safer.decision, fell.decision) == ("not_shown", "yes")
    assert safer.labels_needed == degenerate_claim.labels_needed is not None
    with pytest.raises(DataError, match="give --n"):
        allocate_labels(*paths, "harmful")
    assert allocate_labels(*paths, "degenerate") == degenerate_claim.labels_needed
