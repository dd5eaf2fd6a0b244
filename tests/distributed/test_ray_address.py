"""Whether a cluster answers, and starts that are too slow."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from truing.distributed.ray_address import check_reachable, start_ray


def test_only_an_address_where_something_listens_is_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        check_reachable(address)
    with pytest.raises(OSError, match=r"refused"):
        check_reachable(address)


def test_words_of_ray_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    connections: list[object] = []
    monkeypatch.setattr(
        socket, "create_connection", lambda *address, **_: connections.append(address)
    )
    for word in ("auto", "local"):
        check_reachable(word)
    assert connections == []


@pytest.mark.parametrize(
    ("message", "slow_starts", "n_starts"),
    [("the node timed out during startup", 2, 3), ("timed out", 3, 3), ("no such port", 1, 1)],
)
def test_a_start_that_runs_out_of_time_is_repeated(
    message: str, slow_starts: int, n_starts: int
) -> None:
    starts, ends = [], []

    def start() -> None:
        starts.append(1)
        if len(starts) <= slow_starts:
            raise RuntimeError(message)

    ray = SimpleNamespace(shutdown=lambda: ends.append(1))
    if slow_starts < n_starts:
        start_ray(ray, start)
    else:
        with pytest.raises(RuntimeError, match=message):
            start_ray(ray, start)
    assert len(starts) == n_starts
    assert len(ends) == min(slow_starts, n_starts)
