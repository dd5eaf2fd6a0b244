"""Every route by every role: who gets what. A route that is not in the table fails the test.

The objects in the paths belong to somebody else, so an allowed role gets 404 for another person's
dialogue, turn and lease. Every form without its CSRF token is rejected, and no GET changes anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from tests.annotation.databases import database
from tests.annotation.test_erasure import dump
from tests.serve.annotation.site import Site, Visitor, run_site

from truing.annotation.study import Study
from truing.annotation.tables import ReviewItem
from truing.models.scripted import ScriptedModel
from truing.serve.annotation.app import create_app
from truing.serve.annotation.app_state import ServerLimits
from truing.serve.page_headers import SECURITY_HEADERS

# `newcomer` has every role but that of an administrator, and has not consented yet.
ROLES = ("nobody", "newcomer", "redteamer", "rater", "adjudicator", "admin")


class Rule:
    """Who may use a route: `allowed` roles get `status`; the others are rejected."""

    def __init__(self, status: int, *allowed: str, **form: Any) -> None:
        self.status, self.allowed, self.form = status, allowed, form

    def expected_status(self, role: str) -> int:
        if "everybody" in self.allowed or (role != "nobody" and "signed in" in self.allowed):
            return self.status
        if role == "nobody":
            return 401
        return self.status if role in self.allowed else 403


OTHER = 404  # an allowed role, but the object is another person's or does not exist
RULES = {
    "GET /static/{name:str}": Rule(200, "everybody"),
    "GET /healthz": Rule(200, "everybody"),
    "GET /sign-in": Rule(200, "everybody"),
    "POST /sign-in": Rule(422, "everybody", pseudonym="nobody-here", phrase="a wrong phrase"),
    "GET /join/{token:str}": Rule(OTHER, "everybody"),
    "POST /join/{token:str}": Rule(OTHER, "everybody"),
    "GET /": Rule(200, "everybody"),
    "GET /help": Rule(200, "everybody"),
    "GET /goodbye": Rule(200, "everybody"),
    "GET /consent": Rule(200, "signed in"),
    "POST /consent": Rule(422, "signed in", category="no category"),
    "GET /settings": Rule(200, "signed in"),
    "POST /settings": Rule(200, "signed in", blur="1"),
    "POST /settings/phrase": Rule(422, "signed in", old="a wrong phrase", new="another phrase"),
    "POST /settings/delete": Rule(422, "signed in", sure="somebody else"),
    "GET /rest": Rule(200, "signed in"),
    "POST /rest": Rule(200, "signed in"),
    "POST /dialogues": Rule(422, "redteamer"),
    "GET /dialogues/{dialogue:str}": Rule(OTHER, "redteamer"),
    "POST /dialogues/{dialogue:str}/say": Rule(OTHER, "redteamer", message="hello"),
    "GET /dialogues/{dialogue:str}/turns/{turn:str}/stream": Rule(OTHER, "redteamer"),
    "POST /dialogues/{dialogue:str}/turns/{turn:str}/pick": Rule(OTHER, "redteamer", pick="A"),
    "GET /dialogues/{dialogue:str}/end": Rule(OTHER, "redteamer"),
    "POST /dialogues/{dialogue:str}/end": Rule(OTHER, "redteamer", rating="1"),
    "POST /dialogues/{dialogue:str}/leave": Rule(OTHER, "redteamer"),
    "GET /review": Rule(200, "rater"),
    "POST /review/next": Rule(200, "rater"),
    "GET /review/{token:str}": Rule(OTHER, "rater"),
    "POST /review/{token:str}": Rule(OTHER, "rater", **{"grade-0": "1"}),
    "POST /review/{token:str}/skip": Rule(OTHER, "rater"),
    "POST /review/{token:str}/keep": Rule(OTHER, "rater"),
    "GET /agreement": Rule(200, "adjudicator", "admin"),
    "GET /disputes": Rule(200, "adjudicator"),
    "GET /disputes/{item_id:str}": Rule(200, "adjudicator"),
    "POST /disputes/{item_id:str}": Rule(422, "adjudicator", **{"grade-0": "1"}),
    "GET /admin": Rule(200, "admin"),
    "GET /admin/audit": Rule(200, "admin"),
    "POST /admin/invitations": Rule(422, "admin"),
    "POST /admin/invitations/{invitation:str}/revoke": Rule(OTHER, "admin"),
    "POST /admin/people/{name:str}/phrase": Rule(OTHER, "admin"),
    "POST /admin/people/{person:str}/{change:str}": Rule(OTHER, "admin"),
    "POST /admin/flags/{flag:str}": Rule(OTHER, "admin"),
    # Last, because it ends the login.
    "POST /sign-out": Rule(200, "signed in"),
}


class RunningStudy:
    """A running study with one person for each role, and an owner of every object."""

    def __init__(self, site: Site) -> None:
        self.site = site
        owner = site.add_person("owner-wren", "redteamer", "rater")
        earlier = site.add_person("early-jay", "redteamer")
        earlier.complete_dialogue("hello"), earlier.complete_dialogue("hello again")
        dialogue = owner.start_dialogue()
        turn, _ = owner.send_message(dialogue, "hello")
        lease = owner.submit("/review/next").json()["go"]
        self.visitors = {"nobody": Visitor(site.base)}
        for role in ROLES[2:]:
            self.visitors[role] = site.add_person(f"one-{role}", role)
        text_roles = ("redteamer", "rater", "adjudicator")
        self.visitors["newcomer"] = site.add_person("new-comer", *text_roles, consent=False)
        self.parameters = {
            "name": "app.js",
            "token": lease.rsplit("/", 1)[1],
            "dialogue": dialogue.rsplit("/", 1)[1],
            "turn": turn,
            "item_id": site.state.store.read(lambda tx: tx.session.scalar(select(ReviewItem.id))),
        }
        for visitor in self.visitors.values():
            visitor.get("/help"), visitor.get("/sign-in"), visitor.get("/settings")

    def send(self, route: str, role: str, *, csrf: bool = True) -> httpx.Response:
        """Sends the request of the table by a role, as the pages' script does."""
        method, template = route.split(" ")
        path = re.sub(r"\{(\w+):str\}", lambda m: self.parameters.get(m[1], "no-such-id"), template)
        visitor, headers = self.visitors[role], {"x-fetch": "1"}
        if method == "GET":
            return visitor.client.get(path, headers=headers)
        fields = dict(RULES[route].form) | ({"csrf": visitor.csrf} if csrf else {})
        return visitor.client.post(path, data=fields, headers=headers)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudy]:
    settings = Study(raters=2, gold_every=0, exposure_budget=10**6, break_after=10**6)
    limits = ServerLimits(requests_per_minute=10_000, sign_ins_per_minute=10_000)
    models = [ScriptedModel("words", name="model")]
    with (
        database("sqlite", tmp_path_factory.mktemp("study")) as url,
        run_site(url, models, settings, limits) as site,
    ):
        yield RunningStudy(site)


def test_the_table_names_every_route(study: RunningStudy) -> None:
    app = create_app(study.site.state)
    methods = {"GET", "POST", "PUT", "PATCH", "DELETE"}
    routes = {f"{m} {r.path}" for r in app.routes for m in set(getattr(r, "methods", ())) & methods}
    assert routes == set(RULES)


def test_no_get_request_changes_anything(study: RunningStudy) -> None:
    before = dump(study.site.state.store)
    for route in (route for route in RULES if route.startswith("GET")):
        for role in ROLES:
            study.send(route, role)
    assert dump(study.site.state.store) == before


def test_a_form_without_its_token_is_rejected_and_changes_nothing(study: RunningStudy) -> None:
    before = dump(study.site.state.store)
    answers = {}
    for route in (route for route in RULES if route.startswith("POST")):
        for role in ROLES:
            answer = study.send(route, role, csrf=False)
            if RULES[route].expected_status(role) not in (401, 403):
                answers[route, role] = (answer.status_code, answer.json()["kind"])
            else:
                assert answer.status_code in (401, 403), (route, role)
    assert len(answers) > 40 and set(answers.values()) == {(403, "form")}
    assert dump(study.site.state.store) == before


def test_ids_of_other_people_and_ids_that_do_not_exist_get_the_same_answer(
    study: RunningStudy,
) -> None:
    def answers() -> dict[str, tuple[int, str]]:
        by_route = {}
        for route, rule in RULES.items():
            if rule.status == OTHER:
                role = "nobody" if "everybody" in rule.allowed else rule.allowed[0]
                answer = study.send(route, role)
                by_route[route] = (answer.status_code, answer.text)
        return by_route

    parameters = study.parameters
    existing = answers()
    study.parameters = {}
    try:
        assert answers() == existing
    finally:
        study.parameters = parameters
    assert {status for status, _ in existing.values()} == {404} and len(existing) == 17


def test_every_role_gets_what_the_table_says(study: RunningStudy) -> None:
    differences, headers = {}, {name.decode() for name in SECURITY_HEADERS}
    for route, rule in RULES.items():
        for role in ROLES:
            answer = study.send(route, role)
            if answer.status_code != rule.expected_status(role):
                differences[route, role] = (answer.status_code, rule.expected_status(role))
            assert headers <= set(answer.headers), (route, role)
            stored = answer.headers["cache-control"]
            assert stored == "no-store" or route == "GET /static/{name:str}", route
            for cookie in answer.headers.get_list("set-cookie"):
                flags = cookie.lower()
                assert "httponly" in flags and "samesite=lax" in flags and "path=/" in flags, route
    assert differences == {}
