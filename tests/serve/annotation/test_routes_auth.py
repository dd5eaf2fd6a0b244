"""Sign-in, sign-out and invitations over HTTP."""

from __future__ import annotations

from tests.serve.annotation.site import MODELS, PHRASE, Visitor, run_site

from truing.annotation import overview, people
from truing.annotation.study import Study


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
            line.object
            for line in site.state.store.read(lambda tx: overview.read_audit_log(tx, None, 50))
            if line.action == "sign-in-failed"
        ]
        assert failed == ["nobody", "nobody", "mild-jay", "mild-jay"]


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
        assert "To take part as redteamer, rater" in page or "red-teamer" in page
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
