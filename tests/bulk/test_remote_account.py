"""One budget on a Ray cluster of this machine, against an endpoint that writes an invoice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec import UNSET
from msgspec.structs import replace
from tests.bulk.ray_marks import RAY_MARKS, find_ray_processes
from tests.bulk.test_evaluate_on_ray import assert_equal_runs, joined
from tests.cli.command_line import truing
from tests.requirements import require_package
from tests.servers import Request, Server, serving

from truing.bulk.evaluate_on_ray import EvaluationSpecs, evaluate_on_ray
from truing.bulk.ray_cluster import RayOptions, _start_ray
from truing.bulk.remote_account import RemoteAccount, start_counter
from truing.core.errors import BudgetExceeded, RunError
from truing.core.types import Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions, RunBudget
from truing.runs.folder import Run
from truing.specs.resolve import resolve

pytestmark = RAY_MARKS
require_package("ray")

CLUSTER = RayOptions(workers=3, cpus=0.5)
DATA, JUDGES, PART_ROWS = "builtin:safety", ("rules:refusal",), 5
OPTIONS = EvaluateOptions(sampling=Sampling(max_tokens=40), seed=3, limit=60, concurrency=2)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    import ray

    root = Path(__file__).resolve().parents[2]
    os.environ["PYTHONPATH"] = f"{root / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    _start_ray(ray, CLUSTER, {"log_to_driver": False, "logging_level": "ERROR"})
    yield
    ray.shutdown()


class Endpoint:
    """Answers with texts and usages that depend on the prompt alone, and counts what it charges."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.invoice = 0

    async def answer(self, request: Request) -> None:
        hashed = zlib.crc32(request.prompt.encode())
        usage = {"prompt_tokens": len(request.prompt) // 4, "completion_tokens": 5 + hashed % 36}
        # Charged when the request arrives, as by an endpoint that does not see the client die.
        self.invoice += sum(usage.values())
        await asyncio.sleep(self.seconds)
        await request.send_completion(f"An answer, number {hashed}.", usage=usage)


@contextmanager
def endpoint(seconds: float = 0.0) -> Iterator[tuple[Endpoint, Server, str]]:
    """Yields an endpoint, its server, and the spec of the model behind it."""
    model = Endpoint(seconds)
    with serving(model.answer) as server:
        yield model, server, f"openai:test,base_url={server.url}/v1,retries=0"


def on_ray(out: Path, model: str, options: EvaluateOptions) -> Run:
    specs = EvaluationSpecs(model=model, judges=JUDGES)
    dataset = resolve(DATA, "data")
    return evaluate_on_ray(specs, dataset, out, CLUSTER, options=options, part_rows=PART_ROWS)


def in_one_process(out: Path, model: str, options: EvaluateOptions) -> Run:
    judges = [resolve(spec, "judge") for spec in JUDGES]
    return evaluate(resolve(model, "model"), resolve(DATA, "data"), judges, out, options=options)


def command(model: str, out: Path, *flags: object) -> list[str]:
    """Returns the words of the command that draws the same run as these functions."""
    words: list[object] = ["evaluate", "--model", model, "--data", DATA, "--judge", *JUDGES]
    words += ["--limit", 60, "--seed", 3, "--max-tokens", 40, "--concurrency", 2, "--out", out]
    return [str(word) for word in (*words, *flags)]


RAY_FLAGS = ("--on", "ray", "--workers", 3, "--worker-cpus", 0.5, "--shard-rows", PART_ROWS)


def with_budget(tokens: int) -> EvaluateOptions:
    return replace(OPTIONS, budget=RunBudget(tokens=tokens))


def spent(run: Run) -> int:
    spending = run.manifest.spending
    assert spending is not UNSET
    return spending.tokens


def test_several_workers_end_where_one_process_ends(tmp_path: Path) -> None:
    one, parts, whole = (tmp_path / name for name in ("one", "parts", "whole"))
    with endpoint(0.02) as (model, _, spec):
        of_one = truing(*command(spec, one, "--budget-tokens", 1200))
        invoice_of_one, model.invoice = model.invoice, 0
        stopped = truing(*command(spec, parts, "--budget-tokens", 1200, *RAY_FLAGS))
        assert (stopped.status, of_one.status) == (3, 3), stopped.err
        note = Run(one).manifest.notes["budget"]
        assert note.startswith("stopped by its budget of 1,200 tokens after ")
        assert "drawn at random" in note
        assert f"truing: {parts}: {note}" in stopped.err.splitlines()
        assert_equal_runs(one, parts)
        run = Run(parts)
        assert model.invoice == invoice_of_one == spent(run) <= 1200
        assert 5 < len(list(run.responses())) < 60

        again = truing(*command(spec, parts, "--budget-tokens", 1200, *RAY_FLAGS))
        assert again.status == 3 and model.invoice == invoice_of_one  # nothing more was asked
        finished = truing(*command(spec, parts, "--budget-tokens", 100_000, *RAY_FLAGS))
        assert finished.status == 0, finished.err
        assert model.invoice == spent(run)  # each sample was paid for once
        truing(*command(spec, whole, "--budget-tokens", 100_000))
        assert_equal_runs(whole, parts)


@contextmanager
def when(condition: Callable[[], bool], act: Callable[[], bool]) -> Iterator[list[float]]:
    """Acts in a thread once a condition holds, and again until it says that it has acted."""
    acted: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            if condition() and act():
                acted.append(time.monotonic())
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield acted
    finally:
        ended.set()
        thread.join()


def kill_one(name: str) -> bool:
    """Kills the newest process of the cluster with this name; returns whether there is one."""
    pids = find_ray_processes(name)
    if pids:
        os.kill(max(pids), signal.SIGKILL)
    return bool(pids)


def test_a_worker_that_dies_costs_at_most_the_budget(tmp_path: Path) -> None:
    with endpoint(0.3) as (model, server, spec):
        is_busy = lambda: len(server.requests) > 12 and server.in_flight > 1  # noqa: E731
        with when(is_busy, lambda: kill_one("MapWorker")) as killed:
            run = on_ray(tmp_path / "run", spec, with_budget(2000))
        assert killed
        assert model.invoice <= spent(run) <= 2000
        spending = run.manifest.spending
        assert spending is not UNSET and (spending.lost_written or 0) % 40 == 0
        invoice = model.invoice
        run = on_ray(tmp_path / "run", spec, with_budget(100_000))
        assert run.manifest.complete and invoice < model.invoice <= spent(run)
        one = in_one_process(tmp_path / "one", spec, with_budget(100_000))
        for name in ("samples.jsonl", "responses.jsonl", one.manifest.judges[0].file):
            assert joined(run.path, name) == one.file(name).read_bytes()


def test_an_account_that_dies_ends_the_run_and_loses_no_answer(tmp_path: Path) -> None:
    with endpoint(0.2) as (model, server, spec):
        with (
            when(lambda: len(server.requests) > 8, lambda: kill_one("SpendingAccount")) as killed,
            pytest.raises(RunError) as caught,
        ):
            on_ray(tmp_path / "run", spec, with_budget(100_000))
        assert killed
        assert any(
            "the process that counts what the run spends has ended" in fault
            for fault in caught.value.faults
        )
        # All that were sent have been answered, and all answers are stored.
        n_sent = len(server.requests)
        assert len(list(Run(tmp_path / "run").responses())) == n_sent < 60
        assert not Run(tmp_path / "run").manifest.complete
        run = on_ray(tmp_path / "run", spec, with_budget(100_000))
        assert len(server.requests) == 60 and model.invoice == spent(run)
        in_one_process(tmp_path / "one", spec, with_budget(100_000))
        assert_equal_runs(tmp_path / "one", tmp_path / "run")


def test_a_driver_that_is_killed_is_continued_from_what_is_stored(tmp_path: Path) -> None:
    one, parts = tmp_path / "one", tmp_path / "parts"
    with endpoint(0.2) as (model, server, spec):
        words = command(spec, parts, "--budget-tokens", 2000, *RAY_FLAGS)
        driver = subprocess.Popen(
            [sys.executable, "-m", "truing", *words],
            env={**os.environ, "RAY_ADDRESS": ""},
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and driver.poll() is None and len(server.requests) < 12:
            time.sleep(0.05)
        driver.kill()
        driver.wait()
        time.sleep(3)  # its workers end with it
        n_sent, n_stored = len(server.requests), joined(parts, "responses.jsonl").count(b"\n")
        assert n_sent >= 12
        # As after the death of one process, the requests in flight are lost, and no others.
        assert n_sent - n_stored <= 3 * OPTIONS.concurrency
        assert truing(*words).status == 3
        run = Run(parts)
        assert spent(run) <= 2000
        assert 0 <= model.invoice - spent(run) <= (n_sent - n_stored) * 80
        assert truing(*command(spec, one, "--budget-tokens", 2000)).status == 3
        assert_equal_runs(one, parts)


class Counter:
    """Counts what it is told, and refuses what is not positive."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, number: int) -> int:
        if number < 1:
            raise ValueError(f"{number} is no expense")
        self.count += number
        return self.count


def test_calls_that_fail_are_seen_and_name_their_error() -> None:
    import ray

    account = RemoteAccount(start_counter(ray, Counter))
    failure = r"has failed \(ValueError: 0 is no expense\), so no more is asked"

    async def count() -> None:
        account.tell("add", 1)
        account.tell("add", 2)
        assert await account.ask("add", 4) == 7
        with pytest.raises(BudgetExceeded, match=failure):
            await account.ask("add", 0)
        account.tell("add", 0)
        account.tell("add", 1)
        with pytest.raises(BudgetExceeded, match=failure):
            await account.ask("add", 1)
        assert await account.ask("add", 1) == 10  # the failure is told once

    asyncio.run(count())


def test_a_budget_in_a_spec_is_one_for_all_workers(tmp_path: Path) -> None:
    with endpoint(0.1) as (_, server, spec):
        with pytest.raises(RunError) as caught:
            on_ray(tmp_path / "run", f"{spec},budget_requests=20", OPTIONS)
        assert any("budget of 20 requests is spent" in fault for fault in caught.value.faults)
        assert len(server.requests) == 20
        assert len(list(Run(tmp_path / "run").responses())) == 20
        run = on_ray(tmp_path / "run", spec, OPTIONS)
        assert run.manifest.complete and len(server.requests) == 60
