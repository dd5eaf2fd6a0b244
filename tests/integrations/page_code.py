"""The files and the code of a how-to page, run as a reader would follow it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.serve.openai.live import free_port, running_server

from truing.core.types import Answer, Conversation, Message, Sampling, ToolCall
from truing.models.scripted import ScriptedModel
from truing.serve.openai.app import chat_app
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter

_FENCE = re.compile(r"(?ms)^```(\w+)\n(.*?)^```")
_FILE = re.compile(r"# ([\w./]+\.(?:yml|yaml|co|py))\n")
_EXPECTED = re.compile(r"print\(.*\)  # (.+)$")
PLUMS = "Plums are ripe; write to ana@example.org."
MASKED_PLUMS = "Plums are ripe; write to <EMAIL_ADDRESS>."


def answer(conversation: Conversation, sampling: Sampling) -> Answer | str:
    """Answers in OpenAI's place: looks for plums with a tool, if there is one."""
    if "plums" in conversation.prompt and sampling.tools and conversation.last.role != "tool":
        call = ToolCall("call_1", "search", '{"query": "plums"}')
        return Answer(message=Message("assistant", "", (call,)), finish_reason="tool_calls")
    return PLUMS


@contextmanager
def served_model() -> Iterator[dict[str, str]]:
    """Serves the model; yields the environment in which OpenAI's clients find it."""
    port = free_port()
    app = chat_app(ModelRouter(ScriptedModel(answer)))
    with running_server(app, port, ServerLimits()):
        url = f"http://127.0.0.1:{port}/v1"
        names = ("OPENAI_BASE_URL", "OPENAI_API_BASE")
        quiet = {"OPENAI_AGENTS_DISABLE_TRACING": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        yield {**os.environ, **dict.fromkeys(names, url), "OPENAI_API_KEY": "none", **quiet}


def write_page_files(page: Path, folder: Path) -> list[str]:
    """Writes the files whose names stand in the first lines of fences; returns the other Python."""
    code = []
    for language, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        name = _FILE.match(text)
        if name is not None:
            path = folder / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif language == "python":
            code.append(text)
    return code


def run_page(page: Path, folder: Path) -> list[str]:
    """Runs the Python of a page as one script in a folder with its files; returns what it prints.

    Asserts that it prints what the comments after its prints say, in their order.
    """
    code = "".join(write_page_files(page, folder))
    with served_model() as environment:
        finished = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert finished.returncode == 0, finished.stderr[-3000:]
    printed = finished.stdout.splitlines()
    expected = [match[1] for line in code.splitlines() if (match := _EXPECTED.search(line))]
    assert expected and [line for line in printed if line in expected] == expected, printed
    return printed
