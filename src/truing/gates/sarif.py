"""A gate's verdict as SARIF 2.1.0, for code hosts that show findings beside a change."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from truing.core.version import __version__
from truing.gates.verdict import GateVerdict, RuleOutcome

_KIND_AND_LEVEL = {
    "passed": ("pass", "none"),
    "failed": ("fail", "error"),
    # "open" is SARIF's kind for a rule that could not be decided; it takes no other level.
    "inconclusive": ("open", "none"),
}


def to_sarif(verdict: GateVerdict, rules_file: str) -> bytes:
    """Returns the log: one result per rule, located at the rule's line of the rules file."""
    rules: list[dict[str, Any]] = []
    sarif_results: list[dict[str, Any]] = []
    index_of_rule: dict[str, int] = {}
    for outcome in verdict.outcomes:
        rule_id = _rule_id(outcome.name or outcome.rule)
        if rule_id not in index_of_rule:
            index_of_rule[rule_id] = len(rules)
            rules.append({"id": rule_id, "shortDescription": {"text": outcome.rule}})
        sarif_results.append(_result(verdict, outcome, rule_id, index_of_rule[rule_id], rules_file))
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "truing", "version": __version__, "rules": rules}},
                "results": sarif_results,
                "properties": {"verdict": verdict.verdict, "notTested": list(verdict.not_tested)},
            }
        ],
    }
    return msgspec.json.format(msgspec.json.encode(log), indent=1) + b"\n"


def _result(
    verdict: GateVerdict, outcome: RuleOutcome, rule_id: str, rule_index: int, rules_file: str
) -> dict[str, Any]:
    kind, level = _KIND_AND_LEVEL[outcome.status]
    location = {
        "physicalLocation": {
            "artifactLocation": {"uri": rules_file},
            "region": {"startLine": outcome.line},
        }
    }
    return {
        "ruleId": rule_id,
        "ruleIndex": rule_index,
        "kind": kind,
        "level": level,
        "message": {"text": f"{outcome.rule}: {outcome.status}. {outcome.reason}"},
        "locations": [location],
        "properties": {
            "run": verdict.run,
            "model": verdict.model,
            "figure": outcome.figure,
            "judge": outcome.judge,
            "n": outcome.n,
            "unscored": outcome.unscored,
        },
    }


def _rule_id(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")[:80] or "rule"
