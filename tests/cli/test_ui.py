"""`truing ui`: refused entries, and the real server as a process of the same user."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from truing.cli.ui import PASSWORD_VARIABLE, AddressFlags, command
from truing.core.errors import UserError

PATIENCE = 120.0


@pytest.mark.parametrize("password", ["", "short", "x" * 201])
def test_an_address_that_others_reach_needs_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, password)
    for host in ("0.0.0.0", "0", "192.0.2.7", "::", "::0", "example.org", "a.localhost"):
        with pytest.raises(UserError, match=PASSWORD_VARIABLE):
            command(tmp_path, address=AddressFlags(host=host))


def test_wrong_entries_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        command(tmp_path / "nowhere")
    with pytest.raises(UserError, match="--port 99999"):
        command(tmp_path, address=AddressFlags(port=99999))
    with pytest.raises(UserError, match="expected a kind"):
        command(tmp_path, judge=["(("])


@contextmanager
def _serve(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        port = reservation.getsockname()[1]
        words = [sys.executable, "-m", "truing", "ui", str(folder), "--port", str(port)]
        environment = os.environ | {"TRUING_CACHE": str(folder / "cache")}
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment) as process:
            try:
                assert process.stderr is not None
                line = process.stderr.readline()
                match = re.search(r"http://\S+", line)
                assert match, line
                yield match.group(), process
            finally:
                process.send_signal(signal.SIGTERM)


def _get(url: str) -> httpx.Response:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return httpx.get(url, timeout=PATIENCE)
        except httpx.HTTPError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_the_command_prints_a_link_that_opens_the_pages(tmp_path: Path) -> None:
    with _serve(tmp_path) as (link, _):
        assert "?token=" in link
        opened = _get(link)
        assert opened.status_code == 303 and "truing_ui_" in opened.headers["set-cookie"]
        # A process of the same user needs no token, where the system tells whose it is.
        plain = _get(link.partition("?")[0])
        assert plain.status_code == (200 if sys.platform == "linux" else 401)
