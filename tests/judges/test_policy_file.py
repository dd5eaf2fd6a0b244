"""Policies in TOML: what is read, and that all faults are named together."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import PlanError
from truing.judges.policy_file import MAX_CHARACTERS, parse_policy, read_policy

POLICY = """
name = "shop"
description = "What the assistant of our shop may say."

[[category]]
id = "competitors"
name = "Competitors"
definition = "Names or recommends another shop."
allowed = "Saying that we do not stock an article."

[[category]]
id = "prices"
name = "Prices"
definition = "Promises a price."

[[example]]
prompt = "Where can I buy it?"
answer = "Try the shop next door, it costs two euros there."
breaks = ["competitors", "prices"]

[[example]]
answer = "We do not stock it."
breaks = []
"""


def test_a_policy_is_read() -> None:
    policy = parse_policy("p.toml", POLICY)
    assert policy.ids == ("competitors", "prices")
    assert policy.examples[0].breaks == ("competitors", "prices")
    assert policy.examples[1].prompt == "" and policy.examples[1].breaks == ()


def test_all_faults_are_named_together() -> None:
    text = """
title = 3
descripton = "x"
[[category]]
id = "a;b"
name = " "
[[category]]
id = "c"
name = "C"
definition = "D"
colour = "red"
[[category]]
id = "C"
name = "C"
definition = "D"
[[example]]
breaks = ["d"]
[[example]]
answer = "x"
breaks = "c"
"""
    with pytest.raises(PlanError) as caught:
        parse_policy("p.toml", text)
    faults = "\n".join(caught.value.faults)
    for part in (
        "p.toml:3: descripton: unknown key; did you mean 'description'?",
        "p.toml: name: missing",
        "p.toml:2: title: expected text that is not blank",
        "category[0].id: 'a;b' holds a comma, colon, semicolon or line break",
        "category[0].name: expected text that is not blank",
        "category[0].definition: missing",
        "category[1].colour: unknown key",
        "the category id 'c' occurs more than once",
        "example[0].answer: missing",
        "example[0].breaks: there is no category 'd'",
        "example[1].breaks: give a list of category ids",
    ):
        assert part in faults, faults


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "p.toml:1: Invalid value"),
        ('name = "x"', "no [[category]] tables"),
        ("naem = 3", "no [[category]] tables"),  # with other faults too
        ('name = "x"\ncategory = []\n[[example]]', "no [[category]] tables"),
        ('name = "x"\ncategory = 3', "expected [[category]] tables"),
        ('name = "x"\n' + "[[category]]\n" * 65, "65 [[category]] tables; at most 64"),
        (POLICY + "#" * MAX_CHARACTERS, "characters; at most 24,000"),
    ],
)
def test_hostile_files(text: str, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse_policy("p.toml", text)
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot be read as a policy"):
        read_policy(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(PlanError, match="cannot be read as a policy"):
        read_policy(tmp_path / "latin.toml")


@given(st.text(max_size=300))
def test_any_text_is_a_policy_or_a_plan_error(text: str) -> None:
    with contextlib.suppress(PlanError):
        assert parse_policy("p.toml", text).categories
