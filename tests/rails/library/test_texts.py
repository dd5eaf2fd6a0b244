"""Rails on the text alone: checks that fix or block, personal data, patterns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from library_cases import ask, decisive_ruling, guard, rails

from truing.core.errors import PlanError
from truing.rails.guarded import GuardedModel
from truing.rails.runtime import user_patterns

AWS_KEY = "AKIA" + "ABCDEFGHIJKLMNOP"


def check_text(folder: Path, **blocks: Any) -> GuardedModel:
    """A model behind `check text input` with these blocks under ``truing:``."""
    return guard(folder, {**rails(input=["check text input"]), "truing": blocks})


def test_hidden_characters_are_removed_or_blocked(tmp_path: Path) -> None:
    tagged = "he\u200bllo\U000e0041"
    answer = ask(check_text(tmp_path, invisible={}), tagged)
    assert answer.text == "hello"
    assert decisive_ruling(answer).reason == "2 hidden characters removed"
    answer = ask(check_text(tmp_path, invisible={"action": "block"}), tagged)
    assert answer.finish_reason == "blocked"


def test_secrets_are_masked_or_blocked(tmp_path: Path) -> None:
    assert ask(check_text(tmp_path, secrets={}), f"my key {AWS_KEY}").text == "my key <AWS_KEY>"
    answer = ask(check_text(tmp_path, secrets={"action": "block"}), f"my key {AWS_KEY}")
    assert answer.finish_reason == "blocked"
    assert AWS_KEY not in answer.text


@pytest.mark.parametrize(
    ("text", "is_blocked"),
    [
        ("see https://docs.example.org/x", False),
        ("see https://example.org:8080/x", False),
        ("see https://evil.example.com/x", True),
        ("see https://example.org.evil.net", True),
        ("see https://example.org@evil.net/", True),
        ("![a](https://evil.example.com/?q=1)", True),
        ("![a](//evil.example.com/?q=1)", True),
        ("no link", False),
    ],
)
def test_links_to_other_places_are_blocked(tmp_path: Path, text: str, is_blocked: bool) -> None:
    answer = ask(check_text(tmp_path, urls={"allow": ["example.org"]}), text)
    assert (answer.finish_reason == "blocked") is is_blocked
    assert "evil" not in answer.text


def test_links_can_be_masked(tmp_path: Path) -> None:
    model = check_text(tmp_path, urls={"allow": ["example.org"], "action": "mask"})
    text = "![a](//evil.net/x) and https://evil.net/y and https://example.org/z"
    assert ask(model, text).text == "<URL> and <URL> and https://example.org/z"


def test_length_repetition_and_language(tmp_path: Path) -> None:
    model = check_text(
        tmp_path, length={"max_words": 30}, repetition={"min_words": 12}, language={"allow": ["en"]}
    )
    assert "longer than 30 words" in ask(model, "word " * 31).text
    assert "repeats itself" in ask(model, "again and again " * 6).text
    assert "I only speak en" in ask(model, "Wo ist bitte der Bahnhof und wann fährt der Zug?").text
    assert ask(model, "Where is the station?").text == "Where is the station?"


def test_a_block_may_name_its_stages(tmp_path: Path) -> None:
    config = {
        **rails(input=["check text input"], output=["check text output"]),
        "truing": {"urls": {"stages": ["output"]}},
    }
    answer = ask(guard(tmp_path, config), "see https://evil.example.com/x")
    assert decisive_ruling(answer).stage == "output"


# -- NeMo's rails ------------------------------------------------------------------------------


def test_sensitive_data_by_nemos_settings(tmp_path: Path) -> None:
    config = rails(
        input=["mask sensitive data on input"], output=["detect sensitive data on output"]
    )
    config["rails"]["config"] = {
        "sensitive_data_detection": {
            "input": {"entities": ["EMAIL_ADDRESS"]},
            "output": {"entities": ["CREDIT_CARD"]},
        }
    }
    model = guard(tmp_path, config)
    assert ask(model, "mail me at a@example.org").text == "mail me at <EMAIL_ADDRESS>"
    assert ask(model, "4111 1111 1111 1111").text == "I don't know the answer to that."


def regex_model(folder: Path, pattern: str) -> GuardedModel:
    config = rails(input=["regex check input"])
    settings = {"input": {"patterns": [pattern], "case_insensitive": True}}
    config["rails"]["config"] = {"regex_detection": settings}
    return guard(folder, config)


def test_patterns_of_the_configuration_block(tmp_path: Path) -> None:
    model = regex_model(tmp_path, "project[- ]x")
    answer = ask(model, "about Project-X")
    assert answer.finish_reason == "blocked"
    assert decisive_ruling(answer).reason == "matches project[- ]x"
    assert ask(model, "about projects").text == "about projects"


def test_a_pattern_that_backtracks_is_searched_in_linear_time(tmp_path: Path) -> None:
    model = regex_model(tmp_path, "(a+)+$")
    assert ask(model, "a" * 10_000 + "!").text.endswith("a!")
    assert ask(model, "a" * 10_000).finish_reason == "blocked"


def test_a_pattern_that_takes_too_long_counts_as_a_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_patterns, "SEARCH_SECONDS", 0.3)
    # With a look-ahead only a process of its own can run it, and it needs hours.
    answer = ask(regex_model(tmp_path, "(?=a)(a+)+$"), "a" * 60 + "!")
    assert answer.finish_reason == "blocked"
    assert "took too long" in (decisive_ruling(answer).reason or "")


def test_a_pattern_that_cannot_be_read_is_an_error_at_start(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"config.yml:\d+: the pattern '\(' cannot be read"):
        regex_model(tmp_path, "(")
