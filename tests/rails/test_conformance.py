"""Every conversation of the conformance folder: what NeMo Guardrails says, turn by turn, and with as many LLM calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adapter_truing import ACTIONS_PRELUDE, run_case
from rails_cases import write_config

from truing.rails.static.check import check_rails_config


def _passes(case: dict[str, Any], said: list[str]) -> str | None:
    turns = case["turns"]
    if len(said) != len(turns):
        return f"{len(said)} turns for {len(turns)}"
    for at, (turn, text) in enumerate(zip(turns, said)):
        wanted = turn.get("bot_any") or [turn["bot"]]
        if text not in wanted:
            return f"turn {at}: expected {wanted}, got {text!r}"
    return None


def test_all_cases_of_the_folder(conformance_dir: Path, tmp_path: Path) -> None:
    files = sorted((conformance_dir / "cases").glob("*.json"))
    assert files, "the folder holds no case"
    faults = {}
    for file in files:
        case = json.loads(file.read_text(encoding="utf-8"))
        if case.get("quirk"):
            continue
        folder = tmp_path / case["id"]
        folder.mkdir()
        write_config(case, folder, ACTIONS_PRELUDE)
        try:
            fault = _passes(case, run_case(str(folder), case["llm_outputs"], case["turns"]))
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        calls = getattr(run_case, "last_llm_calls", None)
        if fault is None and calls != case["llm_calls"]:
            fault = f"{calls} LLM calls, NeMo makes {case['llm_calls']}"
        if fault:
            faults[case["id"]] = fault
    assert faults == {}


def test_a_case_that_says_something_else_is_seen(tmp_path: Path) -> None:
    case = {"files": {"config.yml": "models: []\n"}, "turns": [{"user": "Hi", "bot": "Bye"}]}
    write_config(case, tmp_path, ACTIONS_PRELUDE)
    assert (
        _passes(case, run_case(str(tmp_path), ["Hello"], case["turns"]))
        == "turn 0: expected ['Bye'], got 'Hello'"
    )


def test_the_worst_case_of_llm_calls_is_never_exceeded(
    conformance_dir: Path, tmp_path: Path
) -> None:
    more: dict[str, str] = {}
    for file in sorted((conformance_dir / "cases").glob("*.json")):
        case = json.loads(file.read_text(encoding="utf-8"))
        folder = tmp_path / case["id"]
        folder.mkdir()
        write_config(case, folder, ACTIONS_PRELUDE)
        calls = check_rails_config(folder).calls
        assert calls is not None, case["id"]
        most = calls.total.most * len(case["turns"])
        if not calls.total.open and case["llm_calls"] > most:
            more[case["id"]] = (
                f"{case['llm_calls']} calls in {len(case['turns'])} turns, at most {calls.total} a turn"
            )
    assert more == {}
