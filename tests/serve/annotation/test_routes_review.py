"""The rating queue over HTTP: claims, ratings, skips and leases."""

from __future__ import annotations

import time

from tests.serve.annotation.site import MODELS, run_site

from truing.annotation import queue
from truing.annotation.study import Study
from truing.serve.annotation.routes_review import MAX_RESPONSES, parse_assessment
from truing.serve.forms import FormData


def test_an_assessment_is_read_from_the_form() -> None:
    form = FormData(
        {
            "grade-0": ["4"],
            "grade-1": ["x"],
            "category": ["b", "a", "b"],
            "success": ["2"],
            "note": ["seen"],
        }
    )
    assessment = parse_assessment(form, 3)
    assert assessment.grades == (4, 0, 0)  # 0: no grade, which the queue rejects
    assert (assessment.categories, assessment.success) == (("b", "a"), 2)
    assert assessment.note == "seen"
    assert parse_assessment(FormData({}), 0).grades == ()


def test_an_empty_queue(file_url: str) -> None:
    with run_site(file_url) as site:
        rater = site.add_person("mild-jay", "rater")
        assert rater.submit("/review/next").json() == {"go": "/review"}
        assert "nothing to review" in rater.text("/review")
        assert rater.client.get("/review/none").status_code == 404
        for action in ("", "/skip", "/keep"):
            assert rater.submit(f"/review/none{action}", {"grade-0": "1"}).status_code == 404


def test_items_are_skipped_kept_and_rated(file_url: str) -> None:
    study = Study(
        raters=1, gold_every=0, lease_minutes=30, exposure_budget=10**6, break_after=10**6
    )
    with run_site(file_url, MODELS, study) as site:
        redteamer = site.add_person("red-wren", "redteamer")
        redteamer.complete_dialogue("first question")
        redteamer.complete_dialogue("second question")
        rater = site.add_person("mild-jay", "rater")
        assert "2" in rater.text("/review") and "items for you to review" in rater.text("/review")
        first = rater.submit("/review/next").json()["go"]
        page = rater.text(first)
        assert "first question" in page or "second question" in page
        assert "red-wren" not in page and "model-one" not in page
        kept = rater.submit(f"{first}/keep")
        assert kept.json().keys() == {"minutes"} and 0 < kept.json()["minutes"] <= 30
        second = rater.submit(f"{first}/skip").json()["go"]
        assert second.startswith("/review/") and second != first
        assert rater.client.get(first).status_code == 409
        for fields in ({}, {"grade-0": "6"}, {"grade-0": "1", "category": "elsewhere"}):
            assert rater.submit(second, fields).status_code == 422, fields
        assert rater.submit(second, {"grade-0": "2"}).json() == {"go": "/review"}
        progress = site.state.store.read(queue.count_progress)
        assert (progress["items"], progress["open"], progress["done"]) == (2, 1, 1)
        # A lease is its holder's alone.
        other = site.add_person("quick", "rater")
        item = other.submit("/review/next").json()["go"]
        assert rater.client.get(item).status_code == 404
        many = {f"grade-{n}": "1" for n in range(MAX_RESPONSES + 1)}
        assert other.submit(item, many).status_code == 422


def test_a_late_rating_is_stored_and_its_author_is_told(file_url: str) -> None:
    study = Study(
        raters=1, gold_every=0, lease_minutes=0.005, exposure_budget=10**6, break_after=10**6
    )
    with run_site(file_url, MODELS, study) as site:
        redteamer = site.add_person("red-wren", "redteamer")
        redteamer.complete_dialogue("hello")
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
