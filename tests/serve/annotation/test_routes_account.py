"""Home, consent, settings, breaks and help, over HTTP."""

from __future__ import annotations

import re

from sqlalchemy import select
from tests.serve.annotation.site import MODELS, PHRASE, Site, Visitor, run_site

from truing.annotation import wellbeing
from truing.annotation.study import Study
from truing.annotation.tables import Person


def find_person(site: Site, name: str) -> Person:
    return site.state.store.read(
        lambda tx: tx.session.scalars(select(Person).where(Person.pseudonym == name)).one()
    )


def test_home_leads_to_sign_in_and_consent_first(file_url: str) -> None:
    with run_site(file_url) as site:
        assert Visitor(site.base).client.get("/").headers["location"] == "/sign-in"
        rater = site.add_person("mild-jay", "rater", consent=False)
        assert rater.client.get("/").headers["location"] == "/consent"
        # An administrator reads no texts and needs no consent.
        admin = site.add_person("boss-crane", "admin", consent=False)
        page = admin.text("/")
        assert "Hello, boss-crane" in page and "Administration" in page
        for heading in ("Red teaming", "Review", "Disagreements"):
            assert f"<h2>{heading}</h2>" not in admin.get("/").text


def test_consent_is_stored_by_category(file_url: str) -> None:
    with run_site(file_url) as site:
        rater = site.add_person("mild-jay", "rater", consent=False)
        page = rater.get("/consent").text
        categories = re.findall(r'name="category" value="([^"]+)"', page)
        assert "checked" not in page
        agreed = categories[:2]
        assert rater.submit("/consent", {"category": agreed}).json() == {"go": "/"}
        person = find_person(site, "mild-jay")
        opt_outs = site.state.store.read(lambda tx: wellbeing.load_opt_outs(tx, person.id))
        assert opt_outs == set(categories) - set(agreed)
        assert (person.unsorted, person.consented is not None) == (False, True)
        checked = re.findall(r'name="category" value="([^"]+)" checked', rater.get("/consent").text)
        assert checked == agreed
        assert rater.submit("/consent", {"category": ["elsewhere"]}).status_code == 422


def test_settings_are_stored_and_shown(file_url: str) -> None:
    with run_site(file_url) as site:
        rater = site.add_person("mild-jay", "rater")
        rater.get("/settings")
        fields = {"blur": "1", "fact-age": "30-44"}
        assert rater.submit("/settings", fields).json() == {"go": "/settings?saved=1"}
        person = find_person(site, "mild-jay")
        assert person.blur is True
        answers = site.state.store.read(lambda tx: wellbeing.load_demographics(tx, person.id))
        assert answers == {"age": "30-44"}


def test_help_and_goodbye_need_no_account(file_url: str) -> None:
    with run_site(file_url) as site:
        stranger = Visitor(site.base)
        assert "Your rights" in stranger.text("/help")
        assert "Your account is deleted" in stranger.text("/goodbye")


def test_settings_change_of_phrase_and_deletion(file_url: str) -> None:
    with run_site(file_url) as site:
        rater = site.add_person("mild-jay", "rater")
        other_browser = Visitor(site.base)
        other_browser.get("/sign-in")
        assert other_browser.submit(
            "/sign-in", {"pseudonym": "Mild-Jay", "phrase": PHRASE}
        ).json() == {"go": "/"}
        rater.get("/settings")
        assert rater.submit("/settings", {"fact-age": "30-44"}).json() == {
            "go": "/settings?saved=1"
        }
        assert "checked" not in re.findall(r'name="blur"[^>]*', rater.get("/settings").text)[0]
        fields = {"old": "not it at all", "new": "five other plain words"}
        assert rater.submit("/settings/phrase", fields).status_code == 422
        assert rater.submit("/settings/phrase", fields | {"old": PHRASE}).status_code == 200
        assert other_browser.get("/").url.path == "/sign-in"  # every other browser is signed out
        rater.get("/settings")
        assert rater.submit("/settings/delete", {"sure": "somebody"}).status_code == 422
        assert rater.submit("/settings/delete", {"sure": "mild-jay", "withdraw": "1"}).json() == {
            "go": "/goodbye"
        }
        assert rater.get("/").url.path == "/sign-in"
        other_browser.get("/sign-in")
        sign_in = other_browser.submit(
            "/sign-in", {"pseudonym": "mild-jay", "phrase": "five other plain words"}
        )
        assert sign_in.status_code == 422


def test_breaks_and_pauses(file_url: str) -> None:
    study = Study(raters=1, gold_every=0, break_after=0.5, exposure_budget=100)
    with run_site(file_url, MODELS, study) as site:
        redteamer, rater = (
            site.add_person("red-wren", "redteamer"),
            site.add_person("mild-jay", "rater"),
        )
        for _ in range(2):
            redteamer.complete_dialogue("hello")
        item = rater.submit("/review/next").json()["go"]
        assert rater.submit("/rest").json() == {"go": "/rest"}
        assert rater.client.get(item).status_code == 409  # the lease was released
        item = rater.submit("/review/next").json()["go"]
        assert rater.submit(item, {"grade-0": "5"}).json() == {"go": "/rest"}  # one point: a break
        assert "Take a break" in rater.text("/rest")
        rejected = rater.submit("/review/next")
        assert rejected.json() == {"go": "/rest"}
        blocked = redteamer.submit("/dialogues", {"key": "a" * 16})
        assert blocked.status_code in (200, 403)
