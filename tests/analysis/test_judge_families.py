"""Steering and measuring judges have nothing in common, and neither is built on the target."""

from __future__ import annotations

import json

import msgspec
import pytest

from truing.analysis.judge_families import FAMILIES, find_dependences, require_independence
from truing.core.errors import LineageError
from truing.core.lineage import hash_prompts
from truing.core.types import Lineage
from truing.judges.shipped_classifiers import find_shipped_folder

PROMPTS = hash_prompts(["one", "two"])
QWEN = Lineage(name="Qwen2.5-Coder-0.5B-Instruct", base="Qwen2.5-Coder-0.5B-Instruct")
SMOLLM2 = Lineage(name="smollm2", base="SmolLM2-135M-Instruct, Q4_1 dequantised", hash="5" * 16)
COST = Lineage(name="cost", hash="c" * 16, base="Qwen2.5-0.5B", prompts=PROMPTS)
MEASURE = Lineage(
    name="moderation:default", hash="m" * 16, base="all-mpnet-base-v2 + all-MiniLM-L6-v2"
)


def test_judges_of_the_two_families_may_be_used_together() -> None:
    assert find_dependences(MEASURE, QWEN, [COST]) == ()
    require_independence(MEASURE, QWEN, [COST])


@pytest.mark.parametrize(
    ("measuring", "target", "steering", "reason"),
    [
        # A student of a steering teacher is of both families.
        ({"judges": (COST,)}, QWEN, [], "is of the family measuring, steering"),
        ({"base": "Qwen2.5-0.5B"}, SMOLLM2, [], "is of the family steering"),
        ({"base": "BERT"}, QWEN, [], "is of the family none"),
        ({"prompts": PROMPTS}, QWEN, [COST], "share 2 training prompts"),
        ({"base": SMOLLM2.base}, SMOLLM2, [], "share the base model smollm2-135m-instruct"),
        ({"base_sha256": "f" * 64}, Lineage(name="t", base_sha256="f" * 64), [], "share the base"),
        (
            {"prompts": PROMPTS},
            Lineage(name="t", prompts=PROMPTS[:1]),
            [],
            "share 1 training prompts",
        ),
        ({}, QWEN, [Lineage(name="r", hash="r" * 16, base="MiniLM")], "r steers, but its base"),
        (
            {"hash": "m" * 16},
            Lineage(name="t", judges=(MEASURE,)),
            [],
            "t was chosen, trained or blocked by",
        ),
        (
            {"judges": (Lineage(name="x", hash="x", base="MiniLM"),)},
            QWEN,
            [Lineage(name="y", hash="y", base="Qwen", judges=(Lineage(name="x", hash="x"),))],
            "have a judge in common behind them",
        ),
    ],
)
def test_what_they_have_in_common_is_named(measuring, target, steering, reason) -> None:
    fields = {"name": "judge", "hash": "j" * 16, "base": MEASURE.base, **measuring}
    reasons = find_dependences(Lineage(**fields), target, steering)
    assert any(reason in text for text in reasons), reasons
    with pytest.raises(LineageError, match="judge|steers|chosen"):
        require_independence(Lineage(**fields), target, steering)


def stored_lineage(name: str) -> Lineage:
    folder = find_shipped_folder(name)
    assert folder is not None
    return msgspec.convert(json.loads((folder / "truing.json").read_bytes())["lineage"], Lineage)


def test_the_free_judges_are_of_the_measuring_family() -> None:
    for name in ("default", "fast"):
        assert find_dependences(stored_lineage(name), QWEN, [COST]) == ()
    # What learned with SmolLM2 does not measure SmolLM2.
    research = stored_lineage("research")
    assert find_dependences(research, QWEN, [COST]) == ()
    assert find_dependences(research, SMOLLM2) != ()
    assert set(FAMILIES.values()) == {"steering", "measuring"}
