"""A real MCP server over standard input and output as the tools of an agent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET
from tests.requirements import hide_package

from truing.agents.agent import AgentModel
from truing.agents.episode_run import AgentLimits
from truing.agents.mcp_tools import McpTools
from truing.agents.toolsets import ToolResult
from truing.core.episodes import Environment
from truing.core.errors import MissingExtra, UserError
from truing.core.types import Answer, Conversation, Message, Sampling, ToolCall
from truing.models.scripted import ScriptedModel
from truing.specs.keys import allow_key_variables
from truing.specs.resolve import resolve

SERVER = """
import asyncio
import os
from mcp.server.mcpserver import Image, MCPServer

server = MCPServer("test")

@server.tool()
def double(number: int) -> int:
    "Doubles a number."
    return 2 * number

@server.tool()
def fail() -> str:
    "Fails."
    raise ValueError("it failed")

@server.tool()
def die() -> str:
    "Ends the server."
    os._exit(1)

@server.tool()
def read_variables() -> str:
    "Returns the names of the environment's test variables."
    return " ".join(sorted(name for name in os.environ if name.startswith("TEST_KEY")))

@server.tool()
def draw() -> Image:
    "Returns a picture."
    return Image(data=b"x", format="png")

@server.tool()
def get_pid() -> int:
    "Returns the process id."
    return os.getpid()

@server.tool()
async def hang() -> str:
    "Does not answer."
    await asyncio.sleep(600)
    return ""

server.run()
"""


def _tools(folder: Path, allow: tuple[str, ...] = ("double", "fail", "die")) -> McpTools:
    path = folder / "server.py"
    # The server's process inherits no PYTHONPATH.
    path.write_text(f"import sys\nsys.path[:0] = {sys.path!r}\n{SERVER}")
    return McpTools(f"{sys.executable} {path}", allow=allow)


async def _call(tools: McpTools, *calls: tuple[str, str]) -> list[ToolResult]:
    session = await tools.start(None)
    try:
        return [await session.call(name, arguments) for name, arguments in calls]
    finally:
        await tools.close()


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(120):
            return await coroutine

    return asyncio.run(bounded())


def test_calls_reach_the_server_and_come_back(tmp_path: Path) -> None:
    tools = _tools(tmp_path, ("double", "fail"))
    doubled, failed, invalid = _run(
        _call(tools, ("double", '{"number": 21}'), ("fail", ""), ("double", "[1]"))
    )
    assert doubled == ToolResult("ok", "42")
    assert failed.status == "error"
    assert "fail" in failed.text
    assert invalid.status == "invalid"
    assert [tool.name for tool in tools.tools] == ["double", "fail"]
    assert tools.tools[0].description == "Doubles a number."
    assert '"number"' in tools.tools[0].parameters


def test_a_second_event_loop_gets_a_server_of_its_own(tmp_path: Path) -> None:
    tools = _tools(tmp_path, ("double",))

    async def call_without_closing() -> ToolResult:
        session = await tools.start(None)
        return await session.call("double", '{"number": 2}')

    assert _run(call_without_closing()) == ToolResult("ok", "4")
    assert _run(call_without_closing()) == ToolResult("ok", "4")


def test_a_server_that_dies_leaves_errors(tmp_path: Path) -> None:
    died, after = _run(_call(_tools(tmp_path), ("die", "{}"), ("double", '{"number": 1}')))
    assert died.status == "error"
    assert after.status == "error"


def test_a_server_that_is_killed_in_a_call_leaves_errors_and_the_agent_goes_on(
    tmp_path: Path,
) -> None:
    tools = _tools(tmp_path, ("double", "get_pid", "hang"))

    def call_in_turn(conversation: Conversation, sampling: Sampling) -> Answer:
        results = [m.content for m in conversation.messages if m.role == "tool"]
        names = ("get_pid", "hang", "double")
        if len(results) == len(names):
            return Answer.of("The server is gone.")
        if len(results) == 1:
            threading.Timer(0.5, os.kill, (int(results[0]), signal.SIGKILL)).start()
        name = names[len(results)]
        arguments = '{"number": 1}' if name == "double" else "{}"
        message = Message("assistant", "", (ToolCall("", name, arguments),))
        return Answer(message=message, finish_reason="tool_calls")

    async def run() -> Answer:
        agent = AgentModel(ScriptedModel(call_in_turn), tools, AgentLimits(call_timeout=20))
        (answer,) = await agent.generate(Conversation.of("Go."), Sampling())
        await agent.close()
        return answer

    answer = _run(run())
    assert answer.text == "The server is gone."
    assert answer.episode is not UNSET
    assert [call.status for call in answer.episode.calls] == ["ok", "error", "error"]


@pytest.mark.parametrize(
    ("command", "allow", "fault"),
    [
        (f"{sys.executable} -c pass", "double", "does not start"),
        ("/no/such/program", "double", "does not start"),
        ("SERVER", "treble", "there is no tool 'treble'; did you mean"),
    ],
)
def test_a_server_that_does_not_start_is_a_user_error(
    tmp_path: Path, command: str, allow: str, fault: str
) -> None:
    tools = _tools(tmp_path, (allow,)) if command == "SERVER" else McpTools(command, allow=[allow])
    with pytest.raises(UserError, match=fault):
        _run(_call(tools))


@pytest.mark.parametrize("wait", ["sys.stdin.read()", "time.sleep(60)"])
def test_a_server_that_does_not_answer_is_ended_and_so_is_its_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: str
) -> None:
    monkeypatch.setattr("truing.agents.mcp_tools.START_SECONDS", 2.0)
    program = tmp_path / "server.py"
    program.write_text(
        f"import os, sys, time\nprint(os.getpid(), file=open({str(tmp_path / 'pid')!r}, 'w'))\n{wait}"
    )
    tools = McpTools(f"{sys.executable} {program}", allow=["double"])

    async def start_twice_without_closing() -> list[str]:
        faults = await asyncio.gather(tools.start(None), tools.start(None), return_exceptions=True)
        faults.append(await asyncio.gather(tools.start(None), return_exceptions=True))
        return [str(fault) for fault in faults]

    faults = _run(start_twice_without_closing())
    assert all("no answer in 2 s" in fault for fault in faults)
    # That `_run` has returned says that nothing is left in the loop; nor is the server's process.
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_closing_ends_a_server_that_starts_and_whoever_waits_for_it() -> None:
    tools = McpTools(f"{sys.executable} -c 'import sys; sys.stdin.read()'", allow=["double"])

    async def close_while_starting() -> BaseException | None:
        waiting = asyncio.create_task(tools.start(None))
        await asyncio.sleep(0.2)
        await tools.close()
        await asyncio.wait([waiting], timeout=10)
        return waiting.exception() if waiting.done() and not waiting.cancelled() else None

    fault = _run(close_while_starting())
    assert isinstance(fault, UserError)
    assert "was closed before it had started" in str(fault)


def test_a_server_gets_the_variables_that_it_is_given_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY_A", "a")
    monkeypatch.setenv("TEST_KEY_B", "b")
    command = " ".join(_tools(tmp_path)._command)
    spec = f'agent:scripted:echo,tools="mcp:{command}",allow=read_variables|draw,env=TEST_KEY_B'
    names, picture = _run(_call(resolve(spec, "model").tools, ("read_variables", ""), ("draw", "")))
    assert names == ToolResult("ok", "TEST_KEY_B")
    # A result without a text says so, and is not empty.
    assert picture == ToolResult("ok", "[image: left out]")
    with pytest.raises(UserError, match="environment variable TEST_KEY_C is not set"):
        resolve(spec.replace("KEY_B", "KEY_C"), "model")
    with (
        allow_key_variables(["TEST_KEY_A"]),
        pytest.raises(UserError, match="env=TEST_KEY_B: this variable may not be read here"),
    ):
        resolve(spec, "model")


def test_the_names_of_its_variables_are_a_part_of_what_a_toolset_is_and_their_values_are_not() -> (
    None
):
    def hash_with(variables: dict[str, str]) -> str:
        return McpTools("server", allow=["double"], variables=variables).hash

    assert hash_with({"TEST_KEY_A": "1"}) == hash_with({"TEST_KEY_A": "2"})
    hashes = {hash_with({}), hash_with({"TEST_KEY_A": "1"}), hash_with({"TEST_KEY_B": "1"})}
    assert len(hashes) == 3
    both = {"TEST_KEY_A": "1", "TEST_KEY_B": "1"}
    assert hash_with(both) == hash_with(dict(reversed(both.items()))) not in hashes
    # An allowed tool is no variable, whatever its name.
    allowed = McpTools("server", allow=["double", "env", "TEST_KEY_A"]).hash
    assert allowed not in hashes


def test_the_value_of_a_variable_in_a_spec_is_refused_and_not_shown(tmp_path: Path) -> None:
    command = " ".join(_tools(tmp_path)._command)
    tools = f'tools="mcp:{command}",allow=double,env="TEST_KEY_A|TEST_KEY_B=pear"'
    for spec in (f"agent:scripted:echo,{tools}", f"agent,of=(agent:scripted:echo,{tools})"):
        with pytest.raises(UserError, match="names of environment variables, without") as error:
            resolve(spec, "model")
        assert "pear" not in str(error.value)


def test_a_command_in_single_quotes_is_told_of_double_ones() -> None:
    with pytest.raises(UserError, match="stands in double quotes"):
        resolve("agent:scripted:echo,tools='mcp:python server.py',allow=double", "model")


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_package(monkeypatch, "mcp")
    with pytest.raises(MissingExtra, match=r"truing\[mcp\]"):
        _run(_call(_tools(tmp_path)))


def test_real_tools_need_an_allow_list_and_refuse_simulated_tasks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No closing quotation"):
        McpTools("python 'server.py", allow=["double"])
    with pytest.raises(UserError, match="need an allow list"):
        resolve('agent:scripted:echo,tools="mcp:python server.py"', "model")
    agent = resolve(
        'agent:scripted:echo,tools="mcp:python server.py --key x",allow=double', "model"
    )
    assert (agent.real_tools, agent.tools.name) == ("mcp:python", "mcp:python")
    with pytest.raises(UserError, match="does not run with real tools"):
        _run(agent.tools.start(Environment(world="mail", task="lunch")))
