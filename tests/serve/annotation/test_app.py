"""The app: static files, error responses, security headers, shutdown."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from tests.serve.annotation.site import Visitor, run_site

from truing.annotation.store import DatabaseUnavailable
from truing.serve.annotation.app import create_app
from truing.serve.annotation.app_state import AppState, ServerLimits
from truing.serve.page_headers import SECURITY_HEADERS, STATUS_BY_KIND


def test_every_kind_of_rejection_has_a_status() -> None:
    package = Path(inspect.getfile(create_app)).parents[2]
    sources = [*package.glob("annotation/*.py"), *package.glob("serve/annotation/*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    kinds = set(re.findall(r'RequestRejected\(\s*"([a-z-]+)"', text))
    assert len(kinds) > 10
    assert kinds - set(STATUS_BY_KIND) == set()


def test_static_files_are_cached_and_typed(file_url: str) -> None:
    with run_site(file_url) as site:
        visitor = Visitor(site.base)
        response = visitor.client.get("/static/app.css")
        assert response.headers["content-type"].startswith("text/css; charset=utf-8")
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.content == site.state.static["app.css"]
        for path in ("/static/none.js", "/static/..%2fapp.py", "/nowhere", "/review/none/none"):
            assert visitor.client.get(path).status_code == 404, path
        # The links hold a version, so that a change of the files is seen at once.
        assert re.search(r'href="/static/app\.css\?v?=?[0-9a-f]{12}"', visitor.get("/sign-in").text)


def test_health_needs_the_database(file_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(work: object) -> None:
        raise DatabaseUnavailable("the database does not answer")

    with run_site(file_url) as site:
        visitor = Visitor(site.base)
        assert visitor.client.get("/healthz").text == "ok"
        monkeypatch.setattr(site.state.store, "read", fail)
        response = visitor.submit("/healthz")
        assert response.status_code == 405
        assert visitor.client.get("/healthz").status_code == 503
        monkeypatch.undo()


def test_errors_are_json_for_scripts_and_pages_for_browsers(file_url: str) -> None:
    with run_site(file_url) as site:
        client = Visitor(site.base).client
        page = client.get("/join/guess")
        assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert "not valid" in page.text
        script = client.get("/join/guess", headers={"x-fetch": "1"})
        assert script.status_code == 404
        assert script.json() == {"error": "This invitation link is not valid.", "kind": "missing"}
        stream = client.get("/nowhere", headers={"accept": "text/event-stream"})
        assert stream.json() == {"error": "There is no such page.", "kind": "http"}


def test_a_rejection_that_leads_to_a_page_redirects_a_browser(file_url: str) -> None:
    with run_site(file_url) as site:
        client = Visitor(site.base).client
        page = client.get("/settings")
        assert (page.status_code, page.headers["location"]) == (303, "/sign-in")
        script = client.get("/settings", headers={"x-fetch": "1"})
        assert script.status_code == 401
        assert script.json() == {"error": "Please sign in.", "kind": "sign-in", "go": "/sign-in"}


def test_a_body_over_the_limit_is_rejected(file_url: str) -> None:
    with run_site(file_url, limits=ServerLimits(max_body_bytes=100)) as site:
        visitor = Visitor(site.base)
        visitor.get("/sign-in")
        response = visitor.submit("/sign-in", {"pseudonym": "x" * 200})
        assert response.status_code == 413
        assert response.json() == {"error": "That is too large.", "kind": "http"}


def test_the_state_is_closed_at_shutdown(file_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[AppState] = []
    close = AppState.close

    async def record_close(state: AppState) -> None:
        closed.append(state)
        await close(state)

    monkeypatch.setattr(AppState, "close", record_close)
    with run_site(file_url) as site:
        assert closed == []
    assert closed == [site.state]


def test_security_headers(file_url: str) -> None:
    with run_site(file_url) as site:
        for path in ("/sign-in", "/nowhere", "/static/app.js", "/static/app.css"):
            headers = Visitor(site.base).client.get(path).headers
            policy = headers["content-security-policy"]
            assert (
                "default-src 'none'" in policy
                and "unsafe" not in policy
                and "frame-ancestors 'none'" in policy
            )
            assert (
                headers["x-content-type-options"] == "nosniff"
                and headers["referrer-policy"] == "same-origin"
            )
        assert Visitor(site.base).client.get("/sign-in").headers["cache-control"] == "no-store"


def test_headers_of_a_response_are_not_added_twice(file_url: str) -> None:
    with run_site(file_url) as site:
        for path in ("/sign-in", "/static/app.js"):
            names = [name for name, _ in Visitor(site.base).client.get(path).headers.raw]
            for header in (*SECURITY_HEADERS, b"cache-control"):
                assert sum(name.lower() == header for name in names) == 1, (path, header)


def test_an_unavailable_database_gives_503(file_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_site(file_url) as site:
        rater = site.add_person("mild-jay", "rater")

        def fail(work: object) -> None:
            raise DatabaseUnavailable(
                "the database does not answer; nothing was lost, please send it again"
            )

        monkeypatch.setattr(site.state.store, "write", fail)
        answer = rater.submit("/review/next")
        assert (
            answer.status_code == 503
            and answer.headers["retry-after"] == "2"
            and "nothing was lost" in answer.text
        )
        plain = rater.client.post("/review/next", data={"csrf": rater.csrf})
        assert plain.status_code == 503 and "A moment, please" in plain.text
        monkeypatch.undo()
        assert rater.submit("/review/next").status_code == 200


def test_an_internal_error_shows_no_details(file_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_site(file_url) as site:
        rater = site.add_person("mild-jay", "rater")
        monkeypatch.setattr(site.state.store, "write", lambda work: 1 / 0)
        answer = rater.submit("/review/next")
        assert (
            answer.status_code == 500
            and "ZeroDivision" not in answer.text
            and "Traceback" not in answer.text
        )
