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
    assert strike_reason(relations, "a") == "shares 1 training prompts with m"
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
