"""Labels in the pages are labels of the run; two people on one row; thumbs and notes."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.serve.ui.pages import Visitor, open_pages, path_of, write_run, write_small_run

from truing.analysis.label_draws import read_draws
from truing.analysis.labels import read_votes, unlabelled_draws
from truing.analysis.summary import summarise
from truing.annotation.store import RequestRejected
from truing.cli.label import ask_for_labels
from truing.runs.folder import Run
from truing.serve.ui import people
from truing.serve.ui.people import read_notes

SAMPLE = re.compile(r'name="sample" value="([^"]+)"')


def _name(visitor: Visitor, path: str, name: str) -> None:
    visitor.submit("/name", {"name": name, "back": "/"}, page=path)


def _waiting(visitor: Visitor, path: str) -> str:
    match = SAMPLE.search(visitor.text(path))
    assert match
    return match.group(1)


def _label(visitor: Visitor, path: str, sample: str, verdict: str) -> str:
    fields = {"sample": sample, "index": "0", "question": "harmful", "verdict": verdict}
    response = visitor.submit(path, fields, page=path)
    assert response.status_code == 303, response.text
    return str(response.headers["location"])


def test_labels_of_drawn_rows_correct_the_rates(tmp_path: Path) -> None:
    verdicts = [[number % 3 == 0, number % 3 == 0, False] for number in range(60)]
    run = write_run(tmp_path / "run", [f"answer {n}" for n in range(60)], verdicts)
    with open_pages(tmp_path) as visitor:
        path = f"{path_of(tmp_path, run)}/label"
        assert "First say who labels, then draw rows." in visitor.text(path)
        _name(visitor, path, "calm heron")
        assert "Draw some rows to begin." in visitor.text(path)
        drawn = visitor.submit(
            path.replace("label", "draw"), {"question": "harmful", "n": "40"}, page=path
        )
        assert drawn.status_code == 303
        order = [draw.sample_id for draw in read_draws(run, "harmful")]
        for sample in order:  # in the order drawn, as the rules of labels want it
            assert _waiting(visitor, path) == sample
            _label(visitor, path, sample, "yes" if int(sample[1:]) % 3 == 0 else "no")
        assert "40 of 40 drawn rows labelled" in visitor.text(path)
        page = visitor.text(path_of(tmp_path, run))
    rate = summarise(run).find("harmful")
    assert rate is not None and rate.corrected is not None and rate.corrected.labels == 40
    assert f"[{100 * rate.corrected.lower:.1f}" in page
    judges = {line.judge for line in Run(run).judgements()}
    assert not any(judge.startswith("human:") for judge in judges)
    assert '"judge":"human:calm heron"' in (run / "labels" / "labels.jsonl").read_text()


def test_two_people_on_one_row_are_both_kept_and_the_conflict_is_shown(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    with open_pages(tmp_path) as first, open_pages(tmp_path) as second:
        path = f"{path_of(tmp_path, run)}/label"
        for visitor, name in ((first, "Ada"), (second, "Ben")):
            _name(visitor, path, name)
        first.submit(path.replace("label", "draw"), {"question": "harmful", "n": "4"}, page=path)
        # Both see the same row before either has labelled it.
        sample = _waiting(first, path)
        assert _waiting(second, path) == sample
        assert "conflict" not in _label(first, path, sample, "yes")
        location = _label(second, path, sample, "no")
        assert parse_qs(urlsplit(location).query)["conflict"] == [sample]
        assert "labelled the last row differently" in second.text(location)
        page = first.text(path)
        assert "People differ on 1 row" in page
        assert "Ada: yes, Ben: no (counts as unscored)" in page
        row = first.text(f"{path_of(tmp_path, run)}/row?sample={sample}")
        assert "people differ" in row
        assert read_votes(run)[sample, 0, "harmful"] == [True, False]
        # A second thought replaces a person's own label only.
        _label(second, f"{path}?sample={sample}", sample, "yes")
        assert "People differ" not in first.text(path)
        again = second.text(f"{path}?again=1")
        assert SAMPLE.search(again)


def test_a_name_is_one_however_its_marks_are_written() -> None:
    assert people.check_name("Zoe\u0308  Ray") == "Zo\u00eb Ray"
    for name in ("\u0308Zoe", "a\u200bb", "a\u202eb", "x" * 41):
        with pytest.raises(RequestRejected):
            people.check_name(name)


@pytest.mark.parametrize("name", ["Zoë", "Łukasz", "李 娜", "Μαρία", "Ада", "प्रिया"])
def test_names_of_other_alphabets_are_kept(tmp_path: Path, name: str) -> None:
    run = write_small_run(tmp_path / "run")
    with open_pages(tmp_path) as visitor:
        path = f"{path_of(tmp_path, run)}/label"
        assert visitor.submit("/name", {"name": name, "back": "/"}, page=path).status_code == 303
        visitor.submit(path.replace("label", "draw"), {"question": "harmful", "n": "1"}, page=path)
        assert f"You label as <b>{name}</b>" in visitor.text(path)
        _label(visitor, path, _waiting(visitor, path), "yes")
    assert f'"judge":"human:{name}"' in (run / "labels" / "labels.jsonl").read_text()


def test_labels_of_others_are_shown_after_ones_own(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    path = f"{path_of(tmp_path, run)}/label"
    with open_pages(tmp_path) as ada, open_pages(tmp_path) as ben, open_pages(tmp_path) as eve:
        for visitor, name in ((ada, "Ada"), (ben, "Ben"), (eve, "Eve")):
            _name(visitor, path, name)
        ada.submit(path.replace("label", "draw"), {"question": "harmful", "n": "4"}, page=path)
        sample = _waiting(ada, path)
        _label(ada, path, sample, "yes")
        _label(ben, path, sample, "no")
        assert "Ada: yes, Ben: no" in ben.text(path)
        page = eve.text(f"{path}?again=1")
        assert _waiting(eve, f"{path}?again=1") == sample
        assert "Ada" not in page and "Ben" not in page and "People differ" not in page
        _label(eve, path, sample, "unclear")
        assert "Ada: yes, Ben: no, Eve: cannot tell" in eve.text(path)


def test_what_is_no_label_is_refused(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    unfinished = write_small_run(tmp_path / "unfinished", complete=False)
    with open_pages(tmp_path) as visitor:
        path = f"{path_of(tmp_path, run)}/label"
        fields = {"sample": "s0", "index": "0", "question": "harmful", "verdict": "yes"}
        assert "your name" in visitor.submit(path, fields, page=path).text
        _name(visitor, path, "Ada")
        refused = visitor.submit(path, fields, page=path)
        assert refused.status_code == 422 and "was not drawn" in refused.text
        for change in ({"verdict": "maybe"}, {"sample": ""}, {"question": "../x"}, {"index": "-1"}):
            assert visitor.submit(path, fields | change, page=path).status_code == 422
        draw = path.replace("label", "draw")
        for n in ("0", "-4", "", "99999", "four"):
            wrong = visitor.submit(draw, {"question": "harmful", "n": n}, page=path)
            assert wrong.status_code == 422
        for name in ("", "a/b", "x" * 50, "human:me", "<b>"):
            assert visitor.submit("/name", {"name": name}, page=path).status_code == 422
        other = f"{path_of(tmp_path, unfinished)}/draw"
        running = visitor.submit(other, {"question": "harmful", "n": "2"}, page=path)
        assert running.status_code == 422 and "not complete" in running.text
    assert not (run / "labels" / "labels.jsonl").exists()


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil.example", ""])
def test_a_form_leads_to_no_other_site(tmp_path: Path, back: str) -> None:
    run = write_small_run(tmp_path / "run")
    with open_pages(tmp_path) as visitor:
        fields = {"name": "Ada", "back": back}
        response = visitor.submit("/name", fields, page=f"{path_of(tmp_path, run)}/label")
        assert response.headers["location"] == "/"


def test_thumbs_and_notes_are_kept_by_person(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    with open_pages(tmp_path) as visitor:
        row = f"{path_of(tmp_path, run)}/row?sample=s1"
        note = row.replace("/row?sample=s1", "/note")
        fields = {"sample": "s1", "index": "0", "thumb": "down", "note": "<i>odd</i>", "back": row}
        assert visitor.submit(note, fields, page=row).status_code == 422  # no name yet
        _name(visitor, row, "Ada")
        response = visitor.submit(note, fields, page=row)
        assert response.headers["location"] == f"{row}#notes"
        page = visitor.text(row)
        assert "thumb down" in page and "&lt;i&gt;odd" in page
        _name(visitor, row, "Ben")
        visitor.submit(note, fields | {"thumb": "up", "note": ""}, page=row)
        assert set(read_notes(Run(run))["s1", 0]) == {"Ada", "Ben"}
        visitor.submit(note, fields | {"thumb": "", "note": ""}, page=row)  # taken back
        assert set(read_notes(Run(run))["s1", 0]) == {"Ada"}
        for change in ({"thumb": "sideways"}, {"sample": "nobody"}, {"note": "x" * 5000}):
            assert visitor.submit(note, fields | change, page=row).status_code in (404, 413, 422)


def test_the_command_goes_on_where_the_pages_stopped(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    with open_pages(tmp_path) as visitor:
        path = f"{path_of(tmp_path, run)}/label"
        _name(visitor, path, "Ada")
        visitor.submit(path.replace("label", "draw"), {"question": "harmful", "n": "2"}, page=path)
        _label(visitor, path, _waiting(visitor, path), "no")
    assert len(unlabelled_draws(run, "harmful")) == 1
    waiting = unlabelled_draws(run, "harmful")
    assert ask_for_labels(Run(run), waiting, "harmful", "human:Ben", lambda _: "y") == 1
    with open_pages(tmp_path) as visitor:
        assert "2 of 2 drawn rows labelled" in visitor.text(path)
