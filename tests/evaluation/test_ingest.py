"""Reading a data set into a run folder: faults, interrupted attempts, recorded answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.model_stand_ins import MemoryDataset

from truing.core.errors import DataError
from truing.core.types import Answer, Conversation, Judgement, Response, Row, Sample
from truing.evaluation.ingest import ingest_dataset
from truing.evaluation.row_sample import draw_rows
from truing.runs.folder import DataRecord, Manifest, Run, RunWriter


def open_writer(tmp_path: Path) -> RunWriter:
    return RunWriter(tmp_path / "run", Manifest(data=[DataRecord(spec="memory:rows")]))


def ingest(writer: RunWriter, dataset: MemoryDataset, *, recorded: bool = False) -> None:
    ingest_dataset(writer, dataset, "samples.jsonl", limit=None, recorded=recorded)


def make_row(sample_id: str, *models: str) -> Row:
    sample = Sample(id=sample_id, conversation=Conversation.of("x"))
    responses = tuple(
        Response.of(sample_id, index, model, Answer.of("y")) for index, model in enumerate(models)
    )
    judgement = Judgement(sample_id=sample_id, judge="human:a", question="harmful", verdict=True)
    return Row(sample=sample, responses=responses, judgements=(judgement,) if models else ())


def test_all_faults_of_the_rows_are_reported(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    rows = [make_row("a"), make_row(""), make_row("b"), make_row("a")]
    with pytest.raises(DataError) as caught:
        ingest(writer, MemoryDataset(rows))
    assert caught.value.faults == (
        "memory:rows: row 2: the id '' is missing",
        "memory:rows: row 4: the id 'a' occurs more than once",
    )
    assert not (writer.path / "samples.jsonl").exists()
    writer.close()


def test_interrupted_attempt_is_repeated(tmp_path: Path) -> None:
    class BreakingDataset(MemoryDataset):
        def rows(self) -> Iterator[Row]:
            yield make_row("a")
            raise OSError("the disk broke")

    writer = open_writer(tmp_path)
    with pytest.raises(OSError, match="the disk broke"):
        ingest(writer, BreakingDataset([]))
    writer.close()
    writer = open_writer(tmp_path)
    ingest(writer, MemoryDataset([make_row("a"), make_row("b")]))
    assert [s.id for s in Run(writer.path).samples()] == ["a", "b"]
    assert Run(writer.path).manifest.data[0].n == 2
    # Complete: the data set is not read again.
    ingest(writer, BreakingDataset([]))
    writer.close()


@pytest.mark.parametrize(("models", "name"), [(("m1", "m1"), "m1"), (("m1", "m2"), "")])
def test_recorded_answers_name_their_model(
    tmp_path: Path, models: tuple[str, str], name: str
) -> None:
    writer = open_writer(tmp_path)
    ingest(writer, MemoryDataset([make_row("a", *models)]), recorded=True)
    run = Run(writer.path)
    assert [r.model for r in run.responses()] == list(models)
    assert (run.manifest.model, run.manifest.judges[0].name) == (name, "human:a")
    assert [j.verdict for j in run.judgements("human:a")] == [True]
    assert list(writer.path.rglob("*.part")) == []
    writer.close()


def test_data_set_without_recorded_answers_is_refused(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    with pytest.raises(DataError, match="has no recorded answers"):
        ingest(writer, MemoryDataset([make_row("a")]), recorded=True)
    writer.close()


def test_a_limit_draws_by_the_seed_and_the_manifest_says_so(tmp_path: Path) -> None:
    data = MemoryDataset.of_size(60)
    with_seed = Manifest(data=[DataRecord(spec="memory:rows")], seed=7)
    writer = RunWriter(tmp_path / "run", with_seed)
    ingest_dataset(writer, data, "samples.jsonl", limit=10, recorded=False)
    stored = [s.id for s in Run(writer.path).samples()]
    assert stored == [r.sample.id for r in draw_rows(data.rows(), 10, 7)]
    assert stored != [r.sample.id for r in data.rows()][:10]
    manifest = Run(writer.path).manifest
    assert manifest.data[0].n == 10
    assert manifest.notes["sample"] == "10 of 60 rows, drawn by prompt with seed 7"
    writer.close()


def test_the_first_rows_if_asked_for(tmp_path: Path) -> None:
    class LongDataset(MemoryDataset):
        def rows(self) -> Iterator[Row]:
            yield from super().rows()
            raise AssertionError("rows behind the limit are not read")

    writer = open_writer(tmp_path)
    data = LongDataset([make_row(str(i)) for i in range(5)])
    ingest_dataset(writer, data, "samples.jsonl", limit=4, recorded=False, random=False)
    assert [s.id for s in Run(writer.path).samples()] == list("0123")
    assert "first 4 rows" in Run(writer.path).manifest.notes["sample"]
    writer.close()


def test_recorded_answers_of_the_drawn_rows_alone_are_kept(tmp_path: Path) -> None:
    rows = [
        Row(
            sample=Sample(id=str(i), conversation=Conversation.of(f"prompt {i}")),
            responses=(Response.of(str(i), 0, "m", Answer.of("y")),),
        )
        for i in range(30)
    ]
    writer = open_writer(tmp_path)
    ingest_dataset(writer, MemoryDataset(rows), "samples.jsonl", limit=5, recorded=True)
    run = Run(writer.path)
    assert [r.sample_id for r in run.responses()] == [s.id for s in run.samples()]
    writer.close()
