"""Sign-in, sign-out and invitations over HTTP."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice

import pytest
from tests.serve.annotation.site import MODELS, PHRASE, Visitor, run_site

from truing.annotation import overview, people
from truing.annotation.study import Study
from truing.serve.annotation.app_state import ServerLimits


def test_the_forms_of_sign_in(file_url: str) -> None:
    with run_site(file_url) as site:
        rater = site.add_person("mild-jay", "rater")
        assert rater.client.get("/sign-in").headers["location"] == "/"
        visitor = Visitor(site.base)
        visitor.get("/sign-in")
        answers = []
        for name, phrase in (("mild-jay", "a wrong phrase"), ("nobody", PHRASE)):
            fields = {"csrf": visitor.csrf, "pseudonym": name, "phrase": phrase}
            page = visitor.client.post("/sign-in", data=fields)
            assert page.status_code == 401
            assert f'value="{name}"' in page.text
            script = visitor.submit("/sign-in", {"pseudonym": name, "phrase": phrase})
            answers.append((script.status_code, script.json()))
        message = "That pseudonym and pass phrase do not belong together."
        assert answers == [(422, {"error": message, "kind": "invalid"})] * 2
        fields = {"csrf": visitor.csrf, "pseudonym": " Mild-Jay ", "phrase": PHRASE}
        page = visitor.client.post("/sign-in", data=fields)
        assert (page.status_code, page.headers["location"]) == (303, "/")
        assert "Hello, mild-jay" in visitor.text("/")
        failed = [
            (line.pseudonym, line.object)
            for line in site.state.store.read(lambda tx: overview.read_audit_log(tx, None, 50))
            if line.action == "sign-in-failed"
        ]
        # What was typed is not recorded: it may be a pass phrase in the wrong field.
        assert failed == [("", ""), ("", ""), ("mild-jay", ""), ("mild-jay", "")]


def test_signing_out_ends_the_login_and_releases_the_lease(file_url: str) -> None:
    with run_site(file_url, MODELS, Study(raters=1, gold_every=0)) as site:
        site.add_person("red-wren", "redteamer").complete_dialogue("hello")
        rater = site.add_person("mild-jay", "rater")
        item = rater.submit("/review/next").json()["go"]
        assert item.startswith("/review/")
        cookies = dict(rater.client.cookies)
        assert rater.submit("/sign-out").json() == {"go": "/sign-in"}
        assert rater.get("/").url.path == "/sign-in"
        # The login is ended on the server too, not only in this browser.
        copy = Visitor(site.base)
        copy.client.cookies.update(cookies)
        assert copy.get("/").url.path == "/sign-in"
        other = site.add_person("quick", "rater")
        assert other.submit("/review/next").json()["go"].startswith("/review/")


def test_mistakes_in_an_invitation_form_can_be_mended(file_url: str) -> None:
    with run_site(file_url) as site:
        site.add_person("mild-jay", "rater")
        link, visitor = site.invite("rater", "redteamer"), Visitor(site.base)
        page = visitor.text(link)
        assert "To take part as red-teamer, rater" in " ".join(page.split())
        mistakes = (
            ({"pseudonym": "calm-wren", "again": "something else"}, "The two pass phrases differ."),
            ({"pseudonym": "calm-wren", "phrase": "short", "again": "short"}, "10 to 200"),
            ({"pseudonym": "mild-jay"}, "mild-jay"),
        )
        for fields, message in mistakes:
            form = {"csrf": visitor.csrf, "phrase": PHRASE, "again": PHRASE} | fields
            response = visitor.client.post(link, data=form)
            assert response.status_code == 422
            assert message in response.text
            assert f'value="{fields["pseudonym"]}"' in response.text
        script = visitor.submit(link, {"pseudonym": "calm-wren", "phrase": PHRASE, "again": "x"})
        assert script.json() == {"error": "The two pass phrases differ.", "kind": "invalid"}
        visitor.join(link, "calm-wren")  # the link was not used up
        assert visitor.client.get("/").headers["location"] == "/consent"


def test_unknown_and_expired_links(file_url: str) -> None:
    with run_site(file_url) as site:
        visitor = Visitor(site.base)
        assert visitor.client.get("/join/guess").status_code == 404
        visitor.get("/sign-in")
        fields = {"pseudonym": "calm-wren", "phrase": PHRASE, "again": PHRASE}
        assert visitor.submit("/join/guess", fields).status_code == 404
        token = site.state.store.write(
            lambda tx: people.create_invitation(tx, ["rater"], by=None, days=-1)
        )
        expired = visitor.client.get(f"/join/{token}")
        assert expired.status_code == 410 and "has expired" in expired.text


def _sign_in(visitor: Visitor, name: str, phrase: str, address: str) -> int:
    # uvicorn takes the client's address from this header if the proxy is on the same machine.
    headers = {"x-forwarded-for": address}
    fields = {"pseudonym": name, "phrase": phrase}
    return visitor.submit("/sign-in", fields, **headers).status_code


def test_of_50_concurrent_guesses_10_are_checked_and_the_owner_still_signs_in(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    check_phrase = people.check_phrase

    def count_check(stored: str | None, phrase: str) -> bool:
        checked.append(phrase)
        return check_phrase(stored, phrase)

    with run_site(url) as site:
        owner = site.add_person("mild-jay", "rater")
        owner.get("/settings")
        assert owner.submit("/sign-out").status_code == 200
        monkeypatch.setattr(people, "check_phrase", count_check)
        attackers = [Visitor(site.base) for _ in range(10)]
        for attacker in attackers:
            attacker.get("/sign-in")

        def guess(n: int) -> int:
            return _sign_in(attackers[n % 10], "mild-jay", f"a wrong phrase {n}", "192.0.2.1")

        with ThreadPoolExecutor(10) as pool:
            statuses = Counter(pool.map(guess, range(50)))
        assert statuses == {422: 10, 429: 40} and len(checked) == 10
        # The right phrase is not checked either: a guesser does not learn it by trying on.
        assert _sign_in(attackers[0], "mild-jay", PHRASE, "192.0.2.1") == 429
        # The owner signs in from another address, and from the attacker's with a known browser.
        assert _sign_in(attackers[0], "mild-jay", PHRASE, "192.0.2.2") == 200
        owner.get("/sign-in")
        assert _sign_in(owner, "mild-jay", PHRASE, "192.0.2.1") == 200
        # A name without an account gets the same answers.
        stranger = Visitor(site.base)
        stranger.get("/sign-in")
        unknown = [_sign_in(stranger, "nobody", PHRASE, "192.0.2.9") for _ in range(11)]
        assert unknown == [422] * 10 + [429]


def test_a_flood_of_guesses_leaves_a_queue_to_known_browsers(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    check_phrase = people.check_phrase

    def hang_on_guesses(stored: str | None, phrase: str) -> bool:
        return check_phrase(stored, phrase) if phrase == PHRASE else not release.wait(60)

    with run_site(file_url, limits=ServerLimits(waiting_sign_ins=4)) as site:
        owner = site.add_person("mild-jay", "rater")
        assert owner.submit("/sign-out").status_code == 200
        owner.get("/sign-in")
        monkeypatch.setattr(people, "check_phrase", hang_on_guesses)
        strangers = [Visitor(site.base) for _ in range(12)]
        for stranger in strangers:
            stranger.get("/sign-in")

        def guess(n: int) -> int:
            return _sign_in(strangers[n], f"name-{n}", "a wrong phrase", f"192.0.2.{n}")

        with ThreadPoolExecutor(12) as pool:
            guesses = [pool.submit(guess, n) for n in range(12)]
            try:
                refused = list(islice(as_completed(guesses, timeout=60), 8))
                assert [f.result() for f in refused] == [429] * 8
                assert _sign_in(owner, "mild-jay", PHRASE, "192.0.2.1") == 200
                assert owner.client.get("/review").status_code == 200
            finally:
                release.set()
        assert Counter(f.result() for f in guesses) == {422: 4, 429: 8}
