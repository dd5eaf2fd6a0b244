"""`truing plan-size`."""

from __future__ import annotations

import json

import pytest
from tests.cli.command_line import run_truing, truing

from truing.stats import planning


def sizes(flags: str) -> dict[str, int]:
    return json.loads(run_truing(f"plan-size --json {flags}"))


def test_sizes_of_each_question() -> None:
    result = sizes("--rate 0.1 --width 0.06 --upper 0.15 --difference 0.05 --margin 0.05")
    assert len(result) == 7
    assert result["prompts for an interval 6 points wide at a rate of 0.1"] == planning.n_for_width(
        0.1, 0.06
    )
    # Of 10 % that change (twice the difference), 7.5 % go one way and 2.5 % the other.
    assert result[
        "prompts for a paired difference of 5 points if 10 % change"
    ] == planning.n_pairs_for_mcnemar(0.075, 0.025, power=0.8)


def test_no_event_needs_59_labels() -> None:
    # 0.95 ** 59 < 0.05 < 0.95 ** 58; a gate needs 0.95 ** n < 0.025
    gate = "  the same in a gate, which is wrong in 2.5 % on either side"
    assert sizes("--upper 0.05 --rate 0")[gate] == 72
    assert sizes("--upper 0.05 --rate 0")["  at the very least (no event at all)"] == 59


def test_several_answers_to_each_prompt_reduce_the_prompts() -> None:
    one = sizes("--upper 0.05 --rate 0")["  at the very least (no event at all)"]
    five = sizes("--upper 0.05 --rate 0 --answers 5 --correlation 0.5")
    # Design effect 1 + 4 * 0.5 = 3 on the answers, 3 / 5 on the prompts.
    assert five["  at the very least (no event at all)"] == -(-one * 3 // 5)
    assert five["answers to each prompt"] == 5


def test_the_text_is_one_size_a_line() -> None:
    lines = run_truing("plan-size --upper 0.05 --rate 0").splitlines()
    assert lines[1] == f"{59:>8}    at the very least (no event at all)"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "say what you want to show"),
        ("--upper 0.05 --rate 0.1", ""),
        ("--width 7", ""),
        ("--width 0.1 --power 1", "--power must be above 0 and below 1"),
        ("--difference 0.2 --changed 0.1", "--changed is smaller than --difference"),
    ],
)
def test_wrong_flags(flags: str, message: str) -> None:
    result = truing(f"plan-size {flags}")
    assert result.status == 1
    assert message in result.err
