from __future__ import annotations

import json
from pathlib import Path

import pytest

from truing.cli import build_app
from truing.core.errors import SpecError


def run(*args: str) -> object:
    return build_app()(list(args), result_action="return_value")


def test_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUING_DATA", raising=False)
    assert run("data", "list") == 0
    shown = capsys.readouterr().out
    assert "beavertails" in shown and "CC BY-NC 4.0" in shown
    assert run("data", "list", "--json") == 0
    rows = {r["kind"]: r for r in json.loads(capsys.readouterr().out)}
    assert (
        len(rows) >= 35
        and rows["beavertails"]["found"] == []
        and rows["builtin:safety"]["found"] == ["built in"]
    )
    assert rows["red-team-attempts"]["red_team"] is True and rows["hh"]["imitate"] is False


def test_list_marks_what_is_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    monkeypatch.setenv("TRUING_DATA", str(data_dir))
    assert run("data", "list", "--json") == 0
    rows = {r["kind"]: r for r in json.loads(capsys.readouterr().out)}
    assert rows["beavertails"]["found"] == ["qa", "evaluation"] and rows["hh"]["found"] == [
        "harmless"
    ]


def test_show_counts_and_no_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    secret = "nobody should see these words"
    rows = [
        {"prompt": secret, "response": secret, "category": "self_harm", "harmful": n % 2 == 0}
        for n in range(4)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows) + "broken\n")
    assert run("data", "show", f"file:{path},skip_malformed=true", "--json") == 0
    out = capsys.readouterr().out
    shown = json.loads(out)
    assert secret not in out
    assert (shown["rows"], shown["distinct_prompts"], shown["skipped"], shown["responses"]) == (
        4,
        1,
        1,
        4,
    )
    assert shown["labels"] == {"human:file harmful": {"true": 2, "false": 2}} and shown[
        "harms"
    ] == {"self_harm": 4}
    assert len(shown["sha256"]) == 64
    assert run("data", "show", f"file:{path},skip_malformed=true") == 0
    out = capsys.readouterr().out
    assert secret not in out and "self_harm" in out


def test_show_unknown() -> None:
    with pytest.raises(SpecError, match="did you mean 'beavertails'"):
        run("data", "show", "beavertail")
