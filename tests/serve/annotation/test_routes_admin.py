"""Administration over HTTP: invitations, people, flags, the audit log."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from tests.serve.annotation.site import Visitor, run_site

from truing.annotation import overview, people
from truing.annotation.store import Transaction
from truing.serve.annotation.app_state import ServerLimits
from truing.serve.annotation.routes_admin import _invitation_link


def test_administration_of_invitations_and_people(file_url: str) -> None:
    with run_site(file_url) as site:
        admin, rater = site.add_person("boss-crane", "admin"), site.add_person("mild-jay", "rater")
        admin.get("/admin")
        response = admin.client.post(
            "/admin/invitations", data={"csrf": admin.csrf, "role": ["rater"], "note": "pilot"}
        )
        link = re.findall(r'value="(http[^"]+/join/[^"]+)"', response.text)[0]
        assert link.startswith(site.base)
        newcomer = Visitor(site.base)
        newcomer.join(link.removeprefix(site.base), "new-swift")
        assert newcomer.get("/").url.path == "/consent"
        person_ids = re.findall(r"/admin/people/([0-9a-f]+)/suspend", admin.get("/admin").text)
        assert len(person_ids) == 2  # an administrator cannot suspend themselves
        for id_ in person_ids:
            assert admin.submit(f"/admin/people/{id_}/suspend").json() == {"go": "/admin#people"}
        assert rater.get("/").url.path == "/sign-in"
        assert "suspended" in admin.get("/admin").text
        revoked = site.invite("rater")
        open_invitations = re.findall(
            r"/admin/invitations/([0-9a-f]+)/revoke", admin.get("/admin").text
        )
        assert admin.submit(f"/admin/invitations/{open_invitations[0]}/revoke").status_code == 200
        assert Visitor(site.base).get(revoked).status_code == 410


def test_an_invitation_needs_a_role(file_url: str) -> None:
    with run_site(file_url) as site:
        admin = site.add_person("boss-crane", "admin")
        admin.get("/admin")
        response = admin.submit("/admin/invitations", {"note": "pilot"})
        assert (response.status_code, response.json()["kind"]) == (422, "invalid")
        assert admin.submit("/admin/invitations/none/revoke").status_code == 404


@pytest.mark.parametrize(("https", "scheme"), [(False, "http"), (True, "https")])
def test_links_have_the_scheme_that_visitors_use(https: bool, scheme: str) -> None:
    request = SimpleNamespace(
        url=SimpleNamespace(scheme="http"), headers={"host": "study.example:8080"}
    )
    state = SimpleNamespace(limits=ServerLimits(https=https))
    session: Any = SimpleNamespace(request=request, state=state)
    assert _invitation_link(session, "abc") == f"{scheme}://study.example:8080/join/abc"


def test_a_flag_is_closed_with_what_was_done(file_url: str) -> None:
    with run_site(file_url) as site:
        store = site.state.store
        store.write(lambda tx: people.raise_flag(tx, "link used twice", "object", "the detail"))
        admin = site.add_person("boss-crane", "admin")
        assert "the detail" in admin.text("/admin") and "1 open flag" in " ".join(
            admin.text("/").split()
        )
        (flag,) = store.read(overview.list_flags)
        response = admin.submit(f"/admin/flags/{flag.id}", {"resolution": "asked them"})
        assert response.json() == {"go": "/admin#flags"}
        assert store.read(overview.list_flags) == []
        newest = store.read(lambda tx: overview.read_audit_log(tx, None, 1))[0]
        assert (newest.action, newest.object, newest.detail) == ("resolve", flag.id, "asked them")
        assert admin.submit("/admin/flags/none").status_code == 404


def test_the_audit_log_has_pages(file_url: str) -> None:
    def add_lines(tx: Transaction) -> None:
        for n in range(150):
            people.add_audit_entry(tx, None, "test", f"line-{n:03}")

    with run_site(file_url) as site:
        admin = site.add_person("boss-crane", "admin")
        site.state.store.write(add_lines)
        first = admin.get("/admin/audit").text
        assert re.findall(r"line-\d+", first) == [f"line-{n:03}" for n in range(149, 49, -1)]
        older = re.findall(r'href="(/admin/audit\?before=\d+)"', first)[0]
        second = admin.get(older).text
        assert re.findall(r"line-\d+", second) == [f"line-{n:03}" for n in range(49, -1, -1)]
        assert "before=" not in second
        # What is no number is ignored.
        for before in ("x", "-1", "9" * 18, "\u0663"):
            page = admin.get("/admin/audit", params={"before": before}).text
            assert re.findall(r"line-\d+", page)[0] == "line-149", before


def test_resetting_a_forgotten_phrase(file_url: str) -> None:
    with run_site(file_url) as site:
        admin, rater = site.add_person("boss-crane", "admin"), site.add_person("mild-jay", "rater")
        admin.get("/admin")
        response = admin.client.post("/admin/people/mild-jay/phrase", data={"csrf": admin.csrf})
        link = re.findall(r'value="(http[^"]+)(/join/[^"]+)"', response.text)[0][1]
        assert admin.submit("/admin/people/nobody/phrase").status_code == 404
        assert admin.submit("/admin/people/mild-jay/promote").status_code == 404
        visitor = Visitor(site.base)
        assert "A new pass phrase" in visitor.text(link) and "mild-jay" in visitor.text(link)
        short = visitor.client.post(
            link, data={"csrf": visitor.csrf, "pseudonym": "x", "phrase": "short", "again": "short"}
        )
        assert short.status_code == 422 and "10 to 200" in short.text
        fields = {
            "pseudonym": "ignored",
            "phrase": "five other plain words",
            "again": "five other plain words",
        }
        assert visitor.submit(link, fields).json() == {"go": "/"}
        assert "mild-jay" in visitor.text("/") and rater.get("/").url.path == "/sign-in"
