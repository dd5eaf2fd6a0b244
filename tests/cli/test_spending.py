"""Flags of budgets: what a budget does not count is named."""

from __future__ import annotations

import pytest
from tests.cli.command_line import truing

from truing.cli.spending import SpendingFlags, warn_of_uncounted_calls


def test_judges_and_attacks_that_ask_an_endpoint_are_named_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    judge = "llm:harm,model=(openai:judge,api_key=abc)"
    warn_of_uncounted_calls(
        [judge, "rules:refusal", judge],
        ["builtin:safety", "attacked:past-tense,model=(http:localhost/x),of=(builtin:safety)"],
    )
    printed = capsys.readouterr().err
    assert printed.startswith("truing: the budget counts answers alone, not what these ask for: ")
    assert printed.count("openai:judge") == 1 and "http:localhost" in printed
    assert "abc" not in printed and "rules:refusal" not in printed


def test_nothing_is_printed_without_such_a_judge(capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_uncounted_calls(["rules:refusal", "moderation:default"], ["builtin:safety", ""])
    assert capsys.readouterr().err == ""


def test_prices_alone_are_no_limit() -> None:
    assert SpendingFlags(budget_tokens=0).is_limited and not SpendingFlags().is_limited


def test_the_help_says_that_judges_are_not_counted() -> None:
    assert "judges and attacks are not counted" in " ".join(
        truing("evaluate --help").out.replace("│", " ").split()
    )
