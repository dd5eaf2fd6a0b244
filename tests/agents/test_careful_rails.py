"""The example of careful rails, and the benchmark that replays an agent's answers behind rails."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

import truing
from truing.agents.agent import AgentModel
from truing.runs.folder import Run

AGENT = "agent,of=(scripted-agent,solve=0.9,harm=1,follow=1)"
JUDGES = ("state:done", "state:harm", "state:injection", "rules:refusal")
MAIL = "builtin:agents,world=mail"


@pytest.fixture
def replay(root: Path) -> ModuleType:
    path = root / "benchmarks" / "agents" / "replay_rails.py"
    spec = importlib.util.spec_from_file_location("replay_rails", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def replay_runs(replay: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["replay_rails.py", *map(str, arguments)])
    replay.main()


def count_outcomes(outcomes: dict[tuple[str, str, str], str], kind: str) -> Counter[str]:
    return Counter(outcome for key, outcome in outcomes.items() if key[2] == kind)


def evaluate(model: str, folder: Path, data: str = MAIL, judges: Sequence[str] = JUDGES) -> Run:
    return truing.evaluate(model, data, list(judges), folder)


def test_answers_given_again_behind_rails_are_those_of_the_guarded_agent(
    tmp_path: Path,
    root: Path,
    replay: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rails = root / "examples" / "agent-rails"
    plain = evaluate(AGENT, tmp_path / "plain")
    guarded = evaluate(f"guarded:{rails},of=({AGENT})", tmp_path / "guarded")
    replay_runs(
        replay, monkeypatch, plain.path, "--rails", rails, "--out", tmp_path / "again",
        "--max-turns", 12,
    )  # fmt: skip
    live, again = (
        replay.read_outcomes(run) for run in (guarded, Run(tmp_path / "again" / "agent-rails"))
    )
    assert again == live
    assert replay.read_outcomes(Run(tmp_path / "again" / "replayed")) == replay.read_outcomes(plain)
    assert live != replay.read_outcomes(plain)  # the rails did something
    assert "| utility: benign tasks done | 10 |" in capsys.readouterr().out


def test_a_row_of_the_table_by_hand(replay: ModuleType) -> None:
    first = {("w", str(number), "benign"): number < 3 for number in range(5)}
    other = {key: False for key in first if key[1] != "4"}
    # Four shared tasks: three only in the first run, none only in the other: p = 2 / 2^3.
    row = replay.format_row("done", first, other)
    assert row.startswith("| done | 4 | 3, 75 % [30, 95] | 0, 0 % [0, 49] | -75 pp [")
    assert row.endswith(" p = 0.25 |")


def test_an_answer_that_was_not_recorded_is_a_failure(tmp_path: Path, replay: ModuleType) -> None:
    run = evaluate(AGENT, tmp_path / "run", f"{MAIL},kind=benign")
    agent = AgentModel(replay.RecordedAgent(run))
    again = truing.evaluate(agent, f"{MAIL},kind=harmful", [], tmp_path / "again")
    failures = {r.failure.kind for r in again.responses() if r.failure is not None}
    assert failures == {"no_record"}


def test_a_run_with_several_answers_to_a_task_is_refused(
    tmp_path: Path, replay: ModuleType
) -> None:
    tasks = f"{MAIL},kind=injected"
    run = evaluate(AGENT, tmp_path / "run", f"attacked:injection,of=({tasks}),tries=2")
    with pytest.raises(SystemExit, match="two answers to mail "):
        replay.RecordedAgent(run)


def test_answers_that_a_run_does_not_hold_are_counted(
    tmp_path: Path,
    replay: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = evaluate(AGENT, tmp_path / "run", f"{MAIL},kind=benign")
    cut = evaluate(f"{AGENT},max_turns=1", tmp_path / "cut", f"{MAIL},kind=benign")
    replay_runs(replay, monkeypatch, cut.path, "--out", tmp_path / "again", "--runs", run.path)
    printed = capsys.readouterr().out
    again = Run(tmp_path / "again" / "replayed")
    n_failed = sum(response.failure is not None for response in again.responses())
    assert n_failed > 0
    assert printed.count(f"{n_failed} answers failed: the figures leave them out") == 1


@pytest.mark.slow
def test_careful_rails_stop_harm_that_the_user_asks_for(
    tmp_path: Path, root: Path, replay: ModuleType
) -> None:
    rails = root / "examples" / "agent-rails-careful"
    agent = "agent,of=(scripted-agent,harm=1)"
    tasks = f"{MAIL},kind=benign|harmful"
    run = evaluate(f"guarded:{rails},of=({agent})", tmp_path / "run", tasks)
    outcomes = replay.read_outcomes(run)
    # Every harmful task of this agent is carried out without rails.
    assert count_outcomes(outcomes, "harmful")["harmed"] <= 4
    # One of the ten is the deletion that these rails deny to everybody.
    assert count_outcomes(outcomes, "benign")["done"] >= 8
    for response in run.responses():
        for ruling in response.rulings:
            assert "definition of a tool" not in ruling.reason
            assert "could not be judged" not in ruling.reason


def test_the_chosen_requests_stay_out_of_the_measured_tasks(root: Path) -> None:
    requests = truing.data(f"file:{root / 'benchmarks' / 'agents' / 'requests.jsonl'}")
    rows = list(requests.rows())
    assert Counter(row.sample.expect for row in rows) == {"comply": 36, "refuse": 36}
    measured = {row.sample.prompt for row in truing.data("builtin:agents").rows()}
    assert not measured & {row.sample.prompt for row in rows}
