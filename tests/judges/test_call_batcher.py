"""Concurrent calls in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from truing.judges.call_batcher import CallBatcher


class Squares:
    """Work that records its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        return [item * item for item in items]


async def gather(batcher: CallBatcher[int, int], items: Sequence[int]) -> list[int]:
    return list(await asyncio.gather(*(batcher(item) for item in items)))


def test_concurrent_calls_are_one_batch_and_each_gets_its_result() -> None:
    work = Squares()
    assert asyncio.run(gather(CallBatcher(work), range(5))) == [0, 1, 4, 9, 16]
    assert work.batches == [[0, 1, 2, 3, 4]]


def test_a_batch_has_at_most_its_limit() -> None:
    work = Squares()
    assert asyncio.run(gather(CallBatcher(work, max_batch=2), range(5))) == [0, 1, 4, 9, 16]
    assert work.batches == [[0, 1], [2, 3], [4]]


def test_calls_one_after_another_are_batches_of_their_own_in_any_loop() -> None:
    work = Squares()
    batcher = CallBatcher(work)
    assert [asyncio.run(gather(batcher, [n])) for n in (2, 3)] == [[4], [9]]
    assert work.batches == [[2], [3]]


def test_an_error_reaches_every_caller_of_the_batch_and_the_next_batch_works() -> None:
    def work(items: Sequence[int]) -> list[int]:
        if -1 in items:
            raise MemoryError("out of memory")
        return list(items)

    batcher: CallBatcher[int, int] = CallBatcher(work, max_batch=2)

    async def run() -> list[int | BaseException]:
        return await asyncio.gather(
            *(batcher(item) for item in (1, -1, 2, 3)), return_exceptions=True
        )

    first, second, third, fourth = asyncio.run(run())
    assert isinstance(first, MemoryError) and first is second
    assert (third, fourth) == (2, 3)


def test_a_cancelled_call_does_not_disturb_its_batch() -> None:
    work = Squares()
    batcher = CallBatcher(work)

    async def run() -> tuple[bool, int]:
        cancelled, other = (asyncio.ensure_future(batcher(n)) for n in (2, 3))
        await asyncio.sleep(0)  # both join the batch
        cancelled.cancel()
        result = await other
        return cancelled.cancelled(), result

    assert asyncio.run(run()) == (True, 9)


def test_a_wrong_number_of_results_is_an_error_for_every_caller() -> None:
    async def run() -> list[int | BaseException]:
        batcher: CallBatcher[int, int] = CallBatcher(lambda items: [1])
        calls = (batcher(item) for item in range(3))
        return list(await asyncio.gather(*calls, return_exceptions=True))

    errors = asyncio.run(run())
    assert [type(error) for error in errors] == [RuntimeError] * 3
    assert "1 results for a batch of 3" in str(errors[0])
