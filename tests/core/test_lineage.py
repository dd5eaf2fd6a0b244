"""Prompt hashes, and which judge may measure which model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from truing.core.lineage import (
    ancestors,
    digest,
    find_judge_conflict,
    find_shared_prompts,
    hash_prompt,
    hash_prompts,
)
from truing.core.types import Lineage

OPEN = Lineage(name="moderation:open", hash="o", prompts=hash_prompts(["How do I bake bread?"]))
DEFAULT = Lineage(name="moderation:default", hash="d", prompts=hash_prompts(["Tell me a story."]))
BASE = Lineage(name="local:smollm2", hash="m")
BEST = Lineage(name="best-of-4", hash="b", judges=(OPEN,))


def test_judge_that_selected_may_not_measure() -> None:
    assert (
        find_judge_conflict(OPEN, BEST)
        == "best-of-4 was chosen, trained or blocked by moderation:open"
    )
    assert find_judge_conflict(DEFAULT, BEST) is None
    assert find_judge_conflict(OPEN, BASE) is None


def test_judge_trained_from_its_labels_may_not_measure() -> None:
    student = Lineage(name="student", hash="p", judges=(OPEN,))
    assert (
        find_judge_conflict(student, BEST)
        == "best-of-4 was chosen, trained or blocked by moderation:open"
    )
    cost = Lineage(name="cost", hash="c", judges=(OPEN,))
    assert (
        find_judge_conflict(OPEN, Lineage(name="ppo", judges=(cost,)))
        == "ppo was chosen, trained or blocked by moderation:open"
    )


def test_shared_training_prompts_are_a_conflict() -> None:
    related = Lineage(
        name="related", hash="x", prompts=hash_prompts(["how do i bake  bread", "Other"])
    )
    assert (
        find_judge_conflict(related, BEST)
        == "related shares 1 training prompts with moderation:open, which made the variant"
    )


def test_shared_prompts_include_those_of_ancestors() -> None:
    assert find_shared_prompts(OPEN, ["HOW do I bake bread", "new"]) == {
        hash_prompt("How do I bake bread?")
    }
    assert find_shared_prompts(Lineage(judges=(OPEN,)), ["How do I bake bread?"]) != frozenset()
    assert [j.name for j in ancestors(Lineage(judges=(BEST,)))] == ["best-of-4", "moderation:open"]


@given(st.text(st.characters(codec="ascii")))
def test_hash_ignores_case_spaces_and_outer_punctuation(text: str) -> None:
    assert hash_prompt(f"  {text.upper()} ?! ") == hash_prompt(text)
    assert len(hash_prompt(text)) == 12


def test_digest_separates_its_parts() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("a", b"b") == digest("a", "b")
