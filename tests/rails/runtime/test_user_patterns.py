"""Users' patterns: RE2 or a process that is killed; the process itself is never held up."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from truing.rails.runtime import user_patterns
from truing.rails.runtime.user_patterns import UserPattern

EVIL = "(?=a)(a+)+$"
EVIL_TEXT = "a" * 60 + "!"


def search(pattern: str, text: str) -> bool | None:
    return asyncio.run(UserPattern(pattern).matches(text))


def test_look_around_and_back_references_run_in_a_worker() -> None:
    assert search(r"(?<!not )safe", "it is safe") is True
    assert search(r"(?<!not )safe", "it is not safe") is False
    assert search(r"(a.)\1", "abab\n\ud800") is True
    assert search(r"\bстоп\b", "слово стоп!") is True  # Unicode words, which RE2 does not know


def test_a_search_without_end_is_unclear_and_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(user_patterns, "SEARCH_SECONDS", 0.5)

    async def search_and_tick() -> tuple[bool | None, int]:
        task = asyncio.create_task(UserPattern(EVIL).matches(EVIL_TEXT))
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return await task, ticks

    result, ticks = asyncio.run(search_and_tick())
    assert result is None
    assert ticks > 5  # the event loop went on meanwhile
    assert search("(?=a)a", "a") is True  # a new worker takes the next search


def test_many_searches_without_end_are_all_unclear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_patterns, "SEARCH_SECONDS", 0.2)
    monkeypatch.setattr(user_patterns, "WAIT_SECONDS", 0.3)

    async def search_all() -> list[bool | None]:
        pattern = UserPattern(EVIL)
        return list(await asyncio.gather(*(pattern.matches(EVIL_TEXT) for _ in range(8))))

    start = time.monotonic()
    assert asyncio.run(search_all()) == [None] * 8
    assert time.monotonic() - start < 60


def test_a_worker_has_no_secret_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = user_patterns._Worker()
    worker.search('["a", 0, "search", "a"]')
    assert worker.process is not None
    environment = Path(f"/proc/{worker.process.pid}/environ").read_bytes()
    assert environment == b""
    worker.stop()
    assert worker.process is None


def test_a_malformed_pattern_is_an_error() -> None:
    with pytest.raises(re.error, match="unterminated subpattern at position 0"):
        UserPattern("(")
