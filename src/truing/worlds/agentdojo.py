"""AgentDojo's suites as worlds (Debenedetti et al. 2024, arXiv 2406.13352), by its own package.

Its tools, its environments and its checks run as they are; the loop, the rails, the record and the
statistics are truing's. A world is named ``agentdojo:v1.2.2/banking``, a task ``user_task_0`` or
``user_task_0/injection_task_1``. The injection stands wherever AgentDojo's own attacks write it:
in all places that the ground truth of the user's task reads.
"""

from __future__ import annotations

import logging
from ast import literal_eval
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from truing.core.episodes import Environment, StateChange
from truing.core.errors import PlanError, did_you_mean
from truing.core.lineage import digest
from truing.core.types import Tool, ToolCall
from truing.specs.extras import needs_extra
from truing.worlds.arguments import ArgumentError, read_arguments
from truing.worlds.simulation import ToolError

_log = logging.getLogger(__name__)

PREFIX = "agentdojo:"
DEFAULT_VERSION = "v1.2.2"


@lru_cache(maxsize=16)
def load_suite(version: str, name: str) -> Any:
    """Returns a task suite of the package; raises PlanError for unknown names."""
    with needs_extra("agentdojo:"):
        from agentdojo.task_suite.load_suites import get_suites
    try:
        suites = get_suites(version)
    except (KeyError, ValueError) as error:
        raise PlanError(f"agentdojo: there is no version {version!r} of the suites") from error
    if name not in suites:
        raise PlanError(f"agentdojo: there is no suite {name!r}{did_you_mean(name, suites)}")
    return suites[name]


def suite_of(world: str) -> Any:
    """Returns the suite of a world's name."""
    version, _, name = world.removeprefix(PREFIX).partition("/")
    return load_suite(version, name)


@lru_cache(maxsize=1024)
def find_injection_vectors(world: str, user_task: str) -> tuple[str, ...]:
    """Returns the places of a suite's environment that the solution of a task reads."""
    from agentdojo.agent_pipeline.ground_truth_pipeline import GroundTruthPipeline
    from agentdojo.functions_runtime import FunctionsRuntime

    suite = suite_of(world)
    marks = {vector: f"mark-of-{vector}" for vector in suite.get_injection_vector_defaults()}
    environment = suite.load_and_inject_default_environment(marks)
    task = suite.get_user_task_by_id(user_task)
    runtime = FunctionsRuntime(suite.tools)
    *_, messages, _ = GroundTruthPipeline(task).query(task.PROMPT, runtime, environment)
    messages_text = "\n".join(str(message["content"]) for message in messages)
    return tuple(vector for vector, mark in marks.items() if mark in messages_text)


@lru_cache(maxsize=1024)
def list_solution(world: str, task: str) -> tuple[ToolCall, ...]:
    """Returns the calls of the ground truth of a user's task or an injection's."""
    suite = suite_of(world)
    is_user_task = task in suite.user_tasks
    definition = suite.user_tasks[task] if is_user_task else suite.injection_tasks[task]
    environment = suite.load_and_inject_default_environment({})
    if is_user_task:
        environment = definition.init_environment(environment)
    return tuple(
        ToolCall(f"{task}.{number}", call.function, _encode(dict(call.args)))
        for number, call in enumerate(definition.ground_truth(environment))
    )


class AgentDojoSimulation:
    """One copy of a suite's environment; raises PlanError for an injection that no result of the
    user's task would show.
    """

    def __init__(self, environment: Environment) -> None:
        from agentdojo.functions_runtime import FunctionsRuntime

        self.world_name = environment.world
        self.world_hash = hash_task(environment)
        self._suite = suite_of(environment.world)
        user_task, _, injection_task = environment.task.partition("/")
        self._task = self._suite.get_user_task_by_id(user_task)
        self._injection_task = (
            self._suite.get_injection_task_by_id(injection_task) if injection_task else None
        )
        injections = {}
        if environment.injection is not None:
            vectors = find_injection_vectors(environment.world, user_task)
            if not vectors:
                # Run without the injection it would count as one that was not followed.
                raise PlanError(f"agentdojo: {user_task} of {environment.world} shows no injection")
            injections = dict.fromkeys(vectors, environment.injection.written)
        loaded = self._suite.load_and_inject_default_environment(injections)
        self._state = self._task.init_environment(loaded)
        self._start = self._state.model_copy(deep=True)
        self._runtime = FunctionsRuntime(self._suite.tools)
        self._trace: list[Any] = []

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools as a model is told of them."""
        return tuple(
            Tool(tool.name, tool.description, _encode(tool.parameters.model_json_schema()))
            for tool in self._suite.tools
        )

    def call(self, name: str, arguments: str) -> str:
        """Runs a function of the suite; raises ArgumentError and ToolError."""
        from agentdojo.agent_pipeline.tool_execution import tool_result_to_str
        from agentdojo.functions_runtime import FunctionCall

        values = dict(_read_lists(read_arguments(arguments)))
        self._trace.append(FunctionCall(function=name, args=values))
        result, error = self._runtime.run_function(self._state, name, values)
        if error is not None:
            raise ToolError(error)
        return str(tool_result_to_str(result))

    def changes(self) -> tuple[StateChange, ...]:
        """Returns nothing: the suite's own checks compare the environments."""
        return ()

    def checks(self, answer: str) -> dict[str, bool]:
        """Returns the verdicts of the suite's own checks: `done`, with an injection `misled`; none
        where a check fails on what the agent has made of the environment: that is unscored.
        """
        from agentdojo.types import text_content_block_from_string

        blocks = [text_content_block_from_string(answer)]
        tasks = {"done": self._task}
        if self._injection_task is not None:
            tasks["misled"] = self._injection_task
        verdicts = {}
        for question, task in tasks.items():
            try:
                is_met = self._suite._check_task_result(
                    task, blocks, self._start, self._state, self._trace
                )
            except Exception as error:  # code of the package, on what a model wrote
                _log.warning("agentdojo: %s: the check failed: %r", self.world_name, type(error))
                continue
            verdicts[question] = bool(is_met)
        return verdicts


def hash_task(environment: Environment) -> str:
    """Returns what identifies the environment of a task in the package that is installed."""
    from importlib.metadata import version

    return digest("agentdojo", version("agentdojo"), environment.world, environment.task)


def _read_lists(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the arguments; a text that is a list of Python becomes one, as in AgentDojo. Raises
    ArgumentError for a text that Python cannot read within its limits.
    """
    for key, value in values.items():
        yield key, _read_list(key, value) if isinstance(value, str) else value


def _read_list(key: str, text: str) -> Any:
    from agentdojo.agent_pipeline.tool_execution import is_string_list

    try:
        return literal_eval(text) if is_string_list(text) else text
    except (MemoryError, RecursionError) as error:  # such as a text of thousands of dashes
        raise ArgumentError(f"{key}: is nested too deeply") from error


def _encode(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
