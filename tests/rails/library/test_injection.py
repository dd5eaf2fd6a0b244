"""Injection detection: YARA rules on the bot's answer, with NeMo Guardrails' settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from library_cases import ask, decisive_ruling, guard

from truing.core.errors import PlanError
from truing.rails.config.key_effects import find_differences
from truing.rails.config.loader import RailsConfig
from truing.rails.library import injection
from truing.rails.library.injection import (
    compile_rules,
    cut_matches,
    load_own_rules,
    match_rules,
)
from truing.rails.static.check import check_rails_config

FORBIDDEN_RULE = 'rule forbidden { strings: $word = "FORBIDDEN" condition: $word }'


def _config(**block: Any) -> dict[str, Any]:
    return {
        "rails": {
            "config": {"injection_detection": block},
            "output": {"flows": ["injection detection"]},
        }
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sqli", "Try: name' OR '1'='1"),
        ("sqli", "x'; DROP TABLE students; --"),
        ("sqli", "id=1 UNION ALL SELECT name, pass FROM users"),
        ("sqli", "SELECT a FROM b WHERE c = 1 -- rest"),
        ("sqli", "select * from information_schema.tables"),
        ("template", "Hello {{ config.items() }}"),
        ("template", "{% for x in y %}"),
        ("template", "${7*7}"),
        ("code", "import os"),
        ("code", "import json, subprocess as sp"),
        ("code", "from os.path import join"),
        ("code", "__import__('x').y()"),
        ("code", "Use `import socket` first"),
        ("code", "from urllib.request import urlopen"),
        ("xss", "<script>alert(1)</script>"),
        ("xss", '<img src=x onerror="go()">'),
        ("xss", "[click](javascript:go())"),
        ("xss", "![pixel](https://example.com/?q=secret)"),
        ("xss", '<a href="javascript:go()">x</a>'),
    ],
)
def test_each_kind_is_detected(name: str, text: str) -> None:
    assert match_rules(compile_rules(((name, load_own_rules()[name]),)), text)


@pytest.mark.parametrize(
    "text",
    [
        "Select the best offer; then insert your card and create an account.",
        "It's important that the cost of HTTP requests is low: we import most of them.",
        "Drop by the table near the window, or update us later -- thanks!",
        "The union of both sets; delete what you don't need.",
        "I import goods from Oslo. The data stays at home, the script is read aloud.",
        "Use curly braces {like this}, and 50 % of [links](https://example.com).",
        "O'Neil and Sons' shop or Anna's; it costs $5.",
    ],
)
def test_prose_passes(text: str) -> None:
    assert match_rules(compile_rules(tuple(load_own_rules().items())), text) == []


def test_reject_names_the_rules(tmp_path: Path) -> None:
    bot = guard(tmp_path, _config(injections=["code", "sqli"], action="reject"))
    assert ask(bot, "a fine answer").text == "a fine answer"
    answer = ask(bot, "import os")
    assert answer.text == (
        "I'm sorry, the desired output triggered rule(s) designed to mitigate exploitation of "
        "system_access."
    )
    ruling = decisive_ruling(answer)
    assert (ruling.name, ruling.ruling, ruling.evidence) == (
        "injection detection",
        "block",
        "system_access",
    )


def test_omit_cuts_matches_out_until_none_is_left(tmp_path: Path) -> None:
    rules = {"forbidden": FORBIDDEN_RULE}
    config = _config(injections=["forbidden"], action="omit", yara_rules=rules)
    bot = guard(tmp_path, config)
    assert ask(bot, "one FORBIDDEN word").text == "one  word"
    assert ask(bot, "one FORBFORBIDDENIDDEN word").text == "one  word"
    no_text = compile_rules((("all", "rule everything { condition: true }"),))
    assert cut_matches(no_text, "a text that a rule without strings matches") is None


def test_what_cannot_be_cut_out_is_blocked(tmp_path: Path) -> None:
    rules = {"all": "rule long_text { condition: filesize > 10 }"}
    bot = guard(tmp_path, _config(injections=["all"], action="omit", yara_rules=rules))
    assert ask(bot, "short").text == "short"
    answer = ask(bot, "a text of more than ten characters")
    assert answer.finish_reason == "blocked" and "characters" not in answer.text
    assert decisive_ruling(answer).evidence == "long_text"


def test_an_exception_is_an_event_whatever_the_action(tmp_path: Path) -> None:
    config = {**_config(injections=["code"], action="omit"), "enable_rails_exceptions": True}
    answer = ask(guard(tmp_path, config), "import os")
    assert answer.finish_reason == "blocked"
    assert "blocked by the 'injection detection' flow" in answer.text


def test_rules_of_a_folder_are_read_inside_the_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "bot"
    (folder / "rules").mkdir(parents=True)
    (folder / "rules" / "forbidden.yara").write_text(FORBIDDEN_RULE)
    bot = guard(folder, _config(injections=["forbidden"], yara_path="rules"))
    assert "forbidden" in ask(bot, "a FORBIDDEN word").text
    (tmp_path / "outside.yara").write_text(FORBIDDEN_RULE)
    with pytest.raises(PlanError, match="outside the folder; it needs the operator's trust"):
        guard(folder, _config(injections=["outside"], yara_path=".."))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({}, "names no rule, so every text would pass"),
        ({"injections": ["sqli"], "action": "sanitize"}, "'sanitize' is not one of reject, omit"),
        ({"injections": ["sqli", "spam"]}, "there are no rules spam .there are sqli, template"),
        ({"injections": ["a"], "yara_rules": {"b": FORBIDDEN_RULE}}, "yara_rules has no rule a"),
        ({"injections": ["a"], "yara_rules": {"a": "rule a {"}}, "the YARA rules cannot be read"),
        (
            {"injections": ["a"], "yara_rules": {"a": 'include "/etc/hosts"\n' + FORBIDDEN_RULE}},
            "the YARA rules cannot be read: .*includes are disabled",
        ),
        ({"injections": ["a"], "yara_path": "nowhere"}, "there is no folder"),
    ],
)
def test_wrong_settings_are_faults_at_the_start(
    tmp_path: Path, block: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=f"config.yml:[0-9]+: injection_detection: .*{message}"):
        guard(tmp_path, _config(**block))
    report = check_rails_config(tmp_path)
    assert any(finding.kind == "pattern" for finding in report.errors)


def test_a_rule_that_takes_too_long_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowRules:
        def match(self, data: bytes, timeout: int) -> Any:
            raise injection.load_object("yara:TimeoutError")("too long")

    bot = guard(tmp_path, _config(injections=["sqli"]))
    monkeypatch.setattr(injection, "compile_rules", lambda sources: SlowRules())
    answer = ask(bot, "a text")
    assert answer.finish_reason == "blocked" and answer.text != "a text"


def test_without_yara_the_start_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yara", None)
    compile_rules.cache_clear()
    with pytest.raises(PlanError, match=r"pip install 'truing\[yara\]'"):
        guard(tmp_path, _config(injections=["sqli"]))


def test_own_rules_are_a_named_difference_and_given_ones_are_not() -> None:
    yaml = (
        "rails: {{config: {{injection_detection: {}}}, output: {{flows: [injection detection]}}}}"
    )
    ((_, message),) = find_differences(RailsConfig.from_text(yaml.format("{injections: [sqli]}")))
    assert "truing's own" in message
    given = "{injections: [a], yara_rules: {a: 'rule a {condition: false}'}}"
    assert list(find_differences(RailsConfig.from_text(yaml.format(given)))) == []
