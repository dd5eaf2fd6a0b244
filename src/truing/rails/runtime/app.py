"""The runtime: a configuration is built once; each turn then runs its flows, actions and LLM calls.

`Runtime.run_turn` takes the messages so far and returns the answer with a record of every ruling.
The state after each turn is cached under a hash of the whole conversation, so that the next turn
continues from it and costs the same however long the conversation is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from itertools import count
from typing import Any

from msgspec.structs import replace

from truing.core.errors import TruingError
from truing.core.protocols import Model
from truing.core.types import MessageFormatError, Ruling, Sampling
from truing.rails.colang.compiler import CompiledFlow, Program, compile_flow
from truing.rails.config.generation_options import OptionsError
from truing.rails.config.loader import RailsConfig, list_rail_flow_names
from truing.rails.runtime import dialog_actions
from truing.rails.runtime.action_registry import ActionRegistry
from truing.rails.runtime.action_runner import ActionRunner
from truing.rails.runtime.call_ids import CallIds
from truing.rails.runtime.chat_messages import ChatMessage, decode_messages
from truing.rails.runtime.checked_texts import CheckedTexts
from truing.rails.runtime.client_texts import readable_arguments
from truing.rails.runtime.conversation_check import CheckResult, ConversationCheck, NewTexts
from truing.rails.runtime.conversation_state import (
    ConversationState,
    build_states,
    conversation_keys,
    extend_conversation_key,
)
from truing.rails.runtime.event_types import (
    BotIntent,
    ContextUpdate,
    Event,
    Listen,
    OtherEvent,
    StartAction,
    StartFlow,
    Utterance,
)
from truing.rails.runtime.events import count_reusable, events_from_messages, messages_with_options
from truing.rails.runtime.input_gate import (
    InputGate,
    InputReading,
    needs_flow_rails,
    refusal_output,
)
from truing.rails.runtime.interpreter import FlowError
from truing.rails.runtime.llm_client import SpeculationCache
from truing.rails.runtime.nemo_compat import load_config_code
from truing.rails.runtime.output_gate import (
    BLOCKED_MESSAGE,
    OutputGate,
    find_author_texts,
    unread_input_ruling,
)
from truing.rails.runtime.parallel_rails import ACTIONS as parallel_actions
from truing.rails.runtime.parallel_rails import can_run_in_parallel
from truing.rails.runtime.prompts import PromptManager
from truing.rails.runtime.rail_library import RailLibrary
from truing.rails.runtime.registration import Registration
from truing.rails.runtime.runtime_parts import RailsError, RuntimeParts, error_with_rulings
from truing.rails.runtime.search_providers import SearchProviders
from truing.rails.runtime.similarity import build_similarity
from truing.rails.runtime.speculation import (
    can_speculate,
    options_without_text_rails,
    run_speculative_copy,
)
from truing.rails.runtime.stage_runner import stage_flows
from truing.rails.runtime.state_cache import StateCache
from truing.rails.runtime.stream_buffer import StreamBuffer
from truing.rails.runtime.turn_context import (
    RuntimeServices,
    TurnContext,
    expand_generation_options,
)
from truing.rails.runtime.turn_result import (
    TurnOutput,
    TurnResult,
    build_result,
    collect_output,
)
from truing.rails.runtime.turn_traces import TurnTraces

__all__ = ["RailsError", "Runtime", "RuntimeParts"]

MAX_EVENTS_PER_TURN = 300
DEFAULT_ACTION_TIMEOUT = 60.0  # seconds


class Runtime(Registration):
    """A configuration built for use with a model.

    `library` holds the shipped rails and actions; `truing.rails.build.build_runtime` chooses them
    for a configuration.
    """

    def __init__(
        self,
        config: RailsConfig,
        model: Model,
        library: RailLibrary,
        parts: RuntimeParts | None = None,
    ) -> None:
        parts = parts or RuntimeParts()
        self.config = config
        self.library = library
        self.prompts = PromptManager(config)
        self.prompts.parsers.update(parts.output_parsers)
        self.actions = ActionRegistry()
        timeout = float(config.truing.get("action_timeout", DEFAULT_ACTION_TIMEOUT))
        self._action_runner = ActionRunner(self.actions, timeout)
        self.traces = TurnTraces.of_config(config)
        self._flow_numbers, self.records_calls = count(1), self.traces.is_on
        self._states = StateCache()
        self.search_providers, self.embedding_providers = SearchProviders(), {}
        self.similarity = None
        self._register_actions(parts)
        self.program = self._compile_program()
        self.services = self._make_services(model, parts)
        self.input_gate = InputGate(config, CheckedTexts())
        self.output_gate = OutputGate(config, self.services.author_texts)
        self._choose_concurrency()

    # -- building --------------------------------------------------------------------------------

    def _register_actions(self, runtime_parts: RuntimeParts) -> None:
        """Registers truing's actions, then the configuration's and the caller's over them."""
        for call in (*dialog_actions.ACTIONS, *self.library.actions):
            self.actions.register(call, builtin=True)
        for name, action in parallel_actions.items():
            self.actions.register(action, name, builtin=True)
        nemo_alias = runtime_parts.nemo_alias
        if nemo_alias is None:
            nemo_alias = bool((self.config.truing.get("library") or {}).get("nemo_alias", True))
        code = load_config_code(self.config, nemo_alias=nemo_alias)
        for name, call in {**code, **runtime_parts.actions}.items():
            if name.startswith("init:"):
                call(self)  # config.py's init(app), which may register more
            else:
                self.actions.register(call, name)

    def _compile_program(self) -> Program:
        """Compiles the flows; the configuration's go first: the first of a name holds."""
        config = self.config
        rails = list_rail_flow_names(config)
        for name, texts in self.library.bot_messages.items():
            config.bot_messages.setdefault(name, texts)
        compiled: list[CompiledFlow] = []
        for flow in (*config.flows, *self.library.flows):
            flow_program = compile_flow(flow)
            if flow_program.id in rails:
                flow_program.system = flow_program.is_subflow = True
            compiled.append(flow_program)
        return Program(compiled, self.library.pure_actions)

    def _make_services(self, model: Model, runtime_parts: RuntimeParts) -> RuntimeServices:
        config = self.config
        self.similarity = build_similarity(
            config, self.program, runtime_parts.encoder, self.search_providers
        )
        for engine, provider in self.embedding_providers.items():
            self.similarity.use_encoder(engine, provider)
        llm_timeout = config.truing.get("llm_timeout")
        return RuntimeServices(
            config=config,
            model=model,
            models=dict(runtime_parts.models),
            judges=dict(runtime_parts.judges),
            service_clients=dict(runtime_parts.service_clients),
            prompts=self.prompts,
            embeddings=self.similarity.embeddings,
            examples=self.similarity.examples,
            kb=self.similarity.kb,
            llm_timeout=float(llm_timeout) if llm_timeout is not None else None,
            author_texts=find_author_texts(config, self.program),
            run_until_listen=self.run_until_listen,
            run_action=self._action_runner.run_for_script,
            new_flow_name=lambda: f"dynamic-{next(self._flow_numbers)}",
            ask_person=runtime_parts.ask_person,
        )

    def _choose_concurrency(self) -> None:
        """Turns on parallel rails and speculation where configured and proved to change nothing."""
        rails = self.config.rails
        if self.config.truing.get("concurrent"):
            for stage in (rails.input, rails.output):
                if len(stage.flows) > 1 and can_run_in_parallel(self.program, stage.flows):
                    stage.parallel = True
        nemo_input = (self.config.raw.get("rails") or {}).get("input", {})
        requested = self.config.truing.get("speculative") or nemo_input.get(
            "speculative_generation"
        )
        self.speculative = bool(requested) and can_speculate(self.program, rails.input.flows)

    async def warm_up(self) -> None:
        """Loads the encoder and computes the indexes, for which the first turn would wait."""
        examples, kb = self.services.examples, self.services.kb
        for index in (examples.user_messages, examples.flows, examples.bot_messages):
            await index.search("hello", 1)
        if kb is not None:
            await kb.search_relevant_chunks("hello")

    # -- a turn ----------------------------------------------------------------------------------

    async def run_turn(
        self,
        messages: Sequence[Mapping[str, Any] | ChatMessage],
        *,
        options: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
        stream: StreamBuffer | None = None,
        session: str = "",
        explicit_fields: Collection[str] | None = None,
    ) -> TurnResult:
        """Answers the last message.

        `sampling.tools` are the tools that the LLM may call. `explicit_fields` names the sampling
        fields that the request sets itself; they override the configuration's `parameters`. Raises
        RailsError or LlmError if the turn could not be finished, or the messages not be read.
        """
        try:
            chat = decode_messages(messages)
            expanded_options = expand_generation_options(options)
        except MessageFormatError as error:
            raise RailsError("messages", str(error)) from error
        except OptionsError as error:
            raise RailsError("options", str(error)) from error
        call_ids = CallIds()
        chat = [call_ids.rename(message) for message in chat]
        rows = messages_with_options(chat, expanded_options)
        sampling = sampling or Sampling()
        turn = TurnContext(
            services=self.services,
            state=ConversationState(self.program, self.config),
            sampling=sampling,
            options=expanded_options,
            messages=chat,
            tools=sampling.tools,
            seed=f"{sampling.seed}:{len(rows)}",
            explicit_fields=explicit_fields,
            call_ids=call_ids,
        )
        turn.counter.records = [] if self.records_calls or turn.logs("llm_calls") else None
        started_ns = time.time_ns()
        try:
            return await self._answer_turn(turn, rows, session, stream)
        except TruingError as error:
            turn.error = str(error)
            turn.finish_rails()
            raise error_with_rulings(error, turn.rulings) from error
        finally:
            self.traces.write(turn, started_ns)

    async def _answer_turn(
        self,
        turn: TurnContext,
        rows: list[ChatMessage],
        session: str,
        stream: StreamBuffer | None,
    ) -> TurnResult:
        """Runs the input stage over the whole conversation, the flows, and the output gate."""
        keys = conversation_keys(rows, session, self._states.secret)
        # A check of an answer is no turn of the conversation: nothing continues from it.
        last_role = turn.messages[-1].role if turn.messages else None
        checks_answer_only = last_role == "assistant" and not turn.is_stage_on("dialog")
        reading = await self.input_gate.read(
            turn, rows, session, build_states(self.program, self.config, rows)
        )
        turn.rulings += turn.call_ids.restore_rulings(reading.rulings)
        if reading.objection is not None:
            return await self._refuse_unread(turn, reading, session)
        turn.state = self._load_state(reading.messages, keys)
        turn.messages = [row for row in reading.messages if row.role != "context"]
        if needs_flow_rails(turn, rows):
            turn.required_input = stage_flows(self.config, "input")
            turn.must_refuse = reading.objects_to_newest
        # Raw chunks go to the caller only where no output stage must read them first.
        must_read_output = stage_flows(self.config, "output") and turn.is_stage_on("output")
        turn.stream = None if must_read_output else stream
        speculative_task = self._start_speculation(turn)
        try:
            events = await self.run_until_listen(turn)
        finally:
            if speculative_task is not None:
                speculative_task.cancel()
        turn.finish_rails()  # a rail that is still open has stopped the turn
        output = await self.output_gate.release(turn, collect_output(events))
        unread = unread_input_ruling(turn)
        if unread is not None:
            turn.rulings.append(unread)
            output = TurnOutput(texts=[BLOCKED_MESSAGE])
        if checks_answer_only:
            turn.rulings = list(turn.call_ids.restore_rulings(turn.rulings))
        turn_result = build_result(turn, output, events)
        if checks_answer_only:
            turn_result.tool_calls = turn.call_ids.restore(turn_result.tool_calls)
        else:
            answer = turn.call_ids.rename(output.message())
            key = extend_conversation_key(keys[-1] if keys else b"", answer, self._states.secret)
            self._states.put(key, turn.state)
        self._remember(turn, rows, session, turn_result)
        if stream is not None and turn.stream is None:
            await stream.push(turn_result.text)
        return turn_result

    async def check_messages(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        session: str | None = None,
        ends_in_answer: bool = False,
    ) -> CheckResult:
        """Runs every stage that the messages contain; NoStageError if they contain none.

        With a session, what its rails have read already is not read again (`NewTexts`).
        """
        call_ids = CallIds()
        rows = [call_ids.rename(message) for message in messages]
        turn = TurnContext(
            services=self.services,
            state=ConversationState(self.program, self.config),
            sampling=sampling,
            messages=rows,
            tools=sampling.tools,
            is_stage_check=True,
        )
        state_after = build_states(self.program, self.config, rows)
        new_texts = None
        if session is not None:
            new_texts = NewTexts(self.input_gate, session, ends_in_answer)
        check = ConversationCheck(turn, state_after, self.output_gate, new_texts)
        check_result = await check.run()
        checked = [call_ids.restore_message(message) for message in check_result.messages]
        rulings = call_ids.restore_rulings(check_result.rulings)
        return replace(check_result, messages=tuple(checked), rulings=rulings)

    async def _refuse_unread(
        self, turn: TurnContext, reading: InputReading, session: str
    ) -> TurnResult:
        """Returns the result of a turn that ends because an earlier text did not pass."""
        if reading.failure is not None:
            reason = reading.failure.message
            turn.failure = reading.failure
            turn.rulings.append(
                Ruling(name="runtime", stage="input", ruling="block", reason=reason)
            )
        # A refusal may quote the text or be written by a model: it is an answer like any other.
        output = await self.output_gate.release(turn, refusal_output(reading, BLOCKED_MESSAGE))
        result = build_result(turn, output, [])
        self.input_gate.remember_answer(session, result.text)
        return result

    def _remember(
        self, turn: TurnContext, rows: list[ChatMessage], session: str, result: TurnResult
    ) -> None:
        """Remembers what the rails have read, so that the next turn does not read it again."""
        if rows and needs_flow_rails(turn, rows):
            self.input_gate.remember_turn(turn, rows[-1], session, result)
        self.remember_answer(result.text, session)
        for call in result.tool_calls:
            self.remember_answer(readable_arguments(call.arguments), session)
            self.remember_answer(call.name, session)

    def remember_answer(self, text: str, session: str = "") -> None:
        """Remembers a text that was shown as an answer: the input stage need not read it."""
        self.input_gate.remember_answer(session, text)

    def _start_speculation(self, turn: TurnContext) -> asyncio.Task[None] | None:
        """Starts the speculative copy of a turn that answers a user message, if it is on."""
        history = turn.state.history
        rails = (turn.options or {}).get("rails") or {}
        is_user_turn = bool(history) and isinstance(history[-1], Utterance)
        if not self.speculative or not is_user_turn:
            return None
        if rails.get("input") is False or rails.get("dialog") is False:
            return None
        state = turn.state.fork()
        last_event = state.history.pop()
        options = options_without_text_rails(turn.options)
        state.add(ContextUpdate({"generation_options": options}))
        state.add(last_event)
        turn.speculation = SpeculationCache()
        copy = turn.fork(state, options)
        copy.speculation, copy.is_speculative_copy = turn.speculation, True
        turn.speculation.task = asyncio.create_task(run_speculative_copy(copy))
        return turn.speculation.task

    def _load_state(self, rows: list[ChatMessage], keys: list[bytes]) -> ConversationState:
        """Returns the state after all messages, continued from the longest cached prefix."""
        state: ConversationState | None = None
        start = 0
        for end in range(count_reusable(rows), 0, -1):
            state = self._states.fork(keys[end - 1])
            if state is not None:
                start = end
                break
        if state is None:
            state = ConversationState(self.program, self.config)
        for event in events_from_messages(rows, start):
            state.add(event)
        return state

    async def run_until_listen(self, turn: TurnContext) -> list[Event]:
        """Runs the events of a turn until the bot listens again, and returns those that it added.

        Raises RailsError for an empty conversation, FlowError for flows without an end.
        """
        state, new_events = turn.state, list[Event]()
        if not state.history:
            raise RailsError("empty", "there is no message to answer")
        while True:
            event = state.history[-1]
            if isinstance(event, StartAction):
                steps = await self._action_runner.run(turn, event)
            else:
                if isinstance(event, StartFlow) and event.flow_body:
                    state.add_dynamic_flow(event.flow_id, event.flow_body)
                steps = state.next_steps() or [Listen()]
            for step in steps:
                new_events.append(self._observe_event(turn, step))
                state.add(new_events[-1])
            if isinstance(steps[-1], Listen):
                return new_events
            if len(new_events) > MAX_EVENTS_PER_TURN:
                raise FlowError("too many events in one turn: the flows do not come to an end")

    def _observe_event(self, turn: TurnContext, event: Event) -> Event:
        """Keeps the record of rails; returns the event, with the mark of a system action."""
        if isinstance(event, StartAction):
            action = self.actions.find(event.action_name)
            is_system = event.action_name == "create_event" or (
                action is not None and (action.system or action.builtin)
            )
            return replace(event, is_system_action=is_system)
        if isinstance(event, OtherEvent):
            turn.track_rail_event(event)
        elif isinstance(event, BotIntent) and event.stops_turn:
            turn.finish_rail("block")
        return event
