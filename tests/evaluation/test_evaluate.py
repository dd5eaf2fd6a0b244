"""Evaluations from data set to run folder: what is stored, what a second call does, what is refused."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.evaluation.local_account import LocalAccount
from tests.model_stand_ins import EvenJudge, MemoryDataset, SeedModel

from truing.core.errors import BudgetExceeded, DataError, PlanError, RunError
from truing.core.types import (
    Answer,
    Conversation,
    Failure,
    Judgement,
    Lineage,
    Message,
    Response,
    Row,
    Sample,
    Sampling,
    Usage,
)
from truing.evaluation.cost_bounds import Cost
from truing.evaluation.evaluate import evaluate, evaluate_part, judge_run
from truing.evaluation.options import EvaluateOptions, RunBudget
from truing.evaluation.shared_account import AccountVisit, PartPass, SpendingAccount
from truing.models.scripted import ScriptedModel
from truing.runs.folder import Run, RunWriter


def read_files(run: Run) -> dict[str, bytes]:
    """Returns the content of the run's JSONL files by name."""
    return {str(p.relative_to(run.path)): p.read_bytes() for p in sorted(run.path.rglob("*.jsonl"))}


def test_run_holds_samples_answers_and_judgements_in_order(tmp_path: Path) -> None:
    model, judge = ScriptedModel(lambda c, s: c.prompt.split(":")[0]), EvenJudge()
    run = evaluate(
        model,
        MemoryDataset.of_size(40),
        [judge],
        tmp_path / "run",
        options=EvaluateOptions(concurrency=7),
    )
    samples, responses, judgements = (
        list(run.samples()),
        list(run.responses()),
        list(run.judgements()),
    )
    assert (
        [r.sample_id for r in responses]
        == [s.id for s in samples]
        == [j.sample_id for j in judgements]
    )
    assert [r.text for r in responses] == [f"Question {i}" for i in range(40)]
    assert [j.verdict for j in judgements] == [len(f"Question {i}") % 2 == 0 for i in range(40)]
    manifest = run.manifest
    assert manifest.complete
    assert manifest.data[0].n == 40
    assert [j.file for j in manifest.judges] == [
        f"judgements/test-even-{judge.lineage.hash[:8]}.jsonl"
    ]
    assert (run.path.stat().st_mode & 0o777) == 0o700


def test_same_call_again_queries_nothing(tmp_path: Path) -> None:
    model, judge = SeedModel(), EvenJudge()
    first = read_files(evaluate(model, MemoryDataset.of_size(9), [judge], tmp_path / "run"))
    assert len(model.prompts) == 9
    assert read_files(evaluate(model, MemoryDataset.of_size(9), [judge], tmp_path / "run")) == first
    assert (len(model.prompts), judge.calls) == (9, 9)


def test_interrupted_run_continues_to_equal_bytes(tmp_path: Path) -> None:
    options = EvaluateOptions(sampling=Sampling(n=3), concurrency=4)
    complete = read_files(
        evaluate(
            SeedModel(),
            MemoryDataset.of_size(20),
            [EvenJudge()],
            tmp_path / "uninterrupted",
            options=options,
        )
    )
    size = len(complete["responses.jsonl"])
    for cut in (0, 1, size // 3, size // 2 + 7, size - 1):
        out = tmp_path / f"cut{cut}"
        run = evaluate(SeedModel(), MemoryDataset.of_size(20), [EvenJudge()], out, options=options)
        manifest = json.loads((out / "manifest.json").read_text())
        (out / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
        for path in (out / "responses.jsonl", *(out / "judgements").iterdir()):
            data = path.read_bytes()
            path.write_bytes(data[: cut * len(data) // size])
        model = SeedModel()
        assert (
            read_files(
                evaluate(model, MemoryDataset.of_size(20), [EvenJudge()], out, options=options)
            )
            == complete
        )
        assert len(model.prompts) <= 20
        assert run.manifest.complete


def test_judge_run_adds_judgements_without_the_model(tmp_path: Path) -> None:
    model = SeedModel()
    run = evaluate(model, MemoryDataset.of_size(12), [EvenJudge()], tmp_path / "run")
    second = EvenJudge("test:second", "odd")
    judge_run(run, second)
    judge_run(run.path, [second])
    assert (len(model.prompts), second.calls) == (12, 12)
    assert [j.question for j in run.manifest.judges] == ["even", "odd"]
    assert len(list(run.judgements("test:second"))) == 12
    assert run.manifest.complete
    assert "judging" not in run.manifest.notes


def test_recorded_answers_and_human_judgements_become_a_run(tmp_path: Path) -> None:
    rows = []
    for i in range(6):
        sample = Sample(id=f"s{i}", conversation=Conversation.of(f"prompt {i}"))
        texts = ("x" * i, "x" * (i + 1))
        responses = tuple(
            Response(sample_id=sample.id, index=k, message=Message("assistant", t))
            for k, t in enumerate(texts)
        )
        people = tuple(
            Judgement(
                sample_id=sample.id,
                index=0,
                judge="human:crowd",
                rater=str(k),
                question="harmful",
                verdict=bool(k),
            )
            for k in range(3)
        )
        rows.append(Row(sample=sample, responses=responses, judgements=people))
    run = evaluate(None, MemoryDataset(rows), [EvenJudge()], tmp_path / "run")
    assert run.manifest.model == "recorded"
    assert [(r.sample_id, r.index, r.model) for r in run.responses()][:3] == [
        ("s0", 0, "recorded"),
        ("s0", 1, "recorded"),
        ("s1", 0, "recorded"),
    ]
    assert len(list(run.judgements("human:crowd"))) == 18
    assert [(j.sample_id, j.index, j.verdict) for j in run.judgements("test:even")][:3] == [
        ("s0", 0, True),
        ("s0", 1, False),
        ("s1", 0, False),
    ]
    with pytest.raises(DataError, match="no recorded answers"):
        evaluate(None, MemoryDataset.of_size(3), [], tmp_path / "none")
    assert not (tmp_path / "none").exists()


class PrefixAttack:
    """Puts a word before the prompt; fails on one prompt."""

    name = "test:prefix"

    async def attack(self, sample: Sample, target: object) -> Sample:
        if "Question 3:" in sample.prompt:
            raise RuntimeError("no idea")
        return Sample(conversation=Conversation.of(f"Please. {sample.prompt}"), parent=sample.id)


def test_attack_stores_attacked_samples_and_parents(tmp_path: Path) -> None:
    model = SeedModel()
    run = evaluate(
        model,
        MemoryDataset.of_size(6),
        [EvenJudge()],
        tmp_path / "run",
        attack=PrefixAttack(),
        options=EvaluateOptions(concurrency=3),
    )
    attacked = list(run.samples())
    parents = [s.id for s in MemoryDataset.of_size(6).rows() for s in [s.sample]]
    assert [s.parent for s in attacked] == parents
    assert all(s.id != s.parent for s in attacked)
    assert sorted(model.prompts) == sorted(s.prompt for i, s in enumerate(attacked) if i != 3)
    failed = [r for r in run.responses() if r.failure]
    assert [(r.sample_id, r.failure.stage) for r in failed if r.failure] == [
        (attacked[3].id, "attack")
    ]
    judge_run(run, EvenJudge("test:later"))
    assert len(list(run.judgements("test:later"))) == 6


class StopAtFive:
    """Stops at the fifth verdict that is True."""

    question = "even"

    def __init__(self) -> None:
        self.observed: list[tuple[str, bool | None]] = []

    def observe(self, sample_id: str, verdict: bool | None) -> bool:
        self.observed.append((sample_id, verdict))
        return sum(v is True for _, v in self.observed) == 5

    def __str__(self) -> str:
        return "five yes"


def test_stopping_rule_sees_draws_in_the_order_drawn(tmp_path: Path) -> None:
    async def answer_with_delay(
        conversation: Conversation, sampling: Sampling
    ) -> tuple[Answer, ...]:
        await asyncio.sleep(0.0001 * (sampling.seed % 40))
        return (Answer.of("x" * (sampling.seed % 7)),)

    runs = []
    for concurrency in (1, 16):
        rule, model = StopAtFive(), SeedModel()
        model.generate = answer_with_delay  # type: ignore[method-assign]
        run = evaluate(
            model,
            MemoryDataset.of_size(200),
            [EvenJudge()],
            tmp_path / str(concurrency),
            options=EvaluateOptions(until=rule, concurrency=concurrency, seed=1),
        )
        runs.append((rule.observed, read_files(run)))
        assert len(list(run.responses())) == len(rule.observed) == len(list(run.judgements()))
        assert run.manifest.notes["until"] == f"stopped after {len(rule.observed)} of 200 draws"
    assert runs[0] == runs[1]
    assert [i for i, _ in runs[0][0]] != [r.sample.id for r in MemoryDataset.of_size(200).rows()][
        : len(runs[0][0])
    ]
    with pytest.raises(PlanError, match="no judge of this run answers"):
        evaluate(
            SeedModel(),
            MemoryDataset.of_size(3),
            [EvenJudge(question="harmful")],
            tmp_path / "x",
            options=EvaluateOptions(until=StopAtFive()),
        )


def test_a_limited_run_goes_on_with_its_own_rows(tmp_path: Path) -> None:
    data, model = MemoryDataset.of_size(40), SeedModel()
    options = EvaluateOptions(limit=8, seed=3)
    run = evaluate(model, data, [], tmp_path / "run", options=options)
    stored = [s.id for s in run.samples()]
    assert stored != [r.sample.id for r in data.rows()][:8]
    assert run.manifest.plan["sample"] == "random"
    (run.path / "samples.jsonl").unlink()  # as if it had been interrupted before
    again = evaluate(model, data, [], run.path, options=options)
    assert [s.id for s in again.samples()] == stored
    first = EvaluateOptions(limit=8, seed=3, sample="first")
    with pytest.raises(RunError, match="another plan"):
        evaluate(model, data, [], run.path, options=first)
    # A run of the first rows, such as one begun by 0.1, goes on with the first rows.
    earlier = evaluate(model, data, [], tmp_path / "first", options=first)
    assert "sample" not in earlier.manifest.plan
    assert [s.id for s in earlier.samples()] == [r.sample.id for r in data.rows()][:8]
    assert evaluate(model, data, [], earlier.path, options=options).manifest == earlier.manifest


def test_another_plan_and_another_process_are_refused(tmp_path: Path) -> None:
    run = evaluate(SeedModel(), MemoryDataset.of_size(3), [], tmp_path / "run")
    with pytest.raises(RunError, match=r"holds a run of another plan \(seed: 0, not 1\)"):
        evaluate(
            SeedModel(), MemoryDataset.of_size(3), [], run.path, options=EvaluateOptions(seed=1)
        )
    with pytest.raises(RunError, match="data_sha256"):
        evaluate(SeedModel(), MemoryDataset.of_size(4), [], run.path)
    writer = RunWriter(run.path, run.manifest)
    with pytest.raises(RunError, match="another process is writing"):
        evaluate(SeedModel(), MemoryDataset.of_size(3), [EvenJudge()], run.path)
    writer.close()


def test_wrong_arguments_are_reported_together_before_the_first_call(tmp_path: Path) -> None:
    model = SeedModel()
    with pytest.raises(PlanError) as caught:
        evaluate(
            model,
            MemoryDataset.of_size(2),
            [EvenJudge(), EvenJudge()],
            tmp_path / "a",
            options=EvaluateOptions(concurrency=0, limit=0),
        )
    assert len(caught.value.faults) == 3
    sample = Sample(id="same", conversation=Conversation.of("x"))
    with pytest.raises(DataError, match="row 2: the id 'same' occurs more than once"):
        evaluate(model, MemoryDataset([Row(sample=sample)] * 2), [], tmp_path / "b")
    with pytest.raises(DataError, match="no rows"):
        evaluate(model, MemoryDataset([]), [], tmp_path / "c")
    assert not (tmp_path / "b").exists()
    assert model.prompts == []


@pytest.mark.parametrize(
    ("kind", "message", "passes"),
    [
        ("connect", "no connection", True),
        ("http", "503 Service Unavailable", True),
        ("http", "400 Bad Request: content filter", False),
        ("unparsable", "an answer in another form", False),
    ],
)
def test_failures_that_may_have_passed_are_repeated_and_all_with_retry_failures(
    tmp_path: Path, kind: str, message: str, passes: bool
) -> None:
    down = True

    class FailingModel(SeedModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            if down and "3" in conversation.prompt:
                return (Answer.failed(kind, message),)
            return await super().generate(conversation, sampling)

    def run_again(retry_failures: bool | None) -> list[str]:
        model = FailingModel()
        options = EvaluateOptions(retry_failures=retry_failures)
        evaluate(model, MemoryDataset.of_size(8), [EvenJudge()], run.path, options=options)
        return model.prompts

    run = evaluate(FailingModel(), MemoryDataset.of_size(8), [EvenJudge()], tmp_path / "run")
    down = False
    assert run_again(False) == []
    assert len(run_again(None)) == passes
    assert len(run_again(True)) == (not passes)
    assert run_again(True) == []
    uninterrupted = evaluate(
        SeedModel(), MemoryDataset.of_size(8), [EvenJudge()], tmp_path / "uninterrupted"
    )
    assert read_files(run) == read_files(uninterrupted)


def test_a_judge_that_was_down_judges_again_and_the_others_do_not(tmp_path: Path) -> None:
    down = True

    class FailingJudge(EvenJudge):
        async def judge(self, sample: Sample, response: Response) -> Judgement:
            judgement = await super().judge(sample, response)
            if down and ("1" in sample.prompt or "2" in sample.prompt):
                failure = Failure("judge", "timeout" if "1" in sample.prompt else "unparsable", "x")
                return msgspec.structs.replace(judgement, verdict=None, failure=failure)
            return judgement

    model = SeedModel()
    run = evaluate(model, MemoryDataset.of_size(4), [FailingJudge()], tmp_path / "run")
    down = False
    judge = FailingJudge()
    judge_run(run, judge)
    assert judge.calls == 1
    failures = [j.failure.kind if j.failure else None for j in run.judgements()]
    assert failures == [None, None, "unparsable", None]
    evaluate(model, MemoryDataset.of_size(4), [judge], run.path)
    assert judge.calls == 1
    judge_run(run, judge, options=EvaluateOptions(retry_failures=True))
    assert judge.calls == 2
    assert len(model.prompts) == 4
    assert run.manifest.complete


def test_run_continues_after_the_budget_was_reached(tmp_path: Path) -> None:
    class BudgetModel(SeedModel):
        remaining = 5

        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            if self.remaining == 0:
                raise BudgetExceeded("5 requests are spent")
            self.remaining -= 1
            return await super().generate(conversation, sampling)

    with pytest.raises(BudgetExceeded, match="5 requests"):
        evaluate(
            BudgetModel(),
            MemoryDataset.of_size(9),
            [EvenJudge()],
            tmp_path / "run",
            options=EvaluateOptions(concurrency=2),
        )
    run = Run(tmp_path / "run")
    assert len(list(run.responses())) == 5
    assert not run.manifest.complete
    model = BudgetModel()
    evaluate(model, MemoryDataset.of_size(9), [EvenJudge()], run.path)
    assert len(model.prompts) == 4
    uninterrupted = evaluate(
        SeedModel(), MemoryDataset.of_size(9), [EvenJudge()], tmp_path / "uninterrupted"
    )
    assert read_files(run) == read_files(uninterrupted)


def test_judge_that_selected_for_the_model_is_struck(tmp_path: Path) -> None:
    judge = EvenJudge()
    model = SeedModel()
    model.lineage = Lineage(name="tuned", hash="1234", judges=(judge.lineage,))
    run = evaluate(model, MemoryDataset.of_size(2), [judge], tmp_path / "run")
    assert "tuned was chosen" in (run.manifest.judges[0].struck or "")


def test_result_does_not_depend_on_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read_files(
        evaluate(SeedModel(), MemoryDataset.of_size(5), [EvenJudge()], tmp_path / "a")
    )
    times = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr(time, "time", lambda: float(next(times)))
    assert (
        read_files(evaluate(SeedModel(), MemoryDataset.of_size(5), [EvenJudge()], tmp_path / "b"))
        == expected
    )


def test_progress_and_a_running_event_loop(tmp_path: Path) -> None:
    progress: list[tuple[int, int, int]] = []

    async def evaluate_in_a_loop() -> Run:
        options = EvaluateOptions(
            progress=lambda done, total, failures: progress.append((done, total, failures))
        )
        return evaluate(
            SeedModel(), MemoryDataset.of_size(4), [], tmp_path / "run", options=options
        )

    assert asyncio.run(evaluate_in_a_loop()).manifest.complete
    assert progress[0] == (0, 4, 0)
    assert progress[-1] == (4, 4, 0)


class _LateAccount(LocalAccount):
    """Hears what it is told only when it is asked next, as a process on another machine may."""

    def __init__(self, account: SpendingAccount) -> None:
        super().__init__(account)
        self._told: list[tuple[str, tuple[Any, ...]]] = []

    async def ask(self, method: str, *arguments: Any) -> Any:
        for told, its_arguments in self._told:
            super().tell(told, *its_arguments)
        self._told.clear()
        return await super().ask(method, *arguments)

    def tell(self, method: str, *arguments: Any) -> None:
        self._told.append((method, arguments))


def test_a_visit_that_fails_tells_the_account_its_costs_first(tmp_path: Path) -> None:
    class Charges(SeedModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            return (Answer(message=Message("assistant", "yes"), usage=Usage(5, 2)),)

    class SpentJudge(EvenJudge):
        async def judge(self, sample: Sample, response: Response) -> Judgement:
            raise BudgetExceeded("the requests of the judge are spent")

    account = SpendingAccount(RunBudget(tokens=10_000), None, 16, Cost())
    visit = AccountVisit(_LateAccount(account), "part")
    with pytest.raises(BudgetExceeded, match="of the judge"):
        evaluate_part(
            Charges(),
            MemoryDataset.of_size(4),
            [SpentJudge()],
            tmp_path / "part",
            options=EvaluateOptions(sampling=Sampling(max_tokens=16)),
            part_pass=PartPass([2], visit),
        )
    # Not the bound that was reserved, and not lost: the answer is stored.
    assert (account.state().spent, account.state().lost) == (Cost(5, 2), Cost())
