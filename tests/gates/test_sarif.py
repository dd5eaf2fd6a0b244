"""A verdict as SARIF."""

from __future__ import annotations

import json

from truing.gates.sarif import to_sarif
from truing.gates.verdict import GateVerdict, RuleOutcome


def test_one_result_per_rule():
    outcomes = (
        RuleOutcome(rule="harm.upper < 5%", status="passed", reason="ok", judge="j", n=10),
        RuleOutcome(rule="cut.upper < 0.1", status="failed", reason="too many", line=7),
        RuleOutcome(rule="cut.upper < 0.1", status="inconclusive", reason="few"),
    )
    verdict = GateVerdict(
        run="runs/a",
        model="m",
        title="t",
        verdict="failed",
        outcomes=outcomes,
        not_tested=("over-refusal",),
    )
    log = json.loads(to_sarif(verdict, "gate.toml"))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    results, rules = run["results"], run["tool"]["driver"]["rules"]
    kinds = [(result["kind"], result["level"]) for result in results]
    assert kinds == [("pass", "none"), ("fail", "error"), ("open", "none")]
    assert [rule["id"] for rule in rules] == ["harm.upper-5", "cut.upper-0.1"]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in results)
    location = results[0]["locations"][0]["physicalLocation"]
    assert location["artifactLocation"]["uri"] == "gate.toml"
    lines = [r["locations"][0]["physicalLocation"]["region"]["startLine"] for r in results]
    assert lines == [1, 7, 1]
    assert results[0]["properties"]["n"] == 10
    assert run["properties"] == {"verdict": "failed", "notTested": ["over-refusal"]}
