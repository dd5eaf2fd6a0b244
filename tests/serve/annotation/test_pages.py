"""The pages over HTTP, as red-teamers, raters, adjudicators and administrators use them."""

from __future__ import annotations

import re
import time

from tests.serve.annotation.site import PHRASE, Visitor, run_site

from truing.annotation import queue
from truing.annotation.study import Study
from truing.models.scripted import ScriptedModel

MODELS = (
    ScriptedModel("the safe words", name="model-one"),
    ScriptedModel("the other words", name="model-two"),
)


def test_a_whole_study_over_http(url: str) -> None:
    with run_site(url, MODELS) as site:
        redteamer = site.add_person("red-wren", "redteamer")
        dialogue = redteamer.start_dialogue()
        for message in ("first message", "second message"):
            turn, streamed = redteamer.send_message(dialogue, message)
            assert streamed.count("event: end") == 1 and "the safe words" in streamed
            assert redteamer.submit(f"{dialogue}/turns/{turn}/pick", {"pick": "A"}).json() == {
                "go": f"{dialogue}#now"
            }
        assert "model-one" not in redteamer.get(dialogue).text
        grades = re.findall(r'name="(grade-\d-\d)"', redteamer.get(f"{dialogue}/end").text)
        closing = dict.fromkeys(grades, "3") | {
            "rating": "2",
            "goal": "a goal",
            "category": ["self_harm"],
        }
        assert redteamer.submit(f"{dialogue}/end", closing).json() == {"go": dialogue}
        assert "Finished" in redteamer.text(dialogue) and "a goal" in redteamer.text(dialogue)

        raters = [site.add_person(f"rater-{n}", "rater") for n in range(3)]
        for n, rater in enumerate(raters):
            path = rater.submit("/review/next").json()["go"]
            page = rater.get(path).text
            assert "first message" in page and "red-wren" not in page and "model-" not in page
            rating = {
                "grade-0": str(1 + n),
                "grade-1": str(5 - n),
                "category": ["self_harm"],
                "note": "seen",
            }
            assert rater.submit(path, rating).json() == {"go": "/review"}
            assert rater.submit(path, rating).json() == {"go": "/review"}  # a repeated submission
        assert site.state.store.read(queue.count_progress)["done"] == 3

        judge = site.add_person("judge-jay", "adjudicator")
        page = judge.get("/agreement").text
        assert "rater-0" in page and "3</p>" in page
        item = re.findall(r'href="/disputes/([0-9a-f]+)"', judge.get("/disputes").text)[0]
        assert "Rater 1" in judge.text(f"/disputes/{item}") and "rater-0" not in judge.text(
            f"/disputes/{item}"
        )
        decision = {"grade-0": "2", "grade-1": "4", "category": ["self_harm"], "note": ""}
        assert judge.submit(f"/disputes/{item}", decision).status_code == 422
        assert judge.submit(f"/disputes/{item}", decision | {"note": "by the guide"}).json() == {
            "go": "/disputes"
        }
        assert "decided" in judge.get("/disputes").text

        admin = site.add_person("boss-crane", "admin")
        page = admin.text("/admin")
        assert "red-wren" in page and "rater-2" in page
        assert "adjudicate" in admin.text("/admin/audit")


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
            dialogue = redteamer.start_dialogue()
            turn, _streamed = redteamer.send_message(dialogue, "hello")
            redteamer.submit(f"{dialogue}/turns/{turn}/pick", {"pick": "tie"})
            redteamer.submit(f"{dialogue}/end", {"rating": "0", "grade-1-0": "1", "grade-1-1": "1"})
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


def test_a_server_without_models_and_items(file_url: str) -> None:
    with run_site(file_url) as site:
        redteamer = site.add_person("red-wren", "redteamer", "rater")
        assert "without a model" in redteamer.text("/")
        assert redteamer.submit("/dialogues", {"key": "k" * 16}).status_code == 422
        assert redteamer.submit("/review/next").json() == {"go": "/review"}
        assert "nothing to review" in redteamer.text("/review")
        for path, status in (
            ("/nowhere", 404),
            ("/static/none.js", 404),
            ("/review/none", 404),
            ("/dialogues/none", 404),
        ):
            assert redteamer.client.get(path).status_code == status
        assert redteamer.client.get("/healthz").text == "ok"


def test_a_late_rating_is_stored_and_its_author_is_told(file_url: str) -> None:
    study = Study(
        raters=1, gold_every=0, lease_minutes=0.005, exposure_budget=10**6, break_after=10**6
    )
    with run_site(file_url, MODELS, study) as site:
        redteamer = site.add_person("red-wren", "redteamer")
        dialogue = redteamer.start_dialogue()
        turn, _ = redteamer.send_message(dialogue, "hello")
        redteamer.submit(f"{dialogue}/turns/{turn}/pick", {"pick": "tie"})
        redteamer.submit(f"{dialogue}/end", {"rating": "0", "grade-1-0": "1", "grade-1-1": "1"})
        slow_rater, quick_rater = (
            site.add_person("slow", "rater"),
            site.add_person("quick", "rater"),
        )
        late_item = slow_rater.submit("/review/next").json()["go"]
        assert "reserved for you for 0 min" in slow_rater.get(late_item).text
        time.sleep(0.5)
        next_item = quick_rater.submit("/review/next").json()["go"]
        assert (
            next_item.startswith("/review/") and slow_rater.client.get(late_item).status_code == 409
        )
        assert quick_rater.submit(next_item, {"grade-0": "2"}).json() == {"go": "/review"}
        assert slow_rater.submit(late_item, {"grade-0": "5"}).json() == {"go": "/review?late=1"}
        assert "kept, but not counted" in slow_rater.text("/review?late=1")
        assert slow_rater.submit(late_item + "/keep").status_code == 409
        assert site.state.store.read(queue.count_progress) == {
            "items": 1,
            "open": 0,
            "gold": 0,
            "slots": 1,
            "done": 1,
            "late": 1,
        }


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
