"""Rails at work: a configuration is built once, then each turn runs its flows, actions and LLM calls.

`Runtime.turn` takes the messages so far and gives the answer with a record of every decision. The state after each turn is
kept under a hash of the whole conversation, so that the next turn goes on from there at a cost that does not grow.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from truing.core.errors import TruingError
from truing.core.protocols import Model
from truing.core.types import Failure, Ruling, Sampling, ToolCall, Usage
from truing.rails.colang.compiler import CompiledFlow, Program, compile_flow
from truing.rails.config.loader import RailsConfig, list_rail_flow_names
from truing.rails.runtime import dialog_actions
from truing.rails.runtime.action_registry import Actions
from truing.rails.runtime.conversation_state import Talk, chain, step
from truing.rails.runtime.events import created, events_of, finish, give_up
from truing.rails.runtime.example_index import Encodes, KnowledgeBase, Vectors, default_encoder
from truing.rails.runtime.interpreter import FlowError
from truing.rails.runtime.knowledge import Knowledge
from truing.rails.runtime.llm_client import Ahead, LlmError, NoFurther
from truing.rails.runtime.nemo_compat import load_code
from truing.rails.runtime.parallel_rails import ACTIONS as parallel_actions
from truing.rails.runtime.parallel_rails import independent
from truing.rails.runtime.prompts import Prompts
from truing.rails.runtime.rail_library import RailLibrary
from truing.rails.runtime.speculation import possible, run_ahead, switched_off
from truing.rails.runtime.stream_buffer import Sink
from truing.rails.runtime.turn_context import Services, Turn, full_options

Event = dict[str, Any]
MAX_EVENTS = 300
REMEMBERED = 512
APOLOGY = "I'm sorry, an internal error has occurred."
LISTEN: Event = {"type": "Listen"}


class RailsError(TruingError):
    """A turn that could not be finished; nothing of it may be shown. `failure` names the reason."""

    def __init__(self, kind: str, message: str) -> None:
        self.failure = Failure("rail", kind, message)
        self.rulings: tuple[Ruling, ...] = ()
        super().__init__(message)


@dataclass(slots=True)
class Result:
    """What a turn gives: the message (role assistant or exception), the decisions, the events, what it cost."""

    message: dict[str, Any]
    rulings: tuple[Ruling, ...] = ()
    events: list[Event] = field(default_factory=list)
    llm_calls: int = 0
    usage: Usage = field(default_factory=Usage)
    tool_calls: tuple[ToolCall, ...] = ()
    context: dict[str, Any] = field(default_factory=dict)
    blocked: bool = False
    failure: Failure | None = None
    finish_reason: str = "stop"

    @property
    def text(self) -> str:
        """The text of the message; for an exception its type and message."""
        content = self.message["content"]
        return (
            content
            if isinstance(content, str)
            else f"{content.get('type')}: {content.get('message', '')}"
        )


@dataclass(slots=True)
class Parts:
    """What a runtime can be given besides its model: models by task, judges by name, an encoder, actions by name."""

    models: Mapping[str, Model] = field(default_factory=dict)
    judges: Mapping[str, Any] = field(default_factory=dict)
    encoder: Encodes | None = None
    actions: Mapping[str, Any] = field(default_factory=dict)
    nemo_alias: bool | None = None


class Runtime:
    """A configuration built for use with a model. Imports the folder's `actions.py`: it is trusted code.

    `library` is what ships of rails and actions; `truing.rails.build.build_runtime` chooses it for a configuration.
    """

    def __init__(
        self, config: RailsConfig, model: Model, library: RailLibrary, parts: Parts | None = None
    ) -> None:
        parts = parts or Parts()
        self.config = config
        self.library = library
        self.prompts = Prompts(config)
        self.actions = Actions()
        self.params: dict[str, Any] = {}
        self.timeout = float(config.truing.get("action_timeout", 60.0))
        self._names = count(1)
        self._talks: OrderedDict[bytes, Talk] = OrderedDict()
        self._register_actions(parts)
        self.program = self._compile_program()
        self.services = self._make_services(model, parts)
        self._choose_concurrency()

    # -- building ------------------------------------------------------------------------------------------------------

    def _register_actions(self, parts: Parts) -> None:
        for call in (*dialog_actions.ACTIONS, *self.library.actions):
            self.actions.register(call, builtin=True)
        for name, run in parallel_actions.items():
            self.actions.register(run, name, builtin=True)
        alias = parts.nemo_alias
        if alias is None:
            alias = bool((self.config.truing.get("library") or {}).get("nemo_alias"))
        code = load_code(self.config.code, nemo_alias=alias)
        for name, call in {**code, **parts.actions}.items():
            if name.startswith("init:"):
                call(self)
            else:
                self.actions.register(call, name)

    def _compile_program(self) -> Program:
        """The configuration's flows before the library's: the first definition of a name stands."""
        config = self.config
        rails = list_rail_flow_names(config)
        for name, texts in self.library.bots.items():
            config.bot_messages.setdefault(name, texts)
        compiled: list[CompiledFlow] = []
        for flow in (*config.flows, *self.library.flows):
            flow_program = compile_flow(flow)
            if flow_program.id in rails:
                flow_program.system = flow_program.is_subflow = True
            compiled.append(flow_program)
        return Program(compiled, self.library.pure_actions)

    def _make_services(self, model: Model, parts: Parts) -> Services:
        config = self.config
        vectors = Vectors(parts.encoder or default_encoder(config))
        user_flows = [f for f in self.program.flows.values() if not f.system]
        llm_timeout = config.truing.get("llm_timeout")
        return Services(
            config=config,
            model=model,
            models=dict(parts.models),
            judges=dict(parts.judges),
            prompts=self.prompts,
            vectors=vectors,
            knowledge=Knowledge(config.user_messages, config.bot_messages, user_flows, vectors),
            kb=KnowledgeBase(config.docs, vectors) if config.docs else None,
            llm_timeout=float(llm_timeout) if llm_timeout is not None else None,
            advance=self.advance,
            new_flow_name=lambda: f"dynamic-{next(self._names)}",
        )

    def _choose_concurrency(self) -> None:
        """Rails side by side and generation ahead, where the configuration asks for it and it is shown to change nothing."""
        rails = self.config.rails
        if self.config.truing.get("concurrent"):
            for block in (rails.input, rails.output):
                block.parallel = block.parallel or (
                    len(block.flows) > 1 and independent(self.program, block.flows)
                )
        wanted = self.config.truing.get("speculative") or (self.config.raw.get("rails") or {}).get(
            "input", {}
        ).get("speculative_generation")
        self.speculative = bool(wanted) and possible(self.program, rails.input.flows)

    # What an `init(app)` of config.py may call.

    def register_action(self, call: Any, name: str | None = None) -> Runtime:
        """Adds an action."""
        self.actions.register(call, name)
        return self

    def register_action_param(self, name: str, value: Any) -> Runtime:
        """Adds a value that actions get by the name of a parameter."""
        self.params[name] = value
        return self

    def register_prompt_context(self, name: str, value: Any) -> Runtime:
        """Adds a variable to all prompts."""
        self.prompts.extra[name] = value
        return self

    def register_output_parser(self, parse: Any, name: str) -> Runtime:
        """Adds a parser that prompts can name."""
        self.prompts.parsers[name] = parse
        return self

    async def warm(self) -> None:
        """Loads the encoder and computes the indexes, so that the first turn need not wait for them."""
        knowledge, kb = self.services.knowledge, self.services.kb
        for index in (knowledge.users, knowledge.flows, knowledge.bots):
            await index.search("hello", 1)
        if kb is not None:
            await kb.search_relevant_chunks("hello")

    # -- a turn --------------------------------------------------------------------------------------------------------

    async def turn(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        options: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
        sink: Sink | None = None,
        session: str = "",
        asked: Collection[str] | None = None,
    ) -> Result:
        """Answers the last message; `sampling.tools` are what the LLM may call, `asked` what of the sampling goes before the
        configuration's. RailsError or LlmError when the turn could not be finished."""
        try:
            chosen = full_options(options)
        except ValueError as error:
            raise RailsError("options", str(error)) from error
        sampling = sampling or Sampling()
        chat = [dict(m) for m in messages]
        rows = list(chat)
        if chosen is not None:
            context: dict[str, Any] = {"generation_options": chosen}
            last = rows[-1] if rows else {}
            if (
                chosen["rails"]["dialog"] is False
                and last.get("role") == "assistant"
                and not last.get("tool_calls")
            ):
                context["bot_message"] = last.get("content")
                rows.pop()
            rows.insert(0, {"role": "context", "content": context})
        hashes = chain(rows, session)
        talk = self._talk(rows, hashes)
        turn = Turn(self.services, talk, sampling, chosen, sink, chat, sampling.tools, asked=asked)
        turn.seed = f"{sampling.seed}:{len(rows)}"
        beside = self._begin_ahead(turn)
        try:
            new = await self.advance(turn)
        except TruingError as error:
            turn.error = str(error)
            turn.close("block")
            raise _unfinished(turn, error) from error
        finally:
            if beside is not None:
                beside.cancel()
        return self._result(turn, hashes, new)

    def _begin_ahead(self, turn: Turn) -> asyncio.Task[None] | None:
        """Starts the generation beside the input rails, where that is on and this turn is one of the user's messages."""
        history = turn.talk.history
        asked = (turn.options or {}).get("rails") or {}
        if (
            not self.speculative
            or not history
            or history[-1]["type"] != "UtteranceUserActionFinished"
        ):
            return None
        if asked.get("input") is False or asked.get("dialog") is False:
            return None
        turn.ahead = Ahead()
        talk = turn.talk.fork()
        last = talk.history.pop()
        off = switched_off(turn.options)
        talk.add({"type": "ContextUpdate", "data": {"generation_options": off}})
        talk.add(last)
        child = Turn(
            self.services, talk, turn.sampling, off, None, turn.chat, turn.tools, turn.tally
        )
        child.seed, child.ahead, child.leads, child.asked = turn.seed, turn.ahead, True, turn.asked
        turn.ahead.copy = asyncio.create_task(run_ahead(child))
        return turn.ahead.copy

    def _talk(self, rows: list[dict[str, Any]], hashes: list[bytes]) -> Talk:
        """The state after the longest known beginning of the conversation, and the rest as events."""
        for end in range(len(rows) - 1, 0, -1):
            hashed = hashes[end - 1]
            stored = self._talks.get(hashed)
            if stored is not None:
                self._talks.move_to_end(hashed)
                talk, start = stored.fork(), end
                break
        else:
            talk, start = Talk(self.program, self.config), 0
        for event in events_of(rows, start, bool(self.config.rails.tool_input.flows)):
            talk.add(event)
        return talk

    async def advance(self, turn: Turn) -> list[Event]:
        """Runs a turn's events until the bot listens again, and gives them."""
        talk, new = turn.talk, list[Event]()
        history = talk.history
        if not history:
            raise RailsError("empty", "there is no message to answer")
        while True:
            last = history[-1]
            kind = last["type"]
            if kind == "StartInternalSystemAction":
                steps = await self._act(turn, last)
            else:
                if kind == "start_flow" and last.get("flow_body"):
                    talk.start_flow(last["flow_id"], last["flow_body"])
                steps = talk.next_steps() or [LISTEN]
            for event in steps:
                self._see(turn, event)
                talk.add(event)
            new.extend(steps)
            if steps[-1]["type"] == "Listen":
                return new
            if len(new) > MAX_EVENTS:
                raise FlowError("too many events in one turn: the flows do not come to an end")

    def _see(self, turn: Turn, event: Event) -> None:
        kind = event["type"]
        if kind == "StartInternalSystemAction":
            found = self.actions.find(event["action_name"])
            event["is_system_action"] = event["action_name"] == "create_event" or (
                found is not None and (found.system or found.builtin)
            )
        elif kind.endswith(("Rail", "RailFinished", "Exception")):
            turn.watch(event)
        elif kind == "BotIntent" and event["intent"] == "stop":
            turn.close("block")

    # -- actions -------------------------------------------------------------------------------------------------------

    async def _act(self, turn: Turn, event: Event) -> list[Event]:
        name, params = event["action_name"], event["action_params"]
        if name == "create_event":
            return created(event, params["event"], turn.talk.context)
        found = self.actions.find(name)
        if turn.leads and (found is None or not found.builtin):
            raise NoFurther(f"the action {name!r} is not run twice")
        status, result = "success", None
        if found is None:
            status, result = "failed", give_up(f"Action '{name}' not found.")
            turn.error = f"there is no action {name!r}"
        else:
            try:
                result = await self._call(turn, found, dict(params))
            except (LlmError, FlowError, NoFurther):
                raise
            except TimeoutError:
                turn.error = f"the action {name!r} took longer than {self.timeout:g} s"
            except (Exception, SystemExit) as error:  # an action that exits must not end the server
                turn.error = f"the action {name!r} failed: {type(error).__name__}: {error}"
            if turn.error is not None and result is None:
                status, result = "failed", give_up(APOLOGY)
        if status == "failed":
            turn.failure = Failure("rail", "action", turn.error or name)
        return finish(event, result, status, bool(event.get("is_system_action")))

    async def _call(self, turn: Turn, action: Any, kwargs: dict[str, Any]) -> Any:
        context = turn.talk.context
        for parameter in action.parameters:
            if parameter.startswith("__context__"):
                kwargs[parameter] = context.get(parameter[11:])
        for name, value in kwargs.items():
            if isinstance(value, str) and value.startswith("$") and value[1:] in context:
                kwargs[name] = context[value[1:]]
        before, turn.error = turn.error, None
        if action.builtin:
            value = await action.call(turn, **kwargs)
        else:
            given = {
                "events": turn.talk.history,
                "context": dict(context),
                "config": self.config,
                "llm_task_manager": self.prompts,
                "llm": turn.llm(action.name),
                "kb": self.services.kb,
                "llms": {t: turn.llm(t) for t in self.services.models},
                **self.params,
            }
            kwargs.update(
                {
                    k: v
                    for k, v in given.items()
                    if k in action.parameters and (k != "kb" or v is not None)
                }
            )
            value = await action.run(kwargs, self.timeout)
        turn.error = before
        return value

    # -- what comes out ------------------------------------------------------------------------------------------------

    def _result(self, turn: Turn, hashes: list[bytes], new: list[Event]) -> Result:
        said: list[str] = []
        exception: Event | None = None
        calls: list[Any] | None = None
        thinking = None
        for event in new:
            kind = event["type"]
            if kind == "StartUtteranceBotAction":
                if event["script"] == "(remove last message)":
                    said = said[:-1]
                else:
                    said.append(
                        event["script"]
                        if isinstance(event["script"], str)
                        else str(event["script"])
                    )
            elif kind.endswith("Exception"):
                exception = event
            elif kind == "StartToolCallBotAction" and event.get("tool_calls") is not None:
                calls = event["tool_calls"]
            elif kind == "BotThinking":
                thinking = thinking or event.get("content")
        turn.close("block")
        message: dict[str, Any] = {"role": "assistant", "content": "\n".join(said)}
        if exception is not None:
            message = {"role": "exception", "content": exception}
        if calls:
            message = {**message, "tool_calls": calls}
        self._remember(step(hashes[-1] if hashes else b"", message), turn.talk)
        message.pop("tool_calls", None)
        if thinking and turn.options is None and exception is None:
            message = {**message, "content": f"<think>{thinking}</think>\n{message['content']}"}
        made = tuple(
            ToolCall.from_openai(call)
            for call in calls or ()
            if isinstance(call, dict) and isinstance(call.get("function"), dict)
        )
        return Result(
            message,
            tuple(turn.rulings),
            new,
            turn.tally.calls,
            turn.tally.usage(),
            made,
            turn.talk.context,
            blocked=any(r.ruling == "block" for r in turn.rulings) or exception is not None,
            failure=turn.failure,
            finish_reason=turn.finish,
        )

    def _remember(self, hashed: bytes, talk: Talk) -> None:
        self._talks[hashed] = talk
        self._talks.move_to_end(hashed)
        while len(self._talks) > REMEMBERED:
            self._talks.popitem(last=False)


def _unfinished(turn: Turn, error: TruingError) -> RailsError | LlmError:
    """The error with the decisions up to it."""
    made = error if isinstance(error, (RailsError, LlmError)) else RailsError("flow", str(error))
    made.rulings = tuple(turn.rulings)
    return made
