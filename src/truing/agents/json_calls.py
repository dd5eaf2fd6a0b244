"""`json-calls,of=(MODEL)`: reads the tool calls of models that write them as plain JSON.

Small models often leave out the marks that their chat template teaches, and answer a task with

    ```json
    {"name": "send_mail", "arguments": {"to": "ana@example.org"}}
    ```

or, as the chat template of Qwen2.5-Coder shows it, the same in doubled braces.

An answer is a call only if the model ended it by itself, and if it is nothing but such an object,
in a fence or not, with the name of a tool that was offered. Rails stand around it, so that they
read the calls: `guarded:DIR,of=(agent,of=(json-calls,of=(local:PATH)))`. Around rails it is
refused: a call in a text that comes out of them has been read by none on calls.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from truing.core.errors import PlanError
from truing.core.lineage import digest
from truing.core.protocols import Closeable, Model, PrefixAware, iterate_models
from truing.core.text_calls import without_doubled_braces
from truing.core.types import Answer, Conversation, Message, Sampling, ToolCall
from truing.specs.resolve import Args

_MAX_CHARACTERS = 100_000
_CODE_BLOCK = re.compile(r"```(?:json)?[ \t]*\n(.*)\n```", re.DOTALL)


class _Call(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    arguments: dict[str, Any]


class JsonCallModel:
    """A model whose answers become tool calls where they are nothing else; raises PlanError around
    a model with rails.
    """

    def __init__(self, model: Model) -> None:
        # As in an episode: a flow of the rails may repeat what the user wrote.
        if any(isinstance(inner, PrefixAware) for inner in iterate_models(model)):
            raise PlanError(
                f"json-calls around {model.name}: rails stand around it instead, so that they read "
                "the calls: guarded:DIR,of=(agent,of=(json-calls,of=(MODEL)))"
            )
        self.model = model
        self.name = f"json-calls,of=({model.name})"
        digested = digest("json-calls", model.lineage.hash)
        self.lineage = replace(model.lineage, name=self.name, hash=digested)

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns the model's answers, with calls read."""
        names = {tool.name for tool in sampling.tools}
        answers = await self.model.generate(conversation, sampling)
        return tuple(_read_call(answer, names) for answer in answers)

    async def close(self) -> None:
        """Closes the model."""
        if isinstance(self.model, Closeable):
            await self.model.close()


def _read_call(answer: Answer, names: set[str]) -> Answer:
    text = answer.text.strip()
    # A block or a limit that repeats such an object is no call.
    is_whole = answer.failure is None and answer.finish_reason == "stop"
    if not is_whole or answer.message.tool_calls or len(text) > _MAX_CHARACTERS:
        return answer
    fenced = _CODE_BLOCK.fullmatch(text)
    body = without_doubled_braces((fenced[1] if fenced else text).strip())
    if not body.startswith("{"):
        return answer
    try:
        call = msgspec.json.decode(body, type=_Call)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return answer
    if call.name not in names:
        return answer
    arguments = msgspec.json.encode(call.arguments).decode()
    message = Message("assistant", "", (ToolCall("", call.name, arguments),))
    return replace(answer, message=message, finish_reason="tool_calls")


def build(args: Args) -> JsonCallModel:
    """Returns the model of a `json-calls` spec."""
    return JsonCallModel(args.required("of", "model"))
