"""Scripted agents on the built-in tasks: their known behaviour is recovered exactly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from truing.agents.scripted import unit_hash
from truing.evaluation.evaluate import evaluate
from truing.runs.folder import Run
from truing.specs.resolve import resolve
from truing.worlds import WORLD_NAMES, load_world

JUDGES = ("state:done", "state:harm", "state:injection", "rules:refusal")
TASKS = [f"{world}/{task.id}" for world in WORLD_NAMES for task in load_world(world).tasks]


def _evaluate(script: str, out: Path) -> Run:
    model = resolve(f"agent,of=(scripted-agent,{script})", "model")
    judges = [resolve(judge, "judge") for judge in JUDGES]
    return evaluate(model, resolve("builtin:agents", "data"), judges, out)


def _count_yes(run: Run) -> Counter[tuple[str, str]]:
    return Counter(
        (j.question, j.sample_id.rsplit("/", 1)[1]) for j in run.judgements() if j.verdict is True
    )


@pytest.mark.parametrize(
    "script",
    ["solve=1", "solve=0.7,over_refuse=0.2,harm=0.4,follow=0.6", "solve=0,harm=1,follow=1"],
)
def test_shares_are_recovered_exactly(script: str, tmp_path: Path) -> None:
    shares = dict.fromkeys(("solve", "over_refuse", "harm", "follow"), 0.0)
    shares |= {key: float(value) for key, value in (part.split("=") for part in script.split(","))}
    yes = _count_yes(_evaluate(script, tmp_path / "run"))

    def chosen(part: str) -> set[str]:
        return {task for task in TASKS if unit_hash(task, part) < shares[part]}

    refused = chosen("over_refuse")
    assert yes["done", "benign"] == len(chosen("solve") - refused)
    assert yes["done", "injected"] == len(chosen("solve") - refused)
    assert yes["refused", "benign"] == len(refused)
    assert yes["harmful", "harmful"] == len(chosen("harm"))
    assert yes["refused", "harmful"] == len(TASKS) - len(chosen("harm"))
    assert yes["misled", "injected"] == len(chosen("follow") - refused)
    assert yes["harmful", "benign"] == 0


def test_the_tasks_of_a_variant_can_be_done(tmp_path: Path) -> None:
    model = resolve("agent,of=(scripted-agent,harm=1,follow=1)", "model")
    judges = [resolve(judge, "judge") for judge in JUDGES]
    run = evaluate(model, resolve("builtin:agents,variant=2", "data"), judges, tmp_path / "run")
    yes = _count_yes(run)
    assert (yes["done", "benign"], yes["harmful", "harmful"], yes["misled", "injected"]) == (
        (len(TASKS),) * 3
    )


def test_the_same_command_continues_a_run_and_gives_the_same_bytes(tmp_path: Path) -> None:
    script = "solve=0.7,harm=0.4,follow=0.6"
    whole = _evaluate(script, tmp_path / "whole")
    lines = whole.file("responses.jsonl").read_bytes().splitlines(keepends=True)
    cut = _evaluate(script, tmp_path / "cut")
    # As a process that was killed leaves it: some lines, and a part of one.
    cut.file("responses.jsonl").write_bytes(b"".join(lines[:70]) + lines[70][:50])
    for record in cut.manifest.judges:
        path = cut.file(record.file)
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:40]))
    _evaluate(script, tmp_path / "cut")
    names = ["samples.jsonl", "responses.jsonl", *(r.file for r in whole.manifest.judges)]
    for name in names:
        assert cut.file(name).read_bytes() == whole.file(name).read_bytes(), name


def test_every_call_stands_in_the_run_folder(tmp_path: Path) -> None:
    run = _evaluate("solve=1,harm=1", tmp_path / "run")
    responses = {r.sample_id: r for r in run.responses()}
    episode = responses["mail/lunch/harmful"].episode
    assert episode
    (call,) = episode.calls
    assert (call.name, call.status, call.result) == ("send_mail", "ok", "sent")
    (change,) = episode.changes
    assert (change.table, change.before) == ("sent", None)
    samples = {s.id: s for s in run.samples()}
    assert samples["mail/lunch/injected"].parent == "mail/lunch/benign"
    assert samples["mail/lunch/harmful"].harms == ("non_violent_unethical_behavior",)
