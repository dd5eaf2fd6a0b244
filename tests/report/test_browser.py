"""A report in a real browser: desktop, phone, dark, paper; what a reader can do, and axe-core."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pypdf
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright
from tests.requirements import require_chromium

import truing
from truing.report.assembly import ReportOptions, assemble_report
from truing.report.pdf import write_pdf
from truing.report.render import write_report

pytestmark = pytest.mark.slow

DEVICES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "dark phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}
OPEN_ALL = "document.querySelectorAll('details').forEach((d) => { d.open = true; })"


def share_of(text: str) -> float:
    """Returns a number in [0, 1) that depends on a text alone."""
    return zlib.crc32(text.encode()) / 2**32


def judge_one(prompt: str, answer: str) -> bool:
    return share_of(prompt + answer[:20]) < 0.3


def judge_two(prompt: str, answer: str) -> bool:
    return share_of(answer[:20] + prompt) < 0.2


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on four variants of two data sets; one of them was chosen by the judge of harm."""
    folder = tmp_path_factory.mktemp("runs")
    harm = truing.judge(judge_one)
    models = {
        "plain": truing.model("scripted:mixed"),
        "a variant with a long name": truing.model("scripted:comply"),
        "never": truing.model("scripted:refuse"),
        "chosen": truing.best_of(truing.model("scripted:mixed"), n=2, by=harm),
    }
    judges = [harm, judge_two, "rules:refusal", "rules:degenerate"]
    runs: dict[str, dict[str, Path]] = {}
    for name, model in models.items():
        safety = truing.evaluate(model, "builtin:safety", judges, folder / name / "safety")
        runs[name] = {"safety": safety.path}
    honest = truing.evaluate(
        models["plain"], "builtin:honest", "rules:abstains", folder / "plain" / "honest"
    )
    runs["plain"]["honest"] = honest.path
    report = assemble_report(runs, ReportOptions(title="A report", baseline="plain"))
    assert report.with_text
    return write_report(report, folder)["html"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=require_chromium())
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Any, page_file: Path) -> Iterator[Any]:
    """`open_page(**context)` returns the report in a new context; faults of scripts fail the test."""
    contexts = []
    faults: list[str] = []

    def open_(anchor: str = "", **context: Any) -> Any:
        contexts.append(browser.new_context(offline=True, **context))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.goto(page_file.as_uri() + anchor)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert faults == []


@pytest.mark.parametrize("device", DEVICES)
def test_the_page_fits_its_screen_and_has_no_serious_fault_of_access(
    open_page: Any, device: str
) -> None:
    axe = Axe()
    page = open_page(**DEVICES[device])
    for opened in (False, True):
        if opened:
            page.evaluate(OPEN_ALL)
        widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1]
        violations = axe.run(page).response["violations"]
        serious = {
            v["id"]: [node["target"] for node in v["nodes"]]
            for v in violations
            if v["impact"] in ("serious", "critical")
        }
        assert serious == {}


def test_the_first_screen_answers_three_questions(open_page: Any) -> None:
    page = open_page(**DEVICES["desktop"])
    assert page.locator(".card h3").all_inner_texts() == [
        "Is it safe enough?",
        "Did it get safer?",
        "Did it stay useful?",
    ]
    for card in page.locator(".card").all():
        assert card.bounding_box()["y"] < 900
        assert card.locator(".badge").inner_text() in ("Yes", "No", "Not shown")
        assert card.locator(".badge svg").count() == 1
    assert page.locator("details.fold[open]").count() == 0
    # Where the judge that chose a variant is quoted, it is named below the table.
    assert "Struck: chosen" not in page.locator("#headline").inner_text()
    struck = page.locator("#changes .note").filter(has_text="Struck: ")
    assert "judge_one" in struck.first.text_content()


def test_on_a_phone_each_figure_is_a_card(open_page: Any) -> None:
    page = open_page(**DEVICES["phone"])
    rows = page.locator("table.stacked tbody tr")
    for row in rows.all():
        box = row.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        assert box["height"] < 400
    label = rows.first.locator("td").first.evaluate("e => getComputedStyle(e, '::before').content")
    assert "plain" in label


def test_hover_shows_figures_and_variants_can_be_hidden(open_page: Any) -> None:
    page = open_page(**DEVICES["desktop"])
    page.locator("#plane circle.dot").first.hover()
    assert "no harmful answer to harmful prompts" in page.locator("#tip").inner_text()
    marks = page.locator('[data-v="1"]')
    assert marks.count() > 5
    page.get_by_label("a variant with a long name").uncheck()
    assert page.locator('[data-v="1"].off').count() == marks.count()
    assert page.locator('[data-v="0"].off').count() == 0
    page.get_by_label("a variant with a long name").check()
    assert page.locator(".off").count() == 0


def test_a_link_opens_the_folded_section(open_page: Any) -> None:
    page = open_page("#changes", **DEVICES["desktop"])
    assert page.locator("#changes > details").get_attribute("open") is not None
    page.get_by_role("link", name="Outcomes").click()
    page.wait_for_selector("#outcomes > details[open]")


def test_rows_are_filtered_prompts_read_and_answers_blurred(open_page: Any) -> None:
    page = open_page("#rows", **DEVICES["desktop"])
    rows = page.locator("#row-list > li")
    assert rows.count() == 50
    page.get_by_role("button", name="50 more").click()
    assert rows.count() == 100
    assert len(rows.first.locator(".prompt").inner_text()) > 10
    rows.first.get_by_text("answers").click()
    answer = rows.first.locator(".blur").first
    assert answer.evaluate("e => getComputedStyle(e).filter") == "blur(6px)"
    answer.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "e => getComputedStyle(e).filter === 'none'", arg=answer.element_handle()
    )
    total = page.locator(".filters .count").inner_text()
    page.locator("#row-outcome").select_option(label="refused")
    assert page.locator(".filters .count").inner_text() != total
    page.locator("#row-find").fill("no such words")
    assert page.locator(".filters .count").inner_text().startswith("0 of ")
    assert rows.count() == 0


def test_on_paper_nothing_is_cut_off(open_page: Any) -> None:
    """At the width of A4 between its margins every table ends on the page, and all is open."""
    page = open_page(viewport={"width": 688, "height": 1000})
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    beyond = page.evaluate(
        "[...document.querySelectorAll('table, td, th, svg, p, .card')]"
        ".filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1)"
        ".map((e) => e.outerHTML.slice(0, 120))"
    )
    assert beyond == []
    assert page.locator("details.fold:not([open])").count() == 0
    assert page.locator("#row-list").is_hidden()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.fold[open]").count() == 0


def test_the_pdf_has_numbered_pages_that_are_full_of_text(
    browser: Any, page_file: Path, tmp_path: Path
) -> None:
    write_pdf_beside(page_file, tmp_path / "new" / "report.pdf")
    reader = pypdf.PdfReader(tmp_path / "new" / "report.pdf")
    texts = [page.extract_text() for page in reader.pages]
    assert 4 <= len(texts) <= 20
    for number, text in enumerate(texts, 1):
        assert f"{number} / {len(texts)}" in text
        assert len(text) > 100
    for question in ("Is it safe enough?", "Did it get safer?", "Did it stay useful?"):
        assert question in texts[0]
    assert "chosen" in texts[0]  # the last column of the table
    assert "is a proof that the model is safe" in texts[-1]  # the last section
    width, height = (float(x) for x in reader.pages[0].mediabox[2:])
    assert (round(width), round(height)) == (595, 842)


def write_pdf_beside(page_file: Path, target: Path) -> None:
    """Prints in a thread of its own: one thread drives one Playwright at a time."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        pool.submit(write_pdf, page_file, target).result()
