"""Admission: keys in constant time, a sliding minute, a bounded queue, draining."""

from __future__ import annotations

import asyncio

import pytest

from truing.serve.openai import admission
from truing.serve.openai.admission import AdmissionControl, RequestRefused, ServerLimits


def test_keys() -> None:
    control = AdmissionControl(ServerLimits(), ["first", "second"])
    assert control.check_key("Bearer second") == b"second"
    assert control.check_key("first") == b"first"
    for header in (None, "", "Bearer third", "Bearer firstsecond", "Bearer \ud800"):
        with pytest.raises(RequestRefused) as refused:
            control.check_key(header)
        assert (refused.value.status, refused.value.kind) == (401, "authentication_error")
    assert AdmissionControl(ServerLimits()).check_key(None) == b""  # open without keys


def test_a_sliding_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(admission.time, "monotonic", lambda: clock[0])
    control = AdmissionControl(ServerLimits(per_minute=2))
    asyncio.run(control.check_rate("a"))
    clock[0] += 20
    asyncio.run(control.check_rate("a"))
    with pytest.raises(RequestRefused) as refused:
        asyncio.run(control.check_rate("a"))
    assert (refused.value.status, refused.value.retry_after) == (429, 40.0)
    asyncio.run(control.check_rate("b"))  # another key has its own minute
    clock[0] += 40
    asyncio.run(control.check_rate("a"))  # the first request has left the minute


def test_the_queue_is_bounded() -> None:
    async def run() -> list[str]:
        control = AdmissionControl(ServerLimits(concurrency=1, waiting=1))
        events: list[str] = []

        async def hold(name: str, release: asyncio.Event) -> None:
            with control.admit():
                async with control.slot():
                    events.append(f"{name} in")
                    await release.wait()
                events.append(f"{name} out")

        release = asyncio.Event()
        first = asyncio.create_task(hold("first", release))
        second = asyncio.create_task(hold("second", release))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (control.in_flight, control.admitted) == (1, 2)
        with pytest.raises(RequestRefused) as refused, control.admit():
            pass
        assert (refused.value.status, refused.value.retry_after) == (429, 1)
        release.set()
        await asyncio.gather(first, second)
        assert (control.in_flight, control.admitted) == (0, 0)
        return events

    assert asyncio.run(run()) == ["first in", "first out", "second in", "second out"]


def test_one_who_waits_and_leaves_gives_its_place_back() -> None:
    async def run() -> None:
        control = AdmissionControl(ServerLimits(concurrency=1, waiting=1))

        async def wait_for_slot() -> None:
            with control.admit():
                async with control.slot():
                    pass

        with control.admit():
            async with control.slot():
                for _ in range(20):
                    waiting = asyncio.create_task(wait_for_slot())
                    await asyncio.sleep(0)
                    waiting.cancel()
                    await asyncio.gather(waiting, return_exceptions=True)
        assert (control.in_flight, control.admitted) == (0, 0)
        await asyncio.wait_for(wait_for_slot(), 1)

    asyncio.run(run())


def test_a_full_queue_times_out() -> None:
    async def run() -> None:
        control = AdmissionControl(ServerLimits(concurrency=1, waiting=1, seconds=0.01))
        async with control.slot():
            with pytest.raises(RequestRefused, match="no slot became free"):
                async with control.slot():
                    pass

    asyncio.run(run())


def test_draining_refuses_and_waits() -> None:
    async def run() -> None:
        control = AdmissionControl(ServerLimits())
        with control.admit():
            draining = asyncio.create_task(control.drain(5))
            await asyncio.sleep(0)
            with pytest.raises(RequestRefused) as refused, control.admit():
                pass
            assert refused.value.status == 503
            assert not draining.done()
        await draining

    asyncio.run(run())
