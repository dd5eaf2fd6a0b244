"""`truing rails test`: dialogues in YAML against a configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from truing.cli.rails import run_dialogues
from truing.core.errors import PlanError

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
    ("old", "new", "said"),
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
def test_what_does_not_hold_is_said_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    assert run_dialogues(_folder(tmp_path, GOOD.replace(old, new))) == 2
    out = capsys.readouterr().out
    assert said in out
    assert "all.yml:" in out
    assert "1 passed, 1 failed" in out


@pytest.mark.parametrize(
    ("text", "said"),
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
def test_bad_files_are_faults_with_their_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PlanError) as caught:
        run_dialogues(_folder(tmp_path, text))
    assert said in str(caught.value)


def test_a_model_answers_where_nothing_is_scripted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yml").write_text(
        "models: [{type: main, engine: truing, model: 'scripted:echo'}]\n"
    )
    file = tmp_path / "d.yml.txt"
    file.write_text("dialogues:\n  - turns:\n      - {user: parrot, bot: parrot}\n")
    assert run_dialogues(tmp_path, file) == 0
    assert run_dialogues(tmp_path, file, model="scripted:refuse", json=True) == 2
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert made["failed"] == 1


def test_without_dialogues_there_is_nothing_to_pass(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(CONFIG)
    with pytest.raises(PlanError, match="no dialogues"):
        run_dialogues(tmp_path)
