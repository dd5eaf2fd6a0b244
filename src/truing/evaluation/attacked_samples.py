"""The samples of a run with an attack: created once from the data set's samples, then reused."""

from __future__ import annotations

import os

import msgspec
from msgspec.structs import replace

from truing.core.errors import BudgetExceeded, UserError
from truing.core.ids import content_id
from truing.core.output_filter import find_prohibited_content, withheld_failure
from truing.core.protocols import Attack, Model
from truing.core.types import Failure, Sample
from truing.evaluation.stored_lines import set_aside_foreign_samples
from truing.evaluation.validation import describe_exception
from truing.runs.folder import RunWriter, encode_line
from truing.runs.index import IdIndex, LineSpans, SampleKey, SampleStore
from truing.runs.parts import read_located_run_records
from truing.runs.run_files import open_run_file


class AttackedSamples:
    """The attacked samples in `samples.jsonl`, by their parent's position in `parents.jsonl`."""

    def __init__(self, writer: RunWriter, parents: SampleStore, attack: Attack) -> None:
        self._writer = writer
        self._parents = parents
        self._attack = attack
        self.ids = IdIndex()
        self.spans = LineSpans(len(parents))
        set_aside_foreign_samples(writer, parents.ids)
        for start, length, sample in read_located_run_records(
            writer.path, "samples.jsonl", SampleKey
        ):
            position = parents.ids.get(sample.parent or "")
            assert position is not None
            self.ids.add(sample.id, position)
            self.spans.add(position, start, length)

    def __len__(self) -> int:
        """Returns the number of parents."""
        return len(self._parents)

    def __contains__(self, position: int) -> bool:
        return position in self.spans

    def read(self, position: int) -> Sample:
        """Reads the stored attacked sample of a parent."""
        # Opened each time: the file may be replaced by a sorted one in between.
        descriptor = open_run_file(self._writer.path, "samples.jsonl")
        try:
            line = os.pread(descriptor, self.spans.lengths[position], self.spans.starts[position])
        finally:
            os.close(descriptor)
        return msgspec.json.decode(line, type=Sample)

    async def create(self, position: int, target: Model) -> tuple[Sample, Failure | None]:
        """Attacks the parent at a position, and stores the result before the target answers it.

        If the attack fails, or produces prohibited content, the parent's own conversation is
        stored, and the failure that is returned takes the place of an answer.
        """
        parent = self._parents.read(position)
        sample, failure = await self._run_attack(parent, target)
        sample = replace(sample, parent=parent.id)
        if not sample.id or sample.id == parent.id:
            sample = replace(sample, id=content_id(sample))
        # Stored before the target sees it: a continued run must not attack again, because the
        # attacker's answers may differ.
        self.ids.add(sample.id, position)
        line = encode_line(sample)
        offset = self._writer.open_file("samples.jsonl").append(line)
        self.spans.add(position, offset, len(line))
        return sample, failure

    async def _run_attack(self, parent: Sample, target: Model) -> tuple[Sample, Failure | None]:
        try:
            sample = await self._attack.attack(parent, target)
        except (BudgetExceeded, UserError):
            raise
        except Exception as error:
            return parent, Failure("attack", "exception", describe_exception(error))
        if sample.conversation != parent.conversation:
            # The system message is the operator's own text.
            messages = (m for m in sample.conversation.messages if m.role != "system")
            match = find_prohibited_content("\n".join(m.content for m in messages))
            if match is not None:
                return parent, withheld_failure(match)
        return sample, None
