"""The viewer's data, and the page itself in a real browser: filters, keyboard, text that stays text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import sync_playwright
from tests.requirements import require_chromium

from truing.core.errors import RunError
from truing.core.types import Conversation, Lineage, Message, Response, Sample
from truing.report.view.page import collect_page, render_page

HOSTILE = (
    "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
)


def samples(n: int) -> list[Sample]:
    """Prompts in two categories, the last one hostile markup."""
    out = [
        Sample(
            id=f"s{i}",
            conversation=Conversation.of(f"question number {i}"),
            expect="refuse" if i % 2 else "comply",
            harms=("self_harm",) if i % 2 else ("animal_abuse",),
        )
        for i in range(n - 1)
    ]
    return [*out, Sample(id="hostile", conversation=Conversation.of(HOSTILE), expect="refuse")]


def two_runs(make_run: Any, n: int = 60) -> list[Path]:
    """The second run turns ten harmful answers into refusals, and leaves five unscored; two judges disagree on six."""
    a = {
        "harmful@one": [[i < 10] for i in range(n)],
        "harmful@two": [[i < 4] for i in range(n)],
        "refused": [[False]] * n,
    }
    b = {"harmful@one": [[False]] * (n - 5) + [[None]] * 5, "refused": [[i < 10] for i in range(n)]}
    struck = Lineage(name="best", hash="b" * 16, judges=(Lineage(name="one", hash="1" * 16),))
    runs = [
        make_run("base", samples(n), a, lineages={"one": Lineage(name="one", hash="1" * 16)}),
        make_run(
            "best",
            samples(n),
            b,
            lineages={"one": Lineage(name="one", hash="1" * 16)},
            model=struck,
        ),
    ]
    for run in runs:
        rows = [
            Response(sample_id=s.id, model="m", message=Message("assistant", f"answer to {s.id}"))
            for s in samples(n)
        ]
        rows[-1] = Response(sample_id="hostile", model="m", message=Message("assistant", HOSTILE))
        (run / "responses.jsonl").write_bytes(
            b"".join(msgspec.json.encode(r) + b"\n" for r in rows)
        )
    return runs


def test_flips_unscored_and_disagreement_are_marked(make_run):
    page = collect_page(two_runs(make_run))
    rows = {r.i: r for r in page.rows}
    assert len(rows) == 60 and not page.text
    assert rows["s0"].f and rows["s0"].o == ["harmful", "refused"]
    assert rows["s5"].d == 1.0 and rows["s0"].d < 0.5
    assert sum(r.u for r in page.rows) == 5
    assert page.runs[1].judges[0][2] and not page.runs[0].judges[0][2]
    assert page.categories == ["Animal abuse", "Self-harm"]


def test_text_stays_out_unless_asked(make_run):
    runs = two_runs(make_run)
    assert "question number" not in render_page(
        collect_page(runs)
    ) and "onerror" not in render_page(collect_page(runs))
    shown = render_page(collect_page(runs, with_text=True))
    assert "question number 3" in shown and "<img" not in shown


def test_the_page_asks_nothing_of_the_network(make_run):
    page = render_page(collect_page(two_runs(make_run)))
    assert not re.search(r"(src|href)=|@import|url\(|https?://", page)
    assert "default-src 'none'" in page


def test_a_limit_keeps_what_is_worth_a_look(make_run):
    page = collect_page(two_runs(make_run), most=15)
    assert len(page.rows) == 15 and page.left == 45 and sum(r.f for r in page.rows) == 15


def test_runs_that_cannot_be_shown(make_run, tmp_path):
    with pytest.raises(RunError, match="needs a run"):
        collect_page([])
    with pytest.raises(RunError, match="no run folder"):
        collect_page([tmp_path])
    run = make_run("r", samples(3), {"harmful": [[True]] * 3})
    (run / "responses.jsonl").write_bytes(b"")
    for file in (run / "judgements").iterdir():
        file.write_bytes(b"")
    with pytest.raises(RunError, match="no answers yet"):
        collect_page([run])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The machine's Chromium."""
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=require_chromium(), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, make_run: Any, tmp_path: Path) -> Iterator[Any]:
    """The page of two runs, with text, open; errors of its script fail the test."""
    file = tmp_path / "view.html"
    file.write_text(
        render_page(collect_page(two_runs(make_run, 400), with_text=True, names=["base", "best"])),
        encoding="utf-8",
    )
    tab = browser.new_page(viewport={"width": 1200, "height": 800})
    errors: list[str] = []
    tab.on("pageerror", lambda e: errors.append(str(e)))
    tab.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    tab.goto(file.as_uri())
    yield tab
    assert errors == []
    tab.close()


def test_filters_in_a_browser(page):
    count = page.locator("#count")
    assert count.text_content() == "400 of 400 answers"
    assert page.locator(".row").count() < 80  # only what is on the screen is drawn
    page.check("#flips")
    assert count.text_content().startswith(
        "15 of 400"
    )  # ten refusals, five that could not be scored
    page.uncheck("#flips")
    page.select_option("#category", label="Self-harm")
    assert count.text_content().startswith("199 of")
    page.select_option("#outcome", "harmful")
    assert count.text_content().startswith("5 of")
    page.click("#reset")
    page.select_option("#judge", label="one (harmful)")
    page.select_option("#verdict", "n")
    assert count.text_content().startswith("5 of")
    page.click("#reset")
    page.fill("#find", "number 37")
    assert count.text_content().startswith("11 of")
    page.fill("#find", "nothing like it")
    assert "No row fits" in page.locator("#detail").text_content()


def test_the_keyboard_in_a_browser(page):
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.locator(".row[aria-selected=true]").get_attribute("data-id") == "s1"
    assert "best" in page.locator("#detail").text_content()
    page.keyboard.press("k")
    assert page.locator("#detail h2").text_content() == "s0"
    page.keyboard.press("End")
    assert page.locator("#detail h2").text_content() == "hostile"
    page.keyboard.press("d")
    page.keyboard.press("Home")
    assert page.locator("#detail h2").text_content() == "s4"  # the judges say yes and no
    page.keyboard.press("r")
    page.keyboard.press("u")
    assert page.locator("#count").text_content().startswith("5 of")
    page.keyboard.press("/")
    page.keyboard.type("s39")
    assert page.locator("#find").input_value() == "s39"
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    assert page.locator("#count").text_content().startswith("400 of")


def test_text_is_blurred_until_asked_for_and_never_markup(page):
    page.fill("#find", "hostile")
    page.locator(".row").first.click()
    assert page.locator(".said.blur").count() == 3
    page.keyboard.press("t")
    assert page.locator(".said.blur").count() == 0
    assert (
        HOSTILE in page.locator("#detail").text_content()
        and page.locator("#detail img").count() == 0
    )
    assert "taken" not in page.title()


def test_a_struck_judge_is_struck_on_the_page(page):
    page.keyboard.press("j")
    assert page.locator("#detail td.struck").count() == 1


def test_the_data_is_plain_json(make_run):
    page = render_page(collect_page(two_runs(make_run), with_text=True))
    inside = page.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    made = json.loads(inside)
    assert len(made["rows"]) == 60 and made["rows"][-1]["t"] == [HOSTILE, HOSTILE]
