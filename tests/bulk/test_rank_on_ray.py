"""Ranking on a cluster: the rows and figures of one process, whatever comes first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.cli.command_line import truing
from tests.rankers.rank_parts import FunctionModel

from truing.bulk import rank_on_ray
from truing.bulk.rank_on_ray import RankingTask, RankingWorker, read_outcome
from truing.bulk.ray_cluster import RayOptions
from truing.core.batches import split_batches
from truing.core.errors import RunError
from truing.rankers import RankingOptions, rank_choices, rank_perplexity
from truing.rankers.item_ranking import MapItems, RankedItem, RankingItem
from truing.specs.resolve import resolve

OPTIONS = RankingOptions(how=("likelihood", "letter", "generation"), limit=7)


def length(prompt: str, text: str) -> list[float]:
    return [-1.0 - len(prompt) % 7 / 10] * (1 + len(text.split()))


def first_letter(prompt: str) -> str:
    return "A" if len(prompt) % 2 else "B"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FunctionModel:
    model = FunctionModel(length, first_letter)
    monkeypatch.setattr(rank_on_ray, "resolve", lambda spec, role: model)
    return model


def map_in_workers(options: RankingOptions, shard_items: int) -> MapItems:
    """What `rank_on_ray` yields, with the worker in this process and the last shard first."""

    def map_items(method: str, items: Sequence[RankingItem]) -> Iterator[list[RankedItem]]:
        worker = RankingWorker(RankingTask(model="m", method=method, options=options), None)
        # As in a process of its own, no event loop runs around it.
        with ThreadPoolExecutor(1) as thread:
            for batch in reversed(list(split_batches(items, shard_items))):
                result = thread.submit(worker.work, msgspec.msgpack.encode(batch)).result()
                yield read_outcome(result, method)

    return map_items


def read_rows(run: Path) -> dict[str, list[Any]]:
    files = sorted((run / "rankings").glob("*.jsonl"))
    return {
        file.name: sorted(map(json.loads, file.read_text().splitlines()), key=str) for file in files
    }


@pytest.mark.parametrize(
    ("rank", "data"),
    [
        (rank_choices, "builtin:pairs"),
        (rank_perplexity, "builtin:pairs"),
    ],
)
def test_the_rows_and_figures_of_one_process(
    rank: Callable[..., Any], data: str, tmp_path: Path, model: FunctionModel
) -> None:
    dataset = resolve(data, "data")
    one = rank(model, dataset, tmp_path / "one", OPTIONS)
    map_items = map_in_workers(OPTIONS, 3)
    parts = rank(model, dataset, tmp_path / "parts", OPTIONS, None, map_items)
    assert parts == one and len(one[0].figures) > 2
    assert read_rows(tmp_path / "parts") == read_rows(tmp_path / "one")
    rankings = (tmp_path / "one/ranking.json", tmp_path / "parts/ranking.json")
    assert rankings[0].read_bytes() == rankings[1].read_bytes()
    # The same command has nothing to rank, with and without the cluster.
    asked = len(model.asked)
    assert rank(model, dataset, tmp_path / "parts", OPTIONS, None, map_items) == one
    assert rank(model, dataset, tmp_path / "parts", OPTIONS) == one
    assert len(model.asked) == asked


def test_what_is_finished_stays_when_a_worker_fails(tmp_path: Path, model: FunctionModel) -> None:
    options = RankingOptions(how=("likelihood",), limit=6)
    dataset = resolve("builtin:pairs", "data")
    finished = map_in_workers(options, 2)

    def fail_after_one(method: str, items: Sequence[RankingItem]) -> Iterator[list[RankedItem]]:
        yield next(finished(method, items))
        raise RunError("Ray: a machine died")

    progress: list[tuple[int, int, int]] = []
    with pytest.raises(RunError, match="a machine died"):
        rank_choices(
            model, dataset, tmp_path, options, lambda *n: progress.append(n), fail_after_one
        )
    assert progress == [(2, 6, 0)]
    rank_choices(model, dataset, tmp_path, options, lambda *n: progress.append(n), finished)
    assert progress[1:] == [(4, 6, 0), (6, 6, 0)]
    assert len(read_rows(tmp_path)["mcq-likelihood.jsonl"]) == 6


def test_faults_of_a_worker_are_told() -> None:
    task = RankingTask(model="scripted:mixed", method="generation", options=OPTIONS)
    worker = RankingWorker(task, None)
    with pytest.raises(RunError, match=r"DecodeError: .*the same command continues"):
        read_outcome(worker.work(b"\xc1 no MessagePack"), "generation")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--on", "spark"), "give ray, or ray://HEAD of a cluster"),
        (("--on", "ray", "--shard-items", "0"), "--shard-items 0: give 1 or more"),
        (("--on", "ray", "--workers", "0"), "--workers 0: give 1 or more"),
    ],
)
def test_flags_that_are_wrong(flags: tuple[str, ...], message: str, tmp_path: Path) -> None:
    command = ("rank", "mcq", "--model", "scripted:mixed", "--data", "builtin:pairs")
    done = truing(*command, "--by", "generation", "--out", tmp_path / "out", *flags)
    assert done.status == 1 and message in done.err, done.err
    assert not (tmp_path / "out" / "ranking.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_ranking_on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.setenv("PYTHONPATH", str(root / "src"))
    options = RankingOptions(how=("generation",), limit=20)
    dataset = resolve("builtin:pairs", "data")
    model = resolve("scripted:comply", "model")
    one = rank_choices(model, dataset, tmp_path / "one", options)
    cluster = RayOptions(workers=2, cpus=0.5)
    with rank_on_ray.rank_on_ray("scripted:comply", options, cluster, shard_items=4) as map_items:
        parts = rank_choices(model, dataset, tmp_path / "parts", options, None, map_items)
    assert parts == one
    assert read_rows(tmp_path / "parts") == read_rows(tmp_path / "one")
