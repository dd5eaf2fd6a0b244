"""The runtime: what it is built of, whole turns, the cache of conversations, errors."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from dialog_turns import ReplyListModel, make_runtime

from truing.core.errors import TruingError
from truing.core.types import Answer, Failure, Sampling
from truing.rails.actions import action
from truing.rails.build import build_runtime
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime import app
from truing.rails.runtime.app import RailsError, Runtime, RuntimeParts
from truing.rails.runtime.embeddings import LexicalEncoder
from truing.rails.runtime.llm_client import LlmError
from truing.rails.runtime.state_cache import StateCache
from truing.rails.runtime.stream_buffer import StreamBuffer
from truing.rails.runtime.turn_result import TurnResult

# Two turns without an LLM: the intent comes from the embeddings, the messages are predefined.
NAMES_YAML = "rails: {dialog: {user_messages: {embeddings_only: true}}}\n"
NAMES_COLANG = """
define user give name
  "my name is Ada"

define user ask name
  "what is my name"

define bot greet
  "Hello {{ name }}."

define bot tell name
  "You are {{ name }}."

define flow names
  user give name
  $name = "Ada"
  bot greet
  user ask name
  bot tell name
"""
FIRST = {"role": "user", "content": "my name is Ada"}
SECOND = {"role": "user", "content": "what is my name"}


def run_turn(runtime: Runtime, *messages: str | dict[str, Any], **options: Any) -> TurnResult:
    """Runs one turn; texts are messages of the user."""
    chat = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
    return asyncio.run(runtime.run_turn(chat, **options))


# -- turns


@pytest.mark.parametrize("role", ["assistant", "system"])
def test_a_last_message_that_asks_nothing_is_answered_from_the_cache_too(role: str) -> None:
    runtime = make_runtime(ReplyListModel("first", "second"))
    first = run_turn(runtime, "hello")
    messages = ("hello", first.message, {"role": role, "content": "and more"})
    cached = run_turn(runtime, *messages)
    assert cached.text == run_turn(make_runtime(ReplyListModel("second")), *messages).text
    assert cached.text == "second"


def test_messages_in_another_form_are_refused_with_their_place() -> None:
    with pytest.raises(RailsError, match=r"messages\[1\].content: expected text") as raised:
        run_turn(make_runtime(ReplyListModel()), "hello", {"role": "user", "content": 3})
    assert raised.value.failure.kind == "messages"


def test_a_configuration_without_rails_answers_by_the_model() -> None:
    model = ReplyListModel("the answer")
    result = run_turn(make_runtime(model), "hello", sampling=Sampling(max_tokens=7))
    assert result.message == {"role": "assistant", "content": "the answer"}
    assert (result.llm_calls, result.blocked, result.rulings) == (1, False, ())
    assert model.samplings[0].max_tokens == 7


def test_a_flow_of_two_turns() -> None:
    runtime = make_runtime(ReplyListModel(), NAMES_YAML, NAMES_COLANG)
    first = run_turn(runtime, FIRST)
    assert (first.text, first.context["name"]) == ("Hello Ada.", "Ada")
    second = run_turn(runtime, FIRST, first.message, SECOND)
    assert (second.text, second.llm_calls) == ("You are Ada.", 0)


def test_a_later_turn_continues_from_the_cached_state() -> None:
    runtime = make_runtime(ReplyListModel(), NAMES_YAML, NAMES_COLANG)
    first = run_turn(runtime, FIRST)
    ((cached, _),) = runtime._states._states.values()
    processed = cached.processed
    cached.context["name"] = "Eve"  # seen by the next turn only if it continues from this state
    second = run_turn(runtime, FIRST, first.message, SECOND)
    assert second.text == "You are Eve."
    assert len(runtime._states) == 2
    assert cached.processed == processed  # the turn ran on a copy
    # Another session of equal words, and another reply, share no state with it.
    assert run_turn(runtime, FIRST, first.message, SECOND, session="b").text != second.text
    other_reply = {"role": "assistant", "content": "Hi."}
    assert run_turn(runtime, FIRST, other_reply, SECOND).text != second.text


def test_the_conversation_used_least_recently_is_forgotten() -> None:
    runtime = make_runtime(ReplyListModel("a", "b", "c", "d"))
    runtime._states = StateCache(max_states=2)
    first = run_turn(runtime, "one")
    (first_key,) = runtime._states
    run_turn(runtime, "two")
    second_key = list(runtime._states)[1]
    run_turn(runtime, {"role": "user", "content": "one"}, first.message, "and then?")
    assert second_key not in runtime._states
    assert first_key in runtime._states  # the turn that continued from it has renewed it


def test_a_blocking_rail_ends_the_turn_with_its_ruling() -> None:
    model = ReplyListModel()
    runtime = make_runtime(
        model,
        "rails: {input: {flows: [no secrets]}}\n",
        'define subflow no secrets\n  if "secret" in $user_message\n    bot refuse\n    stop\n\n'
        'define bot refuse\n  "No."\n',
    )
    result = run_turn(runtime, "a secret")
    assert (result.text, result.blocked, model.prompts) == ("No.", True, [])
    assert [(r.name, r.stage, r.ruling) for r in result.rulings] == [
        ("no secrets", "input", "block")
    ]


def test_options_choose_the_rails_and_check_a_given_answer() -> None:
    runtime = make_runtime(
        ReplyListModel(),
        "rails: {input: {flows: [block all]}, output: {flows: [shorten]}}\n",
        "define subflow block all\n  stop\n\n"
        "define subflow shorten\n  $bot_message = $bot_message[0:3]\n",
    )
    given = {"role": "assistant", "content": "a long answer"}
    result = run_turn(runtime, "hello", given, options={"rails": ["output"]})
    assert (result.text, result.llm_calls) == ("a l", 0)
    assert [(r.name, r.ruling) for r in result.rulings] == [("shorten", "rewrite")]


def test_an_answer_is_streamed() -> None:
    async def stream() -> tuple[list[str], str]:
        buffer = StreamBuffer()
        runtime = make_runtime(ReplyListModel("the answer"))
        result = await runtime.run_turn([{"role": "user", "content": "hi"}], stream=buffer)
        return [chunk async for chunk in buffer], result.text

    assert asyncio.run(stream()) == (["the answer"], "the answer")


# -- errors


def test_unknown_options_and_an_empty_conversation_are_errors() -> None:
    runtime = make_runtime(ReplyListModel())
    with pytest.raises(RailsError, match="options.rail: there is no such option") as caught:
        run_turn(runtime, "hello", options={"rail": []})
    assert caught.value.failure.kind == "options"
    with pytest.raises(RailsError, match="no message to answer") as caught:
        run_turn(runtime)
    assert (caught.value.failure.kind, caught.value.rulings) == ("empty", ())


def test_a_failed_llm_call_leaves_the_rulings_so_far() -> None:
    runtime = make_runtime(
        ReplyListModel(Answer.failed("http", "503")),
        "rails: {input: {flows: [pass]}}\n",
        'define subflow pass\n  $seen = "yes"\n',
    )
    with pytest.raises(LlmError, match="http: 503") as caught:
        run_turn(runtime, "hello")
    assert [(r.name, r.ruling) for r in caught.value.rulings] == [("pass", "allow")]
    assert len(runtime._states) == 0  # a failed turn is not continued from


def test_flows_without_an_end_are_an_error() -> None:
    runtime = make_runtime(
        ReplyListModel(),
        "rails: {input: {flows: [endless]}}\n",
        "define subflow endless\n  while True\n    execute tick\n",
    )
    ticks = []
    runtime.register_action(lambda: ticks.append(1), "tick")
    with pytest.raises(RailsError, match="too many events in one turn") as caught:
        run_turn(runtime, "hello")
    assert caught.value.failure.kind == "flow"
    assert [(r.name, r.ruling) for r in caught.value.rulings] == [("endless", "block")]
    # A tick adds at least its start and its end.
    assert 0 < len(ticks) <= app.MAX_EVENTS_PER_TURN / 2


def test_rails_errors_are_errors_of_truing() -> None:
    error = RailsError("flow", "no end")
    assert isinstance(error, TruingError)
    assert (str(error), error.failure) == ("no end", Failure("rail", "flow", "no end"))


# -- what a runtime is built of

ECHO_RAIL = """
define subflow look up
  $result = execute look_up(item="kettle")
  bot tell result
  stop

define bot tell result
  "{{ result }}"
"""
ECHO_YAML = "rails: {input: {flows: [look up]}}\n"


def test_actions_and_parameters_are_registered() -> None:
    async def look_up(item: str, prices: dict[str, int]) -> str:
        return f"{item}: {prices[item]}"

    runtime = make_runtime(ReplyListModel(), ECHO_YAML, ECHO_RAIL)
    returned = runtime.register_action(look_up).register_action_param("prices", {"kettle": 30})
    assert returned is runtime
    assert run_turn(runtime, "hello").text == "kettle: 30"


def test_actions_of_the_parts_go_before_built_in_ones_and_init_runs() -> None:
    def init(runtime: Runtime) -> None:
        runtime.register_action(lambda item: f"from init: {item}", "look_up")

    @action(name="retrieve_relevant_chunks")
    async def retrieve() -> str:
        return "mine"

    actions = {"init:config": init, "retrieve_relevant_chunks": retrieve}
    runtime = make_runtime(ReplyListModel(), ECHO_YAML, ECHO_RAIL, actions=actions)
    assert run_turn(runtime, "hello").text == "from init: kettle"
    registered = runtime.actions.find("retrieve_relevant_chunks")
    assert registered is not None
    assert (registered.call, registered.builtin) == (retrieve, False)


def test_init_of_config_py_registers_what_actions_and_prompts_use(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(
        "prompts: [{task: t, content: '{{ company }}'}]\n"
        "rails: {dialog: {user_messages: {embeddings_only: true}}}\n"
    )
    (tmp_path / "rails.co").write_text(
        'define user hi\n  "hi"\n\ndefine flow\n  user hi\n  $x = execute look_up\n  bot $x\n'
    )
    (tmp_path / "config.py").write_text(
        "def look_up(database):\n    return database['name']\n\n"
        "def init(app):\n"
        "    app.register_action(look_up).register_action_param('database', {'name': 'Ada'})\n"
        "    app.register_prompt_context('company', 'Example Ltd')\n"
        "    app.register_output_parser(str.upper, 'upper')\n"
    )
    parts = RuntimeParts(encoder=LexicalEncoder())
    runtime = build_runtime(RailsConfig.load(tmp_path, trust_code=True), ReplyListModel(), parts)
    assert run_turn(runtime, "hi").text == "Ada"
    assert runtime.prompts.render_task_prompt("t") == "Example Ltd"
    assert runtime.prompts.parse_task_output("t", "a", "upper") == "A"


def test_prompt_variables_and_output_parsers_are_registered() -> None:
    model = ReplyListModel("the answer")
    runtime = make_runtime(
        model,
        "prompts: [{task: general, content: 'In {{ city }}.', output_parser: shout}]\n",
        output_parsers={"shout": lambda text: text.upper()},
    )
    runtime.register_prompt_context("city", "Oslo")
    runtime.register_output_parser(lambda text: text.upper() + "!", "shout")
    assert run_turn(runtime, "hello").text == "THE ANSWER!"
    assert model.prompts == ["In Oslo."]


def test_models_by_task_serve_their_task() -> None:
    main, judge = ReplyListModel("the answer"), ReplyListModel("No")
    yaml = (
        "prompts: [{task: self_check_input, content: 'CHECK'}]\n"
        "rails: {input: {flows: [self check input]}}\n"
    )
    runtime = make_runtime(main, yaml, models={"self_check_input": judge})
    assert run_turn(runtime, "hello").text == "the answer"
    assert (judge.prompts, len(main.prompts)) == (["CHECK"], 1)


def test_dynamic_flows_get_new_names() -> None:
    runtime = make_runtime(ReplyListModel())
    names = [runtime.services.new_flow_name() for _ in range(3)]
    assert names == ["dynamic-1", "dynamic-2", "dynamic-3"]


def test_warming_up_encodes_the_examples_before_the_first_turn() -> None:
    class CountingEncoder(LexicalEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.texts: list[str] = []

        def encode(self, texts: list[str]) -> Any:
            self.texts += texts
            return super().encode(texts)

    encoder = CountingEncoder()
    runtime = make_runtime(ReplyListModel(), NAMES_YAML, NAMES_COLANG)
    runtime.services.embeddings.encoder = encoder  # type: ignore[attr-defined]

    async def warm_up() -> None:
        await runtime.warm_up()

    asyncio.run(warm_up())
    assert {"my name is Ada", "what is my name", "tell name", "hello"} <= set(encoder.texts)


# -- concurrency

PURE_RAILS = (
    'define subflow first\n  if "a" in $user_message\n    bot refuse\n    stop\n\n'
    'define subflow second\n  if "b" in $user_message\n    bot refuse\n    stop\n'
)
TWO_RAILS = "rails: {input: {flows: [first, second]}}\n"


def test_rails_run_in_parallel_where_that_changes_nothing() -> None:
    off = make_runtime(ReplyListModel(), TWO_RAILS, PURE_RAILS)
    on = make_runtime(ReplyListModel(), TWO_RAILS + "truing: {concurrent: true}\n", PURE_RAILS)
    assert (off.config.rails.input.parallel, on.config.rails.input.parallel) == (False, True)
    # The second rail reads what the first one writes.
    dependent = (
        "define subflow first\n  $user_message = $user_message[0:3]\n\n"
        'define subflow second\n  if "b" in $user_message\n    stop\n'
    )
    sequential = make_runtime(
        ReplyListModel(), TWO_RAILS + "truing: {concurrent: true}\n", dependent
    )
    assert sequential.config.rails.input.parallel is False


def test_speculation_needs_rails_of_known_effects() -> None:
    speculative = "truing: {speculative: true}\n"
    unknown = "define subflow first\n  execute anything\n\ndefine subflow second\n  stop\n"
    runtimes = [
        make_runtime(ReplyListModel(), TWO_RAILS + speculative, PURE_RAILS),
        make_runtime(ReplyListModel(), TWO_RAILS, PURE_RAILS),
        make_runtime(ReplyListModel(), TWO_RAILS + speculative, unknown),
        make_runtime(ReplyListModel(), speculative),
    ]
    assert [runtime.speculative for runtime in runtimes] == [True, False, False, False]
