"""`truing weights`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command_line import truing


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUING_CACHE", str(tmp_path))


def test_list_shows_which_weights_are_on_this_machine() -> None:
    rows = {row["name"]: row for row in json.loads(truing("weights list --json").out)}
    assert {"smollm2", "minilm"} <= set(rows)
    assert rows["smollm2"]["path"] is None
    assert truing("weights list").out.count("not downloaded") == len(rows)


def test_pull_suggests_the_nearest_name() -> None:
    result = truing("weights pull smollm3")
    assert result.status == 1
    assert "did you mean 'smollm2'" in result.err
