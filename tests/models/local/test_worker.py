"""The thread that owns the model: batches of concurrent calls, failures, and its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.models.local.generation import ASKS, answers, texts

from truing.core.types import ContinuationScores, Conversation, Sampling
from truing.models.local import LocalModel
from truing.models.local.likelihood import ScoreQuery
from truing.models.local.worker import ModelThread, call_in_loop

QUERIES = [
    ScoreQuery("the cat sat on", (" the mat", " the garden", " rain")),
    ScoreQuery("the cat", (" sat on the mat", " looked")),
    ScoreQuery(Conversation.of("how do I repair a wheel?"), ("Ask a patient helper.", "the rain")),
    ScoreQuery("", ("the cat sat",)),
]


def test_a_stream_that_is_left_early_frees_its_row(tiny: LocalModel) -> None:
    async def first() -> str:
        stream = tiny.stream(ASKS[0], Sampling(max_tokens=200))
        async for piece in stream:
            await stream.aclose()  # type: ignore[attr-defined]
            return piece
        return ""

    assert asyncio.run(first())
    assert texts(tiny, ASKS[:2], Sampling(max_tokens=8)) == texts(
        tiny, ASKS[:2], Sampling(max_tokens=8)
    )
    until = (
        time.monotonic() + 10
    )  # the worker's thread hands out answers a moment before it clears its rows
    while tiny._worker.decoder.busy and time.monotonic() < until:
        time.sleep(0.01)
    assert not tiny._worker.decoder.busy


def test_a_forward_that_breaks_fails_its_answers_and_the_model_lives(
    make: Callable[..., Path],
) -> None:
    model = LocalModel.load(str(make("llama")), dtype="float32", device="cpu")
    sound = model.forward.hidden
    model.forward.hidden = lambda *a: (_ for _ in ()).throw(MemoryError("out of memory"))  # type: ignore[method-assign]
    (answer,) = answers(model, ASKS[:1], Sampling(max_tokens=5))[0]
    assert answer.failure is not None and answer.failure.kind == "MemoryError"
    model.forward.hidden = sound  # type: ignore[method-assign]
    assert answers(model, ASKS[:1], Sampling(max_tokens=5))[0][0].failure is None


def test_concurrent_calls_are_one_tree(tiny: LocalModel) -> None:
    calls: list[int] = []
    score = tiny._worker._score

    def counted(queries: Sequence[ScoreQuery]) -> list[list[ContinuationScores]]:
        calls.append(len(queries))
        return score(queries)

    tiny._worker._score = counted

    async def ask() -> list[list[list[float]]]:
        return list(
            await asyncio.gather(*(tiny.logprobs(q.prefix, q.continuations) for q in QUERIES))
        )

    try:
        together = asyncio.run(ask())
    finally:
        tiny._worker._score = score
    assert sum(calls) == len(QUERIES) and len(calls) <= 2
    alone = [asyncio.run(tiny.logprobs(q.prefix, q.continuations)) for q in QUERIES]
    assert all(np.allclose(a, b, atol=1e-4) for x, y in zip(together, alone) for a, b in zip(x, y))


def test_a_failure_of_the_machine_reaches_its_callers_and_the_model_lives(
    make: Callable[..., Path],
) -> None:
    model = LocalModel.load(str(make("llama")), dtype="float32", device="cpu")
    before = asyncio.run(model.logprobs("the cat", [" sat"]))
    sound = model._worker._score
    model._worker._score = lambda queries: (_ for _ in ()).throw(MemoryError("out of memory"))
    with pytest.raises(MemoryError, match="^out of memory$"):
        asyncio.run(model.logprobs("the cat", [" sat"]))
    model._worker._score = sound
    assert asyncio.run(model.logprobs("the cat", [" sat"])) == before


def test_the_thread_ends_when_closed_and_starts_again_with_the_next_call(
    make: Callable[..., Path],
) -> None:
    model = LocalModel.load(str(make("llama")), dtype="float32", device="cpu")
    worker = model._worker
    assert worker._thread is None  # loading alone starts none
    asyncio.run(model.logprobs("the cat", [" sat"]))
    thread = worker._thread
    assert thread is not None and thread.is_alive() and thread.daemon
    worker.close()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert len(asyncio.run(model.logprobs("the cat", [" sat"]))) == 1
    asyncio.run(model.close())


def test_queries_are_scored_in_the_order_of_their_callers(tiny: LocalModel) -> None:
    def score(queries: Sequence[ScoreQuery]) -> list[list[ContinuationScores]]:
        return [[ContinuationScores(logprobs=(-float(len(q.continuations)),))] for q in queries]

    worker = ModelThread(tiny.forward, tiny._worker.decoder, score)

    async def run() -> list[list[ContinuationScores]]:
        queries = [ScoreQuery("x", ("a",) * n) for n in (3, 1, 2)]
        return list(await asyncio.gather(*(worker.score(q) for q in queries)))

    results = asyncio.run(run())
    worker.close()
    assert [scores[0].logprobs for scores in results] == [(-3.0,), (-1.0,), (-2.0,)]


def test_calls_into_a_closed_loop_are_dropped() -> None:
    loop = asyncio.new_event_loop()
    calls: list[int] = []
    call_in_loop(loop, calls.append, 1)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    call_in_loop(loop, calls.append, 2)
    assert calls == [1]
