"""Ranking on a cluster: the rows and figures of one process, whatever comes first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.bulk.ray_marks import on_ray
from tests.cli.command_line import truing
from tests.rankers.rank_parts import FunctionModel, ListDataset
from tests.requirements import require_package

from truing.bulk import rank_on_ray
from truing.bulk.rank_on_ray import RankingWorker, decode_results, make_task
from truing.bulk.ray_cluster import RayOptions
from truing.core.batches import split_batches
from truing.core.errors import RunError, UserError
from truing.core.protocols import Dataset
from truing.core.types import Conversation, Judgement, Message, Response, Row, Sample
from truing.rankers import RankingOptions, rank_choices, rank_perplexity
from truing.rankers.item_ranking import ItemRanker, MapItems, RankedItem, RankingItem
from truing.specs.resolve import resolve

OPTIONS = RankingOptions(how=("likelihood", "letter", "generation"), limit=7)


def labelled_row(n: int) -> Row:
    sample = Sample(id=f"row-{n}", conversation=Conversation.of(f"question {n}"))
    judgement = Judgement(
        sample_id=sample.id, judge="human:x", question="harmful", verdict=n % 2 == 0
    )
    answer = Response(sample_id=sample.id, message=Message("assistant", "an answer " * (n + 1)))
    return Row(sample=sample, responses=(answer,), judgements=(judgement,))


LABELLED = ListDataset([labelled_row(n) for n in range(8)])


def length(prompt: str, text: str) -> list[float]:
    return [-1.0 - len(prompt) % 7 / 10] * (1 + len(text.split()))


def first_letter(prompt: str) -> str:
    return "A" if len(prompt) % 2 else "B"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FunctionModel:
    model = FunctionModel(length, first_letter)
    monkeypatch.setattr(rank_on_ray, "resolve", lambda spec, role: model)
    return model


def map_in_workers(shard_items: int, spoil: Callable[[bytes], bytes] = bytes) -> MapItems:
    """What `open_ranking_workers` yields, with the worker in this process, the last shard first.

    `spoil` changes the encoded items of a shard on their way.
    """

    def map_items(
        item_ranker: ItemRanker, items: Sequence[RankingItem]
    ) -> Iterator[list[RankedItem]]:
        worker = RankingWorker(make_task("m", item_ranker), None)
        shards = [msgspec.msgpack.encode(batch) for batch in split_batches(items, shard_items)]
        # As in a process of its own, no event loop runs around it.
        with ThreadPoolExecutor(1) as thread:
            results = (
                thread.submit(worker.work, spoil(shard)).result() for shard in reversed(shards)
            )
            yield from decode_results(results, item_ranker.method)

    return map_items


def read_rows(run: Path) -> dict[str, list[Any]]:
    files = sorted((run / "rankings").glob("*.jsonl"))
    return {
        file.name: sorted(map(json.loads, file.read_text().splitlines()), key=str) for file in files
    }


@pytest.mark.parametrize(
    ("rank", "dataset"),
    [
        (rank_choices, resolve("builtin:pairs", "data")),
        (rank_perplexity, resolve("builtin:pairs", "data")),
        (rank_perplexity, LABELLED),
    ],
    ids=["choices", "pairs", "answers"],
)
def test_the_rows_and_figures_of_one_process(
    rank: Callable[..., Any], dataset: Dataset, tmp_path: Path, model: FunctionModel
) -> None:
    one = rank(model, dataset, tmp_path / "one", OPTIONS)
    map_items = map_in_workers(3)
    parts = rank(model, dataset, tmp_path / "parts", OPTIONS, None, map_items)
    assert parts == one and len(one[0].figures) >= 2
    assert read_rows(tmp_path / "parts") == read_rows(tmp_path / "one")
    rankings = (tmp_path / "one/ranking.json", tmp_path / "parts/ranking.json")
    assert rankings[0].read_bytes() == rankings[1].read_bytes()
    # The same command has nothing to rank, with and without the cluster.
    asked = len(model.asked)
    assert rank(model, dataset, tmp_path / "parts", OPTIONS, None, map_items) == one
    assert rank(model, dataset, tmp_path / "parts", OPTIONS) == one
    assert len(model.asked) == asked


def test_failures_of_the_model_are_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(FunctionModel):
        async def logprobs(
            self, prefix: Conversation | str, continuations: Sequence[str]
        ) -> list[list[float]]:
            raise UserError("the endpoint is away")

    failing = Failing(length)
    monkeypatch.setattr(rank_on_ray, "resolve", lambda spec, role: failing)
    dataset = resolve("builtin:pairs", "data")
    one = rank_perplexity(failing, dataset, None, OPTIONS)
    assert rank_perplexity(failing, dataset, tmp_path, OPTIONS, None, map_in_workers(2)) == one
    assert one[0].unscored == one[0].n == 7


def test_what_is_finished_stays_when_shards_fail(tmp_path: Path, model: FunctionModel) -> None:
    options = RankingOptions(how=("likelihood",), limit=6)
    dataset = resolve("builtin:pairs", "data")
    shards: list[bytes] = []

    def spoil(shard: bytes) -> bytes:
        shards.append(shard)
        return shard if len(shards) == 2 else b"\xc1 no MessagePack"

    progress: list[tuple[int, int, int]] = []
    with pytest.raises(RunError) as raised:
        rank_choices(
            model,
            dataset,
            tmp_path,
            options,
            lambda *n: progress.append(n),
            map_in_workers(2, spoil),
        )
    # Both shards with the same fault are told once, after the rows of the other.
    assert "DecodeError" in str(raised.value) and "(2 shards)" in str(raised.value)
    assert "the same command ranks what is missing" in str(raised.value)
    assert progress == [(2, 6, 0)] and not (tmp_path / "ranking.json").exists()
    rank_choices(model, dataset, tmp_path, options, None, map_in_workers(2))
    assert len(read_rows(tmp_path)["mcq-likelihood.jsonl"]) == 6


@pytest.mark.parametrize("change", ["missing", "twice", "foreign"])
def test_rows_must_be_those_of_the_items(change: str, tmp_path: Path, model: FunctionModel) -> None:
    options = RankingOptions(how=("likelihood",), limit=4)
    dataset = resolve("builtin:pairs", "data")

    def map_items(
        item_ranker: ItemRanker, items: Sequence[RankingItem]
    ) -> Iterator[list[RankedItem]]:
        for rows in map_in_workers(4)(item_ranker, items):
            if change == "missing":
                yield rows[1:]
            elif change == "twice":
                yield [*rows, rows[0]]
            else:
                yield [msgspec.structs.replace(rows[0], sample_id="another"), *rows[1:]]

    message = "1 items have no row" if change == "missing" else "not asked for, or two of one"
    with pytest.raises(RunError, match=message):
        rank_choices(model, dataset, tmp_path, options, None, map_items)
    rows = read_rows(tmp_path).get("mcq-likelihood.jsonl", [])
    assert len(rows) == (3 if change == "missing" else 0)


def test_a_worker_with_another_model_ranks_nothing(model: FunctionModel) -> None:
    task = make_task("m", ItemRanker(model, "likelihood", OPTIONS))
    other = msgspec.structs.replace(task, model_hash="f" * 16)
    with pytest.raises(UserError, match="m is another model here"):
        RankingWorker(other, None)
    RankingWorker(task, None)


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


@on_ray
def test_ranking_on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    require_package("ray")
    monkeypatch.setenv("PYTHONPATH", str(root / "src"))
    options = RankingOptions(how=("generation",), limit=20)
    dataset = resolve("builtin:pairs", "data")
    model = resolve("scripted:comply", "model")
    one = rank_choices(model, dataset, tmp_path / "one", options)
    cluster = RayOptions(workers=2, cpus=0.5)
    workers = rank_on_ray.open_ranking_workers("scripted:comply", cluster, shard_items=4)
    with workers as map_items:
        parts = rank_choices(model, dataset, tmp_path / "parts", options, None, map_items)
    assert parts == one
    assert read_rows(tmp_path / "parts") == read_rows(tmp_path / "one")
