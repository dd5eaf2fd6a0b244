"""Who may do what: sessions, roles, marks of forms, foreign origins, stolen links, scripts in every field, rates, sizes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.serve.annotation.site import PHRASE, Visitor, site

from truing.annotation import overview
from truing.annotation.store import DatabaseUnavailable, RequestRejected
from truing.annotation.study import Contact, Study
from truing.models.scripted import Scripted
from truing.serve.annotation.app_state import ServerLimits, Throttle, name_models

ECHO = Scripted(lambda conversation, sampling: conversation.prompt, name="<b>echo</b>")
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


def test_without_a_login_every_page_leads_to_the_door(file_url: str) -> None:
    with site(file_url) as here:
        stranger = Visitor(here.base)
        for path in PATHS:
            assert stranger.get(path).url.path == "/sign-in", path
        assert stranger.send("/review/next").status_code == 401
        stranger.web.cookies.set("truing_session", "a-guess")
        assert stranger.get("/admin").url.path == "/sign-in"


def test_roles_open_their_own_doors_alone(file_url: str) -> None:
    with site(file_url) as here:
        doors = {
            "rater": {"/review"},
            "redteamer": set(),
            "adjudicator": {"/disputes", "/agreement"},
            "admin": {"/admin", "/admin/audit", "/agreement"},
        }
        for n, (role, allowed) in enumerate(doors.items()):
            person = here.person(f"person-{n}", role)
            for path in ("/review", "/disputes", "/agreement", "/admin", "/admin/audit"):
                assert (person.web.get(path).status_code == 200) == (path in allowed), (role, path)
        assert person.send("/dialogues", {"key": "k" * 16}).status_code == 403


@pytest.mark.parametrize("mark", ["", "0" * 40, "somebody else's", "\ud83d"])
def test_a_form_without_its_mark_changes_nothing(file_url: str, mark: str) -> None:
    with site(file_url) as here:
        victim, attacker = here.person("victim", "rater"), here.person("attacker", "rater")
        victim.csrf = (
            attacker.csrf if mark == "somebody else's" else mark.encode("utf-8", "replace").decode()
        )
        for path in (
            "/settings/delete",
            "/consent",
            "/settings",
            "/rest",
            "/sign-out",
            "/review/next",
        ):
            answer = victim.send(path, {"sure": "victim"})
            assert (answer.status_code, answer.json()["kind"]) == (403, "form"), path
        assert victim.get("/").url.path == "/"


def test_a_form_from_another_site_changes_nothing(file_url: str) -> None:
    with site(file_url) as here:
        victim = here.person("victim", "rater")
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
        ):
            assert victim.send("/rest", None, **headers).status_code == 403, headers
        plain = victim.web.post(
            "/rest", content="csrf=" + victim.csrf, headers={"content-type": "text/plain"}
        )
        assert plain.status_code == 403
        assert victim.send("/rest").status_code == 200
        cookie = next(c for c in victim.web.cookies.jar if c.name == "truing_session")
        assert (
            cookie.has_nonstandard_attr("HttpOnly")
            and cookie.get_nonstandard_attr("SameSite") == "lax"
        )


def test_cookies_are_for_https_alone_where_a_proxy_speaks_it(file_url: str) -> None:
    with site(file_url, limits=ServerLimits(https=True)) as here:
        answer = Visitor(here.base).web.get("/sign-in")
        assert "Secure" in answer.headers["set-cookie"]


def test_headers_keep_foreign_content_out(file_url: str) -> None:
    with site(file_url) as here:
        for path in ("/sign-in", "/nowhere", "/static/app.js", "/static/app.css"):
            headers = Visitor(here.base).web.get(path).headers
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
        assert Visitor(here.base).web.get("/sign-in").headers["cache-control"] == "no-store"


def test_nothing_comes_from_elsewhere() -> None:
    import truing.serve.annotation as room

    files = [
        p for p in Path(room.__file__).parent.rglob("*") if p.suffix in (".html", ".js", ".css")
    ]
    assert len(files) > 20
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"""(src|href|url|import)\s*[=(]?\s*['"]?(https?:)?//""", text), path
        assert not re.search(
            r"<script>|<style|\sstyle=|\son[a-z]+=|innerHTML|insertAdjacentHTML|eval\(|\|\s*safe",
            text,
        ), path


def test_a_stolen_link_is_flagged_and_a_look_does_not_use_it(file_url: str) -> None:
    with site(file_url) as here:
        link = here.invite("rater")
        for _ in range(3):
            assert Visitor(here.base).get(link).status_code == 200  # previews
        Visitor(here.base).join(link, "the-thief")
        owner = Visitor(here.base)
        answer = owner.get(link)
        assert answer.status_code == 410 and "used already" in answer.text
        owner.get("/sign-in")
        late = owner.send(link, {"pseudonym": "owner", "phrase": PHRASE, "again": PHRASE})
        assert late.status_code == 410
        flags = here.state.store.read(overview.list_flags)
        assert [(f.kind, f.pseudonym) for f in flags] == [("link used twice", "the-thief")]
        assert "link used twice" in here.person("boss-crane", "admin").text("/admin")


def test_scripts_in_every_field_stay_text(file_url: str) -> None:
    study = Study(name=SCRIPT, contacts=(Contact(SCRIPT, SCRIPT),), gold_every=0, raters=2)
    with site(file_url, [ECHO], study) as here:
        red = here.person("red-wren", "redteamer")
        talk = red.begin()
        turn, _ = red.say(talk, SCRIPT)
        shown = [red.get(talk).text]
        red.send(f"{talk}/turns/{turn}/pick", {"pick": "A"})
        shown += [red.get(talk).text, red.get(f"{talk}/end").text]
        given = {
            "rating": "1",
            "grade-1-0": "1",
            "grade-1-1": "1",
            "goal": SCRIPT,
            "category": ["self_harm"],
        }
        assert red.send(f"{talk}/end", given).status_code == 200
        shown += [red.get(p).text for p in (talk, "/", "/help", "/rest", "/settings")]
        for n in (1, 2):
            rater = here.person(f"rater-{n}", "rater")
            where = rater.send("/review/next").json()["go"]
            shown.append(rater.get(where).text)
            rater.send(where, {"grade-0": str(1 + 3 * (n - 1)), "note": SCRIPT})
        judge = here.person("judge-jay", "adjudicator", "admin")
        item = re.findall(r'href="/disputes/([0-9a-f]+)"', judge.get("/disputes").text)[0]
        judge.send(f"/disputes/{item}", {"grade-0": "2", "note": SCRIPT})
        judge.get("/admin")
        made = judge.web.post(
            "/admin/invitations", data={"csrf": judge.csrf, "role": ["rater"], "note": SCRIPT}
        )
        shown += [
            made.text,
            *(
                judge.get(p).text
                for p in (f"/disputes/{item}", "/agreement", "/admin", "/admin/audit")
            ),
        ]
        shown.append(red.get(f"/{SCRIPT}").text)
        for page in shown:
            assert (
                page.count("<script") == 2
                and "<img" not in page
                and "49" not in re.findall(r"&amp;\{\{.*?\}\}", page)
            )
            assert "&lt;script&gt;document.title" in page
        errors = Visitor(here.base)
        errors.get("/sign-in")
        wrong = errors.web.post(
            "/sign-in", data={"csrf": errors.csrf, "pseudonym": SCRIPT, "phrase": SCRIPT}
        )
        assert wrong.status_code == 401 and "<img" not in wrong.text


def test_a_megabyte_is_refused_by_its_length_and_more_by_its_size(file_url: str) -> None:
    with site(file_url, [ECHO]) as here:
        red = here.person("red-wren", "redteamer")
        talk = red.begin()
        key = red.key(talk)
        answer = red.send(f"{talk}/say", {"message": "x" * 1_000_000, "key": key})
        assert answer.status_code == 413 and "at most 20,000 characters" in answer.json()["error"]
        assert red.send(f"{talk}/say", {"message": "x" * 3_000_000, "key": key}).status_code == 413
        assert red.send(f"{talk}/say", {f"f{n}": "x" for n in range(2500)}).status_code == 422
        assert red.send(f"{talk}/say", {"message": "fine", "key": key}).status_code == 200


def test_a_model_may_answer_a_megabyte(file_url: str) -> None:
    huge = Scripted("word " * 200_000, name="huge")
    with site(file_url, [huge], Study(max_tokens=10**6, exposure_budget=10**6)) as here:
        red = here.person("red-wren", "redteamer")
        talk = red.begin()
        turn, streamed = red.say(talk, "hello")
        assert streamed.endswith('event: end\ndata: {"A":"","B":""}\n\n')
        assert red.send(f"{talk}/turns/{turn}/pick", {"pick": "A"}).status_code == 200
        assert len(red.get(talk).text) < 1_000_000


def test_rates_are_limited_by_person_and_sign_ins_by_address(file_url: str) -> None:
    with site(
        file_url, limits=ServerLimits(requests_per_minute=40, sign_ins_per_minute=12)
    ) as here:
        person = here.person("mild-jay", "rater")
        statuses = [person.web.get("/help").status_code for _ in range(60)]
        assert statuses[0] == 200 and statuses[-1] == 429 and statuses == sorted(statuses)
        stranger = Visitor(here.base)
        stranger.get("/sign-in")
        tried = [
            stranger.send(
                "/sign-in", {"pseudonym": "mild-jay", "phrase": "wrong phrase"}
            ).status_code
            for _ in range(14)
        ]
        assert tried[0] == 422 and tried[-1] == 429
        assert any(
            "Too many attempts" in str(line) or line.action == "sign-in-failed"
            for line in here.state.store.read(lambda tx: overview.read_audit_log(tx, None, 50))
        )


def test_a_throttle_fills_up_again() -> None:
    now = [0.0]
    throttle = Throttle(2, max_keys=3, clock=lambda: now[0])
    throttle.check("a"), throttle.check("a")
    with pytest.raises(RequestRejected):
        throttle.check("a")
    now[0] += 31
    throttle.check("a")
    for key in "bcd":
        throttle.check(key)  # "a" is forgotten: memory is bounded
    throttle.check("a"), throttle.check("a")


def test_models_of_one_name_are_told_apart() -> None:
    assert list(
        name_models([Scripted("a", name="m"), Scripted("b", name="m"), Scripted("c", name="m")])
    ) == ["m", "m (2)", "m (3)"]


def test_a_database_that_is_away_says_so_and_nothing_breaks(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site(file_url) as here:
        rater = here.person("mild-jay", "rater")

        def away(work: object) -> None:
            raise DatabaseUnavailable(
                "the database does not answer; nothing was lost, please send it again"
            )

        monkeypatch.setattr(here.state.store, "write", away)
        answer = rater.send("/review/next")
        assert (
            answer.status_code == 503
            and answer.headers["retry-after"] == "2"
            and "nothing was lost" in answer.text
        )
        plain = rater.web.post("/review/next", data={"csrf": rater.csrf})
        assert plain.status_code == 503 and "A moment, please" in plain.text
        monkeypatch.undo()
        assert rater.send("/review/next").status_code == 200


def test_a_break_in_the_house_tells_no_secrets(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site(file_url) as here:
        rater = here.person("mild-jay", "rater")
        monkeypatch.setattr(here.state.store, "write", lambda work: 1 / 0)
        answer = rater.send("/review/next")
        assert (
            answer.status_code == 500
            and "ZeroDivision" not in answer.text
            and "Traceback" not in answer.text
        )
