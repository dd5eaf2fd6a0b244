"""Budgets in money and tokens: never passed, resumable, and what is held at the stop is a sample."""

from __future__ import annotations

import asyncio
import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace
from tests.evaluation.local_account import LocalAccount
from tests.model_stand_ins import MemoryDataset

from truing.core.errors import BudgetExceeded, PlanError, UserError
from truing.core.prices import Price, Spending
from truing.core.types import (
    Answer,
    Conversation,
    Failure,
    Lineage,
    Message,
    Row,
    Sample,
    Sampling,
    Usage,
)
from truing.evaluation.cost_bounds import Cost
from truing.evaluation.evaluate import evaluate, evaluate_part
from truing.evaluation.options import EvaluateOptions, RunBudget
from truing.evaluation.shared_account import (
    AccountState,
    AccountVisit,
    PartPass,
    SpendingAccount,
)
from truing.evaluation.spending import read_spending, shuffle_positions
from truing.runs.folder import Run

PRICE = Price(input=1_000_000, output=1_000_000)  # one unit of money a token
SAMPLES = [Sample(id=f"s{i:02}", conversation=Conversation.of("x" * 10)) for i in range(30)]


class MeteredEndpoint:
    """Answers with a usage; remembers what it has cost, as an invoice would."""

    name = "test:metered"
    lineage = Lineage(name=name, hash="metered")

    def __init__(self, written: Callable[[str], int], *, states_usage: bool = True) -> None:
        self._written = written
        self._states_usage = states_usage
        self.invoice = 0
        self.calls = 0

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        await asyncio.sleep(0)
        self.calls += 1
        texts = [
            "y" * 4 * min(sampling.max_tokens, self._written(f"{sampling.seed}/{index}"))
            for index in range(sampling.n)
        ]
        prompt = -(-len(conversation.prompt) // 4)
        usage = Usage(prompt, sum(len(text) // 4 for text in texts))
        self.invoice += usage.prompt_tokens + usage.completion_tokens
        # The usage of the whole request stands on the first answer.
        return tuple(
            Answer(
                message=Message("assistant", text),
                finish_reason="stop",
                usage=usage if index == 0 and self._states_usage else Usage(),
            )
            for index, text in enumerate(texts)
        )


def run_with_budget(
    folder: Path, model: MeteredEndpoint, budget: RunBudget, *, n: int = 1, concurrency: int = 4
) -> Run:
    options = EvaluateOptions(
        sampling=Sampling(n=n, max_tokens=8, temperature=1.0),
        concurrency=concurrency,
        budget=budget,
        price=PRICE,
    )
    return evaluate(
        model,
        MemoryDataset([Row(sample=sample) for sample in SAMPLES]),
        [],
        folder,
        options=options,
    )


def stored_ids(run: Run) -> list[str]:
    return [response.sample_id for response in run.responses()]


@settings(max_examples=25, deadline=None)
@given(
    budget=st.integers(0, 500),
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=7),
    n=st.integers(1, 3),
    concurrency=st.integers(1, 8),
    states_usage=st.booleans(),
)
def test_the_invoice_never_passes_the_budget(
    budget: int,
    lengths: list[int],
    n: int,
    concurrency: int,
    states_usage: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model = MeteredEndpoint(
        lambda key: lengths[zlib.crc32(key.encode()) % len(lengths)], states_usage=states_usage
    )
    limits = RunBudget(money=float(budget))
    run = run_with_budget(
        tmp_path_factory.mktemp("run"), model, limits, n=n, concurrency=concurrency
    )
    assert model.invoice <= budget
    manifest, answered = run.manifest, stored_ids(run)
    assert manifest.spending is not UNSET and manifest.spending.money == model.invoice
    assert manifest.spending.estimated == (0 if states_usage else len(answered))
    assert manifest.complete == (len(answered) == n * len(SAMPLES))
    assert ("budget" in manifest.notes) == (not manifest.complete)
    # What is stored is the beginning of the random order: no row was passed over for its size.
    order = shuffle_positions(len(SAMPLES), 0)
    drawn = sorted(SAMPLES[position].id for position in order[: len(answered) // n])
    assert answered == [sample_id for sample_id in drawn for _ in range(n)]


def test_a_higher_budget_continues_and_counts_what_is_stored(tmp_path: Path) -> None:
    model = MeteredEndpoint(lambda key: 5)
    first = run_with_budget(tmp_path, model, RunBudget(tokens=100))
    held = stored_ids(first)
    assert 0 < len(held) < len(SAMPLES)
    note = first.manifest.notes["budget"]
    assert "budget of 100 tokens" in note and "drawn at random" in note

    calls = model.calls
    run_with_budget(tmp_path, model, RunBudget(tokens=100))
    assert model.calls == calls  # the stored answers have used the budget up

    run = run_with_budget(tmp_path, model, RunBudget(tokens=10_000))
    assert set(held) < set(stored_ids(run)) and len(stored_ids(run)) == len(SAMPLES)
    assert model.calls == len(SAMPLES)
    assert run.manifest.complete and "budget" not in run.manifest.notes
    whole = run_with_budget(tmp_path / "whole", MeteredEndpoint(lambda key: 5), RunBudget())
    for file in ("responses.jsonl", "samples.jsonl"):
        assert run.file(file).read_bytes() == whole.file(file).read_bytes()


def test_rows_of_a_run_that_began_without_a_budget_are_said_to_be_no_sample(
    tmp_path: Path,
) -> None:
    class StopsAfterThree(MeteredEndpoint):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            if self.calls == 3:
                raise BudgetExceeded("the requests of the spec are spent")
            return await super().generate(conversation, sampling)

    with pytest.raises(BudgetExceeded):
        run_with_budget(tmp_path, StopsAfterThree(lambda key: 5), RunBudget(), concurrency=1)
    spending = Run(tmp_path).manifest.spending
    assert spending is not UNSET and spending.answers == 3
    run = run_with_budget(tmp_path, MeteredEndpoint(lambda key: 5), RunBudget(tokens=80))
    assert 3 < len(stored_ids(run)) < len(SAMPLES)
    assert "no random sample" in run.manifest.notes["budget"]


def test_a_request_that_fails_ends_its_reservation(tmp_path: Path) -> None:
    class Fails(MeteredEndpoint):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            self.calls += 1
            raise ConnectionError("no route")

    model = Fails(lambda key: 5)
    run = run_with_budget(tmp_path, model, RunBudget(tokens=40))
    assert model.calls == len(SAMPLES)  # what fails without a usage counts as not charged
    assert run.manifest.spending == Spending(answers=len(SAMPLES), money=0.0, price=PRICE)


def test_what_is_charged_before_an_error_stays_reserved(tmp_path: Path) -> None:
    """A spec's own limit ends a sample amid its requests, while another sample waits."""

    class ChargesAndStops(MeteredEndpoint):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            answers = await super().generate(conversation, sampling)
            if self.calls > 1:
                raise BudgetExceeded("the requests of the spec are spent")
            return answers

    model = ChargesAndStops(lambda key: 8)
    # After the first answer, of 3 + 8 tokens, one more bound of 18 + 8 fits.
    with pytest.raises(BudgetExceeded, match="of the spec"):
        run_with_budget(tmp_path, model, RunBudget(tokens=45), concurrency=8)
    assert model.calls == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("x")])
def test_what_an_interrupted_call_may_have_cost_is_known_to_the_next(
    error: BaseException, tmp_path: Path
) -> None:
    class Interrupted(MeteredEndpoint):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            answers = await super().generate(conversation, sampling)
            if self.calls == 6:
                raise error
            return answers

    model = Interrupted(lambda key: 8)
    with pytest.raises(type(error)):
        run_with_budget(tmp_path, model, RunBudget(tokens=150), concurrency=2)
    run = Run(tmp_path)
    spending = run.manifest.spending
    assert spending is not UNSET and spending.lost_written is not UNSET
    n_stored = len(stored_ids(run))
    assert spending.tokens == 11 * n_stored + (spending.lost_read or 0) + spending.lost_written
    assert model.invoice <= spending.tokens
    assert read_spending(run, PRICE) == spending
    # The next call goes on under the same budget, and the invoice of both stays within it.
    lost = spending.lost_read, spending.lost_written
    run = run_with_budget(tmp_path, model, RunBudget(tokens=150), concurrency=2)
    assert len(stored_ids(run)) > n_stored
    assert model.invoice <= 150 and not run.manifest.complete
    last = run.manifest.spending
    assert last is not UNSET and (last.lost_read, last.lost_written) == lost
    assert "of the tokens are bounds for requests whose answers were lost" in last.describe()


def test_a_model_that_asks_several_times_is_measured_by_its_first_answer(tmp_path: Path) -> None:
    class FourCalls(MeteredEndpoint):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            candidates = [(await super().generate(conversation, sampling))[0]]
            for _ in range(3):
                candidates += await super().generate(conversation, sampling)
            total = Usage(
                sum(a.usage.prompt_tokens for a in candidates),
                sum(a.usage.completion_tokens for a in candidates),
            )
            return (Answer(message=candidates[0].message, finish_reason="stop", usage=total),)

    model = FourCalls(lambda key: 8)
    run = run_with_budget(tmp_path, model, RunBudget(tokens=200), concurrency=8)
    assert 0 < model.invoice <= 200 and 0 < len(stored_ids(run)) < len(SAMPLES)


class LongAttack:
    """Makes prompts ten times as long, some later than others."""

    name = "test:long"
    lineage = Lineage(name=name, hash="long")

    async def attack(self, sample: Sample, target: object) -> Sample:
        for _ in range(zlib.crc32(sample.id.encode()) % 5):
            await asyncio.sleep(0)
        prompt = sample.conversation.prompt * 10
        return Sample(id=f"{sample.id}-attacked", conversation=Conversation.of(prompt))


class Wrapped(MeteredEndpoint):
    """Adds a system prompt of 200 tokens; each byte of a prompt is a token."""

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        (answer,) = await super().generate(conversation, sampling)
        read = 200 + len(conversation.prompt)
        self.invoice += read - answer.usage.prompt_tokens
        return (replace(answer, usage=Usage(read, answer.usage.completion_tokens)),)


def test_a_call_that_continues_knows_what_a_wrapper_adds_to_prompts(tmp_path: Path) -> None:
    # The long prompts come last, when those of the first call have shown short ones only.
    short = shuffle_positions(20, 0)[:5]
    texts = ["x" * (10 if position in short else 500) for position in range(20)]
    samples = [
        Sample(id=f"s{number:02}", conversation=Conversation.of(text))
        for number, text in enumerate(texts)
    ]
    dataset = MemoryDataset([Row(sample=sample) for sample in samples])
    invoice = 0
    for budget in (1300, 3200):
        model = Wrapped(lambda key: 5)
        options = EvaluateOptions(
            sampling=Sampling(max_tokens=8), concurrency=8, budget=RunBudget(tokens=budget)
        )
        evaluate(model, dataset, [], tmp_path, options=options)
        assert model.calls
        invoice += model.invoice
        assert invoice <= budget


@pytest.mark.parametrize("attack", [None, LongAttack()])
def test_a_shared_account_learns_it_from_stored_answers(
    attack: LongAttack | None, tmp_path: Path
) -> None:
    def visit_part(positions: range) -> AccountState:
        account = SpendingAccount(RunBudget(tokens=100_000), None, 8, Cost())
        evaluate_part(
            Wrapped(lambda key: 5),
            MemoryDataset([Row(sample=sample) for sample in SAMPLES]),
            [],
            tmp_path,
            attack=attack,
            options=EvaluateOptions(sampling=Sampling(max_tokens=8)),
            part_pass=PartPass(positions, AccountVisit(LocalAccount(account), "part")),
        )
        return account.state()

    first = visit_part(range(9))
    assert 0 < first.bounds.largest_overhead <= 200
    later = visit_part(range(0))
    assert (later.bounds, later.spent) == (first.bounds, first.spent)


def test_the_spending_of_a_folder_is_read_from_its_answers(tmp_path: Path) -> None:
    model = MeteredEndpoint(lambda key: 5, states_usage=False)
    run = run_with_budget(tmp_path, model, RunBudget(), n=2)
    spending = read_spending(run, PRICE)
    assert spending == run.manifest.spending
    assert spending.money == model.invoice and spending.estimated == 2 * len(SAMPLES)
    path = run.file("responses.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    failure = {"stage": "model", "kind": "timeout", "message": ""}
    path.write_text("".join(json.dumps({**line, "failure": failure}) + "\n" for line in lines))
    assert read_spending(run, None) == Spending(answers=2 * len(SAMPLES))


@pytest.mark.parametrize(
    ("budget", "price", "fault"),
    [
        (RunBudget(money=1.0), None, "money needs the price"),
        (RunBudget(money=math.nan), PRICE, "is no amount"),
        (RunBudget(money=-1.0), PRICE, "is no amount"),
        (RunBudget(tokens=-1), None, "are no limit"),
    ],
)
def test_a_budget_that_would_limit_nothing_is_refused(
    budget: RunBudget, price: Price | None, fault: str, tmp_path: Path
) -> None:
    model = MeteredEndpoint(lambda key: 5)
    dataset = MemoryDataset([Row(sample=sample) for sample in SAMPLES])
    options = EvaluateOptions(budget=budget, price=price)
    with pytest.raises(PlanError, match=fault):
        evaluate(model, dataset, [], tmp_path / "run", options=options)
    assert model.calls == 0 and not (tmp_path / "run").exists()


class OneAnswerARequest(MeteredEndpoint):
    """Reads the prompt once for each answer, as endpoints do that ignore `n`."""

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        one = replace(sampling, n=1)
        answers = [(await super().generate(conversation, one))[0]]
        for _ in range(sampling.n - 1):
            answers += await super().generate(conversation, one)
        return tuple(answers)


@pytest.mark.parametrize("budget", [40, 130, 400])
def test_attacked_prompts_and_single_answers_stay_within_the_budget(
    budget: int, tmp_path: Path
) -> None:
    attacked = MeteredEndpoint(lambda key: 2)
    options = EvaluateOptions(
        sampling=Sampling(max_tokens=8), concurrency=6, budget=RunBudget(tokens=budget)
    )
    dataset = MemoryDataset([Row(sample=sample) for sample in SAMPLES])
    run = evaluate(attacked, dataset, [], tmp_path / "a", attack=LongAttack(), options=options)
    assert attacked.invoice <= budget
    assert (attacked.invoice > 0) == (budget > 120)
    assert "drawn at random" in run.manifest.notes["budget"]

    single = OneAnswerARequest(lambda key: 2)
    run_with_budget(tmp_path / "n", single, RunBudget(tokens=budget), n=4)
    assert single.invoice <= budget


def test_what_failed_answers_cost_is_not_forgotten(tmp_path: Path) -> None:
    class ChargesAndFails(MeteredEndpoint):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            (answer,) = await super().generate(conversation, sampling)
            return (replace(answer, failure=Failure("model", "timeout", "too late")),)

    invoice = 0
    spent: list[int] = []
    for _ in range(6):
        model = ChargesAndFails(lambda key: 5)
        run = run_with_budget(tmp_path, model, RunBudget(tokens=300))
        invoice += model.invoice
        spending = run.manifest.spending
        assert spending is not UNSET
        spent.append(spending.tokens)
        assert spending.tokens == invoice <= 300
        assert read_spending(run, PRICE).tokens == invoice
    assert spent[-1] == spent[-2]  # the budget is used up, and nothing is asked any more
