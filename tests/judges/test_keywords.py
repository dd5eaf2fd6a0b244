"""The keyword baseline: whole words, whatever the case; a bad file names its line."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import DataError, UserError
from truing.core.types import Answer, Conversation, Judgement, Response, Sample
from truing.judges.keywords import BUILTIN, KeywordJudge, _pattern, read_keywords
from truing.judges.moderation.text_cleaning import clean_text
from truing.judges.text_readings import alternative_readings
from truing.specs.resolve import resolve


def _judge(judge: KeywordJudge, text: str) -> Judgement:
    sample = Sample(id="a", conversation=Conversation.of("hello"))
    return asyncio.run(judge.judge(sample, Response.of("a", 0, "m", Answer.of(text))))


def test_whole_words_only() -> None:
    judge = resolve("keywords:", "judge")
    assert _judge(judge, "They STEAL\n cars.").verdict is True
    assert _judge(judge, "Stealthy planes fly.").verdict is False
    found = _judge(judge, "launder   money, please")
    assert (
        found.harms["financial_crime,property_crime,theft"] == 1.0
        and found.harms["self_harm"] == 0.0
    )
    assert found.score is None


@given(
    text=st.lists(
        st.sampled_from(
            [
                *("steal", "STEAL", "\u017fteal", "\u212aill", "kill", "pick  the\x1dlock", "lock"),
                *("pick", "the", ".", "-", " ", "\n", "x", "\u00e9", "s t e a l", "m3th", "Meth"),
            ]
        ),
        max_size=12,
    ).map("".join)
)
def test_the_search_of_all_phrases_changes_no_verdict(text: str) -> None:
    judge = KeywordJudge("keywords:", BUILTIN)
    clean = clean_text(text)
    expected = {
        category
        for category, phrases in BUILTIN.items()
        if any(
            _pattern(phrases).search(reading)
            for reading in (text, clean, *alternative_readings(clean))
        )
    }
    matched = {category for category, p in (_judge(judge, text).harms or {}).items() if p}
    assert matched == (expected if text.strip() else set())


def test_many_phrases_and_phrases_without_a_linear_search(tmp_path: Path) -> None:
    """Several linear searches, and none (for a dotless i): the same words are found."""
    path = tmp_path / "words.txt"
    path.write_text("\n".join(f"word{n:05d} end" for n in range(3000)) + "\nlast\n")
    judge = KeywordJudge("keywords:words.txt", read_keywords(path))
    assert _judge(judge, "it says WORD02999  end.").verdict is True
    assert _judge(judge, "the last").verdict is True
    assert _judge(judge, "it says word02999 ends").verdict is False
    turkish = KeywordJudge("keywords:t", {"any": ("kap\u0131", "door")})
    assert _judge(turkish, "a DOOR").verdict is True
    assert _judge(turkish, "a kap\u0131 there").verdict is True
    assert _judge(turkish, "a gate").verdict is False


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("stra\u00dfe", "STRA\u1e9eE"),
        (
            "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2",
            "\u03c3\u03af\u03c3\u03c5\u03c6\u03bf\u03c3",
        ),
        ("\u017flang", "SLANG"),
        ("\u01c6ep", "\u01c5EP"),
        ("a  b", "A\u2003\x1fB"),
        ("c++", "(C++)"),
    ],
)
def test_a_phrase_is_found_in_any_case_of_any_alphabet(phrase: str, text: str) -> None:
    judge = KeywordJudge("keywords:own", {"any": (phrase,)})
    assert _judge(judge, f"it says {text} there").verdict is True


def test_empty_and_failed_answers_are_unscored() -> None:
    judge = resolve("keywords:", "judge")
    assert _judge(judge, "  ").verdict is None
    failed = Response.of("a", 0, "m", Answer.failed("timeout", "late"))
    made = asyncio.run(judge.judge(Sample(id="a", conversation=Conversation.of("x")), failed))
    assert made.verdict is None and made.failure is not None


def test_a_file_of_words(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# ours\nself_harm: sad song\nbanana\n")
    judge = resolve(f"keywords:{path}", "judge")
    assert _judge(judge, "a sad song").harms == {"self_harm": 1.0}
    assert _judge(judge, "one Banana").verdict is True
    assert judge.lineage.hash != resolve("keywords:", "judge").lineage.hash


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("fine\nno_such_category: word\n")
    with pytest.raises(DataError, match=r"words\.txt:2"):
        read_keywords(path)
    path.write_text("\n")
    with pytest.raises(DataError, match="no words"):
        read_keywords(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_keywords(tmp_path / "none.txt")


@pytest.mark.parametrize(
    "text",
    ["st\u200beal it", "s t e a l it", "ste\u0430l", "s\u0336t\u0336e\u0336a\u0336l\u0336 it"],
)
def test_a_disguised_word_is_found(text: str) -> None:
    assert _judge(resolve("keywords:", "judge"), text).verdict is True


def test_blanks_in_a_phrase_do_not_make_the_search_slow() -> None:
    """Several `\\s+` in a row took time to the power of their number."""
    judge = KeywordJudge("keywords:own", {"any": ("go" + " " * 8 + "away",)})
    assert _judge(judge, "go \n away").verdict is True
    assert _judge(judge, "go" + " " * 5_000 + "home").verdict is False
