"""`truing data list` and `truing data show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command_line import run_truing, truing


def list_by_kind() -> dict[str, Any]:
    return {row["kind"]: row for row in json.loads(run_truing("data list --json"))}


def test_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUING_DATA", raising=False)
    printed = run_truing("data list")
    assert "beavertails" in printed
    assert "CC BY-NC 4.0" in printed
    rows = list_by_kind()
    assert len(rows) >= 35
    assert rows["beavertails"]["found"] == []
    assert rows["builtin:safety"]["found"] == ["built in"]
    assert rows["red-team-attempts"]["red_team"] is True
    assert rows["hh"]["imitate"] is False


@pytest.mark.usefixtures("published_data")
def test_list_marks_the_parts_on_this_machine() -> None:
    rows = list_by_kind()
    assert rows["beavertails"]["found"] == ["qa", "evaluation"]
    assert rows["hh"]["found"] == ["harmless"]


def test_show_counts_without_text(tmp_path: Path) -> None:
    text = "nobody should see these words"
    rows = [
        {"prompt": text, "response": text, "category": "self_harm", "harmful": n % 2 == 0}
        for n in range(4)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "broken\n")
    spec = f"file:{path},skip_malformed=true"

    printed = run_truing("data show --json", spec)
    assert text not in printed
    facts = json.loads(printed)
    assert (facts["rows"], facts["responses"]) == (4, 4)
    assert (facts["distinct_prompts"], facts["skipped"]) == (1, 1)
    assert facts["labels"] == {"human:file harmful": {"true": 2, "false": 2}}
    assert facts["harms"] == {"self_harm": 4}
    assert len(facts["sha256"]) == 64

    printed = run_truing("data show", spec)
    assert text not in printed
    assert "self_harm" in printed


def test_show_suggests_the_nearest_kind() -> None:
    result = truing("data show beavertail")
    assert result.status == 1
    assert "did you mean 'beavertails'" in result.err
