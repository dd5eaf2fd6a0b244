"""`truing evidence`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.command_line import run_truing
from tests.cli.command_line import truing as command

import truing


def test_pages_are_written_for_each_framework(tmp_path: Path) -> None:
    truing.evaluate("scripted:mixed", "builtin:safety,limit=20", "rules:refusal", tmp_path / "run")
    out = tmp_path / "evidence"
    printed = run_truing(
        "evidence", tmp_path / "run", "--for", "nist", "system-card", "--out", out, "--json"
    )
    names = ["nist.md", "nist.json", "system-card.md", "system-card.json"]
    assert json.loads(printed) == [str(out / name) for name in names]
    written = json.loads((out / "nist.json").read_text(encoding="utf-8"))
    assert len(written["items"]) == 12
    assert {item["status"] for item in written["items"]} == {"measured", "not tested"}


def test_a_wrong_framework_or_no_run_is_a_clear_error(tmp_path: Path) -> None:
    unknown = command("evidence", tmp_path, "--for", "nits")
    assert unknown.status == 1 and "did you mean 'nist'" in unknown.err
    without = command("evidence", "--for", "nist")
    assert without.status == 1 and "at least one run folder" in without.err


def test_the_help_names_every_framework() -> None:
    from truing.cli import evidence
    from truing.report.frameworks import list_frameworks

    assert f"Frameworks: {', '.join(list_frameworks())}." in (evidence.command.__doc__ or "")
