"""Whatever an endpoint sends: a clear failure in the record, and the other samples are answered."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    """The benchmark `hostile_endpoints`, whose server and behaviours these tests use."""
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks" / "security")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("hostile_endpoints")
    finally:
        sys.path.remove(folder)


@pytest.mark.parametrize("stream", [False, True])
def test_each_behaviour_is_one_failure_and_the_run_goes_on(
    bench: ModuleType, tmp_path: Path, stream: bool
) -> None:
    names = [name for name, b in bench.BEHAVIOURS.items() if b.stream is stream]
    prompts = [p for name in names for p in (f"hostile {name}", f"normal {name}-sample")]
    options = f"timeout=3,retries=0,max_bytes=60000,stream={stream}"
    with bench.hostile_server(2) as url:
        results: dict[str, dict[str, Any]] = bench.evaluate_prompts(
            url, prompts, tmp_path, options=options, concurrency=24
        )
    wrong = {
        name: results[f"hostile {name}"]
        for name in names
        if results[f"hostile {name}"]["outcome"] not in bench.BEHAVIOURS[name].outcomes
    }
    assert not wrong
    unanswered = {
        p: r for p, r in results.items() if p.startswith("normal") and r["outcome"] != "answered"
    }
    assert not unanswered
    for result in results.values():
        assert result["outcome"] == "answered" or 0 < len(result["message"]) <= 400
        assert result["message"].isprintable()


def test_there_are_fifty_behaviours(bench: ModuleType) -> None:
    assert len(bench.BEHAVIOURS) >= 50


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["gzip_body", "gzip_error", "endless_stream", "endless_error", "endless_line", "slow_body"],
)
def test_memory_stays_flat(bench: ModuleType, name: str) -> None:
    with bench.hostile_server(600) as url:
        result = bench.measure_in_process(name, url, "timeout=6,retries=0")
    assert bench.is_right(result, 100.0), result
