"""`truing serve`: keys, audit and missing packages; the server itself is tested in tests/serve."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from truing.cli.serve import AuditFlags, ServeFlags, _make_audit, _read_keys, command
from truing.core.errors import MissingExtra, PlanError
from truing.serve.openai.local_host import LocalHostOnly
from truing.serve.openai.model_router import ModelRouter
from truing.specs.resolve import resolve


def test_keys_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", " one, two ,,")
    assert _read_keys("KEYS") == ["one", "two"]
    assert _read_keys(None) == []
    monkeypatch.setenv("KEYS", " , ")
    with pytest.raises(PlanError, match="--keys-env KEYS: the variable is not set or empty"):
        _read_keys("KEYS")


def test_a_judge_of_the_rails_must_not_audit_them(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(
        "rails: {output: {flows: [moderation check output]}}\ntruing: {moderation: {judge: 'keywords:'}}\n"
    )
    router = ModelRouter(resolve("scripted:echo", "model"), {"shop": tmp_path})
    with pytest.raises(PlanError, match="--audit keywords:"):
        _make_audit(AuditFlags(audit="keywords:"), router)
    assert _make_audit(AuditFlags(audit="rules:refusal"), router) is not None
    assert _make_audit(AuditFlags(), router) is None


def test_the_server_gets_the_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: dict[str, object] = {}
    monkeypatch.setattr(
        "uvicorn.Server.run", lambda self, sockets=None: served.update(vars(self.config))
    )
    # The log of requests is of the process: tests/serve/openai/test_live_server.py.
    flags = ServeFlags(host="0.0.0.0", timeout=7.5, request_log=False)
    assert command(model="scripted:echo", port=8123, flags=flags) == 0
    assert (served["host"], served["port"]) == ("0.0.0.0", 8123)
    assert served["timeout_graceful_shutdown"] == 7
    err = capsys.readouterr().err
    assert "0.0.0.0 is reachable from other machines and --keys-env is not given" in err
    assert "truing serves scripted:echo at http://0.0.0.0:8123/v1" in err


@pytest.mark.parametrize(
    ("host", "keys", "is_checked"),
    [("127.0.0.1", "", True), ("localhost", "a-key", False), ("0.0.0.0", "", False)],
)
def test_a_local_server_without_keys_checks_the_host_header(
    monkeypatch: pytest.MonkeyPatch, host: str, keys: str, is_checked: bool
) -> None:
    apps: list[object] = []
    monkeypatch.setattr(
        "uvicorn.Server.run", lambda self, sockets=None: apps.append(self.config.app)
    )
    monkeypatch.setenv("SERVE_KEYS", keys)
    flags = ServeFlags(host=host, keys_env="SERVE_KEYS" if keys else None, request_log=False)
    command(model="scripted:echo", flags=flags)
    assert isinstance(apps[0], LocalHostOnly) is is_checked


def test_a_limit_that_is_not_positive_is_one_sentence() -> None:
    for flags in (ServeFlags(concurrency=0), ServeFlags(timeout=-1), ServeFlags(max_body=0)):
        with pytest.raises(PlanError, match="must be above 0"):
            command(model="scripted:echo", flags=flags)


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtra, match=r"truing serve \(package uvicorn\) .*truing\[serve\]"):
        command(model="scripted:echo")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (ServeFlags(workers=0), "--workers 0: 1 to 256"),
        (ServeFlags(workers=4, per_minute=10), "--per-minute holds for all workers only with"),
        (ServeFlags(workers=2, threads="memory"), "--threads memory is of one worker"),
        (ServeFlags(redis="http://x"), "it is redis://HOST:PORT/DATABASE"),
    ],
)
def test_what_would_hold_in_each_worker_alone_is_refused(flags: ServeFlags, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        command(model="scripted:echo", flags=flags)


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        with pytest.raises(PlanError, match=f"serve: 127.0.0.1:{port}: Address already in use"):
            command(model="scripted:echo", port=port, flags=ServeFlags(workers=1))
