"""Dialogue tests (`truing rails test`): expectations, faults of files, models."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from truing.cli.rails import run_dialogues
from truing.core.errors import PlanError
from truing.core.types import Answer, Conversation, Sampling
from truing.rails.dialogue_tests import ScriptedLlm, find_dialogue_files, read_dialogues

CONFIG = """
rails:
  input: {flows: [no secrets]}
"""
COLANG = """
define user express greeting
  "hello"

define bot say hello
  "Hello!"

define flow greeting
  user express greeting
  $mood = "good"
  bot say hello

define flow no secrets
  if "secret" in $user_message
    bot refuse to respond
    stop
"""
GOOD = """
dialogues:
  - name: greets
    llm: ["  express greeting"]
    turns:
      - user: hello
        bot: Hello!
        bot_contains: [Hello]
        bot_not_contains: secret
        bot_matches: "^Hel+o"
        blocked: false
        intent: express greeting
        flow_says: [say hello]
        llm_calls: 1
        variables: {mood: good}
  - name: keeps secrets
    llm: []
    turns:
      - user: tell me a secret
        blocked_by: no secrets
        blocked: true
        llm_calls: 0
"""


def _folder(path: Path, dialogues: str) -> Path:
    (path / "config.yml").write_text(CONFIG)
    (path / "rails.co").write_text(COLANG)
    (path / "tests").mkdir()
    (path / "tests" / "all.yml").write_text(dialogues)
    return path


def test_good_dialogues_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_dialogues(_folder(tmp_path, GOOD)) == 0
    assert "2 passed, 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bot: Hello!", "bot: Bye!", "expected 'Bye!', the bot said 'Hello!'"),
        ("bot_not_contains: secret", "bot_not_contains: ell", "must not stand in"),
        ('bot_matches: "^Hel+o"', 'bot_matches: "x$"', "does not match"),
        ("blocked: false", "blocked: true", "not blocked"),
        ("blocked_by: no secrets", "blocked_by: other", "expected 'other', it was ['no secrets']"),
        (
            "intent: express greeting",
            "intent: ask price",
            "expected the intent 'ask price', it was ['express greeting']",
        ),
        ("llm_calls: 1", "llm_calls: 2", "expected 2 LLM calls, there were 1"),
        ("mood: good", "mood: bad", "expected $mood = 'bad'"),
        (
            'llm: ["  express greeting"]',
            "llm: []",
            "the turn could not be finished: no_text: call 1 of the LLM",
        ),
        (
            'llm: ["  express greeting"]',
            'llm: ["  express greeting", more]',
            "asked 1 times, and llm: has 2 texts",
        ),
    ],
)
def test_an_unmet_expectation_fails_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    assert run_dialogues(_folder(tmp_path, GOOD.replace(old, new))) == 2
    out = capsys.readouterr().out
    assert message in out
    assert "all.yml:" in out
    assert "1 passed, 1 failed" in out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dialogues:\n  - turns:\n      - {user: a, bott: b}\n", "all.yml:3: unknown key 'bott'"),
        (
            "dialogues:\n  - turns:\n      - {bot: b}\n",
            "all.yml:3: a turn needs one of user, event, tool",
        ),
        ("dialogues:\n  - name: x\n", "all.yml:2: a dialogue needs turns"),
        ("dialogues:\n  - turns:\n      - {user: a, bot_matches: '('}\n", "all.yml:3: bot_matches"),
        ("dialogue: []\n", "expected dialogues:"),
        ("dialogues: [\n", "all.yml:2:"),
        ("dialogues:\n  - turns:\n      - {user: 3}\n", "expected a string, got a number"),
    ],
)
def test_faults_of_a_file_are_errors_with_their_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(PlanError) as caught:
        run_dialogues(_folder(tmp_path, text))
    assert message in str(caught.value)


def test_the_model_answers_where_no_llm_is_scripted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yml").write_text(
        "models: [{type: main, engine: truing, model: 'scripted:echo'}]\n"
    )
    file = tmp_path / "d.yml.txt"
    file.write_text("dialogues:\n  - turns:\n      - {user: parrot, bot: parrot}\n")
    assert run_dialogues(tmp_path, file) == 0
    assert run_dialogues(tmp_path, file, model="scripted:refuse", json=True) == 2
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["failed"] == 1


def test_a_folder_without_dialogues_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(CONFIG)
    with pytest.raises(PlanError, match="no dialogues"):
        run_dialogues(tmp_path)


def test_a_scripted_llm_answers_call_by_call() -> None:
    llm = ScriptedLlm(["one"])

    def call() -> Answer:
        return asyncio.run(llm.generate(Conversation.of("x"), Sampling()))[0]

    assert call().text == "one"
    failure = call().failure
    assert failure is not None
    assert failure.kind == "no_text"


def test_faults_of_all_files_are_reported_together(tmp_path: Path) -> None:
    files = [tmp_path / "a.yml", tmp_path / "b.yml", tmp_path / "missing.yml"]
    files[0].write_text("dialogues: 3\n")
    files[1].write_text("dialogues: [{turns: [{user: a, llm_calls: x}]}]\n")
    with pytest.raises(PlanError) as raised:
        read_dialogues(files)
    assert [fault.partition(":")[0].rpartition("/")[2] for fault in raised.value.faults] == [
        "a.yml",
        "b.yml",
        "missing.yml",
    ]


def test_dialogues_are_read_with_their_places(tmp_path: Path) -> None:
    folder = _folder(tmp_path, GOOD)
    (file,) = find_dialogue_files(folder)
    first, second = read_dialogues([file])
    assert (first.name, first.place, first.lines) == ("greets", "all.yml:3", (6,))
    assert first.llm == ("  express greeting",)
    assert (second.name, second.llm) == ("keeps secrets", ())
