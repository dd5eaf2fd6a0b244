"""The grammar of rules, and the errors of rules files."""

from __future__ import annotations

import pytest

from truing.core.errors import PlanError
from truing.gates.rules import parse_rule, parse_rules, read_rules


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("harm.upper < 0.02", ("harm", None, "auto", "upper", 0.02)),
        ("harm[self_harm].corrected.upper<5%", ("harm", "self_harm", "corrected", "upper", 0.05)),
        ("answers_benign.lower > 0.9", ("answers_benign", None, "auto", "lower", 0.9)),
    ],
)
def test_bound_rules(text, expected):
    rule = parse_rule(text)
    assert (rule.question, rule.category, rule.figure, rule.bound, rule.limit) == expected


def test_comparison_rules():
    rule = parse_rule("no-regression[harm, cut] vs runs/main within 0.03")
    assert (rule.kind, rule.run, rule.margin) == ("no-regression", "runs/main", 0.03)
    assert rule.questions == ("harm", "cut")
    safer = parse_rule("safer vs BASELINE")
    assert (safer.kind, safer.run, safer.margin) == ("safer", "BASELINE", 0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("harm < 0.02", "expected QUESTION"),
        ("harm.estimate < 0.02", "binds on a bound"),
        ("harm.lower < 0.02", "passed by knowing little"),
        ("harm.upper < 2", "no rate"),
        ("", "expected"),
        ("harm.upper < nan", "expected"),
        ("harm.upper < 1e", "no number"),
        ("harm.rw.upper < 0.1", "did you mean 'raw'"),
        ("no-regression", "expected"),
        ("no-regression vs x within 3", "margin"),
    ],
)
def test_invalid_rules(text, message):
    with pytest.raises(ValueError, match=message):
        parse_rule(text)


def test_all_faults_of_a_file_are_reported_together():
    text = """
    ruls = []
    rules = ["harm < 0.1", 3]
    [[rule]]
    chek = "harm.upper < 0.1"
    [[rule]]
    check = "harm.upper < 0.1"
    allow = ["uncarted"]
    figure = "transprted"
    [[rule]]
    check = "harm.upper < 0.1"
    margin = 5
    name = 3
    judge = true
    """
    with pytest.raises(PlanError) as caught:
        parse_rules(text, "r.toml")
    for expected in (
        "r.toml:2: ruls: unknown key; did you mean 'rules'",
        "rules[0].check",
        "rules[1].check",
        "rule[0].chek: unknown key; did you mean 'check'",
        "did you mean 'uncarded'",
        "did you mean 'transported'",
        "rule[2].margin: 5: a margin lies in [0, 1)",
        "rule[2].name: expected str, got 3",
        "rule[2].judge: expected str, got True",
    ):
        assert expected in str(caught.value)


@pytest.mark.parametrize("text", ["", "rules = []", "title = 'x'"])
def test_a_file_without_rules_is_refused(text):
    with pytest.raises(PlanError, match="asks nothing"):
        parse_rules(text)


def test_paths_are_relative_to_the_file(tmp_path):
    path = tmp_path / "gate.toml"
    path.write_text('rules = ["cut.upper < 0.1"]\ncards = ["cards/j.json"]\ntitle = "release"\n')
    rules = read_rules(path)
    assert (rules.cards, rules.folder) == ((tmp_path / "cards/j.json",), tmp_path)
    assert rules.title == "release"
    with pytest.raises(PlanError, match=r"missing\.toml"):
        read_rules(tmp_path / "missing.toml")


def test_the_keys_of_a_table_complete_its_check():
    rules = parse_rules(
        '[[rule]]\ncheck = "harm.upper < 0.1"\nname = "n"\njudge = "j"\ncategory = "self_harm"\n'
        'figure = "raw"\nmargin = 0.2\nallow = ["uncarded"]'
    )
    (rule,) = rules.rules
    assert (rule.name, rule.judge, rule.category) == ("n", "j", "self_harm")
    assert (rule.figure, rule.margin, rule.allow) == ("raw", 0.2, ("uncarded",))
