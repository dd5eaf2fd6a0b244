"""Security: sign-in, roles, CSRF, cross-site forms, reused links, escaping, rate and size limits."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from tests.serve.annotation.site import PATIENCE, PHRASE, Visitor, run_site

from truing.annotation import overview
from truing.annotation.study import Contact, Study
from truing.models.scripted import ScriptedModel
from truing.serve.annotation.app_state import ServerLimits

ECHO = ScriptedModel(lambda conversation, sampling: conversation.prompt, name="<b>echo</b>")
SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">'\"&{{7*7}}"
PATHS = (
    "/",
    "/consent",
    "/settings",
    "/review",
    "/rest",
    "/agreement",
    "/disputes",
    "/admin",
    "/admin/audit",
)


def test_every_page_needs_a_login(file_url: str) -> None:
    with run_site(file_url) as site:
        stranger = Visitor(site.base)
        for path in PATHS:
            assert stranger.get(path).url.path == "/sign-in", path
        assert stranger.submit("/review/next").status_code == 401
        stranger.client.cookies.set("truing_session", "a-guess")
        assert stranger.get("/admin").url.path == "/sign-in"


@pytest.mark.parametrize("token", ["", "0" * 40, "somebody else's", "\ud83d"])
def test_a_form_without_a_valid_csrf_token_is_rejected(file_url: str, token: str) -> None:
    with run_site(file_url) as site:
        victim, attacker = site.add_person("victim", "rater"), site.add_person("attacker", "rater")
        victim.csrf = (
            attacker.csrf
            if token == "somebody else's"
            else token.encode("utf-8", "replace").decode()
        )
        for path in (
            "/settings/delete",
            "/consent",
            "/settings",
            "/rest",
            "/sign-out",
            "/review/next",
        ):
            answer = victim.submit(path, {"sure": "victim"})
            assert (answer.status_code, answer.json()["kind"]) == (403, "form"), path
        assert victim.get("/").url.path == "/"


def test_a_form_from_another_site_is_rejected(file_url: str) -> None:
    with run_site(file_url) as site:
        victim = site.add_person("victim", "rater")
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
        ):
            assert victim.submit("/rest", None, **headers).status_code == 403, headers
        plain = victim.client.post(
            "/rest", content="csrf=" + victim.csrf, headers={"content-type": "text/plain"}
        )
        assert plain.status_code == 403
        assert victim.submit("/rest").status_code == 200
        cookie = next(c for c in victim.client.cookies.jar if c.name == "truing_session")
        assert (
            cookie.has_nonstandard_attr("HttpOnly")
            and cookie.get_nonstandard_attr("SameSite") == "lax"
        )


def test_cookies_are_secure_behind_an_https_proxy(file_url: str) -> None:
    with run_site(file_url, limits=ServerLimits(https=True)) as site:
        answer = Visitor(site.base).client.get("/sign-in")
        cookie = answer.headers["set-cookie"]
        # Browsers take a cookie of this prefix from this host only, over https only.
        assert cookie.startswith("__Host-truing_visitor=") and "Secure" in cookie
        assert "Path=/" in cookie and "Domain" not in cookie
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
    with run_site(file_url) as site:
        assert "strict-transport-security" not in Visitor(site.base).client.get("/sign-in").headers


def test_a_name_that_resolves_to_this_server_is_not_this_site(file_url: str) -> None:
    with run_site(file_url, limits=ServerLimits(hosts=("127.0.0.1", "::1"))) as site:
        client = Visitor(site.base).client
        assert client.get("/sign-in").status_code == 200
        assert client.get("/sign-in", headers={"host": "[::1]:8100"}).status_code == 200
        for host in ("evil.example", "evil.example:8100", "127.0.0.1.evil.example", "[::1", ""):
            for path in ("/sign-in", "/static/app.js", "/healthz"):
                assert client.get(path, headers={"host": host}).status_code in (400, 421), host


def test_a_form_that_arrives_slowly_is_given_up(file_url: str) -> None:
    with run_site(file_url, limits=ServerLimits(body_seconds=0.3)) as site:
        host, port = site.base.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            lines = ("POST /sign-in HTTP/1.1", f"host: {host}:{port}", "content-length: 100")
            form_type = "content-type: application/x-www-form-urlencoded"
            connection.sendall("\r\n".join((*lines, form_type, "", "csrf=")).encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_new_login_in_a_browser_ends_the_one_before(file_url: str) -> None:
    with run_site(file_url) as site:
        site.add_person("mild-jay", "rater")
        visitor, copy = Visitor(site.base), Visitor(site.base)
        fields = {"pseudonym": "mild-jay", "phrase": PHRASE}
        visitor.get("/sign-in")
        visitor_token = visitor.client.cookies["truing_visitor"]
        assert visitor.submit("/sign-in", fields).status_code == 200
        first = visitor.client.cookies["truing_session"]
        assert first != visitor_token  # a token that was there before the sign-in opens nothing
        visitor.get("/settings")
        assert visitor.submit("/sign-in", fields).status_code == 200
        assert visitor.client.cookies["truing_session"] != first
        copy.client.cookies.set("truing_session", first)
        assert copy.get("/settings").url.path == "/sign-in"


def test_pages_load_nothing_from_other_servers_and_run_no_inline_script() -> None:
    import truing.serve.annotation as package

    files = [
        p for p in Path(package.__file__).parent.rglob("*") if p.suffix in (".html", ".js", ".css")
    ]
    assert len(files) > 20
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"""(src|href|url|import)\s*[=(]?\s*['"]?(https?:)?//""", text), path
        assert not re.search(
            r"<script>|<style|\sstyle=|\son[a-z]+=|innerHTML|insertAdjacentHTML|eval\(|\|\s*safe",
            text,
        ), path


def test_a_reused_link_is_flagged_and_viewing_does_not_use_it(file_url: str) -> None:
    with run_site(file_url) as site:
        link = site.invite("rater")
        for _ in range(3):
            assert Visitor(site.base).get(link).status_code == 200  # as link previews do
        Visitor(site.base).join(link, "the-thief")
        owner = Visitor(site.base)
        answer = owner.get(link)
        assert answer.status_code == 410 and "used already" in answer.text
        owner.get("/sign-in")
        reused = owner.submit(link, {"pseudonym": "owner", "phrase": PHRASE, "again": PHRASE})
        assert reused.status_code == 410
        flags = site.state.store.read(overview.list_flags)
        assert [(f.kind, f.pseudonym) for f in flags] == [("link used twice", "the-thief")]
        assert "link used twice" in site.add_person("boss-crane", "admin").text("/admin")


def test_scripts_in_every_field_are_escaped(file_url: str) -> None:
    study = Study(name=SCRIPT, contacts=(Contact(SCRIPT, SCRIPT),), gold_every=0, raters=2)
    with run_site(file_url, [ECHO], study) as site:
        redteamer = site.add_person("red-wren", "redteamer")
        dialogue = redteamer.start_dialogue()
        turn, _ = redteamer.send_message(dialogue, SCRIPT)
        pages = [redteamer.get(dialogue).text]
        redteamer.submit(f"{dialogue}/turns/{turn}/pick", {"pick": "A"})
        pages += [redteamer.get(dialogue).text, redteamer.get(f"{dialogue}/end").text]
        closing = {
            "rating": "1",
            "grade-1-0": "1",
            "grade-1-1": "1",
            "goal": SCRIPT,
            "category": ["self_harm"],
        }
        assert redteamer.submit(f"{dialogue}/end", closing).status_code == 200
        pages += [redteamer.get(p).text for p in (dialogue, "/", "/help", "/rest", "/settings")]
        for n in (1, 2):
            rater = site.add_person(f"rater-{n}", "rater")
            path = rater.submit("/review/next").json()["go"]
            pages.append(rater.get(path).text)
            rater.submit(path, {"grade-0": str(1 + 3 * (n - 1)), "note": SCRIPT})
        adjudicator = site.add_person("judge-jay", "adjudicator", "admin")
        item = re.findall(r'href="/disputes/([0-9a-f]+)"', adjudicator.get("/disputes").text)[0]
        adjudicator.submit(f"/disputes/{item}", {"grade-0": "2", "note": SCRIPT})
        adjudicator.get("/admin")
        response = adjudicator.client.post(
            "/admin/invitations", data={"csrf": adjudicator.csrf, "role": ["rater"], "note": SCRIPT}
        )
        pages += [
            response.text,
            *(
                adjudicator.get(p).text
                for p in (f"/disputes/{item}", "/agreement", "/admin", "/admin/audit")
            ),
        ]
        pages.append(redteamer.get(f"/{SCRIPT}").text)
        for page in pages:
            assert (
                page.count("<script") == 2
                and "<img" not in page
                and "49" not in re.findall(r"&amp;\{\{.*?\}\}", page)
            )
            assert "&lt;script&gt;document.title" in page
        visitor = Visitor(site.base)
        visitor.get("/sign-in")
        response = visitor.client.post(
            "/sign-in", data={"csrf": visitor.csrf, "pseudonym": SCRIPT, "phrase": SCRIPT}
        )
        assert response.status_code == 401 and "<img" not in response.text


def test_long_messages_large_bodies_and_many_fields_are_rejected(file_url: str) -> None:
    with run_site(file_url, [ECHO]) as site:
        redteamer = site.add_person("red-wren", "redteamer")
        dialogue = redteamer.start_dialogue()
        key = redteamer.form_key(dialogue)
        answer = redteamer.submit(f"{dialogue}/say", {"message": "x" * 1_000_000, "key": key})
        assert answer.status_code == 413 and "at most 20,000 characters" in answer.json()["error"]
        assert (
            redteamer.submit(
                f"{dialogue}/say", {"message": "x" * 3_000_000, "key": key}
            ).status_code
            == 413
        )
        assert (
            redteamer.submit(f"{dialogue}/say", {f"f{n}": "x" for n in range(2500)}).status_code
            == 422
        )
        assert (
            redteamer.submit(f"{dialogue}/say", {"message": "fine", "key": key}).status_code == 200
        )


def test_a_long_answer_is_cut(file_url: str) -> None:
    huge = ScriptedModel("word " * 200_000, name="huge")
    with run_site(file_url, [huge], Study(max_tokens=10**6, exposure_budget=10**6)) as site:
        redteamer = site.add_person("red-wren", "redteamer")
        dialogue = redteamer.start_dialogue()
        turn, streamed = redteamer.send_message(dialogue, "hello")
        assert streamed.endswith('event: end\ndata: {"A":"","B":""}\n\n')
        assert redteamer.submit(f"{dialogue}/turns/{turn}/pick", {"pick": "A"}).status_code == 200
        assert len(redteamer.get(dialogue).text) < 1_000_000


def test_requests_are_limited_by_person_and_sign_ins_by_address(file_url: str) -> None:
    with run_site(
        file_url, limits=ServerLimits(requests_per_minute=40, sign_ins_per_minute=12)
    ) as site:
        person = site.add_person("mild-jay", "rater")
        statuses = [person.client.get("/help").status_code for _ in range(60)]
        assert statuses[0] == 200 and statuses[-1] == 429 and statuses == sorted(statuses)
        stranger = Visitor(site.base)
        stranger.get("/sign-in")
        attempts = [
            stranger.submit(
                "/sign-in", {"pseudonym": "mild-jay", "phrase": "wrong phrase"}
            ).status_code
            for _ in range(14)
        ]
        assert attempts[0] == 422 and attempts[-1] == 429
        assert any(
            "Too many attempts" in str(line) or line.action == "sign-in-failed"
            for line in site.state.store.read(lambda tx: overview.read_audit_log(tx, None, 50))
        )
