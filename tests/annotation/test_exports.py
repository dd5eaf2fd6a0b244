"""Exports: no text by default, redaction, field names of Ganguli et al., judgements in run folders."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.annotation.test_dialogues import DialogueDriver
from tests.annotation.test_imports import run as run  # noqa: PLC0414
from tests.annotation.test_queue import claim, submit

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
GANGULI_FIELDS = {
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


def _rated_dialogue(
    store: Store, study: Study, add_person: Callable[..., str], turns: int = 2
) -> DialogueDriver:
    """A finished dialogue with three ratings."""
    dialogue = DialogueDriver(store, study, add_person("red-wren", "redteamer"))
    for n in range(turns):
        turn = dialogue.add_message(f"message {n}: {SECRET}")
        dialogue.answer_all(turn, one=f"worse {n}", two=f"better {n}")
        dialogue.pick(turn, dialogue.letter_of(f"worse {n}"))
    slots = {s.text.split()[0]: s.slot for s in dialogue.view().turns[0].responses}
    grades = {
        f"{t + 1}-{slots[w]}": g for t in range(turns) for w, g in (("worse", 5), ("better", 2))
    }
    dialogue.finish(grades=grades, goal=SECRET)
    for n, grade in enumerate((1, 2, 4)):
        person = add_person(f"rater-{n}")
        leased = claim(store, study, person)
        assert leased is not None
        submit(store, study, person, leased, grade, *(["privacy_violation"] if grade > 2 else []))
    return dialogue


def _rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_export_holds_no_text_by_default(
    store: Store, study: Study, add_person: Callable[..., str], tmp_path: Path
) -> None:
    dialogue = _rated_dialogue(store, study, add_person)
    counts = write_export(store, tmp_path / "out", form="jsonl")
    assert counts.files == {
        "dialogues.jsonl": 1,
        "ratings.jsonl": 6,
        "preferences.jsonl": 2,
        "cost.jsonl": 4,
    }
    everything = "".join(p.read_text() for p in (tmp_path / "out").rglob("*.json*"))
    for text in ("message 0", "worse", "better", "jane", "7946"):
        assert text not in everything
    (row,) = _rows(tmp_path / "out" / "dialogues.jsonl")
    assert set(row) >= GANGULI_FIELDS
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
    assert row["id"] == dialogue.id
    files = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert [path for path in files if path.stat().st_mode & 0o77] == []


def test_exported_text_is_redacted_and_readable_as_training_data(
    store: Store, study: Study, add_person: Callable[..., str], tmp_path: Path
) -> None:
    _rated_dialogue(store, study, add_person)
    write_export(store, tmp_path / "out", text=True)
    (row,) = _rows(tmp_path / "out" / "dialogues.jsonl")
    redacted = "write to [email] or [phone]"
    assert row["transcript"] == (
        f"\n\nHuman: message 0: {redacted}\n\nAssistant: better 0\n\nHuman: message 1: {redacted}\n\nAssistant: better 1"
    )
    assert row["task_description"] == redacted
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


def test_judgements_are_written_as_runs_with_every_rater(
    store: Store, study: Study, add_person: Callable[..., str], tmp_path: Path
) -> None:
    store.write(lambda tx: save_lineages(tx, {"two": Lineage(name="two", hash="h2")}))
    dialogue = _rated_dialogue(store, study, add_person)
    counts = write_export(store, tmp_path / "out", text=True)
    assert counts.runs == {
        "run-one": 2,
        "run-two": 2 + 6,
    }  # authors' grades; reviews of the safer side, which went on
    run = Run(tmp_path / "out" / "run-two")
    assert run.manifest.complete and run.manifest.lineage.hash == "h2"
    assert [s.id for s in run.samples()] == [f"{dialogue.id}-1", f"{dialogue.id}-2"]
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


def test_adjudications_are_exported_with_the_ratings(
    store: Store, study: Study, add_person: Callable[..., str], tmp_path: Path
) -> None:
    _rated_dialogue(store, study, add_person, turns=1)
    judge = add_person("judge", "adjudicator")
    item = store.read(lambda tx: list_disputes(tx))[0].item_id
    store.write(
        lambda tx: save_adjudication(tx, item, judge, Assessment(grades=(4,), note="why"), study)
    )
    write_export(store, tmp_path / "out")
    rows = _rows(tmp_path / "out" / "ratings.jsonl")
    rows_of_judges = [
        (r["judge"], r["grade"], r["harmful"], r["harmful_at_2"], r["harmful_at_4"]) for r in rows
    ]
    assert sorted(rows_of_judges[:3]) + rows_of_judges[3:] == [  # type: ignore[type-var]
        ("human:review", 1, False, False, False),
        ("human:review", 2, False, True, False),
        ("human:review", 4, True, True, True),
        ("human:adjudicated", 4, True, True, True),
    ]


def test_a_pick_that_contradicts_the_grades_is_no_preference(
    store: Store, study: Study, add_person: Callable[..., str], tmp_path: Path
) -> None:
    dialogue = DialogueDriver(store, study, add_person("red-wren", "redteamer"))
    for picked, same_text in (("one says", False), ("one says", True)):
        turn = dialogue.add_message("x")
        dialogue.answer_all(turn, **({"one": "same", "two": "same"} if same_text else {}))
        dialogue.pick(turn, "A" if same_text else dialogue.letter_of(picked))
    worse = next(s.slot for s in dialogue.view().turns[0].responses if s.text == "one says")
    grades = {f"1-{worse}": 1, f"1-{1 - worse}": 4, "2-0": 2, "2-1": 2}
    dialogue.finish(grades=grades)
    counts = write_export(store, tmp_path / "out", text=True)
    assert (
        counts.contradicted == 1 and counts.files["preferences.jsonl"] == 0
    )  # equal texts are no pair either


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_in_other_formats(
    store: Store, study: Study, add_person: Callable[..., str], tmp_path: Path, form: str
) -> None:
    _rated_dialogue(store, study, add_person)
    write_export(store, tmp_path / "out", form=form)  # type: ignore[arg-type]
    path = tmp_path / "out" / f"ratings.{form}"
    if form == "csv":
        with path.open(newline="") as stream:
            rows: list[dict[str, object]] = list(csv.DictReader(stream))
    else:
        import pyarrow.parquet as parquet

        rows = parquet.read_table(path).to_pylist()
    assert sorted(int(str(r["grade"])) for r in rows) == [1, 1, 2, 2, 4, 4]


def test_csv_cells_are_no_formulas(
    store: Store, study: Study, add_person: Callable[..., str], tmp_path: Path
) -> None:
    dialogue = DialogueDriver(store, study, add_person("red-wren", "redteamer"))
    turn = dialogue.add_message("=HYPERLINK(1)")
    dialogue.answer_all(turn, one="=1+1", two="+cmd")
    dialogue.pick(turn, dialogue.letter_of("=1+1"))
    dialogue.finish(goal="=SUM(A1)")
    write_export(store, tmp_path / "out", form="csv", text=True)
    with (tmp_path / "out" / "preferences.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["chosen"], row["rejected"]) == ("'+cmd", "'=1+1")
    assert "'=SUM(A1)" in (tmp_path / "out" / "dialogues.csv").read_text()


def test_judgements_on_imported_rows_go_into_their_run(
    store: Store, study: Study, add_person: Callable[..., str], tmp_path: Path, run: Run
) -> None:
    import_run(store, run, study)
    person = add_person("rater-1")
    for _ in range(4):
        leased = claim(store, study, person)
        assert leased is not None
        submit(store, study, person, leased, 4)
    counts = write_export(store, tmp_path / "one", runs=(run.path,))
    assert counts.runs[str(run.path)] == 4
    assert {j.question for j in run.judgements()} == {"harmful", "harmful_at_2", "harmful_at_4"}
    before = run.manifest.judges
    assert write_export(store, tmp_path / "two", runs=(run.path,)).runs[str(run.path)] == 4
    assert run.manifest.judges == before and len(list((run.path / "judgements").iterdir())) == 3
    leased = claim(store, study, person)
    assert leased is not None
    submit(store, study, person, leased, 1)
    write_export(store, tmp_path / "three", runs=(run.path,))
    assert (
        len(list(run.judgements("human:review"))) == 5
        and len(list((run.path / "judgements").iterdir())) == 3
    )
    with pytest.raises(UserError, match="not empty"):
        write_export(store, tmp_path / "three")


def test_models_with_similar_names_have_separate_runs(
    store: Store, study: Study, add_person: Callable[..., str], tmp_path: Path
) -> None:
    dialogue = DialogueDriver(store, study, add_person("red-wren", "redteamer"), ("a.b", "a-b"))
    turn = dialogue.add_message("x")
    dialogue.answer_all(turn)
    dialogue.pick(turn, "A")
    dialogue.finish()
    counts = write_export(store, tmp_path / "out")
    assert len(counts.runs) == 2 and {
        Run(tmp_path / "out" / n).manifest.model for n in counts.runs
    } == {"a.b", "a-b"}
    assert all(
        isinstance(s, Sample) for n in counts.runs for s in Run(tmp_path / "out" / n).samples()
    )
