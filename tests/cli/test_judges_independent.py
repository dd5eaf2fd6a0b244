"""`truing judges independent`: what a measuring judge has in common with what it measures."""

from __future__ import annotations

import json

from tests.cli.command_line import run_truing, truing

MEASURE = "judges independent moderation:default"


def test_an_unrelated_judge_may_measure() -> None:
    printed = run_truing(f"{MEASURE} --target scripted:mixed --steering keywords:")
    assert printed.strip() == "moderation:default: independent"


def test_a_judge_that_chose_the_answers_is_a_finding() -> None:
    result = truing(
        f"{MEASURE} keywords: --target scripted:mixed --steering moderation:fast --json"
    )
    assert result.status == 2
    default, keywords = json.loads(result.out)
    assert default["judge"] == "moderation:default" and not default["independent"]
    assert any("share the base model all-minilm-l6-v2" in reason for reason in default["reasons"])
    assert any("of the family none" in reason for reason in keywords["reasons"])


def test_wrong_specs_are_named_together() -> None:
    result = truing("judges independent keyword: --target scriptd:mixed")
    assert result.status == 1
    assert "keyword" in result.err and "scriptd" in result.err
    without = truing("judges independent --target scripted:mixed")
    assert without.status == 1 and "give one judge or more" in without.err
