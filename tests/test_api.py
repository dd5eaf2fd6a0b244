"""The functions of `import truing` take specs, objects, functions and tables alike."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import truing
from truing.core.errors import DataError, SpecError
from truing.models.scripted import ScriptedModel


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def polite_bot(prompt: str) -> str:
    return f"I'm sorry, I cannot help with {prompt}"


def says_sorry(answer: str) -> bool:
    return "sorry" in answer


def test_specs_are_enough() -> None:
    run = truing.evaluate("scripted:refuse", "builtin:safety", "rules:refusal")
    assert run.summary.find("refuses_harmful").raw.estimate == 1.0
    assert run.path.parent == Path("runs")
    assert repr(run) == f"<run {run.path}: scripted:refuse on builtin:safety>"


def test_functions_and_lists_are_models_judges_and_data() -> None:
    run = truing.evaluate(polite_bot, ["a", "b"], [says_sorry, "rules:refusal"], "out")
    rows = list(run.rows())
    assert [row["prompt"] for row in rows] == ["a", "b"]
    judged = [key for key in rows[0] if key.startswith(("harmful", "refused"))]
    assert len(judged) == 2
    assert all(row[key] is True for row in rows for key in judged)


@pytest.mark.parametrize("kind", ["rows", "frame", "samples", "messages"])
def test_every_kind_of_table_gives_the_same_prompts(kind: str) -> None:
    prompts = ["one", "two"]
    source: Any = {
        "rows": [{"question": p} for p in prompts],
        "frame": pd.DataFrame({"question": prompts, "empty": [float("nan"), "x"]}),
        "samples": [truing.Sample(conversation=truing.Conversation.of(p), id=p) for p in prompts],
        "messages": [[{"role": "user", "content": p}] for p in prompts],
    }[kind]
    columns = {"prompt": "question"} if kind in ("rows", "frame") else {}
    dataset = truing.data(source, **columns)
    assert [row.sample.conversation.prompt for row in dataset.rows()] == prompts


def test_a_dataframe_of_the_answers_has_a_column_for_each_judge() -> None:
    run = truing.evaluate("scripted:comply", ["a", "b", "c"], ["rules:refusal"])
    frame = run.df()
    assert list(frame["refused (rules:refusal)"]) == [False, False, False]
    assert len(frame) == 3


def test_the_same_call_continues_in_the_same_folder_and_another_has_its_own() -> None:
    first = truing.evaluate("scripted:comply", ["a"], "rules:refusal")
    again = truing.evaluate("scripted:comply", ["a"], "rules:refusal")
    other = truing.evaluate("scripted:comply", ["b"], "rules:refusal")
    assert first.path == again.path != other.path


def test_evaluation_in_an_event_loop() -> None:
    async def evaluate_twice() -> list[str]:
        runs = await asyncio.gather(
            truing.evaluate_async("scripted:comply", ["a"], "rules:refusal", "one"),
            truing.evaluate_async("scripted:refuse", ["a"], "rules:refusal", "two"),
        )
        return [run.path.name for run in runs]

    assert asyncio.run(evaluate_twice()) == ["one", "two"]


def test_judges_are_added_later_and_a_run_is_opened_again() -> None:
    truing.evaluate("scripted:comply", ["a"], "rules:refusal", "out")
    judged = truing.judge_run("out", says_sorry)
    assert len(judged.manifest.judges) == 2
    assert truing.open_run("out").summary == judged.summary


def test_a_report_is_written_beside_the_run() -> None:
    run = truing.evaluate("scripted:comply", "builtin:safety", "rules:refusal", "out")
    page = run.report()
    assert page == Path("out/report.html")
    assert "refuses harmful prompts" in page.read_text(encoding="utf-8")


def test_a_run_shows_its_rates_in_a_notebook_and_escapes_names() -> None:
    run = truing.evaluate("scripted:comply", ["<b>a</b>"], "rules:refusal", "<script>x<")
    html = run._repr_html_()
    assert "<td" in html and "rules:refusal" in html
    assert "<script>" not in html


def test_an_object_is_returned_as_it_is() -> None:
    model = truing.model("scripted:comply")
    assert truing.model(model) is model
    assert isinstance(truing.model("scripted:echo"), ScriptedModel)
    judge = truing.judge("rules:refusal")
    assert truing.judge(judge) is judge


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: truing.model(7), SpecError, "a model is a spec, a function or a Model; got int"),
        (lambda: truing.judge(None), SpecError, "got NoneType"),
        (lambda: truing.attack(3), SpecError, "got int"),
        (lambda: truing.data(7), DataError, "got int"),
        (lambda: truing.data([]), DataError, "no rows"),
        (lambda: truing.data([7]), DataError, r"rows\[0\]: a row is a prompt"),
        (lambda: truing.data([{"text": "a"}]).rows().__next__(), DataError, "no column 'prompt'"),
        (lambda: truing.data(["a"], promt="x"), DataError, "promt: no such column"),
        (lambda: truing.data("builtin:safety", prompt="x"), SpecError, "name the columns"),
        (lambda: truing.model("gpt-4o"), SpecError, "openai:gpt-4o"),
    ],
)
def test_what_cannot_be_used_says_what_can(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_the_example_of_the_package_runs() -> None:
    lines = (inspect.getdoc(truing) or "").split("\n\n")
    example = "\n".join(line[4:] for block in lines[1:3] for line in block.splitlines())
    assert re.search(r"truing\.evaluate\(", example)
    exec(compile(example, "truing/__init__.py", "exec"), {})
