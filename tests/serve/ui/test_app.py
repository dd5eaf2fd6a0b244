"""Who is let in: hosts, origins, tokens, passwords; headers; no texts in logs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from litestar.testing import TestClient
from tests.serve.ui.pages import BASE, Visitor, open_pages, path_of, write_small_run

from truing.annotation.people import hash_phrase
from truing.serve.page_headers import SECURITY_HEADERS
from truing.serve.throttling import Throttle
from truing.serve.ui import app_state, routes_rows
from truing.serve.ui.app import create_app
from truing.serve.ui.app_state import UiOptions, UiState

PASSWORD = "four plain words here"
ROW_TEXT = "pears and plums"


def test_only_names_of_this_machine_are_answered(tmp_path: Path) -> None:
    with open_pages(tmp_path) as visitor:
        for host in ("127.0.0.1:8200", "localhost", "[::1]:8200"):
            assert visitor.get("/", host=host).status_code == 200
        for host in ("evil.example", "127.0.0.1.evil.example", "", "a@127.0.0.1"):
            assert visitor.get("/", host=host).status_code == 421


def test_without_the_link_nothing_is_shown(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    state = UiState(tmp_path, index_key=b"k" * 32)
    with TestClient(create_app(state), base_url=BASE) as client:
        for path in ("/", path_of(tmp_path, run), f"{path_of(tmp_path, run)}/rows", "/?token=x"):
            response = client.get(path)
            assert response.status_code == 401
            assert "plums" not in response.text and state.link_token not in response.text
        assert client.get("/healthz").text == "ok"
        # The token goes out of the address at once.
        opened = client.get(f"/?token={state.link_token}", follow_redirects=False)
        assert opened.status_code == 303 and opened.headers["location"] == "/"
        assert client.get("/").status_code == 200
        client.cookies.clear()
        client.cookies.set("truing_ui_0", "forged.0000")
        assert client.get("/").status_code == 401


def test_with_a_password_the_link_does_not_open(tmp_path: Path) -> None:
    options = UiOptions(password_hash=hash_phrase(PASSWORD))
    state = UiState(tmp_path, options, index_key=b"k" * 32)
    with TestClient(create_app(state), base_url=BASE) as client:
        assert client.get(f"/?token={state.link_token}").status_code == 401
        # From any host, since other machines have their own name for this one.
        assert client.get("/sign-in", headers={"host": "lab.example"}).status_code == 200
        wrong = client.post("/sign-in", data={"password": "wrong"}, headers={"origin": BASE})
        assert wrong.status_code == 401 and "not the password" in wrong.text
        foreign = client.post(
            "/sign-in", data={"password": PASSWORD}, headers={"origin": "http://evil.example"}
        )
        assert foreign.status_code == 403
        client.post("/sign-in", data={"password": PASSWORD}, headers={"origin": BASE})
        page = client.get("/")
        assert page.status_code == 200 and "Sign out" in page.text
        client.cookies.clear()
        state.sign_in_throttle = Throttle(1)
        guesses = [client.post("/sign-in", data={"password": "guess"}) for _ in range(2)]
        assert [guess.status_code for guess in guesses] == [401, 429]


def test_a_form_needs_its_token_and_this_origin(tmp_path: Path) -> None:
    options = {"password_hash": hash_phrase(PASSWORD)}
    with open_pages(tmp_path, **options) as visitor:
        visitor.client.post("/sign-in", data={"password": PASSWORD}, headers={"origin": BASE})
        for fields, headers in (
            ({"csrf": "0" * 40}, {"origin": BASE}),
            ({}, {"origin": "http://evil.example"}),
            ({}, {"origin": BASE, "sec-fetch-site": "cross-site"}),
        ):
            assert visitor.submit("/sign-out", fields, **headers).status_code == 403
        assert visitor.submit("/sign-out", {}).status_code == 303


def test_signing_out_ends_the_session_and_no_other(tmp_path: Path) -> None:
    options = UiOptions(password_hash=hash_phrase(PASSWORD))
    state = UiState(tmp_path, options, index_key=b"k" * 32)
    with TestClient(create_app(state), base_url=BASE) as client:
        client.post("/sign-in", data={"password": PASSWORD}, headers={"origin": BASE})
        copied = dict(client.cookies)
        other = state.new_session()
        visitor = Visitor(client, state)
        assert visitor.submit("/sign-out", {}).status_code == 303
        client.cookies.clear()
        for name, token in copied.items():
            client.cookies.set(name, token)
        assert client.get("/").status_code == 401
        client.cookies.set("truing_ui_0", other)
        assert client.get("/").status_code == 200


def test_the_number_of_sessions_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_state, "_MAX_SESSIONS", 3)
    state = UiState(tmp_path, index_key=b"k" * 32)
    first, *others = [state.new_session() for _ in range(3)]
    assert state.is_session(first)  # used last, so it stays
    others.append(state.new_session())
    assert [state.is_session(token) for token in (first, *others)] == [True, False, True, True]
    state.close()


def test_a_page_of_another_site_loads_nothing_but_may_link(tmp_path: Path) -> None:
    with open_pages(tmp_path) as visitor:
        foreign = {"sec-fetch-site": "cross-site"}
        assert visitor.get("/", **foreign, **{"sec-fetch-mode": "no-cors"}).status_code == 403
        assert visitor.get("/", **foreign, **{"sec-fetch-mode": "navigate"}).status_code == 200


def test_every_response_has_the_security_headers(tmp_path: Path) -> None:
    with open_pages(tmp_path) as visitor:
        for path in ("/", "/static/ui.js", "/nowhere", "/static/..%2fapp.py"):
            response = visitor.get(path)
            for header in (*SECURITY_HEADERS, b"cache-control"):
                assert header.decode() in response.headers, (path, header)
        assert visitor.get("/static/..%2f..%2fapp.py").status_code == 404


def test_an_error_of_the_program_logs_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = write_small_run(tmp_path / "run")

    def fail(*arguments: object, **options: object) -> None:
        raise ValueError(ROW_TEXT)

    monkeypatch.setattr(routes_rows, "view_rows", fail)
    with caplog.at_level(logging.DEBUG), open_pages(tmp_path) as visitor:
        response = visitor.get(f"{path_of(tmp_path, run)}/rows?words=plums")
    assert response.status_code == 500
    assert "plums" not in response.text
    # All records, with what a formatter adds, but those of the client, which stands for a browser.
    records = [r for r in caplog.records if not r.name.startswith("httpx")]
    written = [logging.Formatter().format(record) for record in records]
    assert any("ValueError" in text for text in written)
    assert not [text for text in written if "plums" in text or ROW_TEXT in text]
