"""Any Python function as a model."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from truing.core.errors import SpecError
from truing.core.types import Answer, Conversation, Sampling
from truing.models.python import PythonModel
from truing.specs.resolve import resolve

ASK = Conversation.of("hello", system="be kind")


def ask(function: Any, n: int = 1) -> tuple[Answer, ...]:
    return asyncio.run(PythonModel(function).generate(ASK, Sampling(n=n, seed=4)))


def test_what_the_function_takes() -> None:
    def by_prompt(text: str) -> str:
        return text.upper()

    def by_messages(messages: list[dict[str, str]]) -> str:
        return messages[0]["content"]

    def by_conversation(c: Conversation, sampling: Sampling) -> str:
        return f"{c.system}/{sampling.n}"

    async def later(prompt: str) -> str:
        await asyncio.sleep(0)
        return prompt[::-1]

    class Bot:
        async def __call__(self, prompt: str) -> str:
            return "bot " + prompt

    assert ask(by_prompt)[0].text == "HELLO"
    assert ask(by_messages)[0].text == "be kind"
    assert [a.text for a in ask(by_conversation, 2)] == ["be kind/1", "be kind/1"]
    assert ask(later)[0].text == "olleh"
    assert (
        asyncio.run(PythonModel(Bot(), name="bot").generate(ASK, Sampling()))[0].text == "bot hello"
    )


def test_each_answer_has_a_seed_of_its_own() -> None:
    def seeds(prompt: str, sampling: Sampling) -> str:
        return str(sampling.seed)

    assert len({a.text for a in ask(seeds, 4)}) == 4


@pytest.mark.parametrize(
    ("said", "kind", "word"),
    [
        (None, "empty", "None"),
        (b"\xff\x00", "binary", "2 bytes"),
        (3, "unparsable", "int"),
        ({"a": 1}, "unparsable", "dict"),
        ({"content": "x", "tool_calls": 5}, "unparsable", "tool_calls"),
    ],
)
def test_wrong_answers_are_failures(said: Any, kind: str, word: str) -> None:
    answer = ask(lambda prompt: said)[0]
    assert answer.failure is not None
    assert (answer.failure.kind, word in answer.failure.message) == (kind, True)


def test_right_answers_of_other_forms() -> None:
    assert ask(lambda prompt: b"caf\xc3\xa9")[0].text == "café"
    assert ask(lambda prompt: {"content": "x"})[0].text == "x"
    assert ask(lambda prompt: Answer.of("y", finish_reason="length"))[0].finish_reason == "length"
    assert ask(lambda prompt: "")[0].failure is None


def test_what_it_raises_is_a_failure_of_one_line() -> None:
    def broken(prompt: str) -> str:
        raise ValueError("two\nlines")

    failure = ask(broken)[0].failure
    assert failure is not None
    assert (failure.kind, failure.message) == ("exception", "ValueError: two lines")


def test_blocking_functions_run_side_by_side() -> None:
    # Eight calls pass only together: one after the other would wait for ever.
    together = threading.Barrier(8, timeout=30)

    def slow(prompt: str) -> str:
        together.wait()
        return threading.current_thread().name

    assert len({a.text for a in ask(slow, 8)}) == 8


def test_specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mybot.py").write_text("def answer(prompt):\n    return prompt + '!'\nnumber = 3\n")
    (tmp_path / "badbot.py").write_text("1/0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", ".")])
    model = resolve("python:mybot:answer", "model")
    assert model.name == "python:mybot:answer"
    assert asyncio.run(model.generate(ASK, Sampling()))[0].text == "hello!"
    for spec, word in (
        ("python:mybot", "expected python:package.module:function"),
        ("python:mybot:nothing", "has no 'nothing'"),
        ("python:nobot:f", "no module 'nobot'"),
        ("python:mybot:number", "no function"),
        ("python:badbot:f", "ZeroDivisionError"),
    ):
        with pytest.raises(SpecError, match=word):
            resolve(spec, "model")
    with pytest.raises(SpecError, match="takes no argument"):
        PythonModel(lambda: "x")
