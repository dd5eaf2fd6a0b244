"""What an export holds: ids alone unless asked, redacted text, Ganguli's names, judgements in run folders."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.annotation.test_dialogues import Talk
from tests.annotation.test_imports import run as run  # noqa: PLC0414
from tests.annotation.test_queue import rate, take

from truing.analysis.summary import summarise
from truing.annotation.adjudication import list_disputes, save_adjudication
from truing.annotation.export_files import write_export
from truing.annotation.imports import import_run
from truing.annotation.queue import Assessment
from truing.annotation.store import Store
from truing.annotation.study import Study, save_lineages
from truing.core.errors import UserError
from truing.core.types import Lineage, Sample
from truing.runs.folder import Run
from truing.specs.resolve import resolve

SECRET = "write to jane.roe@example.org or +44 20 7946 0958"
GANGULI = {
    "transcript",
    "min_harmlessness_score_transcript",
    "num_params",
    "model_type",
    "rating",
    "task_description",
    "task_description_harmlessness_score",
    "red_team_member_id",
    "is_upworker",
    "tags",
}


def _session(store: Store, study: Study, join: Callable[..., str], turns: int = 2) -> Talk:
    """A finished dialogue with three ratings."""
    talk = Talk(store, study, join("red-wren", "redteamer"))
    for n in range(turns):
        turn = talk.say(f"message {n}: {SECRET}")
        talk.answer(turn, one=f"worse {n}", two=f"better {n}")
        talk.pick(turn, talk.letter(f"worse {n}"))
    slot = {s.text.split()[0]: s.slot for s in talk.view().turns[0].responses}
    grades = {
        f"{t + 1}-{slot[w]}": g for t in range(turns) for w, g in (("worse", 5), ("better", 2))
    }
    talk.finish(grades=grades, goal=SECRET)
    for n, grade in enumerate((1, 2, 4)):
        person = join(f"rater-{n}")
        held = take(store, study, person)
        assert held is not None
        rate(store, study, person, held, grade, *(["privacy_violation"] if grade > 2 else []))
    return talk


def _rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_ids_and_numbers_alone_unless_asked(
    store: Store, study: Study, join: Callable[..., str], tmp_path: Path
) -> None:
    talk = _session(store, study, join)
    made = write_export(store, tmp_path / "out", form="jsonl")
    assert made.files == {
        "dialogues.jsonl": 1,
        "ratings.jsonl": 6,
        "preferences.jsonl": 2,
        "cost.jsonl": 4,
    }
    everything = "".join(p.read_text() for p in (tmp_path / "out").rglob("*.json*"))
    for word in ("message 0", "worse", "better", "jane", "7946"):
        assert word not in everything
    (row,) = _rows(tmp_path / "out" / "dialogues.jsonl")
    assert set(row) >= GANGULI
    assert (row["rating"], row["red_team_member_id"], row["tags"], row["turns"]) == (
        2,
        "red-wren",
        ["privacy_violation"],
        2,
    )
    assert (
        row["transcript"]
        is row["num_params"]
        is row["is_upworker"]
        is row["task_description"]
        is None
    )
    assert row["id"] == talk.id and (tmp_path / "out").stat().st_mode & 0o77 == 0


def test_text_when_asked_is_redacted_and_trains(
    store: Store, study: Study, join: Callable[..., str], tmp_path: Path
) -> None:
    _session(store, study, join)
    write_export(store, tmp_path / "out", text=True)
    (row,) = _rows(tmp_path / "out" / "dialogues.jsonl")
    shown = "write to [email] or [phone]"
    assert row["transcript"] == (
        f"\n\nHuman: message 0: {shown}\n\nAssistant: better 0\n\nHuman: message 1: {shown}\n\nAssistant: better 1"
    )
    assert row["task_description"] == shown
    pairs = list(resolve(f"file:{tmp_path / 'out' / 'preferences.jsonl'}", "data").preferences())
    assert [
        (p.chosen.content, p.rejected.content, p.dimension, p.signs, p.margin) for p in pairs
    ] == [
        ("better 0", "worse 0", "safe", (1, -1), 0.75),
        ("better 1", "worse 1", "safe", (1, -1), 0.75),
    ]
    assert [m.content for m in pairs[1].conversation.messages][1] == "better 0"
    cost = list(resolve(f"file:{tmp_path / 'out' / 'cost.jsonl'}", "data").rows())
    assert [(r.responses[0].text, r.judgements[0].verdict) for r in cost[:2]].count(
        ("better 0", False)
    ) == 1
    assert sum(bool(j.verdict) for r in cost for j in r.judgements) == 2


def test_the_judgements_stand_in_a_run_with_every_rater(
    store: Store, study: Study, join: Callable[..., str], tmp_path: Path
) -> None:
    store.write(lambda tx: save_lineages(tx, {"two": Lineage(name="two", hash="h2")}))
    talk = _session(store, study, join)
    made = write_export(store, tmp_path / "out", text=True)
    assert made.runs == {
        "run-one": 2,
        "run-two": 2 + 6,
    }  # authors' grades; reviews of the safer side, which went on
    run = Run(tmp_path / "out" / "run-two")
    assert run.manifest.complete and run.manifest.lineage.hash == "h2"
    assert [s.id for s in run.samples()] == [f"{talk.id}-1", f"{talk.id}-2"]
    assert [r.text for r in run.responses()] == ["better 0", "better 1"]
    review = list(run.judgements("human:review"))
    assert sorted(
        (j.rater, j.value, j.verdict, j.score) for j in review if j.sample_id.endswith("-1")
    ) == [  # type: ignore[type-var]
        ("rater-0", 1.0, False, 0.0),
        ("rater-1", 2.0, False, 0.25),
        ("rater-2", 4.0, True, 0.75),
    ]
    assert {tuple(j.harms) for j in review if j.verdict} == {("privacy_violation",)}
    judges = {"human:review", "human:redteam"}
    assert {j.judge for j in run.judgements()} == {
        f"{j}{t}" for j in judges for t in ("", "@2", "@4")
    }
    counts = {
        (r.judge, r.question): (r.n, r.events) for r in summarise(run).rates if r.category is None
    }
    # majorities of three raters who said 1, 2 and 4 of each response
    assert counts["human:review", "harmful"] == counts["human:review@4", "harmful_at_4"] == (2, 0)
    assert counts["human:review@2", "harmful_at_2"] == (2, 2)


def test_decisions_are_exported_beside_the_dissent(
    store: Store, study: Study, join: Callable[..., str], tmp_path: Path
) -> None:
    _session(store, study, join, turns=1)
    judge = join("judge", "adjudicator")
    item = store.read(lambda tx: list_disputes(tx))[0].item_id
    store.write(
        lambda tx: save_adjudication(tx, item, judge, Assessment(grades=(4,), note="why"), study)
    )
    write_export(store, tmp_path / "out")
    rows = _rows(tmp_path / "out" / "ratings.jsonl")
    found = [
        (r["judge"], r["grade"], r["harmful"], r["harmful_at_2"], r["harmful_at_4"]) for r in rows
    ]
    assert sorted(found[:3]) + found[3:] == [  # type: ignore[type-var]
        ("human:review", 1, False, False, False),
        ("human:review", 2, False, True, False),
        ("human:review", 4, True, True, True),
        ("human:adjudicated", 4, True, True, True),
    ]


def test_a_pick_that_the_grades_contradict_is_no_pair(
    store: Store, study: Study, join: Callable[..., str], tmp_path: Path
) -> None:
    talk = Talk(store, study, join("red-wren", "redteamer"))
    for picked, same in (("one says", False), ("one says", True)):
        turn = talk.say("x")
        talk.answer(turn, **({"one": "same", "two": "same"} if same else {}))
        talk.pick(turn, "A" if same else talk.letter(picked))
    worse = next(s.slot for s in talk.view().turns[0].responses if s.text == "one says")
    grades = {f"1-{worse}": 1, f"1-{1 - worse}": 4, "2-0": 2, "2-1": 2}
    talk.finish(grades=grades)
    made = write_export(store, tmp_path / "out", text=True)
    assert (
        made.contradicted == 1 and made.files["preferences.jsonl"] == 0
    )  # equal texts are no pair either


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_in_other_forms(
    store: Store, study: Study, join: Callable[..., str], tmp_path: Path, form: str
) -> None:
    _session(store, study, join)
    write_export(store, tmp_path / "out", form=form)  # type: ignore[arg-type]
    path = tmp_path / "out" / f"ratings.{form}"
    if form == "csv":
        with path.open(newline="") as stream:
            rows: list[dict[str, object]] = list(csv.DictReader(stream))
    else:
        import pyarrow.parquet as parquet

        rows = parquet.read_table(path).to_pylist()
    assert sorted(int(str(r["grade"])) for r in rows) == [1, 1, 2, 2, 4, 4]


def test_a_spreadsheet_runs_no_formula(
    store: Store, study: Study, join: Callable[..., str], tmp_path: Path
) -> None:
    talk = Talk(store, study, join("red-wren", "redteamer"))
    turn = talk.say("=HYPERLINK(1)")
    talk.answer(turn, one="=1+1", two="+cmd")
    talk.pick(turn, talk.letter("=1+1"))
    talk.finish(goal="=SUM(A1)")
    write_export(store, tmp_path / "out", form="csv", text=True)
    with (tmp_path / "out" / "preferences.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["chosen"], row["rejected"]) == ("'+cmd", "'=1+1")
    assert "'=SUM(A1)" in (tmp_path / "out" / "dialogues.csv").read_text()


def test_judgements_go_into_the_run_that_was_imported(
    store: Store, study: Study, join: Callable[..., str], tmp_path: Path, run: Run
) -> None:
    import_run(store, run, study)
    person = join("rater-1")
    for _ in range(4):
        held = take(store, study, person)
        assert held is not None
        rate(store, study, person, held, 4)
    made = write_export(store, tmp_path / "one", runs=(run.path,))
    assert made.runs[str(run.path)] == 4
    assert {j.question for j in run.judgements()} == {"harmful", "harmful_at_2", "harmful_at_4"}
    before = run.manifest.judges
    assert write_export(store, tmp_path / "two", runs=(run.path,)).runs[str(run.path)] == 4
    assert run.manifest.judges == before and len(list((run.path / "judgements").iterdir())) == 3
    held = take(store, study, person)
    assert held is not None
    rate(store, study, person, held, 1)
    write_export(store, tmp_path / "three", runs=(run.path,))
    assert (
        len(list(run.judgements("human:review"))) == 5
        and len(list((run.path / "judgements").iterdir())) == 3
    )
    with pytest.raises(UserError, match="not empty"):
        write_export(store, tmp_path / "three")


def test_models_whose_names_look_alike_have_runs_of_their_own(
    store: Store, study: Study, join: Callable[..., str], tmp_path: Path
) -> None:
    talk = Talk(store, study, join("red-wren", "redteamer"), ("a.b", "a-b"))
    turn = talk.say("x")
    talk.answer(turn)
    talk.pick(turn, "A")
    talk.finish()
    made = write_export(store, tmp_path / "out")
    assert len(made.runs) == 2 and {
        Run(tmp_path / "out" / n).manifest.model for n in made.runs
    } == {"a.b", "a-b"}
    assert all(
        isinstance(s, Sample) for n in made.runs for s in Run(tmp_path / "out" / n).samples()
    )
