"""`RailsGuardrail`: the rails of a configuration as a custom guardrail of the LiteLLM proxy.

    # rails_guardrail.py, in the folder of LiteLLM's config.yaml
    from truing.integrations.litellm import RailsGuardrail

    class MyRails(RailsGuardrail):
        rails = "my_rails"

    # config.yaml
    guardrails:
      - guardrail_name: my-rails
        litellm_params:
          guardrail: rails_guardrail.MyRails
          mode: [pre_call, post_call]
          default_on: true

A request that the rails refuse is answered with 400 and what the rail says. A streamed response is
held until the rails have passed all of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

from truing.integrations.hook_rails import HookRails, OnRulings
from truing.integrations.litellm.inputs import GuardrailDecision, GuardrailInputs, check_inputs
from truing.rails.runtime.decision_record import decision_record
from truing.specs.extras import needs_extra

with needs_extra("truing.integrations.litellm", "litellm"):
    import litellm
    from litellm.exceptions import GuardrailRaisedException
    from litellm.integrations.custom_guardrail import CustomGuardrail
    from litellm.types.guardrails import GuardrailEventHooks
    from litellm.types.utils import Delta, ModelResponseStream, StreamingChoices

RAILS_VARIABLE = "TRUING_RAILS"
_READ_FIELDS = frozenset({"role", "content", "tool_calls"})
# What providers send with an answer and no rail reads: nobody gets it.
_STRIPPED_FIELDS = frozenset(
    {"reasoning_content", "reasoning", "reasoning_items", "thinking_blocks"}
    | {"provider_specific_fields", "annotations"}
)


class RailsGuardrail(CustomGuardrail):
    """The rails of the folder in `rails` (of a subclass, or an argument), or named by the
    environment variable TRUING_RAILS.

    `on_rulings` is called with the decisions of each check; LiteLLM passes the other arguments on
    from its configuration.
    """

    rails: ClassVar[Any] = None
    # Streams of other end points than chat: LiteLLM holds their chunks until they have passed.
    streaming_buffer_until_moderated = True

    def __init_subclass__(cls, **arguments: Any) -> None:
        # LiteLLM looks for its hooks in the class itself: those that a class inherits do not run.
        for name in ("apply_guardrail", "async_post_call_streaming_iterator_hook"):
            if name not in cls.__dict__:
                setattr(cls, name, getattr(cls, name))
        super().__init_subclass__(**arguments)

    def __init__(
        self, rails: Any = None, *, on_rulings: OnRulings | None = None, **arguments: Any
    ) -> None:
        hooks = [GuardrailEventHooks.pre_call, GuardrailEventHooks.post_call]
        arguments.setdefault("supported_event_hooks", hooks)
        super().__init__(**arguments)
        source = rails or type(self).rails or os.environ.get(RAILS_VARIABLE)
        if source is None:
            raise ValueError(
                f"RailsGuardrail: name a folder of rails, as `rails` of a subclass or in "
                f"{RAILS_VARIABLE}"
            )
        self.hook = source if isinstance(source, HookRails) else HookRails(source)
        if on_rulings is not None:
            self.hook.on_rulings = on_rulings

    async def apply_guardrail(
        self, inputs: Any, request_data: Any, input_type: Any, logging_obj: Any = None
    ) -> Any:
        """Returns the texts and calls as the rails leave them. Raises GuardrailRaisedException
        where they object, or could not read everything.
        """
        decision = await self._check(
            GuardrailInputs(
                input_type=input_type,
                texts=list(inputs.get("texts") or ()),
                images=list(inputs.get("images") or ()),
                tools=_as_rows(inputs.get("tools")),
                tool_calls=_as_rows(inputs.get("tool_calls")),
                structured_messages=_as_rows(inputs.get("structured_messages")),
            ),
            request_data,
        )
        is_streamed_answer = input_type == "response" and bool((request_data or {}).get("stream"))
        if is_streamed_answer and decision.texts != list(inputs.get("texts") or ()):
            # LiteLLM replays the held chunks as they were: a masked text would be shown unmasked.
            raise self._error("a rail rewrites this answer, which LiteLLM does not stream here")
        checked = {**inputs, "texts": decision.texts}
        if decision.calls_changed:
            if len(decision.tool_calls) != len(inputs.get("tool_calls") or ()):
                raise self._error("a rail rewrites a tool call that LiteLLM does not take back")
            checked["tool_calls"] = decision.tool_calls
        if input_type == "response":
            self._strip_response((request_data or {}).get("response"))
        return checked

    def _strip_response(self, response: Any) -> None:
        """Takes out of a chat completion what no rail reads, such as reasoning."""
        for choice in getattr(response, "choices", None) or ():
            self._strip_message(getattr(choice, "message", None))

    def _strip_message(self, message: Any) -> None:
        """Takes the reasoning out of a message or delta; raises for other unread content."""
        if message is None:
            return
        fields = message if isinstance(message, dict) else dict(message)
        for name, value in fields.items():
            if not value or name in _READ_FIELDS:
                continue
            if name not in _STRIPPED_FIELDS:
                raise self._error(f"{name[:40]!r} of an answer is read by no rail")
            if isinstance(message, dict):
                message[name] = None
            else:
                setattr(message, name, None)

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: Any
    ) -> AsyncIterator[Any]:
        """Holds a streamed chat completion until the rails have passed it.

        The chunks are replayed as they came, or, where a rail rewrote the text, with the new one.
        """
        chunks = [chunk async for chunk in response]
        if not chunks:
            return
        texts, calls = self._read_stream(chunks)
        inputs = GuardrailInputs(input_type="response", texts=texts, tool_calls=calls)
        decision = await self._check(inputs, request_data)
        if decision.texts == texts and not decision.calls_changed:
            for chunk in chunks:
                yield chunk
            return
        if decision.calls_changed or len(texts) != 1:
            raise self._error("a rail rewrites what LiteLLM cannot stream again")
        for chunk in _with_text(chunks, decision.texts[0]):
            yield chunk

    def _read_stream(self, chunks: Sequence[Any]) -> tuple[list[str], list[dict[str, Any]]]:
        """Returns the texts and calls of the choices of a stream, each built by itself: LiteLLM
        would join those of all choices. Takes out of the chunks what no rail reads.
        """
        for chunk in chunks:
            for choice in chunk.choices:
                self._strip_message(choice.delta)
                if getattr(choice, "logprobs", None):
                    choice.logprobs = None
        texts: list[str] = []
        calls: list[dict[str, Any]] = []
        for index in sorted({choice.index for chunk in chunks for choice in chunk.choices}):
            whole = litellm.stream_chunk_builder(_of_choice(chunks, index))
            if whole is None:
                raise self._error("the streamed answer could not be read")
            texts_of_choice, calls_of_choice = _read_choices(whole.choices)
            texts += texts_of_choice
            calls += calls_of_choice
            streamed = "".join(
                choice.delta.content or ""
                for chunk in chunks
                for choice in chunk.choices
                if choice.index == index
            )
            if streamed != "".join(texts_of_choice):
                raise self._error("the streamed answer could not be read whole")
        return texts, calls

    async def _check(self, inputs: GuardrailInputs, request_data: Any) -> GuardrailDecision:
        decision = await check_inputs(self.hook.guarded, inputs, _session(request_data))
        self.hook.record(decision.rulings)
        if not decision.allowed:
            error = self._error(decision.reply)
            error.detail = decision_record(decision.rulings)
            raise error
        return decision

    def _error(self, message: str) -> Any:
        return GuardrailRaisedException(
            guardrail_name=self.guardrail_name,
            message=message,
            should_wrap_with_default_message=False,
            blocked_content=True,
        )


def _session(request_data: Any) -> str:
    """Returns whose request it is: clients of different keys share no memory of the rails."""
    # On end points other than chat `metadata` is the client's own, and the key stands in the other.
    keys = []
    for name in ("litellm_metadata", "metadata"):
        metadata = (request_data or {}).get(name)
        fields = metadata if isinstance(metadata, dict) else {}
        keys.append(str(fields.get("user_api_key_hash") or fields.get("user_api_key") or ""))
    return json.dumps(keys) if any(keys) else ""


def _as_rows(values: Any) -> list[dict[str, Any]] | None:
    if values is None:
        return None
    return [
        value if isinstance(value, dict) else value.model_dump(exclude_none=True)
        for value in values
    ]


def _of_choice(chunks: Sequence[Any], index: int) -> list[Any]:
    """Returns the chunks of a stream with one of its choices alone, as the first."""
    alone = []
    for chunk in chunks:
        choices = [choice for choice in chunk.choices if choice.index == index]
        if choices:
            renumbered = [choice.model_copy(update={"index": 0}) for choice in choices]
            alone.append(chunk.model_copy(update={"choices": renumbered}))
    return alone


def _read_choices(choices: Sequence[Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """Returns the texts and the tool calls of all choices of a response."""
    texts = [str(c.message.content) for c in choices if c.message.content]
    rows = [
        {
            "id": call.id or "",
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments or "{}"},
        }
        for choice in choices
        for call in choice.message.tool_calls or ()
    ]
    return texts, rows


def _with_text(chunks: Sequence[Any], text: str) -> list[Any]:
    """Returns the chunks of a stream with one text in the place of theirs."""
    first, last = chunks[0], chunks[-1]
    delta = Delta(role="assistant", content=text)
    text_chunk = ModelResponseStream(
        id=first.id,
        model=first.model,
        created=first.created,
        choices=[StreamingChoices(index=0, delta=delta, finish_reason=None)],
    )
    reasons = [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]
    end = ModelResponseStream(
        id=last.id,
        model=last.model,
        created=last.created,
        choices=[StreamingChoices(index=0, delta=Delta(), finish_reason=(reasons or ["stop"])[-1])],
    )
    return [text_chunk, end]
