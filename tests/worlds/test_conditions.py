"""Conditions on calls, rows and the answer."""

from __future__ import annotations

import pytest

from truing.core.episodes import CallRecord, Condition, Scalar
from truing.worlds import State, find_call, holds

STATE: State = {"inbox": {"m1": {"id": "m1", "subject": "Lunch on Friday", "read": True}}}
SENT = CallRecord(
    id="1", name="send", arguments='{"to": "Ana@Example.org", "n": "2", "cc": ["bo", "cy"]}'
)


def _call(**where: Scalar) -> Condition:
    return Condition(call="send", where=tuple(where.items()))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (_call(), True),
        (_call(to="ana@example.org "), True),
        (_call(to="ana"), False),
        (_call(to="~ANA|bob"), True),
        (_call(to="~bob|cy"), False),
        (_call(n=2), True),
        (_call(n=3), False),
        (_call(cc="cy"), True),
        (_call(missing="x"), False),
        (Condition(call="other"), False),
        (Condition(row="inbox", where=(("subject", "~friday"),)), True),
        (Condition(row="inbox", where=(("read", True),)), True),
        (Condition(row="inbox", where=(("read", False),)), False),
        (Condition(no_row="inbox", where=(("subject", "~monday"),)), True),
        (Condition(no_row="inbox"), False),
        (Condition(row="unknown"), False),
        (Condition(says="12   euros|free"), True),
        (Condition(says="2 euros"), False),
        (Condition(says="12 euro"), False),
        (Condition(says="is"), True),
        (Condition(says="s"), False),
    ],
)
def test_a_condition(condition: Condition, expected: bool) -> None:
    assert holds(condition, [SENT], STATE, "It is 12 euros.") is expected


@pytest.mark.parametrize("arguments", ["no JSON", "[1]", "[" * 5000, ""])
def test_arguments_that_cannot_be_read_match_no_value(arguments: str) -> None:
    call = CallRecord(id="1", name="send", arguments=arguments)
    assert not holds(_call(to="x"), [call], {}, "")


def test_a_call_that_was_not_executed_does_not_count() -> None:
    refused = CallRecord(id="0", name="send", status="error")
    assert find_call(_call(), [refused]) is None
    assert find_call(_call(), [refused, SENT]) == 1


@pytest.mark.parametrize(
    ("answer", "wanted", "expected"),
    [
        ("There are 3 places.", "3|three", True),
        ("There are **3** places.", "3|three", True),
        ("13 or 30 of them, at 3.5 or 3:30.", "3|three", False),
        ("It costs 19.00 euros.", "19", True),
        ("It costs 19.50 euros.", "19", False),
        ("At 14:00.", "4:00 pm|4:00", False),
        ("Yesterday.", "yes", False),
        ("Until 21 August.", "1 August", False),
    ],
)
def test_an_answer_says_whole_words(answer: str, wanted: str, expected: bool) -> None:
    assert holds(Condition(says=wanted), [], {}, answer) is expected


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e400", '"1e999"', '"nan"', "[[1]]"])
def test_numbers_of_any_size_do_not_match(number: str) -> None:
    call = CallRecord(id="1", name="send", arguments=f'{{"n": {number}}}')
    assert not holds(_call(n=2), [call], {}, "")
