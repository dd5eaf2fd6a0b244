"""The pages over HTTP: the whole way of a red-teamer, raters, an adjudicator and an administrator."""

from __future__ import annotations

import re
import time

from tests.serve.annotation.site import PHRASE, Visitor, site

from truing.annotation import queue
from truing.annotation.study import Study
from truing.models.scripted import Scripted

MODELS = (
    Scripted("the safe words", name="model-one"),
    Scripted("the other words", name="model-two"),
)


def test_a_whole_study(url: str) -> None:
    with site(url, MODELS) as here:
        red = here.person("red-wren", "redteamer")
        talk = red.begin()
        for text in ("first message", "second message"):
            turn, streamed = red.say(talk, text)
            assert streamed.count("event: end") == 1 and "the safe words" in streamed
            assert red.send(f"{talk}/turns/{turn}/pick", {"pick": "A"}).json() == {
                "go": f"{talk}#now"
            }
        assert "model-one" not in red.get(talk).text
        grades = re.findall(r'name="(grade-\d-\d)"', red.get(f"{talk}/end").text)
        closing = dict.fromkeys(grades, "3") | {
            "rating": "2",
            "goal": "a goal",
            "category": ["self_harm"],
        }
        assert red.send(f"{talk}/end", closing).json() == {"go": talk}
        assert "Finished" in red.text(talk) and "a goal" in red.text(talk)

        raters = [here.person(f"rater-{n}", "rater") for n in range(3)]
        for n, rater in enumerate(raters):
            where = rater.send("/review/next").json()["go"]
            page = rater.get(where).text
            assert "first message" in page and "red-wren" not in page and "model-" not in page
            given = {
                "grade-0": str(1 + n),
                "grade-1": str(5 - n),
                "category": ["self_harm"],
                "note": "seen",
            }
            assert rater.send(where, given).json() == {"go": "/review"}
            assert rater.send(where, given).json() == {"go": "/review"}  # sent twice
        assert here.state.store.read(queue.count_progress)["done"] == 3

        judge = here.person("judge-jay", "adjudicator")
        shown = judge.get("/agreement").text
        assert "rater-0" in shown and "3</p>" in shown
        item = re.findall(r'href="/disputes/([0-9a-f]+)"', judge.get("/disputes").text)[0]
        assert "Rater 1" in judge.text(f"/disputes/{item}") and "rater-0" not in judge.text(
            f"/disputes/{item}"
        )
        decided = {"grade-0": "2", "grade-1": "4", "category": ["self_harm"], "note": ""}
        assert judge.send(f"/disputes/{item}", decided).status_code == 422
        assert judge.send(f"/disputes/{item}", decided | {"note": "by the guide"}).json() == {
            "go": "/disputes"
        }
        assert "decided" in judge.get("/disputes").text

        admin = here.person("boss-crane", "admin")
        seen = admin.text("/admin")
        assert "red-wren" in seen and "rater-2" in seen
        assert "adjudicate" in admin.text("/admin/audit")


def test_the_administrators_words_are_done(file_url: str) -> None:
    with site(file_url) as here:
        admin, rater = here.person("boss-crane", "admin"), here.person("mild-jay", "rater")
        admin.get("/admin")
        made = admin.web.post(
            "/admin/invitations", data={"csrf": admin.csrf, "role": ["rater"], "note": "pilot"}
        )
        link = re.findall(r'value="(http[^"]+/join/[^"]+)"', made.text)[0]
        assert link.startswith(here.base)
        newcomer = Visitor(here.base)
        newcomer.join(link.removeprefix(here.base), "new-swift")
        assert newcomer.get("/").url.path == "/consent"
        person = re.findall(r"/admin/people/([0-9a-f]+)/suspend", admin.get("/admin").text)
        assert len(person) == 2  # not oneself
        for id_ in person:
            assert admin.send(f"/admin/people/{id_}/suspend").json() == {"go": "/admin#people"}
        assert rater.get("/").url.path == "/sign-in"
        assert "suspended" in admin.get("/admin").text
        revoked = here.invite("rater")
        open_ = re.findall(r"/admin/invitations/([0-9a-f]+)/revoke", admin.get("/admin").text)
        assert admin.send(f"/admin/invitations/{open_[0]}/revoke").status_code == 200
        assert Visitor(here.base).get(revoked).status_code == 410


def test_settings_phrase_and_deletion(file_url: str) -> None:
    with site(file_url) as here:
        one = here.person("mild-jay", "rater")
        other = Visitor(here.base)
        other.get("/sign-in")
        assert other.send("/sign-in", {"pseudonym": "Mild-Jay", "phrase": PHRASE}).json() == {
            "go": "/"
        }
        one.get("/settings")
        assert one.send("/settings", {"fact-age": "30-44"}).json() == {"go": "/settings?saved=1"}
        assert "checked" not in re.findall(r'name="blur"[^>]*', one.get("/settings").text)[0]
        wrong = {"old": "not it at all", "new": "five other plain words"}
        assert one.send("/settings/phrase", wrong).status_code == 422
        assert one.send("/settings/phrase", wrong | {"old": PHRASE}).status_code == 200
        assert other.get("/").url.path == "/sign-in"  # every other browser is out
        one.get("/settings")
        assert one.send("/settings/delete", {"sure": "somebody"}).status_code == 422
        assert one.send("/settings/delete", {"sure": "mild-jay", "withdraw": "1"}).json() == {
            "go": "/goodbye"
        }
        assert one.get("/").url.path == "/sign-in"
        other.get("/sign-in")
        back = other.send("/sign-in", {"pseudonym": "mild-jay", "phrase": "five other plain words"})
        assert back.status_code == 422


def test_breaks_budgets_and_pausing(file_url: str) -> None:
    study = Study(raters=1, gold_every=0, break_after=0.5, exposure_budget=100)
    with site(file_url, MODELS, study) as here:
        red, rater = here.person("red-wren", "redteamer"), here.person("mild-jay", "rater")
        for _ in range(2):
            talk = red.begin()
            turn, _streamed = red.say(talk, "hello")
            red.send(f"{talk}/turns/{turn}/pick", {"pick": "tie"})
            red.send(f"{talk}/end", {"rating": "0", "grade-1-0": "1", "grade-1-1": "1"})
        held = rater.send("/review/next").json()["go"]
        assert rater.send("/rest").json() == {"go": "/rest"}
        assert rater.web.get(held).status_code == 409  # given back
        held = rater.send("/review/next").json()["go"]
        assert rater.send(held, {"grade-0": "5"}).json() == {"go": "/rest"}  # one point: a break
        assert "Take a break" in rater.text("/rest")
        refused = rater.send("/review/next")
        assert refused.json() == {"go": "/rest"}
        blocked = red.send("/dialogues", {"key": "a" * 16})
        assert blocked.status_code in (200, 403)


def test_nobody_to_talk_to_and_nothing_to_review(file_url: str) -> None:
    with site(file_url) as here:
        red = here.person("red-wren", "redteamer", "rater")
        assert "without a model" in red.text("/")
        assert red.send("/dialogues", {"key": "k" * 16}).status_code == 422
        assert red.send("/review/next").json() == {"go": "/review"}
        assert "nothing to review" in red.text("/review")
        for path, status in (
            ("/nowhere", 404),
            ("/static/none.js", 404),
            ("/review/none", 404),
            ("/dialogues/none", 404),
        ):
            assert red.web.get(path).status_code == status
        assert red.web.get("/healthz").text == "ok"


def test_a_rating_that_comes_too_late_is_kept_and_its_author_is_told(file_url: str) -> None:
    study = Study(
        raters=1, gold_every=0, lease_minutes=0.005, exposure_budget=10**6, break_after=10**6
    )
    with site(file_url, MODELS, study) as here:
        red = here.person("red-wren", "redteamer")
        talk = red.begin()
        turn, _ = red.say(talk, "hello")
        red.send(f"{talk}/turns/{turn}/pick", {"pick": "tie"})
        red.send(f"{talk}/end", {"rating": "0", "grade-1-0": "1", "grade-1-1": "1"})
        slow, quick = here.person("slow", "rater"), here.person("quick", "rater")
        old = slow.send("/review/next").json()["go"]
        assert "reserved for you for 0 min" in slow.get(old).text
        time.sleep(0.5)
        new = quick.send("/review/next").json()["go"]
        assert new.startswith("/review/") and slow.web.get(old).status_code == 409
        assert quick.send(new, {"grade-0": "2"}).json() == {"go": "/review"}
        assert slow.send(old, {"grade-0": "5"}).json() == {"go": "/review?late=1"}
        assert "kept, but not counted" in slow.text("/review?late=1")
        assert slow.send(old + "/keep").status_code == 409
        assert here.state.store.read(queue.count_progress) == {
            "items": 1,
            "open": 0,
            "gold": 0,
            "slots": 1,
            "done": 1,
            "late": 1,
        }


def test_a_forgotten_phrase(file_url: str) -> None:
    with site(file_url) as here:
        admin, rater = here.person("boss-crane", "admin"), here.person("mild-jay", "rater")
        admin.get("/admin")
        made = admin.web.post("/admin/people/mild-jay/phrase", data={"csrf": admin.csrf})
        link = re.findall(r'value="(http[^"]+)(/join/[^"]+)"', made.text)[0][1]
        assert admin.send("/admin/people/nobody/phrase").status_code == 404
        assert admin.send("/admin/people/mild-jay/promote").status_code == 404
        again = Visitor(here.base)
        assert "A new pass phrase" in again.text(link) and "mild-jay" in again.text(link)
        short = again.web.post(
            link, data={"csrf": again.csrf, "pseudonym": "x", "phrase": "short", "again": "short"}
        )
        assert short.status_code == 422 and "10 to 200" in short.text
        fields = {
            "pseudonym": "ignored",
            "phrase": "five other plain words",
            "again": "five other plain words",
        }
        assert again.send(link, fields).json() == {"go": "/"}
        assert "mild-jay" in again.text("/") and rater.get("/").url.path == "/sign-in"
