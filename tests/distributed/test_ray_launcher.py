"""The launcher without Ray; runs on a Ray cluster: tests/train/rl/test_processes.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from truing.core.errors import MissingExtra
from truing.distributed.ray_launcher import run_on_ray


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"truing\[ray\]"):
        run_on_ray(lambda: None, workers=2, out=tmp_path)
