"""The launcher without Ray; runs on a Ray cluster: tests/train/rl/test_processes.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from truing.core.errors import MissingExtra, PlanError, RunError
from truing.core.version import __version__
from truing.distributed.ray_launcher import WorkerPlan, needs_gpus, run_on_ray


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"truing\[ray\]"):
        run_on_ray(lambda: None, workers=2, out=tmp_path)


def test_a_worker_runs_in_the_folder_of_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    WorkerPlan(str(tmp_path), __version__, "").enter()
    assert Path.cwd() == tmp_path
    os.chdir("/")
    with pytest.raises(RunError, match="does not see .*gone: start from a folder that all"):
        WorkerPlan(str(tmp_path / "gone"), __version__, "").enter()
    with pytest.raises(RunError, match=r"has truing .*, the driver 0\.0\.1: install the same"):
        WorkerPlan(str(tmp_path), "0.0.1", "").enter()
    assert Path.cwd() == Path("/")


def test_each_worker_gets_a_gpu_where_there_are_any() -> None:
    with_gpus = {"CPU": 8.0, "GPU": 4.0}
    assert needs_gpus(with_gpus, 4, "auto") and needs_gpus(with_gpus, 4, "cuda")
    assert not needs_gpus(with_gpus, 4, "cpu") and not needs_gpus({"CPU": 4.0}, 4, "auto")
    with pytest.raises(PlanError, match="--workers 5: one GPU for each, .* has 4"):
        needs_gpus(with_gpus, 5, "auto")
    with pytest.raises(PlanError, match="one GPU for each, .* has 0"):
        needs_gpus({"CPU": 4.0}, 1, "cuda")
    with pytest.raises(PlanError, match="--workers 9: .* 8 CPUs"):
        needs_gpus(with_gpus, 9, "cpu")
