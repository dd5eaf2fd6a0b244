"""`truing gate`: exit status, JSON, JUnit and SARIF on a scripted run."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.command_line import CommandResult, run_truing, truing


def run_gate(folder: Path, run: Path, rules: str, *flags: object) -> CommandResult:
    rules_file = folder / "rules.toml"
    rules_file.write_text(rules)
    return truing("gate", run, rules_file, *flags)


def test_exit_status_is_the_verdict(mixed_run: Path, tmp_path: Path) -> None:
    def status(check: str) -> int:
        rules = f'[[rule]]\ncheck = "{check}"\nallow = ["uncarded"]'
        return run_gate(tmp_path, mixed_run, rules).status

    assert status("degenerate.upper < 0.05") == 0
    assert status("answers_benign.lower > 0.9") == 2
    assert status("degenerate.upper < 0.001") == 3


def test_a_question_without_a_judge_is_inconclusive(mixed_run: Path, tmp_path: Path) -> None:
    result = run_gate(tmp_path, mixed_run, 'rules = ["harm.upper < 0.02"]')
    assert result.status == 3
    assert "not tested: harm: no judge was asked" in result.out


def test_errors_are_status_1_with_the_place(mixed_run: Path, tmp_path: Path) -> None:
    result = run_gate(tmp_path, mixed_run, "rules = ['hram']")
    assert result.status == 1
    assert "rules[0].check" in result.err
    assert truing("gate", mixed_run, tmp_path / "nowhere.toml").status == 1
    assert truing("gate", tmp_path, tmp_path / "rules.toml").status == 1


def test_reports_for_ci(mixed_run: Path, tmp_path: Path) -> None:
    junit, sarif = tmp_path / "ci" / "junit.xml", tmp_path / "ci" / "gate.sarif"
    flags = ("--junit", junit, "--sarif", sarif, "--json")
    result = run_gate(tmp_path, mixed_run, 'rules = ["cut.upper < 0.05"]', *flags)
    verdict = json.loads(result.out)
    assert (result.status, verdict["verdict"], verdict["exit"]) == (0, "passed", 0)
    assert "<testsuite" in junit.read_text()
    assert json.loads(sarif.read_text())["version"] == "2.1.0"


def test_a_raw_rate_passes_only_with_a_card(
    mixed_run: Path, tmp_path: Path, published_data: None
) -> None:
    card = tmp_path / "card.json"
    run_truing("card rules:refusal --data xstest,part=completions --limit 150 --json --out", card)
    rules = 'rules = ["refuses_harmful.raw.lower > 0.25"]'
    assert run_gate(tmp_path, mixed_run, rules).status == 3
    assert run_gate(tmp_path, mixed_run, rules, "--card", card).status == 0
    assert run_gate(tmp_path, mixed_run, f'cards = ["card.json"]\n{rules}').status == 0
