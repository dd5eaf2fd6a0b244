"""What rails change in a run of an agent, from its stored answers: the model is not asked again.

    python benchmarks/agents/replay_rails.py RUNS/plain --rails examples/agent-rails-careful --out RUNS
    python benchmarks/agents/replay_rails.py RUNS/plain --runs RUNS/prompted RUNS/guarded

The agent's model gives its recorded answers again, turn by turn, in the same world, with the rails
around it. Where a block ends the episode (the default) this is what a deterministic model would
have done: up to the first block rails change nothing that it reads. Runs of `--runs` were made by
the model itself. The table compares all with the first run, on the tasks that both have; answers
that failed (a turn that the run does not hold) are in none of its figures and are counted above it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from msgspec import UNSET

from truing.agents.agent import AgentModel
from truing.agents.episode_run import AgentLimits
from truing.analysis.agent_answers import outcome_of_answer
from truing.core.types import (
    Answer,
    Conversation,
    Environment,
    Episode,
    Judgement,
    Lineage,
    Message,
    Sampling,
    ToolCall,
)
from truing.datasets.memory import MemoryDataset
from truing.evaluation.evaluate import evaluate
from truing.evaluation.options import EvaluateOptions
from truing.rails.guarded import guard_model
from truing.runs.folder import Run
from truing.specs.resolve import resolve
from truing.stats.intervals import Interval, wilson
from truing.stats.paired import PairedTable, mcnemar_exact, newcombe_paired

JUDGES = ("state:done", "state:harm", "state:injection", "rules:refusal")
FIGURES = (
    ("utility: benign tasks done", "benign", "done"),
    ("utility under attack", "injected", "done"),
    ("attack success: injections followed", "injected", "misled"),
    ("harm: harmful requests carried out", "harmful", "harmed"),
    ("over-refusal: benign tasks refused", "benign", "refused"),
)
OPTIONS = EvaluateOptions(concurrency=4)
TaskKey = tuple[str, str, str]


def task_key(environment: Environment) -> TaskKey:
    """Returns what names a sample of `builtin:agents`, whichever run it is in."""
    return environment.world, environment.task, environment.kind


class RecordedAgent:
    """A model that gives the answers of a run's episodes again, each in its turn."""

    def __init__(self, run: Run) -> None:
        environments = {s.id: s.environment for s in run.samples() if s.environment is not UNSET}
        self._episodes: dict[TaskKey, Episode] = {}
        for response in run.responses():
            if response.sample_id not in environments or response.episode is UNSET:
                continue
            key = task_key(environments[response.sample_id])
            if key in self._episodes:
                raise SystemExit(f"{run.path}: two answers to {' '.join(key)}: which to replay?")
            self._episodes[key] = response.episode
        self.name = f"recorded:{run.path.name}"
        self.lineage: Lineage = run.manifest.lineage

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns the recorded answer of the turn; a failed one where the record has none."""
        environment = sampling.environment
        episode = self._episodes.get(task_key(environment)) if environment is not None else None
        n_turns = sum(message.role == "assistant" for message in conversation.messages)
        if episode is None or n_turns >= len(episode.turns):
            return (Answer.failed("no_record", "the run has no answer for this turn"),)
        turn = episode.turns[n_turns]
        calls = tuple(ToolCall(call.id, call.name, call.arguments) for call in turn.calls)
        reason = "tool_calls" if calls else "stop"
        return (Answer(message=Message("assistant", turn.text, calls), finish_reason=reason),)


def read_outcomes(run: Run) -> dict[TaskKey, str]:
    """Returns the outcome of each task of a run."""
    judgements: dict[str, list[Judgement]] = {}
    for judgement in run.judgements():
        judgements.setdefault(judgement.sample_id, []).append(judgement)
    samples = {sample.id: sample for sample in run.samples()}
    outcomes = {}
    for response in run.responses():
        sample = samples[response.sample_id]
        outcome = outcome_of_answer(sample, response, judgements.get(sample.id, ()))
        if outcome is not None and sample.environment is not UNSET:
            outcomes[task_key(sample.environment)] = outcome
    return outcomes


def format_share(events: int, interval: Interval) -> str:
    """Returns "19 of 30, 63 % [46, 78]"."""
    percent = [round(100 * value) for value in (interval.estimate, interval.lower, interval.upper)]
    return f"{events}, {percent[0]} % [{percent[1]}, {percent[2]}]"


def format_row(title: str, first: dict[TaskKey, bool], other: dict[TaskKey, bool]) -> str:
    """Returns one line of the table, over the tasks that both runs have."""
    keys = sorted(first.keys() & other.keys())
    table = PairedTable.from_outcomes([first[k] for k in keys], [other[k] for k in keys])
    rates = [
        format_share(events, wilson(events, table.n))
        for events in (table.both + table.only_a, table.both + table.only_b)
    ]
    interval = newcombe_paired(table)
    low, middle, high = (
        f"{100 * value:+.0f}" for value in (interval.lower, interval.estimate, interval.upper)
    )
    p = mcnemar_exact(table.only_a, table.only_b)
    return f"| {title} | {table.n} | {rates[0]} | {rates[1]} | {middle} pp [{low}, {high}], p = {p:.2g} |"


def print_comparison(first: Run, others: Iterable[Run]) -> None:
    """Prints a table for each other run."""
    plain = read_outcomes(first)
    for run in others:
        outcomes = read_outcomes(run)
        responses = list(run.responses())
        n_blocked = sum(response.finish_reason == "blocked" for response in responses)
        ms = sum(ruling.ms for response in responses for ruling in response.rulings)
        print(f"\n{run.path}: {n_blocked} of {len(responses)} answers blocked by rails, ", end="")
        print(f"{ms / len(responses):.1f} ms of rails an answer")
        if n_failed := sum(response.failure is not None for response in responses):
            print(f"{n_failed} answers failed: the figures leave them out")
        print(f"\n| | tasks | {first.path.name} | {run.path.name} | difference, p of McNemar |")
        print("|---|---|---|---|---|")
        for title, kind, event in FIGURES:
            pair = [
                {key: outcome == event for key, outcome in side.items() if key[2] == kind}
                for side in (plain, outcomes)
            ]
            if pair[0].keys() & pair[1].keys():
                print(format_row(title, *pair))


def main() -> None:
    """Replays the run behind each configuration and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the run of the agent without rails")
    parser.add_argument("--rails", type=Path, nargs="*", default=[], help="folders of rails")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="runs to compare with it")
    parser.add_argument("--max-turns", type=int, default=6, help="as in the run")
    parser.add_argument("--out", type=Path, help="a folder for the new runs")
    arguments = parser.parse_args()
    first = Run(arguments.run)
    judges = [resolve(spec, "judge") for spec in JUDGES]
    agent = AgentModel(RecordedAgent(first), limits=AgentLimits(max_turns=arguments.max_turns))
    runs = [Run(path) for path in arguments.runs]
    if arguments.rails and arguments.out is None:
        parser.error("--rails needs --out")
    for model, name in [
        (agent, "replayed"),
        *((guard_model(agent, folder), folder.name) for folder in arguments.rails),
    ]:
        if arguments.out is not None:
            tasks = MemoryDataset(first.samples(), name=first.path.name)
            runs.append(evaluate(model, tasks, judges, arguments.out / name, options=OPTIONS))
    print_comparison(first, runs)


if __name__ == "__main__":
    main()
