"""The event loop in the background: its own thread, and a process that was forked."""

from __future__ import annotations

import asyncio
import os
import warnings

import pytest

from truing.integrations.background_loop import BackgroundLoop


async def answer() -> int:
    return 7


def test_a_call_from_the_loop_itself_is_an_error_and_does_not_wait() -> None:
    loop = BackgroundLoop()

    async def call() -> int:
        return loop.run(answer())

    with pytest.raises(RuntimeError, match="async"):
        loop.run(asyncio.wait_for(call(), 10))
    assert loop.run(answer()) == 7


def test_a_forked_process_starts_a_thread_of_its_own() -> None:
    loop = BackgroundLoop()
    loop.run(answer())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads run here
        child = os.fork()
    if child == 0:
        os._exit(loop.run(answer()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
