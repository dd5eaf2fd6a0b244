"""A part that ends its workers is given up; the processes that die are real ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.bulk.test_evaluate_on_ray import work_in_this_process

from truing.bulk.evaluate_on_ray import EvaluationSpecs, EvaluationTask, evaluate_on_ray
from truing.bulk.moderation_job import MAX_ATTEMPTS
from truing.bulk.part_attempts import count_attempt
from truing.bulk.part_visits import PartOutcome
from truing.bulk.ray_cluster import RayOptions
from truing.core.types import Sampling
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.evaluation.run_parts import prepare_parts
from truing.specs.resolve import resolve

MODEL, DATA = "scripted:mixed", "builtin:safety"
OPTIONS = EvaluateOptions(sampling=Sampling(max_tokens=40), seed=3, limit=4)

# Its workers die when the model is asked, as by a prompt that takes all memory; it repeats a part
# whose worker died, as Ray does.
REPEATS = """
import os, sys
import msgspec
from truing.bulk.evaluate_on_ray import EvaluationTask, EvaluationWorker
from truing.bulk.part_visits import PartVisit

worker = EvaluationWorker(msgspec.json.decode(sys.argv[1], type=EvaluationTask), None)
type(worker._model).generate = lambda *arguments: os._exit(9)
deaths = 0
while deaths < 20:
    pid = os.fork()
    if not pid:
        outcome = worker.work(msgspec.msgpack.encode(PartVisit(part="part-000000")))
        sys.stdout.buffer.write(outcome)
        sys.stdout.flush()
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
        break
    deaths += 1
sys.exit(deaths)
"""


def test_a_part_that_ends_its_workers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, dataset, specs = tmp_path / "run", resolve(DATA, "data"), EvaluationSpecs(model=MODEL)
    prepare_parts(resolve(MODEL, "model"), dataset, [], out, options=OPTIONS)
    task = EvaluationTask(
        out=str(out), specs=specs, options=OPTIONS, info=dataset.info, sha256=dataset.sha256()
    )
    words = [sys.executable, "-c", REPEATS, msgspec.json.encode(task).decode()]
    repeated = subprocess.run(words, capture_output=True, check=False)
    assert repeated.returncode == MAX_ATTEMPTS, repeated.stderr.decode()
    outcome = msgspec.msgpack.decode(repeated.stdout, type=PartOutcome)
    assert outcome.fault.startswith(f"ended its worker {MAX_ATTEMPTS} times")

    # The same command tries again: there may be more memory now.
    work_in_this_process(monkeypatch)
    evaluate_on_ray(specs, dataset, out, RayOptions(), options=OPTIONS)
    evaluate(resolve(MODEL, "model"), dataset, [], tmp_path / "one", options=OPTIONS)
    part = out / "parts/part-000000"
    answers = (tmp_path / "one/responses.jsonl").read_bytes()
    assert (part / "responses.jsonl").read_bytes() == answers
    assert not (part / "attempts").exists()


def test_an_attempt_that_ends_is_not_counted(tmp_path: Path) -> None:
    """Under a budget a part is visited many times, and a fault kills no worker."""
    for number in range(2 * MAX_ATTEMPTS):
        try:
            with count_attempt(tmp_path):
                if number % 2:
                    raise OSError("no route")
        except OSError:
            pass
    assert list(tmp_path.iterdir()) == []
