"""Closes the runners of shards that a test leaves open: each holds an event loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from truing.bulk.moderation_job import ShardRunner


@pytest.fixture(autouse=True)
def _close_runners(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    runners: list[ShardRunner] = []
    initialise = ShardRunner.__init__

    def initialise_and_note(self: ShardRunner, *args: Any) -> None:
        initialise(self, *args)
        runners.append(self)

    monkeypatch.setattr(ShardRunner, "__init__", initialise_and_note)
    yield
    for runner in runners:
        runner.close()
