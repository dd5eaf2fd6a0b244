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
