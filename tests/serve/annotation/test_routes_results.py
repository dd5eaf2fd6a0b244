"""The agreement page, its cache, and adjudication over HTTP."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from tests.serve.annotation.site import MODELS, run_site

from truing.annotation.agreement import load_ratings
from truing.annotation.store import open_store
from truing.annotation.study import Study
from truing.serve.annotation.app_state import AppState
from truing.serve.annotation.routes_results import AgreementCache


def test_the_summary_is_computed_again_only_after_a_new_rating(
    file_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(file_url)
    state = AppState(store)
    versions = [(3, 1.0), (3, 1.0), (4, 1.0), (4, 2.0), (4, 2.0)]
    computed: list[Any] = []

    async def measure(work: Any, *args: Any) -> int:
        computed.append(args)
        return len(computed)

    async def read(work: Any) -> Any:
        return store.read(work) if work is load_ratings else versions.pop(0)

    monkeypatch.setattr(state, "run_in_slow_pool", measure)
    monkeypatch.setattr(state, "read", read)

    async def read_summaries() -> list[Any]:
        cache = AgreementCache()
        return [await cache.get(state) for _ in range(5)]

    assert asyncio.run(read_summaries()) == [1, 1, 2, 3, 3]
    assert computed[0][1] == state.study.categories().ids
    store.close()


def test_an_empty_study_has_no_disputes(file_url: str) -> None:
    with run_site(file_url) as site:
        judge = site.add_person("judge-jay", "adjudicator")
        assert "There are no disagreements at present." in judge.text("/disputes")
        assert judge.client.get("/agreement").status_code == 200
        assert judge.client.get("/disputes/none").status_code == 404
        decision = {"grade-0": "2", "note": "by the guide"}
        assert judge.submit("/disputes/none", decision).status_code == 404


def test_a_decision_is_stored_beside_the_ratings(file_url: str) -> None:
    study = Study(raters=2, gold_every=0, exposure_budget=10**6, break_after=10**6)
    with run_site(file_url, MODELS, study) as site:
        site.add_person("red-wren", "redteamer").complete_dialogue("hello")
        for name, grade in (("rater-a", "1"), ("rater-b", "5")):
            rater = site.add_person(name, "rater")
            item = rater.submit("/review/next").json()["go"]
            assert rater.submit(item, {"grade-0": grade}).status_code == 200
        judge = site.add_person("judge-jay", "adjudicator")
        page = judge.get("/disputes").text
        assert "1 open" in page
        path = re.findall(r'href="(/disputes/[0-9a-f]+)"', page)[0]
        dispute = judge.get(path).text
        assert re.findall(r'<b class="g(\d)">', dispute) in (["1", "5"], ["5", "1"])
        assert "rater-a" not in dispute and "Decide" in dispute
        # Without a grade, and without a reason.
        for fields in ({"note": "by the guide"}, {"grade-0": "2", "note": " "}):
            assert judge.submit(path, fields).status_code == 422, fields
        decision = {"grade-0": "2", "note": "by the guide"}
        assert judge.submit(path, decision).json() == {"go": "/disputes"}
        assert "0 open" in judge.text("/disputes")
        decided = judge.text(path)
        assert "Change the decision" in decided
        assert 'value="by the guide"' in judge.get(path).text
        second = site.add_person("judge-owl", "adjudicator")
        assert "Decided by another adjudicator." in second.text(path)
        ratings = site.state.store.read(load_ratings)
        assert sorted(ratings.grades.values()) == [1, 5]
