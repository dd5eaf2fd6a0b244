"""Budgets of runs in parts, by workers in threads: what one process stores, for no more tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET
from msgspec.structs import replace
from tests.bulk.test_evaluate_on_ray import assert_equal_runs, joined, work_in_this_process
from tests.evaluation.local_account import LocalAccount

from truing.bulk.evaluate_on_ray import (
    EvaluationSpecs,
    EvaluationTask,
    EvaluationWorker,
    judge_on_ray,
)
from truing.bulk.part_visits import BudgetedParts, PartFaults, PartOutcome, PartVisit
from truing.bulk.ray_cluster import RayOptions
from truing.core.errors import RunError
from truing.core.prices import Price
from truing.core.types import Answer, Conversation, Lineage, Message, Sampling, Usage
from truing.evaluation.budget_waves import plan_waves
from truing.evaluation.cost_bounds import Cost
from truing.evaluation.evaluate import evaluate, judge_run
from truing.evaluation.options import EvaluateOptions, RunBudget
from truing.evaluation.run_parts import finish_parts, prepare_judging, prepare_parts
from truing.evaluation.shared_account import AccountState, SpendingAccount
from truing.evaluation.spending import read_lost, read_spending, shuffle_positions
from truing.runs.folder import Run
from truing.specs.resolve import resolve

MODEL, DATA, JUDGES = "scripted:mixed", "builtin:safety", ("rules:refusal",)
PRICE = Price(input=1_000_000, output=1_000_000)
OPTIONS = EvaluateOptions(sampling=Sampling(max_tokens=40), seed=3, limit=24, concurrency=3)


class Threads:
    """Does what `evaluate_on_ray` does under a budget, with workers in threads.

    The account is gone after `calls_left` calls.
    """

    def __init__(self, out: Path, specs: EvaluationSpecs, options: EvaluateOptions) -> None:
        self.out, self.specs, self.options = out, specs, options
        self.dataset = resolve(DATA, "data")
        self.parts: tuple[str, ...] = ()
        self.waves: list[list[PartVisit]] = []
        self.calls_left = float("inf")

    def prepare(self, part_rows: int) -> None:
        specs = self.specs
        model = resolve(specs.model, "model") if specs.model else None
        attack = resolve(specs.attack, "attack") if specs.attack else None
        judges = [resolve(spec, "judge") for spec in specs.judges]
        prepared = prepare_parts(
            model,
            self.dataset,
            judges,
            self.out,
            attack=attack,
            options=self.options,
            part_rows=part_rows,
        )
        self.parts = prepared.parts

    def evaluate(self, part_rows: int = 9, workers: int = 3) -> Run:
        self.prepare(part_rows)
        specs = self.specs
        sampling = self.options.sampling
        account = SpendingAccount(
            self.options.budget,
            self.options.price,
            sampling.n * sampling.max_tokens,
            read_lost(Run(self.out).manifest),
        )
        calls = LocalAccount(account, self.calls_left)
        task = EvaluationTask(
            out=str(self.out),
            specs=specs,
            options=replace(self.options, progress=None, budget=RunBudget()),
            info=self.dataset.info,
            sha256=self.dataset.sha256(),
        )

        worker = EvaluationWorker(task, None, calls)

        def work(visit: PartVisit) -> PartOutcome:
            result = worker.work(msgspec.msgpack.encode(visit))
            return msgspec.msgpack.decode(result, type=PartOutcome)

        def visit_parts(visits: Sequence[PartVisit]) -> Iterator[PartOutcome]:
            self.waves.append(list(visits))

            with ThreadPoolExecutor(workers) as pool:
                yield from pool.map(work, visits)

        def read_account() -> AccountState:
            if calls.calls_left < 0:
                raise RunError("the account is gone")
            return account.state()

        plan = plan_waves(self.out, self.parts, self.options, is_attacked=specs.attack is not None)
        budgeted = BudgetedParts(self.out, self.parts, self.options, plan)
        note = budgeted.answer(visit_parts, read_account)
        return finish_parts(self.out, budget_note=note, price=self.options.price)


def in_one_process(out: Path, options: EvaluateOptions, attack: str | None = None) -> Run:
    judges = [resolve(spec, "judge") for spec in JUDGES]
    attacker = resolve(attack, "attack") if attack else None
    model, data = resolve(MODEL, "model"), resolve(DATA, "data")
    return evaluate(model, data, judges, out, attack=attacker, options=options)


@pytest.mark.parametrize(
    "limits",
    [
        RunBudget(tokens=600),
        RunBudget(money=700.0, tokens=500),
        RunBudget(tokens=60),
        RunBudget(tokens=100_000),
    ],
    ids=str,
)
def test_a_budget_ends_the_run_where_it_ends_in_one_process(
    limits: RunBudget, tmp_path: Path
) -> None:
    options = replace(OPTIONS, budget=limits, price=PRICE)
    one = in_one_process(tmp_path / "one", options)
    threads = Threads(tmp_path / "parts", EvaluationSpecs(model=MODEL, judges=JUDGES), options)
    threads.evaluate()
    assert_equal_runs(tmp_path / "one", tmp_path / "parts")
    spending = Run(tmp_path / "parts").manifest.spending
    assert spending is not UNSET and spending == one.manifest.spending
    assert spending == read_spending(Run(tmp_path / "parts"), PRICE)
    assert spending.tokens <= (limits.tokens or limits.money or 0)
    note = one.manifest.notes.get("budget", "")
    assert ("drawn at random" in note) == (not one.manifest.complete)

    # The same budget asks nothing more, and a higher one continues to the same bytes.
    before = joined(tmp_path / "parts", "responses.jsonl")
    threads.evaluate()
    assert joined(tmp_path / "parts", "responses.jsonl") == before
    threads.options = replace(options, budget=RunBudget(tokens=100_000))
    run = threads.evaluate()
    assert run.manifest.complete and "budget" not in run.manifest.notes
    whole = in_one_process(tmp_path / "whole", replace(OPTIONS, price=PRICE))
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    assert run.manifest.spending == whole.manifest.spending


def test_an_attack_makes_prompts_longer(tmp_path: Path) -> None:
    options = replace(OPTIONS, budget=RunBudget(tokens=900), authorised="test")
    specs = EvaluationSpecs(model=MODEL, attack="base64:", judges=JUDGES)
    run = Threads(tmp_path / "parts", specs, options).evaluate()
    spending = run.manifest.spending
    assert spending is not UNSET and 0 < spending.tokens <= 900
    assert "drawn at random" in run.manifest.notes["budget"]
    unlimited = replace(options, budget=RunBudget(tokens=10**6))
    Threads(tmp_path / "parts", specs, unlimited).evaluate()
    in_one_process(tmp_path / "one", unlimited, "base64:")
    assert_equal_runs(tmp_path / "one", tmp_path / "parts")


def test_a_worker_that_dies_leaves_its_reservations_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process ends while answers are drawn; another worker visits the part again."""
    options = replace(OPTIONS, budget=RunBudget(tokens=900))
    threads = Threads(tmp_path / "run", EvaluationSpecs(model=MODEL, judges=JUDGES), options)
    work = EvaluationWorker.work
    deaths: list[str] = []

    def die_once(self: EvaluationWorker, shard: bytes) -> bytes:
        visit = msgspec.msgpack.decode(shard, type=PartVisit)
        if visit.positions and not deaths:
            deaths.append(visit.part)
            account = self._account.account  # type: ignore[union-attr]
            account.open(visit.part, "dead", Cost(), None, [])
            assert account.reserve(visit.part, "dead", visit.positions[0], 70) == "admitted"
        return work(self, shard)

    monkeypatch.setattr(EvaluationWorker, "work", die_once)
    run = threads.evaluate(workers=1)
    assert deaths
    spending = run.manifest.spending
    assert spending is not UNSET
    assert (spending.lost_read, spending.lost_written) == (70, 40)
    assert spending.tokens == read_spending(run, None).tokens <= 900
    assert (
        "110 of the tokens are bounds for requests whose answers were lost" in spending.describe()
    )
    # A call that continues counts it again.
    assert threads.evaluate().manifest.spending == spending


@pytest.mark.parametrize("n_faults", [0, 20])
def test_what_is_lost_is_saved_when_the_work_ends_early(tmp_path: Path, n_faults: int) -> None:
    """Workers reserve and die, and the cluster with them or after many faults."""
    options = replace(OPTIONS, budget=RunBudget(tokens=900))
    threads = Threads(tmp_path / "run", EvaluationSpecs(model=MODEL), options)
    account = SpendingAccount(options.budget, None, 40, Cost())
    is_visiting = False
    visits_held = []  # so that no reference count ends them

    def visit_parts(visits: Sequence[PartVisit]) -> Iterator[PartOutcome]:
        visits_held.append(visit_and_die(visits))
        return visits_held[-1]

    def visit_and_die(visits: Sequence[PartVisit]) -> Iterator[PartOutcome]:
        nonlocal is_visiting
        is_visiting = True
        account.open("part", "dead", Cost(), None, [])
        assert account.reserve("part", "dead", 0, 70) == "admitted"
        try:
            for number in range(n_faults):
                yield PartOutcome(part=visits[0].part, fault=f"fault {number}")
            raise RunError("Ray: the cluster has ended")
        finally:
            is_visiting = False

    def read_account() -> AccountState:
        assert not is_visiting  # workers that go on would spend what is not in the state
        return account.state()

    threads.prepare(part_rows=9)
    plan = plan_waves(threads.out, threads.parts, options, is_attacked=False)
    budgeted = BudgetedParts(threads.out, threads.parts, options, plan)
    with pytest.raises(RunError, match="fault 0" if n_faults else "cluster has ended"):
        budgeted.answer(visit_parts, read_account)
    assert read_lost(Run(threads.out).manifest) == Cost(70, 40)


def test_a_loss_that_cannot_be_saved_is_a_fault_and_the_last_one_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(OPTIONS, budget=RunBudget(tokens=100_000))
    threads = Threads(tmp_path / "run", EvaluationSpecs(model=MODEL), options)
    threads.evaluate()
    plan = plan_waves(threads.out, threads.parts, options, is_attacked=False)
    budgeted = BudgetedParts(threads.out, threads.parts, options, plan)
    account = SpendingAccount(options.budget, None, 40, Cost())
    states = [account.state(), replace(account.state(), lost=Cost(70, 40))]

    def visit_parts(visits: Sequence[PartVisit]) -> Iterator[PartOutcome]:
        return (PartOutcome(part=visit.part) for visit in visits)

    # The answers are all there after the first visits; the loss is heard of only then.
    assert budgeted.answer(visit_parts, lambda: states.pop(0)) == ""
    assert read_lost(Run(threads.out).manifest) == Cost(70, 40)

    def fail(*arguments: Any) -> None:
        raise RunError("No space left on device")

    monkeypatch.setattr("truing.bulk.part_visits.save_lost", fail)
    with pytest.raises(RunError, match="No space left"):
        budgeted.answer(visit_parts, account.state)


def test_an_account_that_is_gone_ends_the_run_and_loses_no_answer(tmp_path: Path) -> None:
    options = replace(OPTIONS, budget=RunBudget(tokens=100_000))
    threads = Threads(tmp_path / "run", EvaluationSpecs(model=MODEL, judges=JUDGES), options)
    threads.calls_left = 20
    with pytest.raises(RunError) as caught:
        threads.evaluate()
    *faults, rest = caught.value.faults
    assert all(fault.endswith("the account is gone") for fault in faults)
    assert "samples are answered; the same command continues" in rest
    stored = len(list(Run(tmp_path / "run").responses()))
    assert 0 < stored < 24 and not Run(tmp_path / "run").manifest.complete
    threads.calls_left = float("inf")
    threads.evaluate()
    in_one_process(tmp_path / "one", OPTIONS)
    assert (
        joined(tmp_path / "run", "responses.jsonl")
        == (tmp_path / "one/responses.jsonl").read_bytes()
    )


class FailsOnce:
    """Charges for its first answer to each prompt, which fails; the second one is good."""

    name = "test:fails-once"
    lineage = Lineage(name=name, hash="failsonce")

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        marker = self._folder / re.sub(r"\W", "", conversation.prompt)[:80]
        usage = Usage(20, 10)
        if marker.exists():
            return (Answer(message=Message("assistant", "yes"), usage=usage),)
        marker.touch()
        return (replace(Answer.failed("timeout", "too late"), usage=usage),)


def test_what_failed_answers_cost_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "markers").mkdir()
    model, resolve_spec = FailsOnce(tmp_path / "markers"), resolve

    def resolve_test(spec: str, role: Any) -> Any:
        return model if role == "model" else resolve_spec(spec, role)

    monkeypatch.setattr("truing.bulk.evaluate_on_ray.resolve", resolve_test)
    monkeypatch.setattr("tests.bulk.test_part_visits.resolve", resolve_test)
    options = replace(OPTIONS, budget=RunBudget(tokens=1200))
    threads = Threads(tmp_path / "run", EvaluationSpecs(model="test"), options)
    first = threads.evaluate().manifest.spending
    assert first is not UNSET and first.tokens == 30 * first.answers == 720
    # All failed, in several waves; none was asked twice in that call.
    assert len(threads.waves) > 1
    # A call that was killed once it had dropped the failures of a part, and before it asked again:
    part = Run(tmp_path / "run/parts/part-000001")
    manifest = part.manifest
    assert manifest.spending is not UNSET and manifest.spending.tokens == 9 * 30
    manifest.spending = replace(manifest.spending, repeated_read=9 * 20, repeated_written=9 * 10)
    (part.path / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    (part.path / "responses.jsonl").write_bytes(b"")
    threads.waves.clear()
    second = threads.evaluate().manifest
    assert [visit.part for visit in threads.waves[0]] == list(threads.parts)
    assert second.spending is not UNSET
    assert (second.spending.repeated_read, second.spending.repeated_written) == (480, 240)
    assert 720 < second.spending.tokens <= 1200
    assert "budget" in second.notes
    order = shuffle_positions(24, OPTIONS.seed)
    ids = [sample.id for sample in Run(tmp_path / "run").samples()]
    stored = [response.sample_id for response in Run(tmp_path / "run").responses()]
    assert sorted(stored) == sorted(ids[position] for position in order[: len(stored)])


def test_a_further_judge_judges_what_a_stopped_run_holds(tmp_path: Path) -> None:
    options = replace(OPTIONS, budget=RunBudget(tokens=500))
    threads = Threads(tmp_path / "parts", EvaluationSpecs(model=MODEL, judges=JUDGES), options)
    threads.evaluate()
    threads.specs = EvaluationSpecs(model=MODEL, judges=(*JUDGES, "rules:degenerate"))
    threads.evaluate()
    in_one_process(tmp_path / "one", options)
    judge_run(tmp_path / "one", [resolve("rules:degenerate", "judge")])
    assert_equal_runs(tmp_path / "one", tmp_path / "parts")


def test_a_stopped_run_is_judged_on_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its budget left whole parts without an answer."""
    options = replace(OPTIONS, budget=RunBudget(tokens=200))
    specs = EvaluationSpecs(model=MODEL, judges=JUDGES)
    Threads(tmp_path / "parts", specs, options).evaluate(part_rows=2)
    in_one_process(tmp_path / "one", options)
    assert len(list(tmp_path.glob("parts/parts/*/responses.jsonl"))) < 12
    work_in_this_process(monkeypatch)
    judge_on_ray(tmp_path / "parts", ["rules:degenerate"], RayOptions(), options=EvaluateOptions())
    judge_run(tmp_path / "one", [resolve("rules:degenerate", "judge")])
    assert_equal_runs(tmp_path / "one", tmp_path / "parts")


def test_a_run_without_an_answer_is_not_judged(tmp_path: Path) -> None:
    model, data = resolve(MODEL, "model"), resolve(DATA, "data")
    prepare_parts(model, data, [], tmp_path, options=OPTIONS)
    with pytest.raises(RunError, match="there are no answers to judge yet"):
        prepare_judging(tmp_path, [resolve("rules:degenerate", "judge")])
    assert not Run(tmp_path).manifest.judges


def test_workers_that_answer_nothing_end_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_nothing(self: EvaluationWorker, shard: bytes) -> bytes:
        visit = msgspec.msgpack.decode(shard, type=PartVisit)
        return msgspec.msgpack.encode(PartOutcome(part=visit.part, unanswered=list(range(6))))

    monkeypatch.setattr(EvaluationWorker, "work", answer_nothing)
    options = replace(OPTIONS, budget=RunBudget(tokens=10_000))
    with pytest.raises(RunError, match="the workers answered none of the samples they got"):
        Threads(tmp_path, EvaluationSpecs(model=MODEL), options).evaluate(part_rows=6)


def test_equal_faults_are_named_once_and_many_end_the_work() -> None:
    faults = PartFaults()
    outcomes = (PartOutcome(part=f"part-{number}", fault="no route") for number in range(100))
    assert len(list(faults.collect(outcomes))) == faults.count == 20
    with pytest.raises(RunError) as caught:
        faults.raise_any("3 of 100 parts are finished")
    assert caught.value.faults == (
        "part-0: no route",
        "3 of 100 parts are finished; the same command continues",
    )
    PartFaults().raise_any("all")


def test_faults_that_differ_in_the_name_of_their_part_are_one() -> None:
    faults = PartFaults()
    texts = ("PART: OSError: no space", "OSError: no space", "/run/parts/PART: is damaged")
    parts = ("part-000003", "part-000004")
    list(
        faults.collect(
            PartOutcome(part=part, fault=text.replace("PART", part))
            for text in texts
            for part in parts
        )
    )
    with pytest.raises(RunError) as caught:
        faults.raise_any("2 of 4 parts are finished")
    assert caught.value.faults == (
        "part-000003: OSError: no space",
        "part-000003: /run/parts/part-000003: is damaged",
        "2 of 4 parts are finished; the same command continues",
    )
