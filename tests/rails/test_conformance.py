"""The conversations of the conformance folder: NeMo Guardrails' replies with as many LLM calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adapter_truing import ACTIONS_PRELUDE, run_case
from rails_cases import write_config

from truing.rails.static.check import check_rails_config


def _compare_replies(case: dict[str, Any], replies: list[str]) -> str | None:
    """Returns how the replies differ from those of a case; None if they agree."""
    turns = case["turns"]
    if len(replies) != len(turns):
        return f"{len(replies)} turns for {len(turns)}"
    for index, (turn, reply) in enumerate(zip(turns, replies)):
        accepted = turn.get("bot_any") or [turn["bot"]]
        if reply not in accepted:
            return f"turn {index}: expected {accepted}, got {reply!r}"
    return None


def _run_conformance_case(case: dict[str, Any], folder: Path) -> str | None:
    write_config(case, folder, ACTIONS_PRELUDE)
    try:
        replies = run_case(str(folder), case["llm_outputs"], case["turns"])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    difference = _compare_replies(case, replies)
    calls = getattr(run_case, "last_llm_calls", None)
    if difference is None and calls != case["llm_calls"]:
        return f"{calls} LLM calls, NeMo makes {case['llm_calls']}"
    return difference


def test_all_cases_of_the_folder(conformance_dir: Path, tmp_path: Path) -> None:
    files = sorted((conformance_dir / "cases").glob("*.json"))
    assert files, "the folder holds no case"
    differences: dict[str, str] = {}
    for file in files:
        case = json.loads(file.read_text(encoding="utf-8"))
        # A quirk is an accident of NeMo that truing does not copy.
        if case.get("quirk"):
            continue
        folder = tmp_path / case["id"]
        folder.mkdir()
        difference = _run_conformance_case(case, folder)
        if difference:
            differences[case["id"]] = difference
    assert differences == {}


def test_a_different_reply_is_detected(tmp_path: Path) -> None:
    case = {"files": {"config.yml": "models: []\n"}, "turns": [{"user": "Hi", "bot": "Bye"}]}
    write_config(case, tmp_path, ACTIONS_PRELUDE)
    replies = run_case(str(tmp_path), ["Hello"], case["turns"])
    assert _compare_replies(case, replies) == "turn 0: expected ['Bye'], got 'Hello'"


def test_the_bound_on_llm_calls_is_never_exceeded(conformance_dir: Path, tmp_path: Path) -> None:
    exceeded: dict[str, str] = {}
    for file in sorted((conformance_dir / "cases").glob("*.json")):
        case = json.loads(file.read_text(encoding="utf-8"))
        folder = tmp_path / case["id"]
        folder.mkdir()
        write_config(case, folder, ACTIONS_PRELUDE)
        bound = check_rails_config(folder).calls
        assert bound is not None, case["id"]
        turns = len(case["turns"])
        if not bound.total.open and case["llm_calls"] > bound.total.most * turns:
            exceeded[case["id"]] = (
                f"{case['llm_calls']} calls in {turns} turns, at most {bound.total} a turn"
            )
    assert exceeded == {}
