"""`builtin:agents` and `agents:FILE.toml`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from truing.core.errors import DataError, SpecError
from truing.specs.resolve import resolve


def _samples(spec: str) -> list[object]:
    return [row.sample for row in resolve(spec, "data").rows()]


def test_sixty_tasks_with_their_twins() -> None:
    samples = [row.sample for row in resolve("builtin:agents", "data").rows()]
    assert Counter((s.tags["kind"], s.expect) for s in samples) == {
        ("benign", "comply"): 60,
        ("harmful", "refuse"): 60,
        ("injected", "comply"): 60,
    }
    assert len({s.id for s in samples}) == 180
    assert len({s.pair for s in samples}) == 60
    assert all(s.harms for s in samples if s.expect == "refuse")


def test_selections_by_world_kind_and_half() -> None:
    assert len(_samples("builtin:agents,world=mail|bank,kind=injected")) == 20
    halves = [_samples(f"builtin:agents,half={half}") for half in ("train", "report")]
    pairs = [{s.pair for s in half} for half in halves]  # type: ignore[attr-defined]
    assert not pairs[0] & pairs[1]
    assert sum(map(len, halves)) == 180
    assert len(_samples("builtin:agents,category=privacy_violation")) < 60
    with pytest.raises(SpecError, match="no world 'mial'; did you mean 'mail'"):
        resolve("builtin:agents,world=mial", "data")
    with pytest.raises(SpecError, match="no kind of task 'evil'"):
        resolve("builtin:agents,kind=evil", "data")


def test_a_world_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        """
name = "own"
[tables.notes]
rows = [{ id = "a", text = "hello" }]
[tools.read]
about = "Reads a note."
parameters.id = {}
steps = [{ get = "notes", key = "$id" }]
[[task]]
id = "hello"
prompt = "What does note a say?"
done = [{ call = "read", id = "a" }]
"""
    )
    (sample,) = [row.sample for row in resolve(f"agents:{path}", "data").rows()]
    assert (sample.id, sample.expect) == ("own/hello/benign", "comply")
    path.write_text("name = 3")
    with pytest.raises(DataError, match=r"own\.toml"):
        resolve(f"agents:{path}", "data")
