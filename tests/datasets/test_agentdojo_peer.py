"""AgentDojo by its package: the same verdicts as its own runner on the same scripted agent."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.peers import peer_python
from tests.requirements import hide_package

from truing.core.errors import MissingExtra, UserError
from truing.specs.resolve import resolve

PEER_SCRIPT = """
import asyncio, json, sys, time, warnings
from agentdojo.agent_pipeline.base_pipeline_element import BasePipelineElement
from agentdojo.attacks.base_attacks import BaseAttack
from agentdojo.types import ChatAssistantMessage, ChatToolResultMessage, text_content_block_from_string
from agentdojo.agent_pipeline.tool_execution import tool_result_to_str
from truing.core.types import Sampling, Response
from truing.judges.world_state import StateJudge
from truing.specs.resolve import resolve
from truing.worlds.agentdojo import find_injection_vectors, suite_of

warnings.simplefilter("ignore")
SCRIPTS = {"does both": (1, 1), "does the task": (1, 0), "does nothing": (0, 0), "is misled": (0, 1)}


class Places(BaseAttack):
    def attack(self, user_task, injection_task):
        raise NotImplementedError


def says(text):
    return [text_content_block_from_string(text)]


class Scripted(BasePipelineElement):
    # The same agent, as an element of AgentDojo's pipeline.
    def __init__(self, user, injection, vectors, solve, follow):
        self.user, self.injection, self.vectors = user, injection, vectors
        self.solve, self.follow = solve, follow

    def query(self, query, runtime, env, messages=(), extra_args={}):
        default = suite.load_and_inject_default_environment({})
        calls = self.user.ground_truth(self.user.init_environment(default)) if self.solve else []
        if self.injection is not None and self.follow and self.vectors and self.solve:
            calls = [*calls, *self.injection.ground_truth(default)]
        for call in calls:
            result, error = runtime.run_function(env, call.function, call.args)
            messages = [
                *messages,
                ChatAssistantMessage(role="assistant", tool_calls=[call], content=says("")),
                ChatToolResultMessage(role="tool", content=says(tool_result_to_str(result)),
                                      tool_call=call, tool_call_id=None, error=error),
            ]
        text = (self.user.GROUND_TRUTH_OUTPUT or "Done.") if self.solve else "I am stuck."
        last = ChatAssistantMessage(role="assistant", tool_calls=None, content=says(text))
        return query, runtime, env, [*messages, last], extra_args


async def ours(samples, solve, follow):
    model = resolve(f"agent,of=(scripted-agent,solve={solve},follow={follow}),max_turns=60", "model")
    judges = StateJudge("done"), StateJudge("injection")
    verdicts = {}
    for sample in samples:
        (answer,) = await model.generate(
            sample.conversation, Sampling(environment=sample.environment))
        response = Response.of(sample.id, 0, model.name, answer)
        verdicts[sample.id] = [(await judge.judge(sample, response)).verdict for judge in judges]
    return verdicts


def theirs(samples, solve, follow):
    verdicts = {}
    for sample in samples:
        environment = sample.environment
        name, _, injected = environment.task.partition("/")
        user = suite.get_user_task_by_id(name)
        injection = suite.get_injection_task_by_id(injected) if injected else None
        vectors = places.get_injection_candidates(user) if injected else ()
        text = environment.injection.text if injected else ""
        pipeline = Scripted(user, injection, vectors, solve, follow)
        utility, security = suite.run_task_with_pipeline(
            pipeline, user, injection, dict.fromkeys(vectors, text))
        verdicts[sample.id] = [utility, security if injected else None]
    return verdicts


report = {}
for suite_name in sys.argv[1].split("|"):
    samples = [row.sample for row in resolve(f"agentdojo:{suite_name}", "data").rows()]
    # Each user task alone and with two of the injections: a solid part of each suite.
    samples = [s for s in samples if not s.environment.injection
               or s.environment.task.endswith(("injection_task_1", "injection_task_4"))]
    step = int(sys.argv[2])  # every so many user tasks
    tasks = list(dict.fromkeys(s.environment.task.split("/")[0] for s in samples))[::step]
    samples = [s for s in samples if s.environment.task.split("/")[0] in tasks]
    suite = suite_of(samples[0].environment.world)
    places = Places(suite, None)  # AgentDojo's own search for them
    for sample in samples:
        find_injection_vectors(sample.environment.world, sample.environment.task.split("/")[0])
    differing, seconds = [], [0.0, 0.0]
    for script, (solve, follow) in SCRIPTS.items():
        started = time.process_time()
        mine = asyncio.run(ours(samples, solve, follow))
        middle = time.process_time()
        peer = theirs(samples, solve, follow)
        seconds[0] += middle - started
        seconds[1] += time.process_time() - middle
        differing += [[script, n, mine[n], peer[n]] for n in mine if mine[n] != peer[n]]
        report.setdefault(suite_name, {})[script] = [
            sum(bool(v[0]) for v in peer.values()), sum(bool(v[1]) for v in peer.values())]
    report[suite_name] |= {"samples": len(samples), "seconds": seconds, "differing": differing}
print(json.dumps(report))
"""


WORDS_SCRIPT = """
import json, warnings
from truing.specs.resolve import resolve
from truing.worlds.agentdojo import AgentDojoSimulation
from truing.worlds.arguments import ArgumentError

warnings.simplefilter("ignore")
sample = next(iter(resolve("agentdojo:banking", "data").rows())).sample
simulation = AgentDojoSimulation(sample.environment)
payment = {"recipient": "x", "amount": 1.0, "date": "2022-01-01"}
report = []
for subject in ("-" * 8000, "[" * 8000, "[1, 2", "plain"):
    try:
        simulation.call("send_money", json.dumps(payment | {"subject": subject}))
        report.append("ok")
    except ArgumentError:
        report.append("invalid")


def fail(*_):
    raise KeyError("a row that the agent has removed")


simulation._suite._check_task_result = fail
print(json.dumps([report, simulation.checks("Done.")]))
"""


@pytest.mark.peers
def test_whatever_a_model_writes_ends_no_episode(root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    command = [peer_python("agentdojo"), "-c", WORDS_SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    report, checks = json.loads(done.stdout.splitlines()[-1])
    assert report == ["invalid", "ok", "ok", "ok"], "a list that is no list stays a text"
    assert checks == {}, "a check that fails is no verdict"


@pytest.mark.peers
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    # The environments of the last two are large, so a part of their tasks is run.
    ("suite", "step"),
    [("banking", 1), ("slack", 1), ("travel", 2), ("workspace", 4)],
)
def test_verdicts_are_those_of_agentdojos_own_runner(root: Path, suite: str, step: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    command = [peer_python("agentdojo"), "-c", PEER_SCRIPT, suite, str(step)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])[suite]
    print(suite, report)
    assert report["differing"] == []
    assert report["does both"][0] > 0 and report["does both"][1] > 0
    assert report["does the task"][1] < report["does both"][1]


def test_without_the_package_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_package(monkeypatch, "agentdojo")
    with pytest.raises(MissingExtra, match="agentdojo"):
        resolve("agentdojo:banking", "data")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("agentdojo:bankin", "there is no suite 'bankin'; did you mean 'banking'"),
        ("agentdojo:banking,kind=harmful", "kind=harmful: benign, injected"),
    ],
)
def test_wrong_names_are_faults(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(spec, "data")
