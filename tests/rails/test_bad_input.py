"""Malformed and hostile input: a fault with its place, or a turn that fails closed.

Never a traceback, and never a hang: all bounds are generous, so that they do not measure speed.
Expressions have such tests of their own in `colang/test_expressions.py`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from adapter_truing import ACTIONS_PRELUDE, BagOfWordsEncoder
from case_generator import generate_case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peer_truing import TaskScriptedModel
from rails_cases import build_actions_source

from truing.core.errors import PlanError
from truing.core.types import Answer, Conversation, Lineage, Message, Sampling
from truing.rails.build import build_runtime
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import BLOCKED_MESSAGE, GuardedModel
from truing.rails.runtime.app import RailsError, Runtime, RuntimeParts
from truing.rails.runtime.llm_client import LlmError
from truing.rails.runtime.templates import PromptError, render_template
from truing.rails.static.check import check_rails_config
from truing.rails.static.diagram import render_svg, render_tree

PROPERTY_SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck)
)
INSERTIONS = [
    *'"$()[]{}:,#\\\t\n=|é\x00\ud800',
    *("if", "else", "while", "when", "define", "flow", "user", "bot", "do", "execute"),
    *("or", "and", "not", "stop", "goto", "label", "any", "meta", "create event"),
    *("...", '"""', "==", "{{", "}}", "{%", "%}", "&a", "*a", "- ", "    "),
    *("!!python/object:os.system", "0x", "1e999"),
]


class ConstantModel:
    """Answers every call with the same text."""

    name = "constant"
    lineage = Lineage(name="constant")

    def __init__(self, text: str) -> None:
        self.text = text

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        return (Answer.of(self.text),)


def _guard_model(
    yaml: str = "models: []\n", colang: str = "", *, llm_text: str = "fine", **parts: Any
) -> GuardedModel:
    config = RailsConfig.from_text(yaml, colang)
    return GuardedModel(
        config, ConstantModel(llm_text), parts=RuntimeParts(encoder=BagOfWordsEncoder(), **parts)
    )


def _answer(model: GuardedModel, *user_texts: str) -> Answer:
    conversation = Conversation(tuple(Message("user", text) for text in user_texts))
    return asyncio.run(model.answer(conversation, Sampling()))


# -- files -----------------------------------------------------------------------------------------


@PROPERTY_SETTINGS
@given(st.text(max_size=300))
def test_any_text_as_yaml_or_colang_is_read_or_a_plan_error(text: str) -> None:
    for yaml, colang in ((text, ""), ("", text), ("", f"define flow\n  user a\n  {text}\n")):
        faults: tuple[str, ...] = ()
        try:
            RailsConfig.from_text(yaml, colang)
        except PlanError as error:
            faults = error.faults
        assert all(": " in fault for fault in faults)


def _mutate(text: str, generator: random.Random) -> str:
    """Deletes, inserts, repeats or indents something, one to three times."""
    for _ in range(generator.randint(1, 3)):
        lines = text.split("\n")
        position = generator.randrange(len(text) or 1)
        row = generator.randrange(len(lines))
        kind = generator.randrange(5)
        if kind == 0:
            text = text[:position] + text[position + generator.randint(1, 5) :]
        elif kind == 1:
            insertion = generator.choice(INSERTIONS) * generator.randint(1, 20)
            text = text[:position] + insertion + text[position:]
        else:
            if kind == 2:
                lines.pop(row)
            elif kind == 3:
                lines.insert(row, lines[generator.randrange(len(lines))])
            else:
                lines[row] = " " * generator.randint(0, 8) + lines[row].strip()
            text = "\n".join(lines)
    return text


async def _run_turns(runtime: Runtime, turns: list[dict[str, Any]]) -> None:
    history: list[dict[str, Any]] = []
    for turn in turns:
        if "event" in turn:
            history.append({"role": "event", "event": turn["event"]})
        else:
            history.append({"role": "user", "content": turn["user"]})
        try:
            result = await asyncio.wait_for(runtime.run_turn(history), 20)
        except (RailsError, LlmError):
            return
        history.append(result.message)


@pytest.mark.parametrize("block", range(8))
def test_generated_configurations_with_faults_never_crash(tmp_path: Path, block: int) -> None:
    built = 0
    for seed in range(block * 25, block * 25 + 25):
        generator = random.Random(seed)
        case = generate_case(seed + 100_000)
        folder = tmp_path / str(seed)
        for name, text in case["files"].items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = _mutate(text, generator) if name.endswith(".co") else text
            path.write_bytes(content.encode("utf-8", "surrogatepass"))
        if case["actions"]:
            source = build_actions_source(case["actions"], ACTIONS_PRELUDE)
            (folder / "actions.py").write_text(source)
        report = check_rails_config(folder)
        if report.config is not None:
            render_svg(report.config.flows)
            render_tree(report.config.flows)
        try:
            config = RailsConfig.load(folder, trust_code=True)
            model = TaskScriptedModel(case["llm"], config.multi_step)
            runtime = build_runtime(config, model, RuntimeParts(encoder=BagOfWordsEncoder()))
        except PlanError:
            assert report.errors, f"seed {seed}: the runtime refuses what the check lets pass"
            continue
        built += 1
        asyncio.run(_run_turns(runtime, case["turns"]))
    assert built > 0


ALIAS_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{key}: &{key} [{','.join([f'*{previous}'] * 9)}]\n"
    for previous, key in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALIAS_BOMB, r"too many nodes \(aliases that multiply\?\)"),
        ("[" * 5000, "exceeded maximum nesting depth"),
        ("a: " * 5000, "mapping values are not allowed in this context"),
        ("&a [*a]", "an alias refers to a node that contains it"),
        ("&a {x: *a}", "an alias refers to a node that contains it"),
        ("- " * 20_000, "nested too deeply"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor for the tag"),
    ],
    ids=["bomb", "brackets", "keys", "own-item", "own-value", "items", "object"],
)
def test_alias_bombs_and_deep_nesting_are_refused(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=rf"^config\.yml:1: {message}"):
        RailsConfig.from_text(text)


def test_files_that_are_not_utf8_or_too_large_are_faults_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_bytes(b"models: []\n# \xff\xfe\n")
    (tmp_path / "rails.co").write_bytes(b'define user a\n  "\xc3\x28"\n')
    (tmp_path / "big.co").write_bytes(b"#" * 4_000_001)
    with pytest.raises(PlanError) as caught:
        RailsConfig.load(tmp_path)
    places = [fault.split(" ")[0] for fault in sorted(caught.value.faults)]
    assert places == ["big.co:", "config.yml:2:", "rails.co:2:"]


def test_a_deeply_nested_flow_is_refused_or_compiled() -> None:
    lines = ["define flow", "  user a"]
    lines += [f"{'  ' * (depth + 1)}if $a" for depth in range(400)]
    lines.append("  " * 401 + "stop")
    # The depth that Python's stack allows depends on the version.
    message = "nested"
    try:
        RailsConfig.from_text("", "\n".join(lines))
    except PlanError as error:
        message = str(error)
    assert "nested" in message


# -- templates -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ x.__init__.__globals__ }}",
        "{{ x['__class__'] and x.__class__.__base__ }}",
        "{{ 'a' * 10**9 }}",
        "{{ range(10**9) | list }}",
        "{% for a in range(999) %}{% for b in range(999) %}{{ 'x' * 9 }}{% endfor %}{% endfor %}",
        "{% include 'a' %}",
        "{% import 'os' as os %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ x.format_map(x) }}",
        "{{ ('a'|string).ljust(10**9) }}",
        "{{ self.__init__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{",
        "{% if %}",
        "{{ 1 // 0 }}",
        "{{ 9**9**9 }}",
        "{{ lipsum() }}",
        "{{ x|attr('__class__') }}",
        "{{ namespace().x.__class__ }}",
        "{% for a in range(1000) %}{{ big }}{% endfor %}",
        "{{ 'a' | replace('a', big) | replace('b', big) | replace('b', big) }}",
    ],
)
def test_templates_cannot_leave_the_sandbox_or_grow_without_bound(template: str) -> None:
    context = {"x": {"k": 1}, "big": "b" * 90_000}
    try:
        rendered = render_template(template, context)
    except PromptError:
        rendered = ""
    assert len(rendered) < 1_100_000
    assert "class" not in rendered


# -- flows that do not end -------------------------------------------------------------------------

ENDLESS_FLOWS = {
    "while": "define flow\n  user ...\n  while True\n    $a = 1\n  bot say\n",
    "goto": "define flow\n  user ...\n  label x\n  $a = 1\n  goto x\n",
    "subflow": "define flow\n  user ...\n  do s\n\ndefine subflow s\n  do s\n",
    "mutual": "define flow\n  user ...\n  do s\n\n"
    "define subflow s\n  do t\n\ndefine subflow t\n  do s\n",
    "dynamic": 'define flow\n  user ...\n  $s = "s"\n  do $s\n\ndefine subflow s\n  do $s\n',
    "events": "define parallel flow a\n  event Ping\n  create event Pong\n\n"
    "define parallel flow b\n  event Pong\n  create event Ping\n\n"
    "define flow\n  user ...\n  create event Ping\n",
    "messages": 'define bot a\n  "A"\n\ndefine bot b\n  "B"\n\n'
    "define parallel extension flow x\n  bot a\n  bot b\n\n"
    "define parallel extension flow y\n  bot b\n  bot a\n\ndefine flow\n  user ...\n  bot a\n",
    "doubling": 'define flow\n  user ...\n  $a = "x"\n  while True\n    $a = $a + $a\n',
    "number": "define flow\n  user ...\n  $s = 3\n  do $s\n",
    "unknown": 'define flow\n  user ...\n  $s = "no such flow"\n  do $s\n',
}


@pytest.mark.parametrize("name", ENDLESS_FLOWS)
def test_flows_that_do_not_end_fail_closed_with_a_reason(name: str) -> None:
    model = _guard_model(
        "rails: {dialog: {user_messages: {embeddings_only: true}}}\n",
        'define user hi\n  "hi"\n\n' + ENDLESS_FLOWS[name],
    )
    answer = _answer(model, "hi")
    assert answer.finish_reason == "blocked"
    assert answer.text == BLOCKED_MESSAGE
    assert answer.rulings[-1].reason


async def _hang() -> None:
    await asyncio.sleep(60)


def _block_thread() -> None:
    time.sleep(1.5)


def _raise_key_error() -> None:
    raise KeyError("x")


def _exit() -> None:
    raise SystemExit(3)


def _generator() -> Iterator[bool]:
    yield False


async def _async_generator() -> AsyncIterator[bool]:
    yield False


def _returns_a_coroutine() -> Any:
    async def inner() -> Any:
        return _hang()

    return inner()


@pytest.mark.parametrize(
    "action",
    [
        *(_hang, _block_thread, _raise_key_error, _exit),
        *(_generator, _async_generator, _returns_a_coroutine),
    ],
)
def test_an_action_that_hangs_or_fails_fails_closed(action: Any) -> None:
    model = _guard_model(
        "truing: {action_timeout: 0.2}\nrails: {input: {flows: [check]}}\n",
        "define flow check\n  $ok = execute tested_action\n"
        "  if not $ok\n    bot refuse to respond\n    stop\n",
        actions={"tested_action": action},
    )
    answer = _answer(model, "hello")
    assert answer.finish_reason == "blocked"
    assert "tested_action" in answer.rulings[-1].reason
    assert "fine" not in answer.text


@pytest.mark.parametrize("ending", ["import_paths: [b]", "import_paths: [., b, '../a']"])
def test_imports_that_go_in_a_circle_are_read_once(tmp_path: Path, ending: str) -> None:
    for name, other in (("a", "b"), ("a/b", "..")):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / f"{name[-1]}.co").write_text(f'define bot greet {name[-1]}\n  "hi"\n')
        imports = ending if name == "a" else f"import_paths: [{other}]"
        (folder / "config.yml").write_text(f"{imports}\n")
    config = RailsConfig.load(tmp_path / "a", trust_code=True)
    assert set(config.bot_messages) == {"greet a", "greet b"}
    assert all(len(texts) == 1 for texts in config.bot_messages.values())


def test_a_configuration_that_changes_on_disk_goes_on_as_it_was_loaded(tmp_path: Path) -> None:
    colang = 'define flow check\n  if "FORBIDDEN" in $user_message\n    bot refuse to respond\n    stop\n'
    (tmp_path / "config.yml").write_text("rails: {input: {flows: [check]}}\n")
    (tmp_path / "rails.co").write_text(colang)
    parts = RuntimeParts(encoder=BagOfWordsEncoder())
    model = GuardedModel(tmp_path, ConstantModel("fine"), parts=parts)
    assert _answer(model, "hi").text == "fine"
    (tmp_path / "config.yml").write_text("rails: {inp")
    (tmp_path / "rails.co").unlink()
    assert _answer(model, "a FORBIDDEN word").finish_reason == "blocked"
    assert _answer(model, "hello").text == "fine"
    with pytest.raises(PlanError, match="config.yml:[12]: did not find"):
        GuardedModel(tmp_path, ConstantModel("fine"), parts=parts)


# -- messages of the user and of the LLM -----------------------------------------------------------

GREETING_FLOW = 'define user hi\n  "hi"\n\ndefine flow\n  user hi\n  bot greet\n'


def test_huge_messages_are_refused_and_large_ones_are_read() -> None:
    model = _guard_model(colang=GREETING_FLOW + '\ndefine bot greet\n  "yes"\n')
    refused = _answer(model, "x" * 200_001)
    assert refused.rulings[-1].reason.startswith("a message is longer than")
    assert _answer(model, "x " * 90_000).failure is None


@PROPERTY_SETTINGS
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_message_and_any_llm_text_get_an_answer(llm_text: str, message: str) -> None:
    model = _guard_model(
        "prompts: [{task: self_check_input, content: '{{ user_input }}'}]\n"
        "rails: {input: {flows: [self check input]}}\n",
        'define user hi\n  "hi"\n\ndefine flow\n  user hi\n  $a = ...\n  bot b\n',
        llm_text=llm_text,
    )
    answer = _answer(model, message)
    assert isinstance(answer.text, str)
    assert answer.finish_reason in ("stop", "blocked")
    if "no" not in llm_text.lower() and "safe" not in llm_text.lower():
        assert answer.finish_reason == "blocked"


@pytest.mark.parametrize(
    "llm_text",
    [
        "",
        "\n\n",
        '"',
        "user ",
        "bot \x00",
        "\ud800",
        "user a\nbot b\n" * 500,
        "{{ 7 * 7 }}",
        "$x",
        "stop",
        "...",
    ],
)
def test_garbage_for_canonical_forms_is_no_failure(llm_text: str) -> None:
    colang = GREETING_FLOW + '\ndefine bot greet\n  "Hello"\n'
    for yaml in (
        "models: []\n",
        "rails: {dialog: {single_call: {enabled: true}}}\n",
        "enable_multi_step_generation: true\n",
    ):
        answer = _answer(_guard_model(yaml, colang, llm_text=llm_text), "hello there")
        assert answer.failure is None
        assert "49" not in answer.text


def test_texts_of_the_llm_and_the_user_are_never_rendered_as_templates() -> None:
    colang = GREETING_FLOW + '\ndefine bot greet\n  "You said: $last_user_message"\n'
    model = _guard_model("rails: {dialog: {user_messages: {embeddings_only: true}}}\n", colang)
    assert _answer(model, "hi {{ 7 * 7 }} $config").text == "You said: hi {{ 7 * 7 }} $config"
