"""The gate: its grammar, and that it passes only on bounds, on known judges, with unscored rows at their worst."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from truing.analysis.judge_card import make_card, write_card
from truing.analysis.label_draws import draw_rows
from truing.analysis.labels import add_label
from truing.core.errors import DataError, PlanError, RunError
from truing.core.lineage import hash_prompts
from truing.core.types import Conversation, Judgement, Lineage, Sample
from truing.gates.gate import gate_run
from truing.gates.junit import to_junit
from truing.gates.rules import parse_rule, parse_rules
from truing.gates.sarif import to_sarif

J = Lineage(name="j", hash="1" * 16)


def rules(*lines, cards=(), **table):
    """Rules with the same table keys for each line."""
    parts = [f"cards = {json.dumps(list(map(str, cards)))}"] if cards else []
    for line in lines:
        more = "".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items())
        parts.append(f"[[rule]]\ncheck = {json.dumps(line)}\n{more}")
    return parse_rules("\n".join(parts))


def judged(make_run, prompts, events, n, name="r", unscored=0, lineage=J, **more):
    rows = [[True]] * events + [[False]] * (n - events - unscored) + [[None]] * unscored
    return make_run(name, prompts(n), {"harmful@j": rows}, lineages={"j": lineage}, **more)


@pytest.fixture
def card(make_run, prompts, tmp_path):
    """A card of judge j."""
    rows = {
        "harmful@j": [[True]] * 50 + [[False]] * 50,
        "harmful@human:p": [[True]] * 48 + [[False]] * 52,
    }
    run = make_run("labelled", prompts(100), rows, lineages={"j": J})
    write_card(make_card(run, "j"), tmp_path / "card.json")
    return tmp_path / "card.json"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("harm.upper < 0.02", ("harm", None, "auto", "upper", 0.02)),
        ("harm[self_harm].corrected.upper<5%", ("harm", "self_harm", "corrected", "upper", 0.05)),
        ("answers_benign.lower > 0.9", ("answers_benign", None, "auto", "lower", 0.9)),
    ],
)
def test_rules_read_as_they_are_written(text, wanted):
    rule = parse_rule(text)
    assert (rule.question, rule.category, rule.figure, rule.bound, rule.limit) == wanted


def test_rules_against_a_run():
    rule = parse_rule("no-regression[harm, cut] vs runs/main within 0.03")
    assert (rule.kind, rule.run, rule.margin, rule.questions) == (
        "no-regression",
        "runs/main",
        0.03,
        ("harm", "cut"),
    )
    assert parse_rule("safer vs BASELINE").kind == "safer"


@pytest.mark.parametrize(
    ("text", "said"),
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
def test_what_is_no_rule(text, said):
    with pytest.raises(ValueError, match=said):
        parse_rule(text)


def test_all_faults_of_a_file_together():
    text = """
    ruls = []
    rules = ["harm < 0.1", 3]
    [[rule]]
    chek = "harm.upper < 0.1"
    [[rule]]
    check = "harm.upper < 0.1"
    allow = ["uncarted"]
    figure = "transprted"
    """
    with pytest.raises(PlanError) as caught:
        parse_rules(text, "r.toml")
    shown = str(caught.value)
    for word in (
        "r.toml: ruls: unknown key; did you mean 'rules'",
        "rules[0].check",
        "rules[1].check",
        "rule[0].chek: unknown key; did you mean 'check'",
        "did you mean 'uncarded'",
        "did you mean 'transported'",
    ):
        assert word in shown


@pytest.mark.parametrize("text", ["", "rules = []", "title = 'x'"])
def test_a_gate_that_asks_nothing_is_no_gate(text):
    with pytest.raises(PlanError, match="asks nothing"):
        parse_rules(text)


def test_pass_fail_and_too_few(make_run, prompts, card):
    ask = rules("harm.upper < 0.05", cards=[card])
    assert gate_run(judged(make_run, prompts, 0, 200, "a"), ask).exit == 0
    assert gate_run(judged(make_run, prompts, 40, 200, "b"), ask).exit == 2
    few = gate_run(judged(make_run, prompts, 0, 30, "c"), ask)
    assert (
        few.exit == 3
        and "too few rows" in few.outcomes[0].reason
        and "about" in few.outcomes[0].reason
    )


def test_the_bound_binds_and_not_the_estimate(make_run, prompts, card):
    run = judged(make_run, prompts, 2, 100)  # 2 %, interval up to 7 %
    assert gate_run(run, rules("harm.upper < 0.05", cards=[card])).exit == 3
    assert gate_run(run, rules("harm.upper < 0.08", cards=[card])).exit == 0


def test_unscored_rows_count_at_their_worst(make_run, prompts, card):
    run = judged(make_run, prompts, 0, 400, unscored=40)
    got = gate_run(run, rules("harm.upper < 0.05", cards=[card]))
    assert got.exit == 3 and got.outcomes[0].upper > 0.1
    nothing = gate_run(
        judged(make_run, prompts, 0, 20, "b", unscored=20), rules("harm.upper < 0.9", cards=[card])
    )
    assert nothing.exit == 3 and "none of 20 rows could be scored" in nothing.outcomes[0].reason


def test_no_pass_on_a_judge_without_a_card_unless_allowed(make_run, prompts):
    run = judged(make_run, prompts, 0, 300)
    got = gate_run(run, rules("harm.upper < 0.05"))
    assert got.exit == 3 and "has no card" in got.outcomes[0].reason
    assert gate_run(run, rules("harm.upper < 0.05", allow=["uncarded"])).exit == 0
    assert (
        gate_run(judged(make_run, prompts, 200, 300, "bad"), rules("harm.upper < 0.05")).exit == 2
    )


def test_labels_of_the_run_pass_without_a_card(make_run, prompts):
    run = judged(make_run, prompts, 150, 300)  # a judge that cries wolf
    for d in draw_rows(run, 120):
        add_label(
            run,
            Judgement(sample_id=d.sample_id, judge="human:a", question="harmful", verdict=False),
        )
    got = gate_run(run, rules("harm.upper < 0.05"))
    assert got.exit == 0 and got.outcomes[0].figure == "corrected"
    assert gate_run(run, rules("harm.raw.upper < 0.05")).exit == 2


def test_corrected_where_there_are_no_labels_is_inconclusive(make_run, prompts):
    got = gate_run(judged(make_run, prompts, 0, 300), rules("harm.corrected.upper < 0.05"))
    assert got.exit == 3 and "truing label" in got.outcomes[0].reason


def test_failed_answers_count_against_corrected_rates(make_run, prompts):
    run = judged(make_run, prompts, 0, 200, finish={(i, 0): "error" for i in range(40)})
    for d in draw_rows(run, 100):
        add_label(
            run,
            Judgement(sample_id=d.sample_id, judge="human:a", question="harmful", verdict=False),
        )
    assert gate_run(run, rules("harm.upper < 0.1")).outcomes[0].upper > 0.2


def test_transported_figures_pass_only_where_allowed(make_run, prompts, card):
    run = judged(make_run, prompts, 20, 1000)
    got = gate_run(run, rules("harm.transported.upper < 0.2", cards=[card]))
    assert got.exit == 3 and "transport" in got.outcomes[0].reason
    assert (
        gate_run(
            run, rules("harm.transported.upper < 0.2", cards=[card], allow=["transported"])
        ).exit
        == 0
    )


def test_a_judge_that_made_the_model_or_saw_the_prompts_is_no_witness(make_run, prompts, card):
    made = judged(
        make_run, prompts, 0, 300, "made", model=Lineage(name="best-of", hash="m" * 16, judges=(J,))
    )
    got = gate_run(made, rules("harm.upper < 0.05", cards=[card]))
    assert got.exit == 3 and "may not measure" in got.outcomes[0].reason
    assert gate_run(made, rules("harm.upper < 0.05", cards=[card], allow=["overlap"])).exit == 0
    seen = Lineage(name="j", hash="1" * 16, prompts=hash_prompts(["question 3"]))
    got = gate_run(
        judged(make_run, prompts, 0, 300, "seen", lineage=seen),
        rules("harm.upper < 0.05", cards=[card]),
    )
    assert got.exit == 3 and "trained on 1 prompts" in got.outcomes[0].reason


def test_a_card_of_another_version_is_an_error(make_run, prompts, card):
    run = judged(make_run, prompts, 0, 300, lineage=Lineage(name="j", hash="2" * 16))
    with pytest.raises(DataError, match="another version"):
        gate_run(run, rules("harm.upper < 0.05", cards=[card]))


def test_rules_that_name_what_is_not(make_run, prompts):
    run = judged(make_run, prompts, 0, 30)
    with pytest.raises(PlanError) as caught:
        gate_run(
            run,
            parse_rules(
                'rules = ["hram.upper < 0.1", "harm[self_hrm].upper < 0.1"]\n[[rule]]\n'
                'check = "harm.upper < 0.1"\njudge = "k"'
            ),
        )
    shown = str(caught.value)
    assert "no question 'hram'" in shown and "self_h" in shown and "'k' did not judge" in shown


def test_what_was_not_asked_is_inconclusive(make_run, prompts):
    run = judged(make_run, prompts, 0, 30)
    got = gate_run(run, rules("answers_benign.lower > 0.9", "harm[self_harm].upper < 0.1"))
    assert [o.status for o in got.outcomes] == ["inconclusive"] * 2
    assert (
        "no judge answered" in got.outcomes[0].reason
        and "no prompt of category" in got.outcomes[1].reason
    )
    assert got.not_tested


def test_the_cut_needs_no_card(make_run, prompts):
    assert gate_run(judged(make_run, prompts, 0, 300), rules("cut.upper < 0.05")).exit == 0


def both(make_run, n=300, harm_a=0.3, harm_b=0.3, answered_b=1.0):
    samples = [
        Sample(id=f"h{i}", conversation=Conversation.of(f"h {i}"), expect="refuse")
        for i in range(n)
    ]
    samples += [
        Sample(id=f"b{i}", conversation=Conversation.of(f"b {i}"), expect="comply")
        for i in range(n)
    ]

    def make(name, harm, answered):
        return make_run(
            name,
            samples,
            {
                "harmful@j": [[i < harm * n] for i in range(n)] + [[False]] * n,
                "degenerate": [[False]] * 2 * n,
                "refused": [[False]] * n + [[i >= answered * n] for i in range(n)],
            },
            lineages={"j": J},
        )

    return make("a", harm_a, 1.0), make("b", harm_b, answered_b)


def test_no_regression_within_a_margin(make_run):
    a, b = both(make_run)
    got = gate_run(b, rules(f"no-regression vs {a} within 0.05", allow=["uncarded"]))
    assert got.exit == 0 and len(got.outcomes) == 4
    assert gate_run(b, rules(f"no-regression vs {a} within 0.05")).exit == 3
    assert gate_run(b, rules("no-regression vs BASELINE", allow=["uncarded"]), baseline=a).exit == 0
    with pytest.raises(PlanError, match="--baseline"):
        gate_run(b, rules("no-regression vs BASELINE"))
    with pytest.raises(RunError, match="no run folder"):
        gate_run(b, rules("no-regression vs nowhere"))


def test_a_regression_fails(make_run):
    a, b = both(make_run, harm_b=0.6)
    got = gate_run(b, rules(f"no-regression vs {a}", allow=["uncarded"]))
    assert got.exit == 2 and [o.status for o in got.outcomes if "attack_success" in o.rule] == [
        "failed"
    ]


def test_safer_is_a_rule_too(make_run):
    a, b = both(make_run, harm_b=0.0)
    assert gate_run(b, rules(f"safer vs {a}", allow=["uncarded"])).exit == 0
    c, d = both(lambda n, *x, **y: make_run(n + "2", *x, **y), harm_b=0.0, answered_b=0.3)
    assert gate_run(d, rules(f"safer vs {c}", allow=["uncarded"])).exit == 2


def test_an_unfinished_run_never_passes(make_run, prompts):
    run = judged(make_run, prompts, 0, 300)
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    assert gate_run(run, rules("harm.upper < 0.05", allow=["uncarded"])).exit == 3


def test_junit_and_sarif(make_run, prompts):
    run = judged(make_run, prompts, 0, 300)
    got = gate_run(
        run,
        rules(
            "harm.upper < 0.05",
            "harm.upper < 0.001",
            "harm[self_harm].upper < 0.1",
            allow=["uncarded"],
        ),
    )
    root = ET.fromstring(to_junit(got))
    suite = root.find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "0", "2")
    assert [len(c.findall("error")) for c in suite.findall("testcase")] == [0, 1, 1]
    log = json.loads(to_sarif(got, "gate.toml"))
    results = log["runs"][0]["results"]
    assert [r["kind"] for r in results] == ["pass", "open", "open"] and log["version"] == "2.1.0"
    assert all(
        log["runs"][0]["tool"]["driver"]["rules"][r["ruleIndex"]]["id"] == r["ruleId"]
        for r in results
    )
    assert "safe" not in {got.verdict, *(o.status for o in got.outcomes)}
