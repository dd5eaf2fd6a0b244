"""The sandbox of templates: what it renders, and what it refuses."""

from __future__ import annotations

import pytest

from truing.rails.runtime.templates import (
    PromptError,
    dollar_to_jinja,
    render_bot_message,
    render_template,
    template_variables,
)


def test_variables_are_filled_in_and_missing_ones_are_empty() -> None:
    assert render_template("{{ a }}-{{ b }}", {"a": 1}) == "1-"
    assert render_template("no template", {}) == "no template"
    assert template_variables("{{ a }}{% for x in b %}{{ x }}{% endfor %}") == {"a", "b"}


def test_filters_of_conversations_are_there() -> None:
    events = [{"type": "UserMessage", "text": "Hi"}]
    assert render_template("{{ history | colang }}", {"history": events}) == 'user "Hi"\n'
    assert render_template("{{ a | replace('x', 'y') }}", {"a": "xx"}) == "yy"


@pytest.mark.parametrize(
    ("message", "template"),
    [
        ("Hello $name!", "Hello {{name}}!"),
        ("$a and $b.", "{{a}} and {{b}}."),
        ("It costs $5", "It costs {{5}}"),
        ("$user.name", "{{user.name}}"),
        ("plain", "plain"),
    ],
)
def test_dollar_variables_become_jinja(message: str, template: str) -> None:
    assert dollar_to_jinja(message) == template


def test_a_bot_message_may_use_either_form() -> None:
    assert render_bot_message("$a {{ b }}", {"a": 1, "b": 2}) == "1 2"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 'a' * 1000000 }}", r"\* is not allowed on these values"),
        ("{{ 10 ** 100000 }}", r"\*\* is not allowed on these values"),
        ("{{ '%1000000d' % 1 }}", "% on a text is not allowed"),
        ("{{ 'a'.ljust(1000000) }}", "attribute 'ljust' of 'str' object is unsafe"),
        ("{{ 'a' | center(1000000) }}", "No filter named 'center'"),
        ("{% for i in range(100000) %}{% endfor %}", "range is limited to 1000"),
        (
            "{% for a in x %}{% for b in x %}{% for c in x %}{% endfor %}{% endfor %}{% endfor %}",
            "loops may be nested 2 deep at most",
        ),
        ("{% for a in x recursive %}{% endfor %}", "loops may be nested 2 deep at most"),
        ("{% macro m() %}{% endmacro %}", "macro is not allowed in templates"),
        ("{% include 'file' %}", "include is not allowed in templates"),
        ("{{ x.__class__ }}{{ x.__class__.__mro__ }}", "'__class__' of 'list' object is unsafe"),
        ("{{ unclosed", "the template cannot be read: unexpected end of template"),
        ("{{ 1 / 0 }}", "the template failed: division by zero"),
        (
            "{% for a in range(1000) %}{% for b in range(1000) %}{{ a }}{% endfor %}{% endfor %}",
            "the template's output grows without bound",
        ),
        ("{{ long | replace('a', long) }}", "the text grows too large"),
    ],
)
def test_templates_that_leave_the_sandbox_or_grow_are_errors(template: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        render_template(template, {"x": [1], "long": "a" * 2000})


def test_arithmetic_of_numbers_is_allowed() -> None:
    assert render_template("{{ 2 * 3 + 2 ** 3 }}", {}) == "14"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 1 | round(100000000) }}", "round is limited to 20 digits"),
        ("{{ 2 | round(-100000000) }}", "round is limited to 20 digits"),
        (
            "{% set a = 9999999999 %}" + "{% set a = a * a %}" * 40 + "{{ a }}",
            "the number is too large",
        ),
        (
            "{% set a = 'aaaaaaaaaa' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
            "the text grows too large",
        ),
        (
            "{% set a = 'aaaaaaaaaa' %}" + "{% set a = a + a %}" * 40 + "{{ a }}",
            "the text grows too large",
        ),
        ("{{ '{:>900000000}'.format(1) }}", "the template's output grows without bound"),
        ("{{ '%900000000d' % 1 }}", "% on a text is not allowed"),
        ("{{ range(10**9) | list }}", "range is limited to 1000"),
        (
            "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}",
            "more than 100,000 iterations",
        ),
        ("{{ range(1000) | join('a' * 1000000) }}", r"\* is not allowed on these values"),
        (
            "{% set x = text ~ text %}{{ [x, x, x, x] | join(text) }}",
            "the text grows too large",
        ),
        ("{{ 'a' * 1000000000 }}", r"\* is not allowed on these values"),
        ("{{ generator.gi_frame.f_globals }}", "'gi_frame' of 'generator' object is unsafe"),
        ("{{ ''.__class__.__mro__ }}", "'__class__' of 'str' object is unsafe"),
    ],
)
def test_templates_that_would_fill_memory_or_time_fail_at_once(template: str, message: str) -> None:
    context = {"text": "x" * 400_000, "generator": (i for i in "ab")}
    with pytest.raises(PromptError, match=message):
        render_template(template, context)


def test_bounded_operators_and_filters_mean_what_they_mean_in_jinja() -> None:
    template = (
        "{{ 'a' ~ 1 ~ x }} {{ [1, 2] | join('-') }} {{ 2.567 | round(1) }} {{ 2.1 | round(0, 'ceil') }}"
        "{% for i in range(3) %}{{ loop.index }}{% if not loop.last %},{% endif %}{% endfor %}"
    )
    assert render_template(template, {"x": None}) == "a1None 1-2 2.6 3.01,2,3"
