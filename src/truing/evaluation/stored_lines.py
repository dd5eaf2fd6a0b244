"""What a run folder holds already: checks the files line by line, and sets damaged lines aside."""

from __future__ import annotations

from pathlib import Path

from truing.core.errors import RunError
from truing.core.jsonl import read_complete_lines, read_located_records
from truing.core.types import Judgement, Response, Sample
from truing.evaluation.failures import RESPONSES
from truing.runs.damage import LineFault, describe_faults, find_line_faults
from truing.runs.folder import RunWriter
from truing.runs.index import IdIndex, LineSpans, ResponseKey, max_cells_per_sample
from truing.runs.parts import file_bytes

_FOREIGN = "belongs to no sample of this run"


def count_stored_answers(writer: RunWriter, samples: int) -> int:
    """Returns how many answers a sample has at most.

    Raises RunError if an index is absurd, or a line is damaged.
    """
    path = writer.file(RESPONSES)
    _check_answers(path, find_line_faults(path, Response))
    count = 1 + max((k.index for _, _, k in read_located_records(path, ResponseKey)), default=0)
    if count > max_cells_per_sample(file_bytes(path), samples):
        raise RunError(f"{path}: index {count - 1}: there are by far not so many answers")
    return count


def _check_answers(path: Path, faults: list[LineFault]) -> None:
    """Raises RunError with the damaged lines of answers that no model can give again."""
    if faults:
        raise RunError(
            f"{describe_faults(path, faults)}. The command that wrote the run sets damaged lines "
            "aside and asks again"
        )


class StoredLines:
    """Reads which responses and judgements a run holds.

    Damaged lines are moved to `FILE.damaged`, and are missing then. Response `index` of the sample
    at `position` has the key `position * answers_per_sample + index`. `can_ask_again` says whether
    there is a model that can answer anew what is lost.
    """

    def __init__(
        self,
        writer: RunWriter,
        ids: IdIndex,
        samples: int,
        answers_per_sample: int,
        *,
        can_ask_again: bool,
    ) -> None:
        self._writer = writer
        self._ids = ids
        self._samples = samples
        self._answers_per_sample = answers_per_sample
        self._can_ask_again = can_ask_again

    def read_responses(self) -> LineSpans:
        """Returns the lines of the responses.

        Raises RunError if some are damaged and cannot be asked again, or if the file is another
        run's.
        """
        return self._read_spans(RESPONSES, Response)

    def read_judgements(self, file: str) -> LineSpans:
        """Returns the lines of a judge's file; raises RunError if it is that of another run."""
        return self._read_spans(file, Judgement)

    def _read_spans(self, file: str, kind: type[Response] | type[Judgement]) -> LineSpans:
        path = self._writer.file(file)
        faults = find_line_faults(path, kind, self._find_fault)
        if file == RESPONSES and not self._can_ask_again:
            _check_answers(path, faults)
        if faults:
            set_aside_unless_foreign(self._writer, file, faults)
        spans = LineSpans(self._samples * self._answers_per_sample)
        for start, length, key in read_located_records(path, ResponseKey):
            position = self._ids.get(key.sample_id)
            assert position is not None
            spans.add(position * self._answers_per_sample + key.index, start, length)
        return spans

    def _find_fault(self, record: Response | Judgement) -> str | None:
        if self._ids.get(record.sample_id) is None or record.index >= self._answers_per_sample:
            return f"{record.sample_id[:80]}/{record.index} {_FOREIGN}"
        return None


def set_aside_unless_foreign(writer: RunWriter, file: str, faults: list[LineFault]) -> None:
    """Moves damaged lines to `FILE.damaged`.

    Raises RunError if most lines belong to no sample of the run: then it is no damage, but a file
    of another run.
    """
    path = writer.file(file)
    n_lines = sum(1 for _ in read_complete_lines(path))
    n_foreign = sum(fault.reason.endswith(_FOREIGN) for fault in faults)
    if 2 * n_foreign > n_lines:
        raise RunError(f"{describe_faults(path, faults)}: the file is that of another run")
    writer.set_aside(file, faults)


def set_aside_foreign_samples(writer: RunWriter, parents: IdIndex) -> None:
    """Moves attacked samples that cannot be read, or whose parents are unknown, aside."""
    path = writer.file("samples.jsonl")

    def find_fault(sample: Sample) -> str | None:
        is_known = parents.get(sample.parent or "") is not None
        return None if is_known else f"{sample.id[:80]} {_FOREIGN}"

    faults = find_line_faults(path, Sample, find_fault)
    if faults:
        set_aside_unless_foreign(writer, "samples.jsonl", faults)


def find_damaged_input(writer: RunWriter, file: str, *, recorded: bool) -> dict[str, str]:
    """Returns what is wrong with the files that hold a data set, by file; empty if nothing is.

    They are damaged if a line cannot be read, or if there are not as many samples as were read.
    With `recorded`, the data set's answers and human judgements are among these files.
    """
    kinds: dict[str, type[Sample] | type[Response] | type[Judgement]] = {file: Sample}
    manifest = writer.manifest
    if recorded:
        people = (r for r in manifest.judges if r.name.startswith("human:"))
        kinds |= {RESPONSES: Response, **{record.file: Judgement for record in people}}
    damage = {}
    for name, kind in kinds.items():
        path = writer.file(name)
        faults = find_line_faults(path, kind)
        if faults:
            damage[name] = describe_faults(path, faults)
    n_stored = sum(1 for _ in read_complete_lines(writer.file(file)))
    n_read = manifest.data[0].n if manifest.data else 0
    if n_read and n_stored != n_read and file not in damage:
        damage[file] = f"{writer.file(file)}: holds {n_stored:,} of {n_read:,} samples"
    return damage
