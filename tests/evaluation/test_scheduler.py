"""The scheduler on a run folder: what it generates, judges and stores, in which order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from tests.evaluation.local_account import LocalAccount
from tests.model_stand_ins import EvenJudge, MemoryDataset, SeedModel

from truing.core.errors import BudgetExceeded, RunError, UserError
from truing.core.ids import stream_seed
from truing.core.types import (
    Answer,
    Conversation,
    Failure,
    Judgement,
    Message,
    Response,
    Sample,
    Sampling,
    Usage,
)
from truing.evaluation.cost_bounds import Cost
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions, RunBudget
from truing.evaluation.scheduler import Scheduler
from truing.evaluation.shared_account import AccountVisit, PartPass, SpendingAccount
from truing.evaluation.validation import first_error
from truing.http.limits import BACKOFF_CALLBACK
from truing.runs.append_only_file import AppendOnlyFile
from truing.runs.folder import Manifest, RunWriter

SAMPLES = [Sample(id=f"s{i}", conversation=Conversation.of(f"prompt {i}")) for i in range(4)]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[RunWriter]:
    run_writer = RunWriter(tmp_path / "run", Manifest())
    for sample in SAMPLES:
        run_writer.append("samples.jsonl", sample)
    yield run_writer
    run_writer.close()


def store_responses(writer: RunWriter, *texts: str | Failure, sample_id: str) -> None:
    """Appends one response to a sample for each text or failure."""
    for index, text in enumerate(texts):
        is_failed = isinstance(text, Failure)
        response = Response(
            sample_id=sample_id,
            index=index,
            model="test:seed",
            message=Message("assistant", "" if is_failed else str(text)),
            failure=text if isinstance(text, Failure) else None,
        )
        writer.append("responses.jsonl", response)


def run_scheduler(
    writer: RunWriter,
    judges: Sequence[EvenJudge] = (),
    model: SeedModel | None = None,
    **options: object,
) -> Scheduler:
    """Runs one pass over the folder."""
    scheduler = Scheduler(writer, EvaluateOptions(**options), judges, model=model)  # type: ignore[arg-type]
    asyncio.run(scheduler.run())
    return scheduler


def read_judgements(writer: RunWriter, judge: str) -> list[Judgement]:
    """Returns the stored judgements of one judge."""
    lines = [
        msgspec.json.decode(line, type=Judgement)
        for path in sorted((writer.path / "judgements").iterdir())
        for line in path.read_bytes().splitlines()
    ]
    return [judgement for judgement in lines if judgement.judge == judge]


class ProgressLog(list[tuple[int, int, int]]):
    """Keeps the (done, total, failures) of each progress report."""

    def __call__(self, done: int, total: int, failures: int) -> None:
        self.append((done, total, failures))


# -- answers


def test_only_missing_answers_are_generated(writer: RunWriter) -> None:
    store_responses(writer, "stored", sample_id="s2")
    model, progress = SeedModel(), ProgressLog()
    run_scheduler(writer, model=model, seed=5, concurrency=1, progress=progress)
    assert model.prompts == ["prompt 0", "prompt 1", "prompt 3"]
    texts = {r.sample_id: r.text for r in writer.responses()}
    expected = {s: f"{stream_seed(5, s)}/0" for s in ("s0", "s1", "s3")}
    assert texts == expected | {"s2": "stored"}
    assert list(texts) == ["s0", "s1", "s2", "s3"]
    assert progress == [(1, 4, 0), (2, 4, 0), (3, 4, 0), (4, 4, 0)]
    assert writer.manifest.complete


def test_a_sample_stored_in_part_keeps_its_stored_answer(writer: RunWriter) -> None:
    store_responses(writer, "before the crash", sample_id="s0")
    model = SeedModel()
    run_scheduler(writer, model=model, sampling=Sampling(n=2), concurrency=1)
    assert len(model.prompts) == 4
    responses = list(writer.responses())
    assert [(r.sample_id, r.index) for r in responses] == [
        (f"s{i}", index) for i in range(4) for index in range(2)
    ]
    assert responses[0].text == "before the crash"
    assert responses[1].text == f"{stream_seed(0, 's0')}/1"


def test_missing_and_surplus_answers_of_a_model(writer: RunWriter) -> None:
    class UnevenModel(SeedModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            number = int(conversation.prompt.split()[1])
            return tuple(Answer.of(f"answer {i}") for i in range(number))

    run_scheduler(writer, model=UnevenModel(), sampling=Sampling(n=2))
    messages = [r.failure.message if r.failure else r.text for r in writer.responses()]
    assert messages == [
        "the model gave 0 of 2 answers",
        "the model gave 0 of 2 answers",
        "answer 0",
        "the model gave 1 of 2 answers",
        "answer 0",
        "answer 1",
        "answer 0",
        "answer 1",
    ]


def test_answers_are_stored_in_the_order_of_the_samples(tmp_path: Path) -> None:
    async def slow_first(conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        number = int(conversation.prompt.split()[1].rstrip(":"))
        await asyncio.sleep(0.0005 * (30 - number))
        return (Answer.of(f"answer {number}"),)

    model = SeedModel()
    model.generate = slow_first  # type: ignore[method-assign]
    run = evaluate(
        model,
        MemoryDataset.of_size(30),
        [EvenJudge()],
        tmp_path / "run",
        options=EvaluateOptions(concurrency=30),
    )
    assert [r.text for r in run.responses()] == [f"answer {i}" for i in range(30)]
    assert [j.sample_id for j in run.judgements()] == [s.id for s in run.samples()]


def test_each_answer_has_its_own_random_stream(tmp_path: Path) -> None:
    options = EvaluateOptions(seed=3, sampling=Sampling(n=2))
    run = evaluate(SeedModel(), MemoryDataset.of_size(5), [], tmp_path / "run", options=options)
    for r in run.responses():
        assert r.text == f"{stream_seed(3, r.sample_id)}/{r.index}"
    texts = {r.text for r in run.responses()}
    assert len(texts) == 10


def test_failed_answers_are_dropped_and_generated_again(writer: RunWriter) -> None:
    judge, model = EvenJudge(), SeedModel()
    store_responses(writer, Failure("model", "timeout", "late"), sample_id="s0")
    store_responses(writer, Failure("rail", "blocked", "no"), sample_id="s1")
    store_responses(writer, "fine", sample_id="s2")
    run_scheduler(writer, [judge])
    assert judge.calls == 1
    run_scheduler(writer, [judge], model, retry_failures=True)
    # A rail's refusal is a result, not an error: it is not repeated.
    assert sorted(model.prompts) == ["prompt 0", "prompt 3"]
    assert [r.failure.kind if r.failure else None for r in writer.responses()] == [
        None,
        "blocked",
        None,
        None,
    ]
    assert [j.sample_id for j in read_judgements(writer, "test:even")] == ["s0", "s1", "s2", "s3"]


def test_concurrency_bounds_the_requests_in_progress(writer: RunWriter) -> None:
    running, most = 0, 0

    class CountingModel(SeedModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            return (Answer.of("x"),)

    run_scheduler(writer, model=CountingModel(), concurrency=2)
    assert most == 2


def test_a_request_that_waits_for_a_retry_lets_another_worker_start(writer: RunWriter) -> None:
    released = asyncio.Event()
    order: list[str] = []

    class BackingOffModel(SeedModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            if conversation.prompt == "prompt 0":
                on_backoff = BACKOFF_CALLBACK.get()
                assert on_backoff is not None
                on_backoff(True)
                await released.wait()
                on_backoff(False)
            order.append(conversation.prompt)
            if len(order) == 3:
                released.set()
            return (Answer.of("x"),)

    # With one worker alone, the others could not be answered before the first.
    run_scheduler(writer, model=BackingOffModel(), concurrency=1)
    assert order == ["prompt 1", "prompt 2", "prompt 3", "prompt 0"]
    assert [r.sample_id for r in writer.responses()] == ["s0", "s1", "s2", "s3"]


def test_an_answer_that_belongs_to_no_sample_is_set_aside(writer: RunWriter) -> None:
    store_responses(writer, "x", "y", sample_id="s0")
    Scheduler(writer, EvaluateOptions(), [], model=SeedModel())
    assert [r.index for r in writer.responses()] == [0]
    assert "s0/1 belongs to no sample of this run" in writer.manifest.notes["damaged"]
    # Without a model nobody could answer again.
    store_responses(writer, "x", sample_id="elsewhere")
    with pytest.raises(RunError, match="elsewhere/0 belongs to no sample of this run"):
        Scheduler(writer, EvaluateOptions(), [])


def test_the_number_of_answers_is_read_from_the_folder_without_a_model(writer: RunWriter) -> None:
    assert Scheduler(writer, EvaluateOptions(), []).answers_per_sample == 1
    store_responses(writer, "x", "y", "z", sample_id="s1")
    assert Scheduler(writer, EvaluateOptions(), []).answers_per_sample == 3


# -- judgements


def test_only_missing_judgements_are_added(writer: RunWriter) -> None:
    for i, text in enumerate(("a", "ab", "abc")):
        store_responses(writer, text, sample_id=f"s{i}")
    first, second, progress = EvenJudge(), EvenJudge("test:second"), ProgressLog()
    run_scheduler(writer, [first])
    run_scheduler(writer, [first, second], progress=progress)
    assert (first.calls, second.calls) == (3, 3)
    assert progress[0] == (0, 3, 0)
    assert progress[-1] == (3, 3, 0)
    verdicts = [j.verdict for j in read_judgements(writer, "test:second")]
    assert verdicts == [False, True, False]


def test_a_judge_run_keeps_an_interrupted_run_incomplete(writer: RunWriter) -> None:
    store_responses(writer, "x", sample_id="s0")
    writer.manifest.notes["judging"] = "not finished"
    scheduler = Scheduler(writer, EvaluateOptions(), [EvenJudge()])
    scheduler.marks_complete = False
    asyncio.run(scheduler.run())
    manifest = json.loads((writer.path / "manifest.json").read_text())
    assert manifest["complete"] is False
    assert "judging" not in manifest["notes"]


def test_errors_of_model_and_judge_are_stored(tmp_path: Path) -> None:
    class FaultyModel(SeedModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            number = int(conversation.prompt.split()[1].rstrip(":"))
            if number == 0:
                raise OSError("the connection\nbroke")
            if number == 1:
                return ()
            if number == 2:
                return (Answer.of("z" * 1_500_000),)
            if number == 3:
                return (Answer.of("half \ud800 a character"),)
            if number == 4:
                return ("text",)  # type: ignore[return-value]
            return (Answer.of(""),)

    class FaultyJudge(EvenJudge):
        async def judge(self, sample: Sample, response: Response) -> Judgement:
            if not response.text:
                raise ZeroDivisionError("by zero")
            return await super().judge(sample, response)

    run = evaluate(FaultyModel(), MemoryDataset.of_size(6), [FaultyJudge()], tmp_path / "run")
    kinds = [(r.failure.stage, r.failure.kind) if r.failure else None for r in run.responses()]
    expected_kinds = [
        ("model", "exception"),
        ("model", "empty"),
        ("model", "too_large"),
        None,
        ("model", "unparsable"),
        None,
    ]
    assert kinds == expected_kinds
    assert [len(r.text) for r in run.responses()][2] == 20_000
    first = next(run.responses()).failure
    assert first is not None and first.message == "OSError: the connection broke"
    outcomes = [(j.verdict, j.failure.kind if j.failure else None) for j in run.judgements()]
    assert outcomes == [
        (None, "exception"),
        (None, "empty"),
        (None, "too_large"),
        (True, None),
        (None, "unparsable"),
        (None, "exception"),
    ]


# -- the end of a run


def test_the_budget_ends_the_run_and_keeps_what_is_stored(writer: RunWriter) -> None:
    class BudgetModel(SeedModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            if len(self.prompts) == 2:
                raise BudgetExceeded("2 requests are spent")
            return await super().generate(conversation, sampling)

    judge = EvenJudge()
    with pytest.raises(BudgetExceeded, match="2 requests"):
        run_scheduler(writer, [judge], BudgetModel(), concurrency=1)
    assert [r.sample_id for r in writer.responses()] == ["s0", "s1"]
    assert not writer.manifest.complete
    model = SeedModel()
    run_scheduler(writer, [judge], model)
    assert sorted(model.prompts) == ["prompt 2", "prompt 3"]
    assert [j.sample_id for j in read_judgements(writer, "test:even")] == ["s0", "s1", "s2", "s3"]
    assert writer.manifest.complete


def test_the_budget_of_a_judge_ends_the_run(writer: RunWriter) -> None:
    class BudgetJudge(EvenJudge):
        async def judge(self, sample: Sample, response: Response) -> Judgement:
            if self.calls == 1:
                raise BudgetExceeded("1 judgement is spent")
            return await super().judge(sample, response)

    for sample in SAMPLES:
        store_responses(writer, "x", sample_id=sample.id)
    judge = BudgetJudge()
    with pytest.raises(BudgetExceeded, match="1 judgement"):
        run_scheduler(writer, [judge], concurrency=1)
    assert judge.calls == 1


def test_a_user_error_of_the_model_stops_the_run(writer: RunWriter) -> None:
    class MisconfiguredModel(SeedModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            raise UserError("the key is missing")

    with pytest.raises(UserError, match="the key is missing"):
        run_scheduler(writer, model=MisconfiguredModel())
    assert not writer.manifest.complete


def test_user_errors_have_precedence_in_a_group() -> None:
    first, user_error = OSError("first"), UserError("user")
    nested = BaseExceptionGroup("outer", [ExceptionGroup("inner", [first]), user_error])
    assert first_error(nested) is user_error
    assert first_error(BaseExceptionGroup("outer", [ExceptionGroup("inner", [first])])) is first


class StopAfter:
    """Stops after a number of draws."""

    question = "even"

    def __init__(self, draws: int) -> None:
        self.draws = draws
        self.observed: list[tuple[str, float | None]] = []

    def observe(self, sample_id: str, verdict: float | None) -> bool:
        self.observed.append((sample_id, verdict))
        return len(self.observed) == self.draws


def test_a_stopped_run_holds_only_the_draws_before_the_stop(writer: RunWriter) -> None:
    rule = StopAfter(2)
    scheduler = run_scheduler(writer, [EvenJudge()], SeedModel(), until=rule, concurrency=4)
    assert scheduler.stopping is not None
    drawn = [f"s{position}" for position in scheduler.stopping.order[:2]]
    assert [sample_id for sample_id, _ in rule.observed] == drawn
    assert [r.sample_id for r in writer.responses()] == sorted(drawn)
    assert [j.sample_id for j in read_judgements(writer, "test:even")] == sorted(drawn)
    assert writer.manifest.notes["until"] == "stopped after 2 of 4 draws"


def test_stored_verdicts_are_replayed_when_a_run_continues(writer: RunWriter) -> None:
    model = SeedModel()
    run_scheduler(writer, [EvenJudge()], model)
    verdicts = {j.sample_id: j.verdict for j in read_judgements(writer, "test:even")}
    rule = StopAfter(3)
    scheduler = run_scheduler(writer, [EvenJudge()], model, until=rule)
    assert scheduler.stopping is not None
    assert rule.observed == [
        (f"s{position}", verdicts[f"s{position}"]) for position in scheduler.stopping.order[:3]
    ]
    assert len(model.prompts) == 4


def test_a_stopping_rule_needs_a_judge_of_its_question(writer: RunWriter) -> None:
    with pytest.raises(UserError, match="no judge of this run answers that"):
        run_scheduler(writer, [EvenJudge(question="harmful")], SeedModel(), until=StopAfter(1))


def test_answers_that_cannot_be_stored_stay_spent(
    writer: RunWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk gets full: what was asked for, here and by the workers beside, may be charged."""
    account = SpendingAccount(RunBudget(tokens=10_000), None, 16, Cost())
    visit = AccountVisit(LocalAccount(account), "part")
    in_flight = asyncio.Event()

    class Charges(SeedModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            answer = Answer(message=Message("assistant", "yes"), usage=Usage(5, 2))
            self.prompts.append(conversation.prompt)
            if len(self.prompts) == 2:
                await in_flight.wait()
            elif len(self.prompts) == 3:
                in_flight.set()
                await asyncio.Event().wait()
            return (answer,)

    append, n_appended = AppendOnlyFile.append, 0

    def append_once(self: AppendOnlyFile, data: bytes) -> int:
        nonlocal n_appended
        n_appended += 1
        if n_appended > 1:
            raise RunError("No space left on device")
        return append(self, data)

    monkeypatch.setattr(AppendOnlyFile, "append", append_once)
    scheduler = Scheduler(
        writer,
        EvaluateOptions(sampling=Sampling(max_tokens=16), concurrency=2),
        [],
        model=Charges(),
        part_pass=PartPass(range(4), visit),
    )
    with pytest.raises(RunError, match="No space left"):
        asyncio.run(scheduler.run())
    state = account.state()
    assert state.spent == Cost(5, 2)
    bound = Cost(state.largest_prompt, 16)
    assert state.lost == bound + bound
    # The next visit to the part does not take it back.
    account.open("part", "next", Cost(5, 2), None, [0])
    assert account.state().lost == bound + bound
