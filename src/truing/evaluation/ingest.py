"""Reads a data set into a run folder, before the first call to a model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec

from truing.core.errors import DataError
from truing.core.output_filter import filter_response
from truing.core.protocols import Dataset
from truing.core.types import Judgement, Lineage, Response, Row
from truing.evaluation.row_sample import RowSample
from truing.evaluation.stored_lines import find_damaged_input
from truing.runs.folder import (
    JudgeRecord,
    RunWriter,
    encode_line,
    judgement_file,
    label_hash,
)
from truing.runs.index import IdIndex

_CHUNK_BYTES = 1 << 16
_MAX_FAULTS = 20
_RESPONSES = "responses.jsonl"


def ingest_dataset(
    writer: RunWriter,
    dataset: Dataset,
    file: str,
    *,
    limit: int | None,
    recorded: bool,
    random: bool = True,
    is_part: bool = False,
) -> None:
    """Writes the samples of a data set to `file`; raises DataError with the faults found.

    With a limit, so many rows are drawn by the run's seed (`RowSample`), or are the first ones if
    not `random`. With `recorded`, the data set's own answers and human judgements are written too.
    Each file is written under a temporary name and renamed when it is complete, the samples last:
    if they are there, the whole data set has been read. After a crash before that, and if the files
    are damaged, the data set is read again. A set that `is_part` of another may have no answers.
    """
    if writer.file(file).exists():
        damage = find_damaged_input(writer, file, recorded=recorded)
        if not damage:
            return
        for damaged_file, reason in damage.items():
            writer.set_aside_file(damaged_file, reason)
    samples = _PartFile(writer, file)
    recorded_data = _RecordedData(writer) if recorded else None
    n_written = 0
    for row in select_rows(writer, dataset, limit, random=random):
        samples.append(encode_line(row.sample))
        n_written += 1
        if recorded_data is not None:
            for response in row.responses:
                recorded_data.add_response(response)
            for judgement in row.judgements:
                recorded_data.add_judgement(judgement)
    if n_written == 0:
        raise DataError(f"{dataset.info.spec}: no rows")
    if recorded_data is not None:
        if recorded_data.n_responses == 0 and not is_part:
            raise DataError(
                f"{dataset.info.spec}: has no recorded answers; give a model that answers"
            )
        recorded_data.finish()
    writer.manifest.data[0] = msgspec.structs.replace(
        writer.manifest.data[0], n=n_written, skipped=int(getattr(dataset, "skipped", 0))
    )
    writer.save_manifest()
    samples.finish()


def select_rows(
    writer: RunWriter, dataset: Dataset, limit: int | None, *, random: bool
) -> Iterator[Row]:
    """Yields the rows to use, and notes in the manifest how they were selected."""
    notes = writer.manifest.notes
    if limit is None or not random:
        if limit is not None:
            notes["sample"] = f"the first {limit:,} rows at most"
        yield from _identified_rows(dataset, limit)
        return
    # Read to its end: the rows of a set are often sorted, so its first ones are no sample.
    drawn = RowSample(limit, writer.manifest.seed)
    for row in _identified_rows(dataset):
        drawn.add(row)
    if drawn.n_seen > limit:
        notes["sample"] = (
            f"{limit:,} of {drawn.n_seen:,} rows, drawn by prompt with seed {drawn.seed}"
        )
    yield from drawn.drawn()


def _identified_rows(dataset: Dataset, limit: int | None = None) -> Iterator[Row]:
    """Yields the rows; raises DataError at the end if ids lack or occur twice."""
    ids = IdIndex()
    faults: list[str] = []
    for number, row in enumerate(islice(dataset.rows(), limit)):
        sample_id = row.sample.id
        if not sample_id or not ids.add(sample_id, number):
            problem = "occurs more than once" if sample_id else "is missing"
            faults.append(f"{dataset.info.spec}: row {number + 1}: the id {sample_id!r} {problem}")
            if len(faults) >= _MAX_FAULTS:
                break
        yield row
    if faults:
        raise DataError(*faults)


class _PartFile:
    """A file that is written in chunks as `<name>.part` and renamed when it is complete."""

    def __init__(self, writer: RunWriter, name: str) -> None:
        self._writer = writer
        self._name = name
        self._chunk = bytearray()
        # A part of an earlier, interrupted attempt is written again from the start.
        writer.delete(f"{name}.part")

    def append(self, line: bytes) -> None:
        """Appends a line."""
        self._chunk += line
        if len(self._chunk) > _CHUNK_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._writer.open_file(f"{self._name}.part").append(self._chunk)
        self._chunk = bytearray()

    def finish(self) -> None:
        """Writes the last chunk and gives the file its name."""
        self._flush()
        self._writer.rename(f"{self._name}.part", self._name)


class _RecordedData:
    """The answers and the human judgements that are part of a data set."""

    def __init__(self, writer: RunWriter) -> None:
        self.n_responses = 0
        self._writer = writer
        self._responses = _PartFile(writer, _RESPONSES)
        self._models: set[str] = set()
        # One file for each rater's judge name and question, like those of automatic judges.
        self._judgements: dict[str, _PartFile] = {}
        self._records: dict[str, JudgeRecord] = {}

    def add_response(self, response: Response) -> None:
        """Appends a response, after the output filter."""
        self.n_responses += 1
        self._models.add(response.model)
        self._responses.append(encode_line(filter_response(response)))

    def add_judgement(self, judgement: Judgement) -> None:
        """Appends a judgement to the file of its judge and question."""
        hash_ = label_hash(judgement.judge, judgement.question)
        file = judgement_file(judgement.judge, hash_)
        if file not in self._judgements:
            self._judgements[file] = _PartFile(self._writer, file)
            self._records[file] = JudgeRecord(
                name=judgement.judge,
                question=judgement.question,
                file=file,
                lineage=Lineage(name=judgement.judge, hash=hash_),
            )
        self._judgements[file].append(encode_line(judgement))

    def finish(self) -> None:
        """Writes all files, and the judges and the model into the manifest (which is not saved)."""
        self._responses.finish()
        for part_file in self._judgements.values():
            part_file.finish()
        manifest = self._writer.manifest
        known = {record.file for record in manifest.judges}
        manifest.judges += [r for file, r in self._records.items() if file not in known]
        if len(self._models) == 1:
            # The data set names the one model that wrote all answers.
            manifest.model = self._models.pop()
