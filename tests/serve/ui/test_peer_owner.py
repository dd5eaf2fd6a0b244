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
    assert _is_same_user_by(tmp_path, _table_line("01", uid, 1)) is expected


@pytest.mark.parametrize(("state", "inode"), [("06", 0), ("01", 0), ("06", 1), ("0A", 1)])
def test_a_connection_without_a_socket_tells_no_user(
    tmp_path: Path, state: str, inode: int
) -> None:
    closing, other = _table_line(state, 0, inode), _table_line("01", os.getuid() + 4321, 7)
    assert not _is_same_user_by(tmp_path, closing)
    assert not _is_same_user_by(tmp_path, closing + other)
    assert _is_same_user_by(tmp_path, closing + _table_line("01", os.getuid(), 7))


def _table_line(state: str, uid: int, inode: int) -> str:
    ends = f"0100007F:C350 0100007F:2008 {state}"
    return f"   0: {ends} 00000000:00000000 00:00000000 00000000 {uid} 0 {inode}\n"


def _is_same_user_by(folder: Path, lines: str) -> bool:
    table = folder / "tcp"
    table.write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
        + lines
    )
    return is_same_user(("127.0.0.1", 0xC350), ("127.0.0.1", 0x2008), (table,))


def test_what_cannot_be_told_is_no(tmp_path: Path) -> None:
    assert not is_same_user(("127.0.0.1", 1), ("127.0.0.1", 2), (tmp_path / "nowhere",))
    assert not is_same_user(("testclient", 1), ("127.0.0.1", 2))
