"""Expressions: the values of Python, the sandbox, and bounds in size."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from truing.rails.colang.expressions import (
    MAX_NODES,
    AttributeDict,
    ExpressionError,
    compile_expression,
    find_variables,
)

CONTEXT: dict[str, Any] = {
    "n": 3,
    "name": "Ann",
    "tags": ["x", "y"],
    "person": {"city": "Oslo", "pets": [{"kind": "cat"}]},
}


def _evaluate(text: str, context: dict[str, Any] | None = None) -> Any:
    return compile_expression(text)(CONTEXT if context is None else context)


# Without variables the value is Python's own.
PYTHON_EXPRESSIONS = [
    "1 + 2 * 3 - 4 / 2",
    "7 // 2 + 7 % 4",
    "2 ** 10 | 1",
    "-3 + +2",
    "~5 & 12 ^ 3",
    "1 << 4 >> 2",
    "1 < 2 < 3",
    "1 < 3 < 2",
    "3 > 2 == 2",
    "'a' in 'abc' and 'z' not in 'abc'",
    "0 or 'x'",
    "1 and 0 and 'y'",
    "not ''",
    "None is None",
    "'yes' if 2 > 1 else 'no'",
    "'abcdef'[1:4] + 'abcdef'[-1] + 'abcdef'[::2]",
    "len('abc')",
    "' a b '.strip().upper().replace('A', 'x').split()",
    "f'{1 + 1}-{\"a\"}'",
    "'b'.center(3, '*').startswith('*')",
    "(5).bit_length()",
]


@pytest.mark.parametrize("text", PYTHON_EXPRESSIONS)
def test_values_are_those_of_python(text: str) -> None:
    expected = eval(text)
    value = _evaluate(text)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$n + 1", 4),
        ("$unset", None),
        ("$unset is None", True),
        ("$name.lower()", "ann"),
        ("$tags[1]", "y"),
        ("len($tags)", 2),
        ("$person.city", "Oslo"),
        ('$person["city"]', "Oslo"),
        ("$person.missing", None),
        ("$person.pets[0].kind", "cat"),
        ("$person.keys()", ["city", "pets"]),
        ("$person.values()[0]", "Oslo"),
        ('"x" in $tags', True),
        ("$n if $name else 0", 3),
    ],
)
def test_variables_of_the_context(text: str, value: Any) -> None:
    assert _evaluate(text) == value


def test_boolean_operators_stop_at_the_deciding_operand() -> None:
    assert _evaluate("$n or $name.no_such_method()") == 3
    assert _evaluate("$unset and $name.no_such_method()") is None
    assert _evaluate("3 < $n < $name.no_such_method()") is False


def test_attribute_dict_reads_missing_keys_as_none() -> None:
    nested = AttributeDict({"a": {"b": [{"c": 1}]}})
    assert nested.a.b[0].c == 1
    assert nested.missing is None


def test_find_variables() -> None:
    assert find_variables("$a + $b_2.c and 'x$d'") == {"a", "b_2", "d"}
    assert find_variables("a + 1") == frozenset()


@pytest.mark.parametrize(
    "text",
    [
        "().__class__",
        "''.__class__.__mro__",
        "$x.__init__",
        "__import__('os')",
        "open('/etc/passwd')",
        "eval('1')",
        "$x._private",
        "lambda: 1",
        "[x for x in 'a']",
        "$f()",
        "$f.__globals__",
        "getattr($x, 'a')",
        "$x.format('a')",
        "'{0.__class__}'.format(1)",
        "globals()",
        "print(1)",
        "$x := 3",
        "$m.path",
        "$t.mro()",
        "f'{().__class__}'",
        "f'{1:9}'",
        "$d.pop('a')",
        "$l.append(1)",
        "$d.update(a=1)",
        "[1]",
        "{}",
        "x",
        "$x @ 2",
        "b'a'",
        "len(**$d)",
    ],
)
def test_expressions_cannot_leave_the_sandbox(text: str) -> None:
    def function() -> int:
        return 1

    context = {"x": object(), "f": function, "m": os, "t": str, "d": {"a": 1}, "l": [1]}
    with pytest.raises(ExpressionError):
        _evaluate(text, context)
    assert context["d"] == {"a": 1}
    assert context["l"] == [1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("9**9**9**9", "the number is too large"),
        ("'a' * 10**9", "the result is longer than 100000"),
        ("10**9 * 'a'", "the result is longer than 100000"),
        ("2**100000", "the number is too large"),
        ("1 << 10**9", "the number is too large"),
        ("('a' * 90000) + ('b' * 90000)", "the result is longer than 100000"),
        ("'a'.ljust(10**9)", "the result is longer than 100000"),
        ("'%1000000000d' % 1", "% on a text is not allowed"),
        ("('a'*1000).replace('a', 'b'*1000)", "the result is longer than 100000"),
        ("10**5000 * 10**5000 * 10**5000", "the number is too large"),
        ("(" * 3000 + "1" + ")" * 3000, "is not an expression"),
        ("1+" * 5000 + "1", "the expression is too long"),
        ("'a,' .join('b'*50000)", "the result is longer than 100000"),
        ("x" * 9000, "the expression is too long"),
        ("+".join(["1"] * MAX_NODES), "the expression is too large"),
    ],
)
def test_expressions_are_bounded_in_size(text: str, reason: str) -> None:
    with pytest.raises(ExpressionError, match=reason):
        _evaluate(text, {})


@pytest.mark.parametrize("text", ["", "1 +", "if", "import os", "a b", "\x00"])
def test_malformed_expressions_fail_when_they_are_compiled(text: str) -> None:
    with pytest.raises(ExpressionError, match="is not an expression"):
        compile_expression(text)


def test_errors_name_the_expression() -> None:
    with pytest.raises(ExpressionError, match="error evaluating '1 / 0': division by zero"):
        _evaluate("1 / 0")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(max_size=80))
def test_any_text_has_a_value_or_an_expression_error(text: str) -> None:
    error: Exception | None = None
    try:
        _evaluate(text, {"a": 1, "b": "x", "c": [1], "d": {"e": 2}})
    except Exception as raised:
        error = raised
    assert error is None or (isinstance(error, ExpressionError) and str(error))


@pytest.mark.parametrize("attribute", ["gi_frame", "gi_code", "gi_running", "args", "tb_frame"])
def test_attributes_of_the_interpreter_are_out_of_reach(attribute: str) -> None:
    values: list[object] = [(i for i in "ab"), ValueError("x"), compile("1", "f", "eval")]
    for value in values:
        with pytest.raises(ExpressionError, match="not allowed"):
            compile_expression(f"$x.{attribute}")({"x": value})
