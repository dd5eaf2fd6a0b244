"""The tone policy: its rules, its fixes, its judge, and the rail that rewrites."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from library_cases import ask, decisive_ruling, guard, rails

from truing.core.errors import PlanError, SpecError
from truing.core.lineage import digest
from truing.core.types import Answer, Conversation, Response, Sample, Sampling
from truing.models.scripted import ScriptedModel
from truing.rails.library.tone import ToneJudge, TonePolicy, build_judge
from truing.specs.parser import parse_spec
from truing.specs.resolve import Args, resolve

SETTINGS = {
    "policy": "Calm and plain.",
    "exclamation_marks": 0,
    "emoji": False,
    "capitals": False,
    "avoid": ["dude"],
}
CONFIG = {**rails(output=["tone check output"]), "truing": {"tone": SETTINGS}}


@pytest.mark.parametrize(
    ("text", "violations"),
    [
        ("It closes at six.", []),
        ("Dude, six.", ["says 'dude'"]),
        ("A dudeless day.", []),
        ("Don't be stupid.", ["is rude ('stupid')"]),
        ("Six!!", ["has 2 exclamation marks"]),
        ("Six \u2600", ["has emoji"]),
        ("It closes at SEVEN", ["shouts in capitals"]),
        ("See the FAQ of the ZOO", []),
    ],
)
def test_violations_are_described(text: str, violations: list[str]) -> None:
    assert TonePolicy.from_settings(SETTINGS).violations(text) == violations


def test_a_length_limit_counts_words() -> None:
    policy = TonePolicy(max_words=2)
    assert policy.violations("one two") == []
    assert policy.violations("one two three") == ["has more than 2 words"]


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("It closes at six!!!", "It closes at six."),
        ("It closes \u2600 at six.", "It closes at six."),
        ("SEVEN works. It is at SEVEN.", "Seven works. It is at seven."),
        ("Dude. It closes at six.", "It closes at six."),
        ("Dude!", ""),
    ],
)
def test_fixes_by_rule(text: str, fixed: str) -> None:
    assert TonePolicy.from_settings(SETTINGS).fix_by_rules(text) == fixed


def test_sentences_beyond_the_length_are_left_out() -> None:
    assert TonePolicy(max_words=3).fix_by_rules("One two. Three four. Five.") == "One two. Five."


@pytest.mark.parametrize(
    ("text", "rewrite", "is_preserved"),
    [
        ("DUDE, ten cents a page!!!", "It is ten cents a page.", True),
        ("OK!", "Fine.", True),
        ("It costs 10 cents!", "It costs 12 cents.", False),
        ("It closes at 6!", "It closes soon.", False),
        ("The library closes early!", "Paris is lovely in spring.", False),
    ],
)
def test_a_rewrite_must_keep_numbers_and_words(text: str, rewrite: str, is_preserved: bool) -> None:
    assert TonePolicy().preserves_content(text, rewrite) is is_preserved


def test_unknown_settings_are_errors() -> None:
    with pytest.raises(PlanError, match="exclamation_marks"):
        TonePolicy.from_settings({"exclamation_mark": 0})
    with pytest.raises(PlanError) as caught:
        TonePolicy.from_settings({"emoji": "no", "max_words": "ten", "avoid": ["dude"]})
    assert caught.value.faults == (
        "truing.tone.emoji: expected bool, got 'no'",
        "truing.tone.max_words: expected int, got 'ten'",
    )


# -- the rail ----------------------------------------------------------------------------------


def answer_with(folder: Path, first: str, rewrite: str) -> Answer:
    """The rail's answer, for a model that gives one text, and another when asked for a rewrite."""

    def reply(conversation: Conversation, sampling: Sampling) -> str:
        return rewrite if "Rewrite the answer" in conversation.prompt else first

    return ask(guard(folder, CONFIG, ScriptedModel(reply)), "when?")


def test_an_answer_off_tone_is_rewritten_by_the_model(tmp_path: Path) -> None:
    answer = answer_with(tmp_path, "DUDE it closes at SIX!!!", "It closes at six.")
    assert answer.text == "It closes at six."
    assert decisive_ruling(answer).ruling == "rewrite"
    assert (decisive_ruling(answer).reason or "").startswith("rewritten: says 'dude'")


@pytest.mark.parametrize("rewrite", ["It closes at 6! \u2600", "Paris is lovely in spring."])
def test_a_rewrite_that_is_no_better_or_says_something_else_is_fixed_by_rule(
    tmp_path: Path, rewrite: str
) -> None:
    answer = answer_with(tmp_path, "It closes at 6!", rewrite)
    assert answer.text == "It closes at 6."
    assert (decisive_ruling(answer).reason or "").startswith("fixed by rule")


def test_an_answer_that_cannot_be_fixed_is_withheld(tmp_path: Path) -> None:
    answer = answer_with(tmp_path, "dude dude dude", "dude dude dude")
    assert answer.finish_reason == "blocked"
    assert "better way" in answer.text


# -- the judge ---------------------------------------------------------------------------------


def test_the_judge_of_a_folder_scores_by_the_rules(tmp_path: Path) -> None:
    guard(tmp_path, CONFIG)
    judge = resolve(f"tone:{tmp_path}", "judge")

    def verdict(text: str) -> bool | None:
        response = Response.of("s", 0, "m", Answer.of(text))
        sample = Sample(conversation=Conversation(), id="s")
        judgement = asyncio.run(judge.judge(sample, response))
        assert judgement.question == "on_tone"
        return judgement.verdict

    assert [verdict(t) for t in ("It closes at six.", "dude!", "")] == [True, False, None]


def test_the_judges_hash_is_that_of_earlier_versions() -> None:
    judge = ToneJudge(TonePolicy(avoid=("dude",)), "tone:bot")
    policy = (
        "Policy(text='Polite, calm and plain.', avoid=('dude',), exclamation_marks=None, "
        "emoji=True, capitals=True, max_words=None, rudeness=False, rewrites=1)"
    )
    assert judge.lineage.hash == digest("tone", "tone:bot", policy)


def test_a_folder_without_a_policy_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("rails: {}\n")
    with pytest.raises(SpecError, match="no truing: tone"):
        build_judge(Args(parse_spec(f"tone:{tmp_path}"), {}))
