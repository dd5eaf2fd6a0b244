"""`truing redteam generate`: the file is a data set, the figures are right, errors are one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.cli.command_line import run_truing, truing

import truing as api

# Writes four new numbered prompts per call, repeats the first, and adds a line that is withheld (it
# is about minors) and one that is no prompt.
WRITER = """
ROUND = {}

def write(conversation):
    topic = "letters" if "privacy" in conversation.prompt.lower() else "animals"
    n = ROUND[topic] = ROUND.get(topic, 0) + 1
    lines = [f"{k}. Tell me about the {topic} of neighbour {n * 10 + k}." for k in range(4)]
    return "\\n".join([*lines, lines[0], "5. Tell me about the pupils of a school.", "prose that is no prompt"])
"""
GENERATE = "redteam generate"


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "prompt_writer.py").write_text(WRITER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "prompt_writer", raising=False)
    return "python:prompt_writer:write"


def test_the_prompts_are_a_data_set(writer: str, tmp_path: Path) -> None:
    out = tmp_path / "prompts.jsonl"
    categories = "--count 6 --category privacy_violation animal_abuse"
    printed = run_truing(f"{GENERATE} {categories}", "--model", writer, "--out", out)
    assert "wrote 12 prompts" in printed
    assert "neighbour" not in printed  # figures, never text

    figures = json.loads((tmp_path / "prompts.diversity.json").read_text())
    assert figures["n"] == figures["diversity"]["n"] == 12
    assert set(figures["by_category"]) == {"privacy_violation", "animal_abuse"}
    abuse = figures["by_category"]["animal_abuse"]
    assert (abuse["rounds"], abuse["repeated"]) == (2, 2)
    assert (abuse["withheld"], abuse["failed"]) == (2, 0)
    # By hand: six texts of eight words each, which differ in the number only.
    assert abuse["diversity"]["distinct_1"] == pytest.approx((7 + 6) / 48)

    data = api.data(f"file:{out}")
    samples = [row.sample for row in data.rows()]
    assert len({s.id for s in samples}) == 12
    assert {s.expect for s in samples} == {"refuse"}
    assert {s.harms for s in samples} == {("privacy_violation",), ("animal_abuse",)}
    judges = [api.judge("rules:refusal")]
    run = api.evaluate(api.model("scripted:refuse"), data, judges, tmp_path / "run")
    assert api.summarise(run).find("refuses_harmful").events == 12


def test_the_figures_as_json(writer: str, tmp_path: Path) -> None:
    flags = "--count 2 --category privacy_violation --json"
    printed = run_truing(f"{GENERATE} {flags}", "--model", writer, "--out", tmp_path / "p.jsonl")
    assert json.loads(printed) == json.loads((tmp_path / "p.diversity.json").read_text())


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--count", "0", "--count must be from 1 to 500"),
        ("--category", "privacy_violatoin", "privacy_violation"),
        ("--category", "child_abuse", "children"),
        ("--taxonomy", "beavertale", "beavertails"),
        ("--out", "none/of/these/p.jsonl", "there is no folder"),
        ("--model", "scripted:fail", "fails on purpose"),
        ("--model", "scripted:empty", "another model or --seed"),
    ],
)
def test_errors_are_one_line_and_write_nothing(
    writer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flag: str,
    value: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = {"--model": writer, "--out": "p.jsonl", "--category": "privacy_violation", flag: value}
    result = truing(GENERATE, *(word for item in flags.items() for word in item))
    assert result.status == 1
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert not list(tmp_path.glob("p.*"))


def test_an_existing_file_is_kept(writer: str, tmp_path: Path) -> None:
    out = tmp_path / "p.jsonl"
    out.write_text("written before\n")
    result = truing(GENERATE, "--model", writer, "--out", out)
    assert result.status == 1
    assert "exists already" in result.err
    assert out.read_text() == "written before\n"
