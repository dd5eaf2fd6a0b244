"""Schedules the work of a run: generates the missing answers, judges them, and stores both.

Model workers take samples by position, generate their answers and append them to the run folder;
then they put them into a bounded queue. Judge workers take them from there, so that a slow judge
does not hold up the model. An answer is appended before the worker takes the next sample, so a
crash only loses the requests in flight.

Positions and line offsets are held in compact arrays (`truing.runs.index`), texts only while they
are needed: memory does not grow with the size of the run.
"""

from __future__ import annotations

import asyncio
import os
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from truing.core.errors import BudgetExceeded, UserError
from truing.core.ids import stream_seed
from truing.core.protocols import Attack, Judge, Model, name_answer
from truing.core.types import Answer, Failure, Message, Response, Sample
from truing.evaluation.attacked_samples import AttackedSamples
from truing.evaluation.failures import RESPONSES, find_repeated
from truing.evaluation.judge_stage import JudgeStage
from truing.evaluation.options import EvaluateOptions
from truing.evaluation.shared_account import PartPass
from truing.evaluation.spending import SpendingMeter, order_positions
from truing.evaluation.stopping import create_stopping
from truing.evaluation.stored_lines import StoredLines, count_stored_answers
from truing.evaluation.validation import describe_exception, first_error, prepare_answer
from truing.http.limits import BACKOFF_CALLBACK
from truing.runs.folder import RunWriter, encode_line
from truing.runs.index import SampleStore
from truing.runs.run_files import open_run_file

_QUEUE_SLOTS_PER_WORKER = 4
_SYNC_INTERVAL_SECONDS = 1.0


class AnsweredSample(NamedTuple):
    """A sample whose responses are stored: the item of the judge queue."""

    position: int
    sample: Sample
    responses: list[Response]


class Scheduler:
    """One pass over a run folder; without a model it only judges stored responses.

    `marks_complete` is the value that the manifest's `complete` gets at the end of the pass; after
    a `part_pass`, which asks only its samples, it is False.
    """

    def __init__(
        self,
        writer: RunWriter,
        options: EvaluateOptions,
        judges: Sequence[Judge],
        *,
        model: Model | None = None,
        attack: Attack | None = None,
        part_pass: PartPass | None = None,
    ) -> None:
        self.writer, self.options, self.model = writer, options, model
        self.marks_complete = part_pass is None
        # The samples of the data set, and with an attack the samples made from them.
        self.base = SampleStore(writer.file("samples.jsonl" if attack is None else "parents.jsonl"))
        self.total = len(self.base)
        self.attacked = AttackedSamples(writer, self.base, attack) if attack is not None else None
        self.sent = self.attacked if self.attacked is not None else self.base
        self.ids = self.sent.ids

        # Response `index` of the sample at `position` has the key position * answers_per_sample +
        # index.
        self.answers_per_sample = (
            options.sampling.n if model is not None else count_stored_answers(writer, self.total)
        )
        self.stored = StoredLines(
            writer,
            self.ids,
            self.total,
            self.answers_per_sample,
            can_ask_again=model is not None,
        )
        self.responses = self.stored.read_responses()
        self.stages = [JudgeStage(judge, writer, self.stored.read_judgements) for judge in judges]
        if model is not None:
            self._drop_orphan_judgements()
        self.stopping = create_stopping(
            options, [stage.judge.question for stage in self.stages], self.total, self.base
        )
        self.meter = SpendingMeter(options, self.answers_per_sample, part_pass)
        self._order = order_positions(self.total, options, part_pass)

        self.worker_limit = max(1, min(options.concurrency, self.total))
        self._queue: asyncio.Queue[AnsweredSample | None] = asyncio.Queue(
            _QUEUE_SLOTS_PER_WORKER * options.concurrency
        )
        self._positions = self._pending_positions()
        self._group: asyncio.TaskGroup | None = None
        self._producers: list[asyncio.Task[None]] = []
        self._active_workers = 0
        self._backing_off = 0
        self._budget_error: BudgetExceeded | None = None
        self._done = self._todo = self._failures = 0

    # -- what the folder holds already

    def _drop_orphan_judgements(self) -> None:
        """Removes judgements of responses that are lost: the new responses may be others."""
        for stage in self.stages:
            for key in range(len(stage.spans)):
                if key in stage.spans and key not in self.responses:
                    stage.spans.remove(key)

    def _keys(self, position: int) -> range:
        return range(position * self.answers_per_sample, (position + 1) * self.answers_per_sample)

    def _is_answered(self, position: int) -> bool:
        return all(key in self.responses for key in self._keys(position))

    def unanswered(self) -> list[int]:
        """Returns the positions that lack a response."""
        return [position for position in range(self.total) if not self._is_answered(position)]

    def _find_unjudged(self) -> array[int]:
        """Returns the positions with stored responses that some judge has not judged.

        With a model, samples of which only some responses are stored are left out: they are
        generated again and judged then.
        """
        unjudged = array("I")
        if all(stage.spans.count >= self.responses.count for stage in self.stages):
            return unjudged
        for position in range(self.total):
            if self.model is not None and not self._is_answered(position):
                continue
            stored = [key for key in self._keys(position) if key in self.responses]
            if any(key not in stage.spans for key in stored for stage in self.stages):
                unjudged.append(position)
        return unjudged

    # -- the run

    async def run(self) -> None:
        """Answers and judges everything, and puts the files in sample order.

        Raises BudgetExceeded or a UserError if it has to stop before the end; what is stored stays.
        """
        stored = self.writer.file(RESPONSES), self.ids, self.sent
        if is_counted := self.model is not None and self.meter.is_needed:
            # Before failures are dropped: their cost stays spent.
            self.meter.count_earlier(self.writer.manifest.spending, *stored)
        if self._drop_failures() and is_counted:
            self.meter.recount_stored(*stored)
            self._save_spending()  # what they cost is in no other file
        await self.meter.open(self.unanswered, self.total)
        if self.stopping is not None:
            self.stopping.replay(self.writer.file(self._watched_stage().file), self.ids)
        unjudged = self._find_unjudged()
        if self.model is not None:
            self._todo = self.total
            # All responses to a sample are appended in one write: the last one stands for all.
            self._done = sum(self._keys(p)[-1] in self.responses for p in range(self.total))
        else:
            self._todo = len(unjudged)
        self._report_progress()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await self._run_workers(group, unjudged)
        except BaseExceptionGroup as error_group:
            raise first_error(error_group) from None
        finally:
            self.base.close()
            if self.meter.has_lost or self._budget_error is not None:
                self._save_spending()  # the next call has to know what this one may have cost
        if self._budget_error is not None:
            self.writer.sync()
            raise self._budget_error
        self._finish()

    async def _run_workers(self, group: asyncio.TaskGroup, unjudged: Sequence[int]) -> None:
        syncing = group.create_task(self._sync_periodically())
        judge_workers = []
        if self.stages:
            judge_workers = [
                group.create_task(self._judge_worker()) for _ in range(self.worker_limit)
            ]
        self._producers = [group.create_task(self._queue_unjudged(unjudged))]
        if self.model is not None and not self._is_stopped():
            for _ in range(self.worker_limit):
                self._start_worker()
        # A loop, because backoffs start further workers while these run.
        while running := [task for task in self._producers if not task.done()]:
            await asyncio.wait(running)
        for _ in judge_workers:
            await self._queue.put(None)
        if judge_workers:
            await asyncio.wait(judge_workers)
        syncing.cancel()

    def _is_stopped(self) -> bool:
        stopped_early = self.stopping is not None and self.stopping.stopped_after is not None
        return stopped_early or self.meter.is_used_up or self._budget_error is not None

    async def _sync_periodically(self) -> None:
        while True:
            await asyncio.sleep(_SYNC_INTERVAL_SECONDS)
            self.meter.renew()
            await asyncio.to_thread(self.writer.sync)

    # -- model workers

    def _pending_positions(self) -> Iterator[int]:
        """Yields the positions that lack a response; all model workers share this iterator."""
        for position in self._order:
            if self._is_stopped():
                return
            if not self._is_answered(position):
                yield position

    def _start_worker(self) -> None:
        assert self._group is not None
        self._active_workers += 1
        self._producers.append(self._group.create_task(self._model_worker()))

    def _on_backoff(self, is_waiting: bool) -> None:
        """Keeps the concurrency up while requests wait for a retry.

        Called when a request starts or ends its wait. Each waiting request allows one extra worker,
        at most as many as there are workers; a worker that finds too many running returns.
        """
        self._backing_off += 1 if is_waiting else -1
        extra_workers = min(self._backing_off, self.worker_limit)
        if is_waiting and self._active_workers < self.worker_limit + extra_workers:
            self._start_worker()

    async def _model_worker(self) -> None:
        """Takes samples until none is left, or until there are more workers than needed."""
        BACKOFF_CALLBACK.set(self._on_backoff)
        for position in self._positions:
            try:
                answered = await self._answer_sample(position)
            except BudgetExceeded as error:
                self._budget_error = error
                break
            if answered is None:
                break
            if self.stages:
                await self._queue.put(answered)
            self._done += 1
            self._report_progress()
            if self._active_workers > self.worker_limit + self._backing_off:
                break
        self._active_workers -= 1

    async def _answer_sample(self, position: int) -> AnsweredSample | None:
        """Generates and stores a sample's responses; returns None if they could pass the budget."""
        self.meter.enter(position)
        try:
            return await self._answer_entered(position)
        finally:
            self.meter.leave(position)

    async def _answer_entered(self, position: int) -> AnsweredSample | None:
        assert self.model is not None
        failure: Failure | None = None
        if self.attacked is None:
            sample = self.base.read(position)
        elif position in self.attacked:
            sample = self.attacked.read(position)
        else:
            sample, failure = await self.attacked.create(position, self.model)
        # The prompt of an attack may be many times as long as that of the data set.
        if not await self.meter.admit(position, sample):
            return None
        if failure is None:
            answers = await self._generate(self.model, sample)
        else:
            failed = Answer(message=Message("assistant"), finish_reason="error", failure=failure)
            answers = (failed,) * self.answers_per_sample
        responses = self._store(position, sample, answers)
        self.meter.count(position, sample, responses)
        return AnsweredSample(position, sample, responses)

    async def _generate(self, model: Model, sample: Sample) -> Sequence[Any]:
        sampling = replace(self.options.sampling, seed=stream_seed(self.options.seed, sample.id))
        if sample.environment is not UNSET:
            sampling = replace(sampling, environment=sample.environment)
        try:
            return tuple(await model.generate(sample.conversation, sampling))
        except (BudgetExceeded, UserError):
            raise
        except Exception as error:
            failed = Answer.failed("exception", describe_exception(error))
            return (failed,) * self.answers_per_sample

    def _store(self, position: int, sample: Sample, answers: Sequence[Any]) -> list[Response]:
        """Appends the responses to a sample in one write."""
        assert self.model is not None
        responses: list[Response] = []
        new_lines: list[tuple[int, bytes]] = []
        for index, key in enumerate(self._keys(position)):
            if index < len(answers):
                answer = prepare_answer(answers[index])
            else:
                counts = f"{len(answers)} of {self.answers_per_sample} answers"
                answer = Answer.failed("empty", f"the model gave {counts}")
            name = name_answer(self.model, sample.conversation)
            response = Response.of(sample.id, index, name, answer)
            responses.append(response)
            self._failures += answer.failure is not None
            # After a crash in the middle of this sample some responses are there already. They are
            # equal to the new ones, because the seed depends on the sample alone.
            if key not in self.responses:
                new_lines.append((key, encode_line(response)))
        offset = self.writer.open_file(RESPONSES).append(b"".join(line for _, line in new_lines))
        for key, line in new_lines:
            self.responses.add(key, offset, len(line))
            offset += len(line)
        return responses

    # -- judge workers

    async def _queue_unjudged(self, positions: Sequence[int]) -> None:
        """Puts stored responses that lack a judgement into the judge queue."""
        if not positions:
            return
        decode = msgspec.json.Decoder(Response).decode
        descriptor = open_run_file(self.writer.path, RESPONSES)
        try:
            for position in positions:
                stored = [key for key in self._keys(position) if key in self.responses]
                starts, lengths = self.responses.starts, self.responses.lengths
                responses = [
                    decode(os.pread(descriptor, lengths[key], starts[key])) for key in stored
                ]
                sample = self.sent.read(position)
                await self._queue.put(AnsweredSample(position, sample, responses))
        finally:
            os.close(descriptor)

    async def _judge_worker(self) -> None:
        """Judges queued samples with all judges, until the queue ends with None."""
        while (item := await self._queue.get()) is not None:
            for stage in self.stages:
                try:
                    await self._judge_sample(stage, item)
                except BudgetExceeded as error:
                    self._budget_error = self._budget_error or error
            if self.model is None:
                self._done += 1
                self._report_progress()

    async def _judge_sample(self, stage: JudgeStage, answered: AnsweredSample) -> None:
        first_key = answered.position * self.answers_per_sample
        keys = [first_key + response.index for response in answered.responses]
        verdicts = await stage.judge_responses(
            keys, answered.sample, answered.responses, lambda: self._budget_error is not None
        )
        watched = self.stopping is not None and stage is self._watched_stage()
        if verdicts and watched:
            self._record_verdicts(answered.position, verdicts)

    # -- early stopping

    def _watched_stage(self) -> JudgeStage:
        """Returns the judge whose verdicts the stopping rule looks at."""
        assert self.options.until is not None
        question = self.options.until.question
        return next(stage for stage in self.stages if stage.judge.question == question)

    def _record_verdicts(self, position: int, verdicts: Sequence[bool | None]) -> None:
        assert self.stopping is not None
        if self.stopping.record(position, verdicts):
            for task in self._producers:
                task.cancel()

    # -- bookkeeping

    def _report_progress(self) -> None:
        if self.options.progress is not None:
            self.options.progress(self._done, self._todo, self._failures)

    def _remove(self, position: int) -> None:
        """Removes the responses to a sample and their judgements."""
        for key in self._keys(position):
            for spans in (self.responses, *(stage.spans for stage in self.stages)):
                spans.remove(key)

    def _rewrite_in_order(self) -> None:
        self.writer.rewrite_in_order(RESPONSES, self.responses)
        for stage in self.stages:
            self.writer.rewrite_in_order(stage.file, stage.spans)

    def _drop_failures(self) -> bool:
        """Removes failures that are repeated, of model and judges; returns if there were any."""
        dropped = False
        if self.model is not None:
            for record in find_repeated(self.writer.file(RESPONSES), self.options):
                position = self.ids.get(record.sample_id)
                if position is not None:
                    self._remove(position)
                    dropped = True
        for stage in self.stages:
            for record in find_repeated(self.writer.file(stage.file), self.options):
                position = self.ids.get(record.sample_id)
                # The judgement of an answer that failed has the failure of its model.
                is_of_judge = record.failure is not None and record.failure.stage == "judge"
                if position is not None and is_of_judge:
                    stage.spans.remove(position * self.answers_per_sample + record.index)
                    dropped = True
        if not dropped:
            return False
        self._rewrite_in_order()
        # The offsets have changed.
        self.responses = self.stored.read_responses()
        for stage in self.stages:
            stage.reload()
        return True

    def _finish(self) -> None:
        """Puts all lines in order and marks the run as complete."""
        if self.stopping is not None and self.stopping.stopped_after is not None:
            # Answers beyond the stop depend on the timing, so they are not part of the result.
            for position in self.stopping.positions_beyond():
                self._remove(position)
            stop = f"stopped after {self.stopping.stopped_after} of {self.total} draws"
            self.writer.manifest.notes["until"] = stop
        if self.attacked is not None:
            self.writer.rewrite_in_order("samples.jsonl", self.attacked.spans)
        self._rewrite_in_order()
        self.writer.manifest.notes.pop("judging", None)
        self.writer.manifest.complete = self.marks_complete and not self.meter.is_used_up
        self._save_spending()

    def _save_spending(self) -> None:
        """Saves the manifest, with what the answers cost and whether a budget ended the run."""
        if self.model is not None:
            is_answered = map(self._is_answered, range(self.total))
            self.meter.write_notes(self.writer.manifest, self._order, is_answered)
        self.writer.save_manifest()
