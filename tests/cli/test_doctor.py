"""`truing doctor`: what is installed, and one call to a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command_line import run_truing, truing

from truing.cli.doctor import ask_once
from truing.models.python import PythonModel


def test_a_model_that_answers_is_ok() -> None:
    text = run_truing("doctor scripted:comply")
    assert "log-probabilities" in text
    assert "truing init --model 'scripted:comply'" in text


def test_extras_are_named_with_their_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truing.cli.doctor.find_spec", lambda name: None)
    assert "pip install 'truing[local]'" in run_truing("doctor")


@pytest.mark.parametrize(
    ("target", "name", "detail"),
    [
        ("scripted:fail", "answer", "scripted"),
        ("gpt-4o", "spec", "openai:gpt-4o"),
        ("openai:x,base_url=http://127.0.0.1:9/v1,retries=0", "answer", "connect"),
    ],
)
def test_a_model_that_does_not_is_status_1_with_the_reason(
    target: str, name: str, detail: str
) -> None:
    result = truing("doctor --json --timeout 20", target)
    failed = [check for check in json.loads(result.out) if check["status"] == "failed"]
    assert result.status == 1
    assert [check["name"] for check in failed] == [name]
    assert detail in failed[0]["detail"]


def test_a_model_that_hangs_is_given_up() -> None:
    async def hang(prompt: str) -> str:
        import asyncio

        await asyncio.Event().wait()
        return ""

    answer, _ = ask_once(PythonModel(hang), 0.05)
    assert answer.failure is not None
    assert answer.failure.kind == "timeout"


def test_a_data_folder_that_is_none_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUING_DATA", str(tmp_path / "nowhere"))
    assert truing("doctor").status == 1
    monkeypatch.setenv("TRUING_DATA", str(tmp_path))
    assert truing("doctor").status == 0
