"""Every benchmark is in the list of quick forms, and every script of the list exists."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def bench(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_run", root / "benchmarks" / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_run"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_each_topic_has_a_quick_form_or_a_reason(bench: ModuleType, root: Path) -> None:
    topics = {
        p.name for p in (root / "benchmarks").iterdir() if p.is_dir() and list(p.glob("*.py"))
    }
    assert topics == {q.topic for q in bench.QUICK} | set(bench.LONG)
    for quick in bench.QUICK:
        assert (root / "benchmarks" / quick.command.split()[0]).is_file(), quick.command
        assert quick.command.startswith(f"{quick.topic}/")


def test_a_benchmark_with_missing_needs_is_left_out(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRUING_NOT_SET", raising=False)
    assert bench.missing(("json", "no_such_package", "TRUING_NOT_SET")) == [
        "no_such_package",
        "TRUING_NOT_SET",
    ]
    assert (
        bench.run(bench.Quick("x", "x/none.py", 1, ("no_such_package",)))
        == "left out (no_such_package missing)"
    )
    assert bench.run(bench.Quick("x", "x/none.py", 1)).startswith("FAILED")


def test_the_page_names_every_topic(bench: ModuleType, root: Path) -> None:
    page = (root / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for topic in {q.topic for q in bench.QUICK} | set(bench.LONG):
        assert f"`{topic}/`" in page, topic


def test_verdicts_in_simulated_worlds(root: Path) -> None:
    """A tiny slice of benchmarks/statistics/verdicts.py, with its fixed seeds."""
    path = root / "benchmarks" / "statistics" / "verdicts.py"
    spec = importlib.util.spec_from_file_location("verdicts", path)
    assert spec is not None and spec.loader is not None
    verdicts = importlib.util.module_from_spec(spec)
    sys.modules["verdicts"] = verdicts  # dataclasses look their module up
    spec.loader.exec_module(verdicts)
    gaming = verdicts.measure(200, "gaming, 300 labels")
    assert [(r.kind, r.met) for r in gaming] == [("wrong", True), ("wrong", True), ("power", True)]
    assert gaming[0].share <= 0.05
    assert gaming[2].share >= 0.8
    certified = verdicts.measure(400, "certify")
    assert [r.met for r in certified] == [True, True]
    alone = verdicts.measure(200, "gaming, a card alone")
    assert [r.share for r in alone] == [0.0]
    # The simulation can fail: without their cards, judges that both miss more are believed.
    fooled = replace(
        verdicts.WORLDS["gaming, second judge unmoved"], second=((0.8, 0.4), (0.1, 0.1))
    )
    assert verdicts.share_of_claims("both judges gamed", fooled, 200) > 0.5
    # The arrays decide as the engine does.
    assert verdicts.check_engine(2, "power") == 0
