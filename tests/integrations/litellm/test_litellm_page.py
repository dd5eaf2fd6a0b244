"""The page `from LiteLLM`, followed with the real proxy."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integrations.page_code import MASKED_PLUMS, served_model, write_page_files
from tests.serve.openai.live import free_port, running_server

pytest.importorskip("litellm", reason="runs in `make test-peers`")

from truing.models.scripted import ScriptedModel
from truing.serve.openai.app import chat_app
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.model_router import ModelRouter

pytestmark = pytest.mark.timeout(900)
PROXY_KEY = "sk-of-the-tests-page-0123456789abcdef0123456789abcdef"  # weak ones are refused


@contextmanager
def proxy(config: str, folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Starts the proxy with a file of the page."""
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("litellm")),
        *("--config", config, "--port", str(port)),
    ]
    log = folder / "proxy.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={
                **environment,
                "LITELLM_MASTER_KEY": PROXY_KEY,
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the network first
            },
            stdout=stream,
            stderr=stream,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until the proxy is ready, however long it imports: the time-out is the test's."""
    while True:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(f"{url}/health/readiness", timeout=5).read()
            return
        except OSError:
            time.sleep(0.3)


def ask(url: str, text: str) -> tuple[int, Any]:
    body = {"model": "small", "messages": [{"role": "user", "content": text}]}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {PROXY_KEY}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ask_about_account_and_plums(url: str) -> tuple[bool, str]:
    """Returns whether the proxy refuses the one question in the rails' words, and its answer to the other."""
    status, refusal = ask(url, "What is in my account?")
    is_refused = status == 400 and "I can't talk about accounts." in refusal
    status, answer = ask(url, "What are plums?")
    return is_refused, answer["choices"][0]["message"]["content"] if status == 200 else str(status)


def test_the_rails_in_the_process_of_the_proxy(root: Path, tmp_path: Path) -> None:
    write_page_files(root / "docs/how-to/from-litellm.md", tmp_path)
    with served_model() as environment:
        environment |= {"TRUING_RAILS": "my_rails", "PYTHONPATH": str(root / "src")}
        with proxy("config.yaml", tmp_path, environment) as url:
            assert ask_about_account_and_plums(url) == (True, MASKED_PLUMS)


def test_the_rails_in_a_server_of_their_own(root: Path, tmp_path: Path) -> None:
    write_page_files(root / "docs/how-to/from-litellm.md", tmp_path)
    port = free_port()
    served = tmp_path / "served.yaml"
    served.write_text(served.read_text().replace("localhost:8100", f"127.0.0.1:{port}"))
    router = ModelRouter(ScriptedModel("unused"), {"my_rails": tmp_path / "my_rails"})
    rails = chat_app(router, keys=["a-key"])
    with (
        served_model() as environment,
        running_server(rails, port, ServerLimits()),
        proxy("served.yaml", tmp_path, {**environment, "RAILS_KEY": "a-key"}) as url,
    ):
        assert ask_about_account_and_plums(url) == (True, MASKED_PLUMS)
