"""`truing rails check`: exit status, JSON and the image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from truing.cli.rails import check
from truing.core.errors import PlanError


def _write_config(folder: Path, steps: str) -> None:
    (folder / "config.yml").write_text("models: []\n")
    (folder / "rails.co").write_text(
        'define user ask price\n  "how much is it"\n\n'
        'define bot say hello\n  "Hello!"\n\n'
        f"define flow\n{steps}"
    )


def test_an_error_is_status_2_and_the_report_is_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_config(tmp_path, "  user ask prise\n  bot say hello\n")
    assert check(tmp_path, json=True, picture=tmp_path / "flows.svg") == 2
    report = json.loads(capsys.readouterr().out)
    assert report["errors"] == 1
    assert report["findings"][0]["place"] == "rails.co:8"
    assert report["llm_calls"]["most"] == 3
    assert (tmp_path / "flows.svg").read_text().startswith("<svg")


def test_warnings_are_status_0_unless_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_config(tmp_path, "  user ask price\n  if $x\n    bot say hello\n")
    assert check(tmp_path) == 0
    assert check(tmp_path, strict=True) == 2
    assert "1 warnings" in capsys.readouterr().out


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no such rails folder"):
        check(tmp_path / "nothing")
