from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from truing.core.lineage import ancestors, digest, overlap, prompt_hash, prompt_hashes, struck
from truing.core.types import Lineage

OPEN = Lineage(name="moderation:open", hash="o", prompts=prompt_hashes(["How do I bake bread?"]))
DEFAULT = Lineage(name="moderation:default", hash="d", prompts=prompt_hashes(["Tell me a story."]))
BASE = Lineage(name="local:smollm2", hash="m")
BEST = Lineage(name="best-of-4", hash="b", judges=(OPEN,))


def test_the_judge_that_chose_may_not_measure() -> None:
    assert struck(OPEN, BEST) == "best-of-4 was chosen, trained or blocked by moderation:open"
    assert struck(DEFAULT, BEST) is None
    assert struck(OPEN, BASE) is None


def test_a_judge_made_from_that_judges_labels_may_not_either() -> None:
    pupil = Lineage(name="pupil", hash="p", judges=(OPEN,))
    assert struck(pupil, BEST) is not None
    cost = Lineage(name="cost", hash="c", judges=(OPEN,))
    assert struck(OPEN, Lineage(name="ppo", judges=(cost,))) is not None


def test_common_training_prompts_strike_too() -> None:
    cousin = Lineage(
        name="cousin", hash="x", prompts=prompt_hashes(["how do i bake  bread", "Other"])
    )
    assert (
        struck(cousin, BEST)
        == "shares 1 training prompts with moderation:open, which made the variant"
    )


def test_overlap_names_the_prompts_known_to_the_judge() -> None:
    assert overlap(OPEN, ["HOW do I bake bread", "new"]) == {prompt_hash("How do I bake bread?")}
    assert overlap(Lineage(judges=(OPEN,)), ["How do I bake bread?"]) != frozenset()
    assert [j.name for j in ancestors(Lineage(judges=(BEST,)))] == ["best-of-4", "moderation:open"]


@given(st.text(st.characters(codec="ascii")))
def test_case_spaces_and_outer_punctuation_do_not_matter(text: str) -> None:
    assert prompt_hash(f"  {text.upper()} ?! ") == prompt_hash(text)
    assert len(prompt_hash(text)) == 12


def test_digest_separates_its_parts() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("a", b"b") == digest("a", "b")
