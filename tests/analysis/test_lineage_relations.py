"""What judges, models and prompts share: strikes, warnings, and who confirms whom."""

from __future__ import annotations

import pytest

from truing.analysis.lineage_relations import (
    find_relations,
    relate_judges,
    strike_reason,
    warnings_about,
)
from truing.core.lineage import hash_prompts
from truing.core.measurement_set import load_measurement_set
from truing.core.types import Lineage
from truing.runs.folder import JudgeRecord, Manifest

PROMPTS = hash_prompts(["one", "two", "three"])


def record(name: str, **lineage) -> JudgeRecord:
    origin = Lineage(name=name, hash=name * 8, **lineage)
    return JudgeRecord(name=name, question="harmful", file="", lineage=origin)


def test_shared_prompts_strike_and_a_shared_base_warns():
    manifest = Manifest(
        model="m",
        lineage=Lineage(name="m", hash="m" * 16, base="smollm2", prompts=hash_prompts(["two"])),
        judges=[
            record("a", prompts=hash_prompts(["one", "two"])),
            record("b", base="minilm + smollm2"),
            record("c"),
        ],
    )
    relations = find_relations(manifest, PROMPTS)
    assert {(r.kind, r.judge, r.consequence, r.n) for r in relations} == {
        ("judge and model", "a", "strike", 0),
        ("judge and model", "b", "warn", 0),
        ("model and prompts", "", "strike", 1),
        ("judge and prompts", "a", "strike", 2),
    }
    assert strike_reason(relations, "a") == "a shares 1 training prompts with m"
    assert strike_reason(relations, "c") == "m was trained on 1 prompts of this run"
    assert warnings_about(relations, "b") == ("b and m share the base model smollm2",)


def test_prompts_of_a_judge_behind_a_judge_count():
    behind = Lineage(name="teacher", hash="t" * 16, prompts=hash_prompts(["three"]))
    manifest = Manifest(judges=[record("a", judges=(behind,))])
    (relation,) = find_relations(manifest, PROMPTS)
    assert (relation.kind, relation.n) == ("judge and prompts", 1)
    assert find_relations(manifest, ()) == ()


@pytest.mark.parametrize(
    ("second", "consequence"),
    [
        ({}, None),
        ({"prompts": hash_prompts(["one"])}, "strike"),
        ({"judges": (Lineage(name="a", hash="a" * 8),)}, "strike"),
        ({"base": "minilm"}, "warn"),
        ({"data": ("beavertails",)}, "warn"),
    ],
)
def test_only_unrelated_judges_confirm_each_other(second, consequence):
    first = record("a", prompts=hash_prompts(["one"]), base="minilm", data=("beavertails",))
    relation = relate_judges(first, record("b", **second))
    assert (relation.consequence if relation else None) == consequence


def test_a_judge_that_learned_frozen_prompts_warns_and_is_struck_on_their_set():
    safety = load_measurement_set().sources["builtin:safety"].hashes
    support = load_measurement_set().sources["builtin:support"].hashes
    manifest = Manifest(model="m", judges=[record("a", prompts=safety[:2]), record("b")])
    elsewhere = find_relations(manifest, support)
    assert [(r.kind, r.judge, r.consequence, r.n) for r in elsewhere] == [
        ("judge and measurement set", "a", "warn", 2)
    ]
    assert strike_reason(elsewhere, "a") is None
    assert warnings_about(elsewhere, "a") == (
        "a was trained on prompts of the frozen measurement set (builtin:safety 2)",
    )
    # Other prompts of the same set: twins of what was learned.
    twins = find_relations(manifest, safety[2:])
    assert strike_reason(twins, "a") == elsewhere[0].text
    assert strike_reason(twins, "b") is None


def test_a_model_that_learned_frozen_prompts_strikes_every_judge_on_their_set():
    safety = load_measurement_set().sources["builtin:safety"].hashes
    model = Lineage(name="m", hash="m" * 16, prompts=safety[:1])
    relations = find_relations(Manifest(model="m", lineage=model, judges=[record("a")]), safety[1:])
    assert strike_reason(relations, "a") == (
        "m was trained on prompts of the frozen measurement set (builtin:safety 1)"
    )
