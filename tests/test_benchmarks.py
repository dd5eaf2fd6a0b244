"""Every benchmark is in the list of quick forms, and every script of the list exists."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from truing.core.lineage import hash_prompt
from truing.core.measurement_set import frozen_hashes, is_frozen
from truing.core.taxonomy import load_taxonomy


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


def _study_rows(root: Path, name: str) -> list[dict[str, str]]:
    text = (root / "benchmarks" / "alignment" / "data" / f"{name}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_the_study_trains_on_no_frozen_prompt(root: Path) -> None:
    refusals, twins = _study_rows(root, "refusals"), _study_rows(root, "twins")
    support = _study_rows(root, "support")
    prompts = [row["prompt"] for row in (*refusals, *twins, *support)]
    assert len(twins) >= 300
    assert not [prompt for prompt in prompts if is_frozen(prompt)]
    assert len({hash_prompt(prompt) for prompt in prompts}) == len(prompts)


def test_each_refusal_of_the_study_has_a_twin_and_a_category(root: Path) -> None:
    twins = {row["pair"] for row in _study_rows(root, "twins")}
    for row in _study_rows(root, "refusals"):
        assert row["pair"] in twins
        assert row["category"] in load_taxonomy("beavertails").ids
        assert 10 <= len(row["completion"].split()) <= 60  # short: kind, and no lecture


def test_the_measuring_prompts_of_the_study_are_frozen_and_no_other_set_is(root: Path) -> None:
    path = root / "benchmarks" / "alignment" / "data" / "prompt-sets.json"
    sets = json.loads(path.read_text(encoding="utf-8"))
    for name in ("harm", "benign", "ordinary"):
        assert frozen_hashes().issuperset(sets[name]["prompts"])
    for name in ("pilot-1", "dev-harm", "dev-benign", "dev-support"):
        assert frozen_hashes().isdisjoint(sets[name]["prompts"])
    assert [len(sets[name]["prompts"]) for name in ("harm", "benign")] == [250, 150]


@pytest.fixture
def walk(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "first_steps"))
    return importlib.import_module("walk")


def test_a_first_step_fails_with_a_status_that_is_no_finding_of_its_recipe(
    walk: ModuleType, tmp_path: Path
) -> None:
    for findings, failed in (((), "exit 2"), ((2, 3), "")):
        recipe = walk.Recipe("truing", "gate", ("true", "exit 2"), findings=findings)
        assert walk.run_recipe(recipe, "http://localhost", tmp_path).failed == failed


def test_cells_of_first_steps_stay_until_they_are_run_anew(walk: ModuleType, root: Path) -> None:
    page = (root / "benchmarks" / "first_steps" / "README.md").read_text(encoding="utf-8")
    cells = walk.read_cells(page)
    assert len(cells) == len(walk.TOOLS) * len(walk.TASKS)
    recipe = walk.Recipe("truing", "gate", ("a", "b"))
    assert walk.describe(recipe, None, "2 / 0 / 1.4") == "2 / 0 / 1.4"
    # Another number of commands: an earlier form of the recipe.
    assert walk.describe(recipe, None, "3 / 0 / 1.4") == "2 / 0 / not run"
    assert walk.describe(recipe, walk.Result(cpu_seconds=2.0), "2 / 0 / 1.4") == "2 / 0 / 2.0"


def test_a_first_step_needs_an_endpoint(walk: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk.sys, "executable", shutil.which("false"))
    with pytest.raises(SystemExit, match="no endpoint at"), walk.serve_endpoint():
        pass


@pytest.fixture
def simulation(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "scale"))
    return importlib.import_module("simulate")


def test_simulated_workers_share_the_cores_of_their_machine(simulation: ModuleType) -> None:
    # 40 shards of one second of the processor, on an idle machine of four cores.
    job = simulation.Job(
        rows=40_000,
        workers=4,
        us_per_row=1000,
        rows_per_shard=1000,
        start=5,
        hand_out=0,
        commit=0,
        spread=0,
        deaths=0,
        machines=1,
        cores=4,
    )

    def seconds(**changed: float) -> float:
        return float(simulation.simulate(replace(job, **changed)).seconds)

    assert seconds() == pytest.approx(5 + 10)
    assert seconds(workers=1) == pytest.approx(5 + 40)
    assert seconds(cores=2) == pytest.approx(5 + 20)
    assert seconds(cores=2, nodes=3, node_cores=0.1) == pytest.approx(5 + 40 / 1.7)
    assert seconds(crowding=1.5) == pytest.approx(5 + 15)
    # One busy core of four is slowed down by nobody.
    assert seconds(workers=1, crowding=1.5) == pytest.approx(5 + 40)
    assert seconds(workers=2, machines=2, cores=1) == pytest.approx(5 + 20)
    # Ray's own second for each shard is as much work as the shard.
    assert seconds(cores=2, shard_processor=1) == pytest.approx(5 + 40, rel=0.1)
    # Three of the four workers start for two seconds of a core each, the first one works.
    assert 5 + 10 < seconds(worker_start=2) < 5 + 10 + 2.01


def test_simulated_deaths_lose_no_shard_and_a_rate_limits_all(simulation: ModuleType) -> None:
    job = simulation.Job(rows=1e6, workers=10, rows_per_shard=1000, us_per_row=1e4, deaths=0)
    calm = simulation.simulate(job)
    deadly = simulation.simulate(replace(job, deaths=30, restart=20))
    assert deadly.deaths > 20
    assert calm.seconds < deadly.seconds < 3 * calm.seconds
    limited = simulation.simulate(replace(job, rate=500))
    assert limited.seconds == pytest.approx(1e6 / 500, rel=0.05)


def test_the_page_has_the_tables_of_the_simulation(simulation: ModuleType, root: Path) -> None:
    page = (root / "docs/explanation/scale.md").read_text("utf-8")
    comparison = simulation.render_comparison()
    assert comparison in page
    # Which jobs agree within 15 %, and which does not, as the page says.
    differences = [
        simulation.simulate(measured.job).seconds / measured.seconds - 1
        for measured in simulation.list_measured_jobs()
    ]
    assert [abs(difference) <= 0.15 for difference in differences[:3]] == [True, True, False]
    job = simulation.Job(rows=1e8, workers=10)
    assert f"{simulation.describe_seconds(simulation.simulate(job).seconds)} (97%)" in page
