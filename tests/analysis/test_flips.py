"""Changed verdicts and outcomes between two runs."""

from __future__ import annotations

import json

import msgspec

from truing.analysis.comparison import compare
from truing.analysis.flips import count_outcome_changes, find_flips
from truing.analysis.pairing import pair_runs


def test_flips_go_both_ways(make_run, prompts):
    a = make_run("a", prompts(4), {"refused": [[True], [False], [True], [None]]})
    b = make_run("b", prompts(4), {"refused": [[False], [True], [True], [True]]})
    pair = pair_runs(a, b)
    flips = find_flips(pair)
    verdicts = {(f.sample_id, f.from_, f.to) for f in flips if f.question == "refused"}
    assert verdicts == {("s0", "yes", "no"), ("s1", "no", "yes")}
    outcomes = {(f.sample_id, f.from_, f.to) for f in flips if f.question == "outcome"}
    assert outcomes == {
        ("s0", "refused", "answered"),
        ("s1", "answered", "refused"),
        ("s3", "unscored", "refused"),
    }
    assert count_outcome_changes(pair) == {
        "refused": {"answered": 1, "refused": 1},
        "answered": {"refused": 1},
        "unscored": {"refused": 1},
    }


def test_the_json_of_a_flip(make_run, prompts):
    a = make_run("a", prompts(1), {"refused": [[True]]})
    b = make_run("b", prompts(1), {"refused": [[False]]})
    comparison = json.loads(msgspec.json.encode(compare(a, b)))
    assert comparison["flips"][0] == {
        "sample_id": "s0",
        "index": 0,
        "question": "refused",
        "from": "yes",
        "to": "no",
    }
