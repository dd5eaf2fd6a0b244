"""Results are remembered; faults of the input too, others for a while."""

from __future__ import annotations

import pytest

from truing.core.errors import RunError
from truing.serve.ui import background
from truing.serve.ui.background import BackgroundCache, Fault


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(RunError("run/x:3: wrong"), 1), (MemoryError(), 2), (OSError(28, "full"), 2)],
)
def test_only_faults_of_the_input_are_remembered(
    monkeypatch: pytest.MonkeyPatch, error: Exception, attempts: int
) -> None:
    monkeypatch.setattr(background, "FAULT_SECONDS", 0.0)
    cache: BackgroundCache[str] = BackgroundCache("test", size=4, wait_seconds=60)
    begun = []

    def fail_once() -> str:
        begun.append(1)
        if len(begun) == 1:
            raise error
        return "done"

    assert isinstance(cache.get("key", fail_once), Fault)
    second = cache.get("key", fail_once)
    cache.close()
    assert len(begun) == attempts
    assert second == ("done" if attempts == 2 else Fault(str(error)))


def test_a_fault_is_not_computed_again_at_once() -> None:
    cache: BackgroundCache[str] = BackgroundCache("test", size=4, wait_seconds=60)
    begun = []

    def fail() -> str:
        begun.append(1)
        raise MemoryError

    faults = [cache.get("key", fail) for _ in range(3)]
    cache.close()
    assert len(begun) == 1 and all(isinstance(fault, Fault) for fault in faults)
