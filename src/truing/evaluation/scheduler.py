"""The worker pool: asks a model for what a run folder lacks, hands answers to the judges, and writes what comes.

A fixed number of workers take samples by position; a second pool judges, so that a slow judge does not hold up the
model. Each answer is on its way to disk before the next is asked for. Positions, ids and offsets are kept in compact
arrays (`ids.py`); bodies are read when they are needed and then forgotten, so memory does not grow with the run.
"""

from __future__ import annotations

import asyncio
import os
import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from truing.core import output_filter
from truing.core.errors import BudgetExceeded, RunError, UserError
from truing.core.jsonl import read_located_records
from truing.core.protocols import Attack, Judge, Model
from truing.core.types import (
    Answer,
    Failure,
    Judgement,
    Message,
    Response,
    Sample,
    content_id,
    stream_seed,
)
from truing.evaluation.options import EvaluateOptions, prepare_answer, validate_judgement
from truing.http.limits import BACKOFF_CALLBACK
from truing.runs.folder import RunWriter, encode_line, judgement_file
from truing.runs.index import IdIndex, LineSpans, ResponseKey, SampleKey, SampleStore


class _Verdict(Struct, frozen=True):
    sample_id: str
    verdict: bool | None = None


class _Failed(Struct, frozen=True):
    sample_id: str
    index: int = 0
    failure: Failure | None = None


class JudgeStage:
    """A judge, and which of its judgements are written."""

    def __init__(self, judge: Judge, writer: RunWriter, engine: Scheduler) -> None:
        self.judge = judge
        self.name = judge.name
        self.file = judgement_file(judge.name, judge.lineage.hash)
        self.journal = writer.open_file(self.file)
        self.spans = engine.read_spans(self.file)

    async def judge_one(self, sample: Sample, response: Response) -> Judgement:
        """The judge's judgement, or an unscored one with the reason; never raises but for a spent budget."""
        failure = response.failure
        if failure is None:
            try:
                made = validate_judgement(await self.judge.judge(sample, response))
                if made.sample_id == sample.id and made.index == response.index:
                    return made
                return replace(made, sample_id=sample.id, index=response.index)
            except BudgetExceeded:
                raise
            except Exception as error:
                failure = Failure(
                    "judge",
                    "exception",
                    f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
                )
        return Judgement(
            sample_id=sample.id,
            index=response.index,
            judge=self.name,
            question=self.judge.question,
            failure=failure,
        )


class Scheduler:
    """One pass over a run folder; `run` comes back when all that can be done is done and in order."""

    def __init__(
        self,
        writer: RunWriter,
        options: EvaluateOptions,
        judges: Sequence[Judge],
        *,
        model: Model | None = None,
        attack: Attack | None = None,
    ) -> None:
        self.writer, self.options, self.model, self.attack = writer, options, model, attack
        self.base = SampleStore(
            writer.path / ("samples.jsonl" if attack is None else "parents.jsonl")
        )
        self.total = len(self.base)
        self.ids = self.base.ids if attack is None else IdIndex()
        self.attacked: LineSpans | None = self._read_attacked() if attack is not None else None
        self.stride = options.sampling.n if model is not None else self._widest()
        self.responses = self.read_spans("responses.jsonl")
        self.journal = writer.open_file("responses.jsonl")
        self.failures = 0
        self.desks = [JudgeStage(judge, writer, self) for judge in judges]
        self.completes = True  # whether the run is complete when this pass is
        self.halt: Exception | None = None
        self.cut: int | None = None
        self._done = self._todo = 0
        self._order: array[int] | None = None
        self._verdicts: dict[int, float | None] = {}
        self._drawn = 0
        self._feeders: list[asyncio.Task[None]] = []
        self._answering = self._parked = 0
        self._more: Callable[[], asyncio.Task[None]] | None = None

    def _widest(self) -> int:
        path = self.writer.path / "responses.jsonl"
        return 1 + max(
            (key.index for _, _, key in read_located_records(path, ResponseKey)), default=0
        )

    def _read_attacked(self) -> LineSpans:
        spans = LineSpans(self.total)
        for start, length, named in read_located_records(
            self.writer.path / "samples.jsonl", SampleKey
        ):
            position = self.base.ids.get(named.parent or "")
            if position is None:
                raise RunError(
                    f"{self.writer.path}/samples.jsonl: {named.id} comes from no sample of this run"
                )
            self.ids.add(named.id, position)
            spans.add(position, start, length)
        return spans

    def read_spans(self, file: str) -> LineSpans:
        """Which lines a file of responses or judgements holds already."""
        spans = LineSpans(self.total * self.stride)
        path = self.writer.path / file
        for start, length, key in read_located_records(path, ResponseKey):
            position = self.ids.get(key.sample_id)
            if position is None or not 0 <= key.index < self.stride:
                raise RunError(f"{path}: {key.sample_id}/{key.index} is no answer of this run")
            spans.add(position * self.stride + key.index, start, length)
        return spans

    # -- the run

    async def run(self) -> None:
        """Asks, judges, writes; raises BudgetExceeded or a UserError when it had to stop before the end."""
        if self.options.retry_failures:
            self._forget_failures()
        self._prepare_until()
        behind = self._unjudged()
        self._todo = self.total if self.model is not None else len(behind)
        self._done = sum(1 for _ in self._answered_before()) if self.model is not None else 0
        self._tell()
        queue: asyncio.Queue[tuple[int, Sample, list[Response]] | None] = asyncio.Queue(
            4 * self.options.concurrency
        )
        try:
            async with asyncio.TaskGroup() as group:
                ticking = group.create_task(self._sync())
                judging = [
                    group.create_task(self._judge(queue))
                    for _ in range(self._hands())
                    if self.desks
                ]
                self._feeders = [group.create_task(self._catch_up(queue, behind))]
                if self.model is not None and self.cut is None:
                    source = self._source()
                    self._more = lambda: group.create_task(self._answer(source, queue))
                    self._answering = self._hands()
                    self._feeders += [self._more() for _ in range(self._answering)]
                while waiting := [
                    task for task in self._feeders if not task.done()
                ]:  # more may come while they work
                    await asyncio.wait(waiting)
                for _ in judging:
                    await queue.put(None)
                if judging:
                    await asyncio.wait(judging)
                ticking.cancel()
        except BaseExceptionGroup as group_error:
            raise _first(group_error) from None
        finally:
            self.base.close()
        if self.halt is not None:
            self.writer.sync()
            raise self.halt
        self._finish()

    def _hands(self) -> int:
        return max(1, min(self.options.concurrency, self.total))

    def _answered_before(self) -> Iterator[int]:
        has, stride = self.responses.lengths, self.stride
        return (p for p in range(self.total) if has[p * stride + stride - 1])

    def _source(self) -> Iterator[int]:
        has, stride = self.responses.lengths, self.stride
        for position in self._order if self._order is not None else range(self.total):
            if self.halt is not None or self.cut is not None:
                return
            if not all(has[position * stride : (position + 1) * stride]):
                yield position

    async def _sync(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await asyncio.to_thread(self.writer.sync)

    async def _answer(self, source: Iterator[int], queue: asyncio.Queue[Any]) -> None:
        assert self.model is not None
        options, generate = self.options, self.model.generate
        BACKOFF_CALLBACK.set(self._park)
        for position in source:
            sample, trouble = await self._sample(position)
            sampling = replace(options.sampling, seed=stream_seed(options.seed, sample.id))
            answers: Sequence[Any]
            if trouble is not None:
                answers = (
                    Answer(message=Message("assistant"), finish_reason="error", failure=trouble),
                ) * self.stride
            else:
                try:
                    answers = tuple(await generate(sample.conversation, sampling))
                except BudgetExceeded as error:
                    self.halt = error
                    return
                except UserError:
                    raise
                except Exception as error:
                    said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                    answers = (Answer.failed("exception", said),) * self.stride
            responses = self._store(position, sample, answers)
            if self.desks:
                await queue.put((position, sample, responses))
            self._done += 1
            self._tell()
            if self._answering > self._hands() + self._parked:
                break
        self._answering -= 1

    def _park(self, waits: bool) -> None:
        """While a request waits before it is sent again, another hand takes the next sample; later one hand goes."""
        self._parked += 1 if waits else -1
        if (
            waits
            and self._more is not None
            and self._answering < self._hands() + min(self._parked, self._hands())
        ):
            self._answering += 1
            self._feeders.append(self._more())

    async def _sample(self, position: int) -> tuple[Sample, Failure | None]:
        """The sample to ask: the attack's, if there is one (made once, and written before it is asked)."""
        sample = self.base.read(position)
        if self.attack is None or self.attacked is None or self.model is None:
            return sample, None
        if position in self.attacked:
            return self._stored_attack(position), None
        trouble: Failure | None = None
        try:
            made = await self.attack.attack(sample, self.model)
            text = "\n".join(m.content for m in made.conversation.messages if m.role != "system")
            hit = (
                output_filter.find_prohibited_content(text)
                if made.conversation != sample.conversation
                else None
            )
            if hit is not None:
                made, trouble = sample, Failure("floor", "withheld", hit.message)
        except BudgetExceeded:
            raise
        except UserError:
            raise
        except Exception as error:
            made, trouble = (
                sample,
                Failure("attack", "exception", f"{type(error).__name__}: {str(error)[:300]}"),
            )
        made = replace(made, parent=sample.id)
        if not made.id or made.id == sample.id:
            made = replace(made, id=content_id(made))
        self.ids.add(made.id, position)
        line = encode_line(made)
        self.attacked.add(position, self.writer.open_file("samples.jsonl").append(line), len(line))
        return made, trouble

    def _stored_attack(self, position: int) -> Sample:
        assert self.attacked is not None
        handle = os.open(self.writer.path / "samples.jsonl", os.O_RDONLY)
        try:
            line = os.pread(handle, self.attacked.lengths[position], self.attacked.starts[position])
        finally:
            os.close(handle)
        return msgspec.json.decode(line, type=Sample)

    def _store(self, position: int, sample: Sample, answers: Sequence[Any]) -> list[Response]:
        assert self.model is not None
        given, name, first = len(answers), self.model.name, position * self.stride
        responses: list[Response] = []
        lines: list[bytes] = []
        for index in range(self.stride):
            if index < given:
                answer = prepare_answer(answers[index])
            else:
                answer = Answer.failed("empty", f"the model gave {given} of {self.stride} answers")
            response = Response.of(sample.id, index, name, answer)
            responses.append(response)
            self.failures += answer.failure is not None
            if first + index not in self.responses:
                lines.append(encode_line(response))
            else:
                lines.append(b"")  # a crash kept the first answers of this sample: the same ones
        at = self.journal.append(lines[0] if len(lines) == 1 else b"".join(lines))
        for index, line in enumerate(lines):
            if line:
                self.responses.add(first + index, at, len(line))
                at += len(line)
        return responses

    async def _judge(self, queue: asyncio.Queue[tuple[int, Sample, list[Response]] | None]) -> None:
        while (item := await queue.get()) is not None:
            position, sample, responses = item
            for desk in self.desks:
                try:
                    await self._at_desk(desk, position, sample, responses)
                except BudgetExceeded as error:
                    self.halt = self.halt or error
            if self.model is None:
                self._done += 1
                self._tell()

    async def _at_desk(
        self, desk: JudgeStage, position: int, sample: Sample, responses: list[Response]
    ) -> None:
        lines: list[tuple[int, bytes]] = []
        verdicts: list[bool | None] = []
        for response in responses:
            key = position * self.stride + response.index
            if key in desk.spans or self.halt is not None:
                continue
            judgement = await desk.judge_one(sample, response)
            lines.append((key, encode_line(judgement)))
            verdicts.append(judgement.verdict)
        if not lines:
            return
        at = desk.journal.append(b"".join(line for _, line in lines))
        for key, line in lines:
            desk.spans.add(key, at, len(line))
            at += len(line)
        if self._order is not None and desk is self._watched:
            self._settle(position, verdicts)

    async def _catch_up(self, queue: asyncio.Queue[Any], behind: Sequence[int]) -> None:
        """Hands answers that are stored and not yet judged to the judges."""
        if not behind:
            return
        decode = msgspec.json.Decoder(Response).decode
        handle = os.open(self.writer.path / "responses.jsonl", os.O_RDONLY)
        try:
            for position in behind:
                keys = range(position * self.stride, (position + 1) * self.stride)
                spans = [(self.responses.lengths[k], self.responses.starts[k]) for k in keys]
                responses = [decode(os.pread(handle, length, at)) for length, at in spans if length]
                sample = (
                    self.base.read(position)
                    if self.attacked is None
                    else self._stored_attack(position)
                )
                await queue.put((position, sample, responses))
        finally:
            os.close(handle)

    def _unjudged(self) -> array[int]:
        """Positions whose stored answers some judge has not seen (only whole samples: others are asked again)."""
        has, stride = self.responses.lengths, self.stride
        behind = array("I")
        if all(desk.spans.count >= self.responses.count for desk in self.desks):
            return behind
        for position in range(self.total):
            keys = range(position * stride, (position + 1) * stride)
            if self.model is not None and not all(has[k] for k in keys):
                continue
            if any(has[k] and not desk.spans.lengths[k] for k in keys for desk in self.desks):
                behind.append(position)
        return behind

    def _tell(self) -> None:
        if self.options.progress is not None:
            self.options.progress(self._done, self._todo, self.failures)

    def _forget_failures(self) -> None:
        for _, _, line in read_located_records(self.writer.path / "responses.jsonl", _Failed):
            position = self.ids.get(line.sample_id)
            if (
                line.failure is not None
                and line.failure.stage in ("model", "attack")
                and position is not None
            ):
                for key in range(position * self.stride, (position + 1) * self.stride):
                    for spans in (self.responses, *(desk.spans for desk in self.desks)):
                        spans.remove(key)
        for file, spans in (
            ("responses.jsonl", self.responses),
            *((d.file, d.spans) for d in self.desks),
        ):
            if not spans.ordered:
                self.writer.rewrite_in_order(file, spans)
        self.journal = self.writer.open_file("responses.jsonl")
        self.responses = self.read_spans("responses.jsonl")
        for desk in self.desks:
            desk.journal, desk.spans = self.writer.open_file(desk.file), self.read_spans(desk.file)

    # -- stopping when enough is known

    def _prepare_until(self) -> None:
        until = self.options.until
        if until is None:
            return
        found = [desk for desk in self.desks if desk.judge.question == until.question]
        if not found:
            raise UserError(
                f"--until asks about {until.question!r}, and no judge of this run answers that"
            )
        self._watched = found[0]
        self._order = array("I", range(self.total))
        random.Random(self.options.seed).shuffle(self._order)
        stored: dict[int, list[bool | None]] = {}
        for _, _, line in read_located_records(self.writer.path / self._watched.file, _Verdict):
            position = self.ids.get(line.sample_id)
            if position is not None:
                stored.setdefault(position, []).append(line.verdict)
        for position, verdicts in stored.items():
            self._settle(position, verdicts)

    def _settle(self, position: int, verdicts: list[bool | None]) -> None:
        """Draws are looked at in the order in which they were drawn, whatever the order in which they were judged."""
        until, order = self.options.until, self._order
        if until is None or order is None or self.cut is not None:
            return
        scored = [v for v in verdicts if v is not None]
        self._verdicts[position] = (
            scored[0] if len(scored) == 1 else sum(scored) / len(scored) if scored else None
        )
        while self._drawn < self.total and order[self._drawn] in self._verdicts:
            drawn = order[self._drawn]
            verdict = self._verdicts.pop(drawn)
            self._drawn += 1
            if until.observe(self.base.read(drawn).id, verdict):
                self.cut = self._drawn
                for feeder in self._feeders:
                    feeder.cancel()
                return

    def _finish(self) -> None:
        """Puts lines in order and marks the run complete."""
        if self.cut is not None and self._order is not None:
            for position in self._order[self.cut :]:
                for key in range(position * self.stride, (position + 1) * self.stride):
                    for spans in (self.responses, *(desk.spans for desk in self.desks)):
                        spans.remove(key)
            self.writer.record.notes["until"] = f"stopped after {self.cut} of {self.total} draws"
        if self.attacked is not None:
            self.writer.rewrite_in_order("samples.jsonl", self.attacked)
        self.writer.rewrite_in_order("responses.jsonl", self.responses)
        for desk in self.desks:
            self.writer.rewrite_in_order(desk.file, desk.spans)
        self.writer.record.notes.pop("judging", None)
        self.writer.record.complete = self.completes
        self.writer.save()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error in a group of tasks, a user's error before others."""
    leaves: list[BaseException] = []
    todo: list[BaseException] = [group]
    while todo:
        error = todo.pop(0)
        if isinstance(error, BaseExceptionGroup):
            todo += error.exceptions
        else:
            leaves.append(error)
    return next((e for e in leaves if isinstance(e, UserError)), leaves[0])
