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
    "template",
    [
        "{{ 'a' * 1000000 }}",
        "{{ 10 ** 100000 }}",
        "{{ '%1000000d' % 1 }}",
        "{{ 'a'.ljust(1000000) }}",
        "{{ 'a' | center(1000000) }}",
        "{% for i in range(100000) %}{% endfor %}",
        "{% for a in x %}{% for b in x %}{% for c in x %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in x recursive %}{% endfor %}",
        "{% macro m() %}{% endmacro %}",
        "{% include 'file' %}",
        "{{ x.__class__ }}{{ x.__class__.__mro__ }}",
        "{{ unclosed",
        "{{ 1 / 0 }}",
        "{% for a in range(1000) %}{% for b in range(1000) %}{{ a }}{% endfor %}{% endfor %}",
        "{{ long | replace('a', long) }}",
    ],
)
def test_templates_that_leave_the_sandbox_or_grow_are_errors(template: str) -> None:
    with pytest.raises(PromptError):
        render_template(template, {"x": [1], "long": "a" * 2000})


def test_arithmetic_of_numbers_is_allowed() -> None:
    assert render_template("{{ 2 * 3 + 2 ** 3 }}", {}) == "14"


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 | round(100000000) }}",
        "{{ 2 | round(-100000000) }}",
        "{% set a = 9999999999 %}" + "{% set a = a * a %}" * 40 + "{{ a }}",
        "{% set a = 'aaaaaaaaaa' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
        "{% set a = 'aaaaaaaaaa' %}" + "{% set a = a + a %}" * 40 + "{{ a }}",
        "{{ '{:>900000000}'.format(1) }}",
        "{{ '%900000000d' % 1 }}",
        "{{ range(10**9) | list }}",
        "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}",
        "{{ range(1000) | join('a' * 1000000) }}",
        "{% set x = text ~ text %}{{ [x, x, x, x] | join(text) }}",
        "{{ 'a' * 1000000000 }}",
        "{{ generator.gi_frame.f_globals }}",
        "{{ ''.__class__.__mro__ }}",
    ],
)
def test_templates_that_would_fill_memory_or_time_fail_at_once(template: str) -> None:
    context = {"text": "x" * 400_000, "generator": (i for i in "ab")}
    with pytest.raises(PromptError):
        render_template(template, context)


def test_bounded_operators_and_filters_mean_what_they_mean_in_jinja() -> None:
    template = (
        "{{ 'a' ~ 1 ~ x }} {{ [1, 2] | join('-') }} {{ 2.567 | round(1) }} {{ 2.1 | round(0, 'ceil') }}"
        "{% for i in range(3) %}{{ loop.index }}{% if not loop.last %},{% endif %}{% endfor %}"
    )
    assert render_template(template, {"x": None}) == "a1None 1-2 2.6 3.01,2,3"
