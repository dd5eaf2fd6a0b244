"""Which user the other end of a connection belongs to."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from truing.serve.ui.peer_owner import is_same_user


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no /proc/net/tcp")
def test_a_connection_of_this_process_is_this_users() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        connection, peer = server.accept()
        assert peer == client.getsockname()
        assert is_same_user(peer, server.getsockname())
        assert not is_same_user((peer[0], peer[1]), ("127.0.0.1", 1))
        connection.close()


@pytest.mark.parametrize(
    ("uid", "expected"), [(os.getuid(), True), (0, True), (os.getuid() + 4321, False)]
)
def test_the_table_decides(tmp_path: Path, uid: int, expected: bool) -> None:
    table = tmp_path / "tcp"
    table.write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
        f"   0: 0100007F:C350 0100007F:2008 01 00000000:00000000 00:00000000 00000000 {uid} 0 1\n"
    )
    client, server = ("127.0.0.1", 0xC350), ("127.0.0.1", 0x2008)
    assert is_same_user(client, server, (table,)) is expected


def test_what_cannot_be_told_is_no(tmp_path: Path) -> None:
    assert not is_same_user(("127.0.0.1", 1), ("127.0.0.1", 2), (tmp_path / "nowhere",))
    assert not is_same_user(("testclient", 1), ("127.0.0.1", 2))
