"""A pool: what is wrong is told before anything starts, and with Ray, that copies change speed and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.model_stand_ins import MemoryDataset
from tests.requirements import hide_package, require_package

from truing.core.errors import BudgetExceeded, MissingExtra, SpecError, UserError
from truing.core.types import Answer, Conversation, Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.models import pool as pool_module
from truing.models.pool import ModelPool, ModelWorker, PoolOptions, _check_resources
from truing.specs.parser import parse_spec
from truing.specs.resolve import resolve


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("pool:two,of=(scripted:mixed)", "'two' is no number of copies"),
        ("pool:0,of=(scripted:mixed)", "copies must be 1 or more"),
        ("pool:2", r"of=\(\.\.\.\) is missing"),
        ("pool:2,of=(scriptd:mixed)", "did you mean 'scripted'"),
        ("pool:2,of=(scripted:mixed),gpu=1", "unknown argument 'gpu'"),
    ],
)
def test_a_wrong_spec_is_told_before_anything_starts(spec: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        resolve(spec, "model")


def test_more_than_there_is_would_wait_for_ever() -> None:
    with pytest.raises(UserError, match="4 copies need 4 GPUs, and Ray has 1"):
        _check_resources({"CPU": 8.0, "GPU": 1.0}, PoolOptions(copies=4, gpus=1.0))
    _check_resources({"CPU": 2.0}, PoolOptions(copies=2))


def test_without_ray_there_is_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_package(monkeypatch, "ray")
    with pytest.raises(MissingExtra, match=r"pip install 'truing\[ray\]'"):
        resolve("pool:2,of=(scripted:mixed)", "model")


def test_a_copy_answers_as_the_model_does() -> None:
    async def both() -> None:
        import msgspec

        copy, model = ModelWorker("scripted:mixed"), resolve("scripted:mixed", "model")
        asked, how = Conversation.of("What is a kettle for?"), Sampling(n=2, seed=3)
        got = await copy.generate(msgspec.msgpack.encode(asked), msgspec.msgpack.encode(how))
        expected = await model.generate(asked, how)
        assert msgspec.msgpack.decode(got, type=tuple[Answer, ...]) == expected
        pieces = [
            p async for p in copy.stream(msgspec.msgpack.encode(asked), msgspec.msgpack.encode(how))
        ]
        assert "".join(pieces) == expected[0].text
        scored = await copy.logprobs(msgspec.msgpack.encode("A"), ["b c"])
        assert scored == await model.logprobs("A", ["b c"])
        faults = msgspec.msgpack.decode(
            await ModelWorker("scripted:none").info(), type=pool_module._WorkerInfo
        ).faults
        assert "there is no script 'none'" in faults[0]

    asyncio.run(both())


@pytest.fixture
def pool() -> Iterator[ModelPool]:
    require_package("ray")
    made = ModelPool(parse_spec("scripted:mixed,delay=0.01"), PoolOptions(copies=2, cpus=0.5))
    yield made
    made._stop()


@pytest.mark.slow
def test_a_run_with_a_pool_is_the_run_without(pool: ModelPool, tmp_path: Path) -> None:
    plain = resolve("scripted:mixed,delay=0.01", "model")
    assert (pool.name, pool.lineage) == (plain.name, plain.lineage)
    data = MemoryDataset.of_size(60)
    options = EvaluateOptions(sampling=Sampling(n=2, temperature=1.0), seed=4, concurrency=16)
    evaluate(plain, data, [], tmp_path / "plain", options=options)
    evaluate(pool, data, [], tmp_path / "pool", options=options)
    assert (tmp_path / "pool/responses.jsonl").read_bytes() == (
        tmp_path / "plain/responses.jsonl"
    ).read_bytes()
    half = MemoryDataset.of_size(20)
    evaluate(plain, half, [], tmp_path / "begun", options=options)
    evaluate(pool, half, [], tmp_path / "begun", options=options)  # the same plan: nothing to do

    async def streamed() -> list[str]:
        return [p async for p in pool.stream(Conversation.of("Tell me of kettles"), Sampling())]

    pieces = asyncio.run(streamed())
    assert len(pieces) > 3
    assert (
        "".join(pieces)
        == asyncio.run(plain.generate(Conversation.of("Tell me of kettles"), Sampling()))[0].text
    )
    assert asyncio.run(pool.logprobs("A", ["b c"])) == asyncio.run(plain.logprobs("A", ["b c"]))


def _whoami(prompt: str) -> str:
    import time

    time.sleep(0.05)
    return str(os.getpid())


@pytest.mark.slow
def test_copies_share_the_work_and_a_killed_one_comes_back(
    monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    require_package("ray")
    monkeypatch.setenv("PYTHONPATH", str(root))
    made = ModelPool(
        parse_spec("python:tests.models.test_pool:_whoami"), PoolOptions(copies=2, cpus=0.5)
    )

    async def ask(n: int, victim: int = 0) -> list[str]:
        jobs = [
            asyncio.create_task(made.generate(Conversation.of(f"{i}"), Sampling()))
            for i in range(n)
        ]
        if victim:
            await asyncio.sleep(0.02)
            os.kill(victim, signal.SIGKILL)
        return [a.failure.message if a.failure else a.text for (a,) in await asyncio.gather(*jobs)]

    try:
        first = asyncio.run(ask(40))
        assert len(set(first)) == 2
        after = asyncio.run(ask(200, int(first[0])))
        assert all(said.isdigit() for said in after), set(after)
        again = asyncio.run(ask(40))
        assert first[0] not in again
        assert len(set(again)) == 2
    finally:
        made._stop()


@pytest.mark.slow
def test_what_ends_a_pool_is_told(tmp_path: Path) -> None:
    require_package("ray")
    wrong = ModelPool(parse_spec("scripted:none"), PoolOptions(copies=1, cpus=0.5))
    with pytest.raises(SpecError, match="there is no script 'none'"):
        _ = wrong.name
    many = ModelPool(parse_spec("scripted:mixed"), PoolOptions(copies=2, gpus=64.0))
    with pytest.raises(UserError, match="2 copies need 128 GPUs"):
        _ = many.name
    many._stop()
    nowhere = ModelPool(parse_spec("scripted:mixed"), PoolOptions(copies=1, address="127.0.0.1:1"))
    with pytest.raises(UserError, match="no Ray at 127"):
        _ = nowhere.name
    spent = ModelPool(
        parse_spec("openai:m,base_url=http://127.0.0.1:9/v1,budget_requests=0,retries=0"),
        PoolOptions(copies=1, cpus=0.5),
    )
    try:
        with pytest.raises(BudgetExceeded, match="the budget of 0 requests is spent"):
            asyncio.run(spent.generate(Conversation.of("x"), Sampling()))
    finally:
        spent._stop()


@pytest.mark.slow
def test_copies_of_a_local_model_answer_as_one_does(tmp_path: Path) -> None:
    require_package("ray")
    from tests.models.local.conftest import write

    write(tmp_path / "tiny", "llama")
    spec = f"local:{tmp_path / 'tiny'},dtype=float32"
    options = EvaluateOptions(
        sampling=Sampling(n=2, temperature=1.0, max_tokens=8), seed=4, concurrency=8
    )
    evaluate(
        resolve(spec, "model"), MemoryDataset.of_size(10), [], tmp_path / "one", options=options
    )
    many = resolve(f"pool:2,of=({spec}),cpus=1", "model")
    try:
        evaluate(many, MemoryDataset.of_size(10), [], tmp_path / "two", options=options)
    finally:
        asyncio.run(many.close())
    assert (tmp_path / "one/responses.jsonl").read_bytes() == (
        tmp_path / "two/responses.jsonl"
    ).read_bytes()
