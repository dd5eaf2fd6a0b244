"""A gate's verdict as SARIF 2.1.0, for code hosts that show findings beside a change."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from truing.core.version import __version__
from truing.gates.gate import GateVerdict

_LEVELS = {
    "passed": ("pass", "none"),
    "failed": ("fail", "error"),
    "inconclusive": ("open", "none"),
}


def _id(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")[:80] or "rule"


def to_sarif(verdict: GateVerdict, rules_file: str) -> bytes:
    """One result a rule; the place is the line of the rules file's start, since a model has no lines."""
    rules: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for outcome in verdict.outcomes:
        name = _id(outcome.name or outcome.rule)
        if name not in seen:
            seen[name] = len(rules)
            rules.append({"id": name, "shortDescription": {"text": outcome.rule}})
        kind, level = _LEVELS[outcome.status]
        results.append(
            {
                "ruleId": name,
                "ruleIndex": seen[name],
                "kind": kind,
                "level": level,
                "message": {"text": f"{outcome.rule}: {outcome.status}. {outcome.reason}"},
                "locations": [
                    {
                        "physicalLocation": {
                            "artifactLocation": {"uri": rules_file},
                            "region": {"startLine": 1},
                        }
                    }
                ],
                "properties": {
                    "run": verdict.run,
                    "model": verdict.model,
                    "figure": outcome.figure,
                    "judge": outcome.judge,
                    "n": outcome.n,
                    "unscored": outcome.unscored,
                },
            }
        )
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "truing", "version": __version__, "rules": rules}},
                "results": results,
                "properties": {"verdict": verdict.verdict, "notTested": list(verdict.not_tested)},
            }
        ],
    }
    return msgspec.json.format(msgspec.json.encode(log), indent=1) + b"\n"
