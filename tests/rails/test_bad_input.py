"""Malformed and hostile input: a fault with its place or a turn that fails closed, never a traceback, never a hang."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest
from adapter_truing import ACTIONS_PRELUDE, Words
from generate import case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peer_truing import ByTask
from rails_cases import actions_source

from truing.core.errors import PlanError
from truing.core.types import Answer, Conversation, Lineage, Message, Sampling
from truing.rails.build import build_runtime
from truing.rails.colang.expressions import ExpressionError, compile_expression
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import BLOCKED_MESSAGE, GuardedModel
from truing.rails.runtime.app import RailsError, Runtime, RuntimeParts
from truing.rails.runtime.llm_client import LlmError
from truing.rails.runtime.templates import PromptError, render_template
from truing.rails.static import check
from truing.rails.static.diagram import render_svg, render_tree

CALM = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
MARKS = [
    '"',
    "$",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    "#",
    "\\",
    "\t",
    "    ",
    "\n",
    "if",
    "else",
    "while",
    "when",
    "define",
    "flow",
    "user",
    "bot",
    "do",
    "execute",
    "create event",
    "...",
    "or",
    "and",
    "not",
    '"""',
    "=",
    "==",
    "\x00",
    "\ud800",
    "é",
    "{{",
    "}}",
    "{%",
    "%}",
    "|",
    "&a",
    "*a",
    "- ",
    "!!python/object:os.system",
    "0x",
    "1e999",
    "stop",
    "goto",
    "label",
    "any",
    "meta",
]


class Says:
    """A model that says one thing."""

    name = "says"
    lineage = Lineage(name="says")

    def __init__(self, text: str) -> None:
        self.text = text

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        return (Answer.of(self.text),)


def _guarded(
    yaml: str = "models: []\n", colang: str = "", *, say: str = "fine", **parts: Any
) -> GuardedModel:
    return GuardedModel(
        RailsConfig.from_text(yaml, colang), Says(say), parts=RuntimeParts(encoder=Words(), **parts)
    )


def _ask(model: GuardedModel, *texts: str) -> Answer:
    conversation = Conversation(tuple(Message("user", t) for t in texts))
    return asyncio.run(model.answer(conversation, Sampling()))


# -- files -------------------------------------------------------------------------------------------------------------


@CALM
@given(st.text(max_size=300))
def test_any_text_as_yaml_or_colang_is_read_or_a_plan_error(text: str) -> None:
    for yaml, colang in ((text, ""), ("", text), ("", f"define flow\n  user a\n  {text}\n")):
        try:
            RailsConfig.from_text(yaml, colang)
        except PlanError as error:
            faults = error.faults
        else:
            faults = ()
        assert all(": " in fault for fault in faults)


def _mutated(text: str, r: random.Random) -> str:
    for _ in range(r.randint(1, 3)):
        lines = text.split("\n")
        at, row, kind = r.randrange(len(text) or 1), r.randrange(len(lines)), r.randrange(5)
        if kind == 0:
            text = text[:at] + text[at + r.randint(1, 5) :]
        elif kind == 1:
            text = text[:at] + r.choice(MARKS) * r.randint(1, 20) + text[at:]
        else:
            if kind == 2:
                lines.pop(row)
            elif kind == 3:
                lines.insert(row, lines[r.randrange(len(lines))])
            else:
                lines[row] = " " * r.randint(0, 8) + lines[row].strip()
            text = "\n".join(lines)
    return text


async def _talk(runtime: Runtime, turns: list[dict[str, Any]]) -> None:
    history: list[dict[str, Any]] = []
    for turn in turns:
        history.append(
            {"role": "event", "event": turn["event"]}
            if "event" in turn
            else {"role": "user", "content": turn["user"]}
        )
        try:
            history.append((await asyncio.wait_for(runtime.run_turn(history), 20)).message)
        except (RailsError, LlmError):
            return


@pytest.mark.parametrize("block", range(8))
def test_grammar_based_configurations_with_faults_never_crash(tmp_path: Path, block: int) -> None:
    read = 0
    for seed in range(block * 25, block * 25 + 25):
        r = random.Random(seed)
        made = case(seed + 100_000)
        folder = tmp_path / str(seed)
        folder.mkdir()
        for name, text in made["files"].items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(
                (_mutated(text, r) if name.endswith(".co") else text).encode(
                    "utf-8", "surrogatepass"
                )
            )
        if made["actions"]:
            (folder / "actions.py").write_text(actions_source(made["actions"], ACTIONS_PRELUDE))
        report = check.check_rails_config(folder)
        if report.config is not None:
            render_svg(report.config.flows)
            render_tree(report.config.flows)
        try:
            config = RailsConfig.load(folder)
            runtime = build_runtime(
                config, ByTask(made["llm"], config.multi_step), RuntimeParts(encoder=Words())
            )
        except PlanError:
            assert report.errors, f"seed {seed}: the runtime refuses what the check lets pass"
            continue
        read += 1
        asyncio.run(_talk(runtime, made["turns"]))
    assert read > 0


def test_billion_laughs_and_deep_nesting_are_refused_at_once() -> None:
    laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{c}: &{c} [{','.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi")
    )
    deep = ("[" * 5000, "a: " * 5000, "&a [*a]", "&a {x: *a}", "- " * 20_000)
    for text in (laughs, *deep, "a: !!python/object/apply:os.system [x]"):
        began = time.perf_counter()
        with pytest.raises(PlanError):
            RailsConfig.from_text(text)
        assert time.perf_counter() - began < 5


def test_files_that_are_not_utf8_or_too_large_are_faults_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_bytes(b"models: []\n# \xff\xfe\n")
    (tmp_path / "rails.co").write_bytes(b'define user a\n  "\xc3\x28"\n')
    (tmp_path / "big.co").write_bytes(b"#" * 4_000_001)
    with pytest.raises(PlanError) as caught:
        RailsConfig.load(tmp_path)
    assert [f.split(" ")[0] for f in sorted(caught.value.faults)] == [
        "big.co:",
        "config.yml:2:",
        "rails.co:2:",
    ]


def test_a_deeply_nested_flow_is_refused_or_compiled() -> None:
    rows = (
        ["define flow", "  user a"]
        + [f"{'  ' * (k + 1)}if $a" for k in range(400)]
        + ["  " * 401 + "stop"]
    )
    said = "nested"
    try:
        RailsConfig.from_text("", "\n".join(rows))
    except PlanError as error:
        said = str(error)
    assert "nested" in said


# -- expressions and templates -----------------------------------------------------------------------------------------

ESCAPES = [
    "().__class__",
    "''.__class__.__mro__",
    "$x.__init__",
    "__import__('os')",
    "open('/etc/passwd')",
    "eval('1')",
    "$x._private",
    "lambda: 1",
    "[x for x in 'a']",
    "$f()",
    "$f.__globals__",
    "getattr($x, 'a')",
    "$x.format('a')",
    "'{0.__class__}'.format(1)",
    "globals()",
    "print(1)",
    "$x := 3",
    "$m.path",
    "$t.mro()",
    "f'{().__class__}'",
    "$d.pop('a')",
    "$l.append(1)",
    "$d.update(a=1)",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_expressions_cannot_leave_the_sandbox(text: str) -> None:
    import os

    def free() -> int:
        return 1

    context = {"x": object(), "f": free, "m": os, "t": str, "d": {"a": 1}, "l": [1]}
    with pytest.raises(ExpressionError):
        compile_expression(text)(context)


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9**9",
        "'a' * 10**9",
        "2**100000",
        "1 << 10**9",
        "('a' * 90000) + ('b' * 90000)",
        "'a'.ljust(10**9)",
        "'%1000000000d' % 1",
        "('a'*1000).replace('a', 'b'*1000)",
        "10**5000 * 10**5000 * 10**5000",
        "(" * 3000 + "1" + ")" * 3000,
        "1+" * 5000 + "1",
        "'a,' .join('b'*50000)",
        "x" * 9000,
    ],
)
def test_expressions_are_bounded_in_time_and_size(text: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ExpressionError):
        compile_expression(text)({})
    assert time.perf_counter() - began < 1


@CALM
@given(st.text(max_size=80))
def test_any_expression_gives_a_value_or_an_expression_error(text: str) -> None:
    raised: Exception | None = None
    try:
        compile_expression(text)({"a": 1, "b": "x", "c": [1], "d": {"e": 2}})
    except Exception as error:
        raised = error
    assert raised is None or (isinstance(raised, ExpressionError) and str(raised))


@pytest.mark.parametrize(
    "text",
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
def test_templates_cannot_leave_the_sandbox_or_grow_without_bound(text: str) -> None:
    began = time.perf_counter()
    context = {"x": {"k": 1}, "big": "b" * 90_000}
    try:
        made = render_template(text, context)
    except PromptError:
        made = ""
    assert time.perf_counter() - began < 3
    assert len(made) < 1_100_000
    assert "class" not in made


# -- flows that do not end ---------------------------------------------------------------------------------------------

ENDLESS = {
    "while": "define flow\n  user ...\n  while True\n    $a = 1\n  bot say\n",
    "goto": "define flow\n  user ...\n  label x\n  $a = 1\n  goto x\n",
    "subflow": "define flow\n  user ...\n  do s\n\ndefine subflow s\n  do s\n",
    "mutual": "define flow\n  user ...\n  do s\n\ndefine subflow s\n  do t\n\ndefine subflow t\n  do s\n",
    "dynamic": 'define flow\n  user ...\n  $s = "s"\n  do $s\n\ndefine subflow s\n  do $s\n',
    "events": "define parallel flow a\n  event Ping\n  create event Pong\n\n"
    "define parallel flow b\n  event Pong\n  create event Ping\n\n"
    "define flow\n  user ...\n  create event Ping\n",
    "messages": 'define bot a\n  "A"\n\ndefine bot b\n  "B"\n\ndefine parallel extension flow x\n  bot a\n  bot b\n\n'
    "define parallel extension flow y\n  bot b\n  bot a\n\ndefine flow\n  user ...\n  bot a\n",
    "bombs": 'define flow\n  user ...\n  $a = "x"\n  while True\n    $a = $a + $a\n',
    "unknown": "define flow\n  user ...\n  $s = 3\n  do $s\n",
    "list": 'define flow\n  user ...\n  $s = "no such flow"\n  do $s\n',
}


@pytest.mark.parametrize("name", ENDLESS)
def test_flows_that_do_not_end_fail_closed_with_a_reason(name: str) -> None:
    model = _guarded(
        "rails: {dialog: {user_messages: {embeddings_only: true}}}\n",
        'define user hi\n  "hi"\n\n' + ENDLESS[name],
    )
    began = time.perf_counter()
    answer = _ask(model, "hi")
    assert time.perf_counter() - began < 10
    assert answer.finish_reason == "blocked"
    assert answer.text == BLOCKED_MESSAGE
    assert answer.rulings[-1].reason


def test_an_action_that_hangs_or_fails_fails_closed() -> None:
    async def hang() -> None:
        await asyncio.sleep(60)

    def stuck() -> None:
        time.sleep(1.5)

    def broken() -> None:
        raise KeyError("x")

    def bad_exit() -> None:
        raise SystemExit(3)

    for name, call in {
        "hang": hang,
        "stuck": stuck,
        "broken": broken,
        "bad_exit": bad_exit,
    }.items():
        model = _guarded(
            "truing: {action_timeout: 0.2}\nrails: {input: {flows: [check]}}\n",
            f"define flow check\n  $ok = execute {name}\n  if not $ok\n    bot refuse to respond\n    stop\n",
            actions={name: call},
        )
        began = time.perf_counter()
        answer = _ask(model, "hello")
        assert time.perf_counter() - began < 5
        assert answer.finish_reason == "blocked", name
        assert name in answer.rulings[-1].reason
        assert "fine" not in answer.text


# -- messages and what the LLM says ------------------------------------------------------------------------------------


def test_huge_messages_are_refused_and_large_ones_are_read() -> None:
    model = _guarded(
        colang='define user hi\n  "hi"\n\ndefine flow\n  user hi\n  bot say\n\ndefine bot say\n  "yes"\n'
    )
    assert _ask(model, "x" * 200_001).rulings[-1].reason.startswith("a message is longer than")
    assert _ask(model, "x " * 90_000).failure is None


@CALM
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_message_and_any_answer_of_the_llm_give_an_answer(said: str, message: str) -> None:
    colang = 'define user hi\n  "hi"\n\ndefine flow\n  user hi\n  $a = ...\n  bot b\n'
    yaml = "prompts: [{task: self_check_input, content: '{{ user_input }}'}]\nrails: {input: {flows: [self check input]}}\n"
    model = _guarded(yaml, colang, say=said)
    answer = _ask(model, message)
    assert isinstance(answer.text, str)
    assert answer.finish_reason in ("stop", "blocked")
    if "no" not in said.lower() and "safe" not in said.lower():
        assert answer.finish_reason == "blocked"


@pytest.mark.parametrize(
    "said",
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
def test_garbage_for_canonical_forms_is_no_trouble(said: str) -> None:
    colang = 'define user hi\n  "hi"\n\ndefine flow\n  user hi\n  bot b\n\ndefine bot b\n  "B"\n'
    for yaml in (
        "models: []\n",
        "rails: {dialog: {single_call: {enabled: true}}}\n",
        "enable_multi_step_generation: true\n",
    ):
        answer = _ask(_guarded(yaml, colang, say=said), "hello there")
        assert answer.failure is None
        assert "49" not in answer.text


def test_what_the_llm_or_the_user_writes_is_never_a_template() -> None:
    colang = 'define user hi\n  "hi"\n\ndefine bot echo\n  "You said: $last_user_message"\n\ndefine flow\n  user hi\n  bot echo\n'
    model = _guarded("rails: {dialog: {user_messages: {embeddings_only: true}}}\n", colang)
    assert _ask(model, "hi {{ 7 * 7 }} $config").text == "You said: hi {{ 7 * 7 }} $config"
