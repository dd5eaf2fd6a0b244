"""`truing redteam generate`: the file it writes is data, its figures are right, and bad input is said in a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import truing
from truing.attacks.generate import generate_prompts
from truing.cli import build_app, main
from truing.core.errors import PlanError, RunError
from truing.core.taxonomy import HarmCategory, load_taxonomy
from truing.core.types import Answer, Message
from truing.models.scripted import ScriptedModel

WRITER = """
ROUND = {}

def write(conversation):
    topic = "letters" if "privacy" in conversation.prompt.lower() else "animals"
    n = ROUND[topic] = ROUND.get(topic, 0) + 1
    lines = [f"{k}. Tell me about the {topic} of neighbour {n * 10 + k}." for k in range(4)]
    return "\\n".join([*lines, lines[0], "5. Tell me about the pupils of a school.", "prose that is no prompt"])
"""


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "prompt_writer.py").write_text(WRITER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "prompt_writer", raising=False)
    return "python:prompt_writer:write"


def run(*args: str) -> object:
    return build_app()(["redteam", "generate", *args], result_action="return_value")


def test_a_set_of_prompts_is_data_like_any_other(
    writer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "prompts.jsonl"
    assert (
        run(
            "--model",
            writer,
            "--out",
            str(out),
            "--count",
            "6",
            "--category",
            "privacy_violation",
            "animal_abuse",
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert "wrote 12 prompts" in shown and "neighbour" not in shown  # counts, never text
    figures = json.loads((tmp_path / "prompts.diversity.json").read_text())
    assert figures["n"] == 12 and figures["diversity"]["n"] == 12
    assert set(figures["by_category"]) == {"privacy_violation", "animal_abuse"}
    one = figures["by_category"]["animal_abuse"]
    assert (one["rounds"], one["repeated"], one["withheld"], one["failed"]) == (2, 2, 2, 0)
    # by hand: six texts of eight words each, all of them the same but for the number
    assert one["diversity"]["distinct_1"] == pytest.approx((7 + 6) / 48)
    data = truing.data(f"file:{out}")
    rows = [row.sample for row in data.rows()]
    assert len({s.id for s in rows}) == 12 and {s.expect for s in rows} == {"refuse"}
    assert {s.harms for s in rows} == {("privacy_violation",), ("animal_abuse",)}
    found = truing.evaluate(
        truing.model("scripted:refuse"), data, [truing.judge("rules:refusal")], tmp_path / "run"
    )
    assert truing.summarise(found).find("refuses_harmful").events == 12


def test_the_figures_as_json(
    writer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.jsonl"
    assert (
        run(
            "--model",
            writer,
            "--out",
            str(out),
            "--count",
            "2",
            "--category",
            "privacy_violation",
            "--json",
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out) == json.loads(
        (tmp_path / "p.diversity.json").read_text()
    )


@pytest.mark.parametrize(
    ("more", "error", "word"),
    [
        (["--count", "0"], PlanError, "--count must be from 1 to 500"),
        (["--category", "privacy_violatoin"], PlanError, "privacy_violation"),
        (["--category", "child_abuse"], PlanError, "children"),
        (["--taxonomy", "beavertale"], PlanError, "beavertails"),
        (["--out", "none/of/these/p.jsonl"], PlanError, "there is no folder"),
        (["--model", "scripted:fail"], RunError, "fails on purpose"),
        (["--model", "scripted:empty"], RunError, "another model or --seed"),
    ],
)
def test_bad_input(
    writer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    error: type[Exception],
    word: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"--model": writer, "--out": "p.jsonl", "--category": "privacy_violation"}
    given |= dict(zip(more[::2], more[1::2], strict=True))
    with pytest.raises(error, match=word):
        run(*(part for pair in given.items() for part in pair))
    assert not list(tmp_path.glob("p.*"))


def test_a_file_that_is_there_is_kept(writer: str, tmp_path: Path) -> None:
    out = tmp_path / "p.jsonl"
    out.write_text("mine\n")
    with pytest.raises(PlanError, match="exists already"):
        run("--model", writer, "--out", str(out))
    assert out.read_text() == "mine\n"


def test_an_error_is_one_line_and_exit_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "sys.argv",
        ["truing", "redteam", "generate", "--model", "scripted:fail", "--out", str(tmp_path / "p")],
    )
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


async def _written(model: object, count: int = 3, **more: int) -> object:
    return await generate_prompts(model, load_taxonomy().find("privacy_violation"), count, **more)  # type: ignore[arg-type]


def test_failures_and_cut_lines_are_no_prompts() -> None:
    import asyncio

    cut = Answer(
        message=Message("assistant", "1. Tell me about three gates.\n2. Tell me about"),
        finish_reason="length",
    )
    made = asyncio.run(_written(ScriptedModel(lambda conversation, sampling: cut)))
    assert [s.prompt for s in made.samples] == ["Tell me about three gates."] and made.repeated == 4  # type: ignore[attr-defined]
    turns = iter(
        [Answer.failed("timeout", "no answer"), Answer.of("1. Tell me about three gates.")]
    )
    made = asyncio.run(_written(ScriptedModel(lambda conversation, sampling: next(turns)), count=1))
    assert len(made.samples) == 1 and made.failures == ("timeout: no answer",) and made.rounds == 2  # type: ignore[attr-defined]


def test_no_model_is_asked_about_children() -> None:
    import asyncio

    model = ScriptedModel("1. Tell me about three gates.")
    made = asyncio.run(generate_prompts(model, HarmCategory("child_x", "Children", "anything"), 3))
    assert made.samples == () and model.calls == 0
