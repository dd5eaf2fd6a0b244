"""Whether a cluster answers."""

from __future__ import annotations

import socket

import pytest

from truing.distributed.ray_address import check_reachable


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
