"""The pages over HTTP, as red-teamers, raters, adjudicators and administrators use them."""

from __future__ import annotations

import re

from tests.serve.annotation.site import MODELS, run_site

from truing.annotation import queue


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
