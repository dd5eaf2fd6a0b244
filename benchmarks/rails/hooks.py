"""What a hook adds to a turn of the framework that it is in: the framework with and without it.

    VENV/bin/python benchmarks/rails/hooks.py langchain litellm openai-agents --out hooks.json

Each framework answers the same turn against the same mock of an LLM without latency: the model
calls a tool, the tool answers at once, the model answers (LiteLLM, which runs no tools: one chat
completion through its proxy). The rails (`configs/hooks`) ask no model. Turns with and without the
hook alternate, so that other work on the machine falls on both alike; each turn has a text of its
own. The environment needs the framework and this project; a framework that it lacks is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RAILS = HERE / "configs" / "hooks"
MOCK_PORT, PROXY_PORT = 9011, 9012
MOCK_URL = f"http://127.0.0.1:{MOCK_PORT}/v1"
PACKAGES = {"langchain": "langchain", "litellm": "litellm", "openai-agents": "openai-agents"}
MODULES = {"langchain": "langchain", "litellm": "litellm", "openai-agents": "agents"}
ANSWER = "Here is the answer of the mock model."
PROXY_KEY = "sk-of-the-benchmark-0123456789abcdef"

Turn = Callable[[str], Awaitable[str]]


def build_langchain() -> tuple[Turn, Turn]:
    """Returns the turn of a LangChain agent, and of the same with `RailsMiddleware`."""
    from langchain.agents import create_agent
    from langchain.tools import tool
    from langchain_openai import ChatOpenAI

    from truing.integrations.langchain import RailsMiddleware

    @tool
    def search(query: str) -> str:
        """Finds pages."""
        return f"pages about {query}"

    def build(middleware: list[Any]) -> Turn:
        model = ChatOpenAI(model="mock", base_url=MOCK_URL, api_key="none")
        agent = create_agent(model, [search], middleware=middleware)

        async def turn(text: str) -> str:
            result = await agent.ainvoke({"messages": [("user", text)]})
            return str(result["messages"][-1].content)

        return turn

    return build([]), build([RailsMiddleware(RAILS)])


def build_openai_agents() -> tuple[Turn, Turn]:
    """Returns the turn of an agent of the SDK, and of the same behind `AgentRails`."""
    from openai import AsyncOpenAI

    from agents import (
        Agent,
        OpenAIChatCompletionsModel,
        Runner,
        function_tool,
        set_tracing_disabled,
    )
    from truing.integrations.openai_agents import AgentRails

    set_tracing_disabled(True)

    @function_tool
    def search(query: str) -> str:
        """Finds pages."""
        return f"pages about {query}"

    def build(guard: Callable[[Any], Any]) -> Turn:
        client = AsyncOpenAI(base_url=MOCK_URL, api_key="none")
        model = OpenAIChatCompletionsModel("mock", client)
        agent = guard(Agent(name="shop", instructions="Be brief.", model=model, tools=[search]))

        async def turn(text: str) -> str:
            return str((await Runner.run(agent, text)).final_output)

        return turn

    return build(lambda agent: agent), build(AgentRails(RAILS).guard)


def build_litellm(folder: Path) -> tuple[Turn, Turn, subprocess.Popen[bytes]]:
    """Starts a LiteLLM proxy; returns a chat completion through it, the same with the guardrail,
    and the process.
    """
    import aiohttp

    (folder / "rails_plugin.py").write_text(
        "from truing.integrations.litellm import RailsGuardrail\n"
    )
    parameters = {"model": "openai/mock", "api_base": MOCK_URL, "api_key": "none"}
    guardrail = {
        "guardrail_name": "rails",
        "litellm_params": {
            "guardrail": "rails_plugin.RailsGuardrail",
            "mode": ["pre_call", "post_call"],
        },
    }
    config = {
        "model_list": [{"model_name": "mock", "litellm_params": parameters}],
        "guardrails": [guardrail],
        "litellm_settings": {"telemetry": False},
        "general_settings": {"master_key": PROXY_KEY},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    environment = {
        **os.environ,
        "TRUING_RAILS": str(RAILS),
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        "NO_DOCS": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    command = [
        str(Path(sys.executable).with_name("litellm")),
        *("--config", str(folder / "config.yaml"), "--port", str(PROXY_PORT)),
    ]
    log = (folder / "proxy.log").open("wb")
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{PROXY_PORT}"
    try:
        wait_for(f"{url}/health/liveliness", process)
    except RuntimeError:
        process.terminate()
        print((folder / "proxy.log").read_text()[-2000:], file=sys.stderr)
        raise
    sessions: list[aiohttp.ClientSession] = []

    def build(fields: dict[str, Any]) -> Turn:
        async def turn(text: str) -> str:
            if not sessions:
                headers = {"authorization": f"Bearer {PROXY_KEY}"}
                sessions.append(aiohttp.ClientSession(headers=headers))
            body = {"model": "mock", "messages": [{"role": "user", "content": text}], **fields}
            async with sessions[0].post(f"{url}/v1/chat/completions", json=body) as response:
                reply = await response.json()
            if response.status != 200:
                raise RuntimeError(f"the proxy answered {response.status}: {str(reply)[:300]}")
            return str(reply["choices"][0]["message"]["content"])

        return turn

    return build({}), build({"guardrails": ["rails"]}), process


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 240) -> None:
    """Waits until a server answers. Raises RuntimeError if it does not."""
    started = time.time()
    while time.time() - started < seconds and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{url} did not come up")


async def time_turns(plain: Turn, guarded: Turn, count: int) -> dict[str, list[float]]:
    """Returns the milliseconds of `count` turns of each kind, one after the other."""
    times: dict[str, list[float]] = {"plain": [], "guarded": []}
    for number in range(-5, count):
        for name, turn in (("plain", plain), ("guarded", guarded)):
            started = time.perf_counter()
            answer = await turn(f"tell me about topic {number}")
            elapsed = 1000 * (time.perf_counter() - started)
            if answer != ANSWER:
                raise RuntimeError(f"{name}: an unexpected answer: {answer[:200]}")
            if number >= 0:  # the first turns load what the frameworks load late
                times[name].append(elapsed)
    return times


def measure(framework: str, count: int) -> dict[str, Any]:
    """Measures one framework."""
    process: subprocess.Popen[bytes] | None = None
    with tempfile.TemporaryDirectory() as folder:
        try:
            if framework == "litellm":
                plain, guarded, process = build_litellm(Path(folder))
            else:
                build = build_langchain if framework == "langchain" else build_openai_agents
                plain, guarded = build()
            times = asyncio.run(time_turns(plain, guarded, count))
        finally:
            if process is not None:
                process.terminate()
                process.wait(30)
    p50 = {name: statistics.median(values) for name, values in times.items()}
    p95 = {name: sorted(values)[int(0.95 * count)] for name, values in times.items()}
    # Of neighbouring turns: what slows both down is not counted as the hook's.
    added = statistics.median(b - a for a, b in zip(times["plain"], times["guarded"], strict=True))
    return {
        "framework": framework,
        "version": version(PACKAGES[framework]),
        "turns": count,
        "plain": {"p50": p50["plain"], "p95": p95["plain"]},
        "guarded": {"p50": p50["guarded"], "p95": p95["guarded"]},
        "added": added,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the results as a Markdown table."""
    lines = [
        "| framework | its turn, p50 / p95 ms | with the hook | added, median ms | share |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        plain, guarded = row["plain"], row["guarded"]
        lines.append(
            f"| {row['framework']} {row['version']} | {plain['p50']:.1f} / {plain['p95']:.1f} "
            f"| {guarded['p50']:.1f} / {guarded['p95']:.1f} | {row['added']:.1f} "
            f"| {100 * row['added'] / plain['p50']:.0f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures the frameworks that this environment has and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frameworks", nargs="*", default=list(PACKAGES))
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    mock = subprocess.Popen([sys.executable, str(HERE / "mock.py"), "--port", str(MOCK_PORT)])
    rows = []
    try:
        wait_for(f"http://127.0.0.1:{MOCK_PORT}/stats", mock)
        for framework in arguments.frameworks:
            if find_spec(MODULES[framework]) is None:
                print(f"{framework} is not installed here", file=sys.stderr)
                continue
            rows.append(measure(framework, arguments.turns))
            print(json.dumps(rows[-1]), file=sys.stderr)
    finally:
        mock.terminate()
        mock.wait()
    machine = {
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
    }
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    print(json.dumps(machine))
    print(table(rows))


if __name__ == "__main__":
    main()
