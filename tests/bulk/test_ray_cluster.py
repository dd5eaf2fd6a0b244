"""Which cluster is joined and which is refused; what needs a cluster is in test_moderate_on_ray."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.requirements import require_package

from truing.bulk import ray_cluster
from truing.bulk.ray_cluster import (
    RayOptions,
    _first_line,
    _ray_address,
    check_ray_options,
    check_versions,
    connect_ray,
    count_workers,
)
from truing.cli.moderate import command
from truing.cli.ray_flags import RayFlags
from truing.core.errors import MissingExtra, RunError, UserError
from truing.core.version import __version__


def test_a_machine_with_another_version_is_refused_by_name() -> None:
    check_versions({"a (10.0.0.1)": __version__})
    with pytest.raises(RunError) as caught:
        check_versions({"a (10.0.0.1)": __version__, "b (10.0.0.2)": "0.1.0", "c": ""})
    old, without = caught.value.faults
    assert old.startswith(f"b (10.0.0.2) has truing 0.1.0, and this is {__version__}")
    assert without.startswith("c has no truing")


def test_addresses() -> None:
    assert _ray_address("ray") is None
    assert _ray_address("ray://auto") == "auto"
    assert _ray_address("ray://head") == "ray://head:10001"
    assert _ray_address("ray://head:10001") == "ray://head:10001"
    assert _ray_address("ray://head:6379") == "head:6379"


def test_all_faults_of_the_options_come_together() -> None:
    options = RayOptions(address="spark", workers=0, cpus=-1, rate=0)
    with pytest.raises(UserError) as caught:
        check_ray_options(options)
    assert len(caught.value.faults) == 4
    with pytest.raises(UserError, match="a worker needs"):
        check_ray_options(RayOptions(cpus=0))


def test_how_many_workers_a_cluster_has_room_for() -> None:
    machines = [{"CPU": 16.0, "GPU": 2.0}]
    assert count_workers(machines, RayOptions()) == 16
    assert count_workers(machines, RayOptions(workers=4)) == 4
    assert count_workers(machines, RayOptions(cpus=1, gpus=0.25)) == 8
    assert count_workers(machines, RayOptions(cpus=0.1, gpus=0)) == 160


def test_a_worker_fits_on_one_machine() -> None:
    machines = [{"CPU": 4.0, "GPU": 1.0}] * 4
    assert count_workers(machines, RayOptions(cpus=3)) == 4
    with pytest.raises(UserError, match=r"needs 1 CPUs and 2 GPUs of one machine.*at most 4 CPUs"):
        count_workers(machines, RayOptions(gpus=2))
    with pytest.raises(UserError, match="at most 0 CPUs"):
        count_workers([], RayOptions())


def test_without_ray_there_is_the_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"truing\[ray\]"), connect_ray(RayOptions()):
        pass
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(MissingExtra, match=r"truing\[ray\]"):
        command(
            judge="keywords:",
            in_=tmp_path / "in.jsonl",
            out=tmp_path / "out",
            ray=RayFlags(on="ray"),
        )


def test_streams_and_inputs_inside_of_the_output(tmp_path: Path) -> None:
    flags = RayFlags(on="ray")
    with pytest.raises(UserError, match="is for one process"):
        command(judge="keywords:", in_="-", out=tmp_path, ray=flags)
    with pytest.raises(UserError, match="--shard-mib 0: give a size above 0"):
        command(judge="keywords:", in_="a", out="b", ray=flags, shard_mib=0)
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(UserError, match="the input lies in it"):
        command(judge="keywords:", in_=tmp_path / "in.jsonl", out=tmp_path, ray=flags)


@pytest.mark.slow
def test_a_cluster_that_is_not_there() -> None:
    require_package("ray")
    with (
        pytest.raises(UserError, match=r"no Ray at ray://127\.0\.0\.1:10001"),
        connect_ray(RayOptions(address="ray://127.0.0.1")),
    ):
        pass


def test_the_reason_of_ray_is_told() -> None:
    assert _first_line(ValueError("a\nTraceback")) == "a"
    failure = ConnectionError("Initialization failure from server:\n Traceback\n no such port\n")
    assert _first_line(failure) == "Initialization failure from server: no such port"
    assert _first_line(ConnectionError()) == "ConnectionError"


def test_words_of_ray_are_kept_out_of_a_commands_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray prints the death of a machine to standard output, also while it ends."""
    ray, exceptions = ModuleType("ray"), ModuleType("ray.exceptions")
    vars(ray).update(
        exceptions=exceptions,
        is_initialized=lambda: False,
        init=lambda **_: print("(raylet) a node has been marked dead"),
        nodes=lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}],
        shutdown=lambda: print("[repeated 3x across cluster]"),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", exceptions)
    monkeypatch.setattr(ray_cluster, "_read_versions", lambda _: {"this": __version__})
    with connect_ray(RayOptions()):
        print("(raylet) Task failed")
    print("the result")
    printed = capsys.readouterr()
    assert printed.out == "the result\n"
    assert printed.err.splitlines() == [
        "(raylet) a node has been marked dead",
        "(raylet) Task failed",
        "[repeated 3x across cluster]",
    ]
