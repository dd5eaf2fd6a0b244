"""The messages of a conversation inside the runtime: typed, and decoded once.

Callers write messages as dictionaries in the OpenAI form, or in one of NeMo's own: `context` (sets
variables), `event` and `exception`. `decode_messages` turns them into `ChatMessage`s or names what
is wrong. `to_message` is the form that a model gets, `flow_content` the one that flows see.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, cast, get_args

from msgspec import Struct
from msgspec.structs import replace

from truing.core.messages import (
    decode_tool_calls,
    describe_value,
    is_text_part,
    read_part_text,
)
from truing.core.types import (
    Conversation,
    ImageMessage,
    Message,
    MessageFormatError,
    Role,
    ToolCall,
)
from truing.rails.runtime.event_types import Event, EventError, Utterance, event_from_nemo

ChatRole = Literal["system", "user", "assistant", "tool", "context", "event", "exception"]
MODEL_ROLES = frozenset(get_args(Role))  # of the messages that a model gets
_ROLE_NAMES: dict[str, ChatRole] = {
    **{role: role for role in get_args(ChatRole)},
    "developer": "system",  # OpenAI's name for the system role since the o1 models
}


class ContentPart(Struct, frozen=True):
    """A part of a message's content: a text, an image, or anything else of a `kind`.

    A text part may name no kind (None). `fields` are the other keys of the caller's dictionary.
    """

    kind: str | None
    fields: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Returns the part in the OpenAI form."""
        return dict(self.fields) if self.kind is None else {"type": self.kind, **self.fields}


Content = str | tuple[ContentPart, ...]


class ChatMessage(Struct, frozen=True, kw_only=True):
    """One message of a conversation behind rails.

    Who reads a message gets its content in one of four forms:

    | form | read by | parts that are no text |
    |---|---|---|
    | `content` | the runtime: as it was decoded | kept |
    | `flow_content` | flows and actions, as `$user_message` | kept, as dictionaries |
    | `text` | rails on a client's texts, memory, prompts | named: ``[+ image]``, ``[+ KIND]`` |
    | `to_message().content` | models | left out: no model gets them |

    A content that is one text is the same in all four; the texts of parts are joined by spaces.

    `name` is the tool whose result the message is, or a name that the caller gave its sender; no
    model sees it. `variables` are those of a message of role context, `event` is that of a message
    of role event or exception.
    """

    role: ChatRole
    content: Content = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str = ""
    variables: Mapping[str, Any] = {}
    event: Event | None = None

    @property
    def text(self) -> str:
        """The text, in which an image is mentioned; of an event, what the user has written."""
        if isinstance(self.event, Utterance):
            return content_text(self.event.final_transcript or "")
        return content_text(self.flow_content)

    @property
    def flow_content(self) -> str | list[dict[str, Any]]:
        """The content as flows and actions see it: a text, or parts in the OpenAI form."""
        if isinstance(self.content, str):
            return self.content
        return [part.to_dict() for part in self.content]

    @property
    def is_read_by_flows(self) -> bool:
        """Whether the flows themselves run the input rails on this message, if it is the last."""
        return self.role == "user" or (self.role == "event" and isinstance(self.event, Utterance))

    def to_message(self, images: Collection[str] = ()) -> Message:
        """Returns what a model gets of a message of one of `MODEL_ROLES`: its texts, and those of
        its images whose addresses are in `images`.
        """
        content = model_text(self.flow_content)
        shown = tuple(i for i in image_addresses(self.flow_content) if i in images)
        if shown:
            role = cast("Role", self.role)
            return ImageMessage(role, content, self.tool_calls, self.tool_call_id, shown)
        return Message(cast("Role", self.role), content, self.tool_calls, self.tool_call_id)

    def to_dict(self) -> dict[str, Any]:
        """Returns the message as callers write and get it."""
        if self.role == "event":
            return {"role": "event", "event": self.event.to_nemo() if self.event else {}}
        content: Any = self.flow_content
        if self.role == "context":
            content = dict(self.variables)
        elif self.role == "exception":
            content = self.event.to_nemo() if self.event else {}
        message: dict[str, Any] = {"role": self.role, "content": content}
        if self.tool_calls:
            message["tool_calls"] = [call.to_openai() for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        if self.name:
            message["name"] = self.name
        return message


# What an LLM of the runtime is asked: a text, or messages: typed ones, and those that templates and
# actions write, with `type` or `role`.
ModelPrompt = str | Sequence[Mapping[str, Any] | ChatMessage]


# How NeMo's prompts name an image.
_KIND_NAMES = {"image_url": "image", "input_image": "image"}


def image_addresses(content: Any) -> tuple[str, ...]:
    """Returns the address of each image in a content in the OpenAI form, in their order.

    An image whose address cannot be read, and a part that is neither a text nor an image, is "".
    """
    if not isinstance(content, list):
        return ()
    addresses: list[str] = []
    for part in content:
        if not isinstance(part, Mapping):
            continue
        kind = part.get("type")
        if kind is None or (isinstance(kind, str) and read_part_text(kind, part) is not None):
            continue
        address = part.get("image_url") if kind in _KIND_NAMES else None
        if isinstance(address, Mapping):
            address = address.get("url")
        addresses.append(address if isinstance(address, str) else "")
    return tuple(addresses)


def content_text(content: Any) -> str:
    """Returns the text of a content as flows see it, "" of None.

    Of parts in the OpenAI form, the texts, and after them what other parts there are.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return "" if content is None else str(content)
    texts, other_kinds = _split_parts(content)
    mentions = dict.fromkeys(f"[+ {_KIND_NAMES.get(kind, kind)}]" for kind in other_kinds)
    return " ".join([*texts, *mentions])


def model_text(content: Any) -> str:
    """Returns what a model gets of a content: as `content_text`, without what is no text."""
    return (
        " ".join(_split_parts(content)[0]) if isinstance(content, list) else content_text(content)
    )


def _split_parts(parts: list[Any]) -> tuple[list[str], list[str]]:
    """Returns the texts of parts in the OpenAI form, and the kinds of the other parts."""
    texts: list[str] = []
    other_kinds: list[str] = []
    for part in parts:
        if not isinstance(part, Mapping):
            texts.append(str(part))  # a list that a flow has made
            continue
        kind = part.get("type")
        text = read_part_text(kind, part) if kind is None or isinstance(kind, str) else None
        if text is not None:
            texts.append(text)
        else:
            other_kinds.append(str(kind))
    return texts, other_kinds


def with_flow_content(message: ChatMessage, content: Any) -> ChatMessage:
    """Returns a message with a content that flows have set, which may be any value."""
    if isinstance(content, list):
        try:
            return replace(message, content=_decode_content(content, "content"))
        except MessageFormatError:
            return replace(message, content=content_text(content))
    return replace(message, content=content_text(content))


# -- decoding --------------------------------------------------------------------------------------


def decode_messages(rows: Iterable[Mapping[str, Any] | ChatMessage]) -> list[ChatMessage]:
    """Returns the messages of a caller; raises MessageFormatError, which names the faulty field."""
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise MessageFormatError("messages", f"expected a list, got {type(rows).__name__}")
    return [
        row if isinstance(row, ChatMessage) else _decode_message(row, f"messages[{index}]")
        for index, row in enumerate(rows)
    ]


def messages_of_conversation(
    conversation: Conversation, variables: Mapping[str, Any] | None = None
) -> list[ChatMessage]:
    """Returns the messages of a conversation, after one that sets the variables, if any."""
    messages = [
        ChatMessage(
            role=message.role,
            content=_content_of(message),
            tool_calls=message.tool_calls,
            tool_call_id=message.tool_call_id,
        )
        for message in conversation.messages
    ]
    if not variables:
        return messages
    return [ChatMessage(role="context", variables=dict(variables)), *messages]


def _content_of(message: Message) -> Content:
    if not isinstance(message, ImageMessage):
        return message.content
    images = (ContentPart("image_url", {"image_url": {"url": url}}) for url in message.images)
    return (ContentPart("text", {"text": message.content}), *images)


def _decode_message(row: Any, place: str) -> ChatMessage:
    if not isinstance(row, Mapping):
        raise MessageFormatError(place, f"expected an object, got {type(row).__name__}")
    role_name = row.get("role")
    role = _ROLE_NAMES.get(role_name) if isinstance(role_name, str) else None
    if role is None:
        reason = f"{describe_value(role_name)} is none of {', '.join(get_args(ChatRole))}"
        raise MessageFormatError(f"{place}.role", reason)
    if role == "context":
        variables = _decode_variables(row.get("content"), f"{place}.content")
        return ChatMessage(role=role, variables=variables)
    if role in ("event", "exception"):
        field = "event" if role == "event" else "content"
        return ChatMessage(role=role, event=_decode_event(row.get(field), f"{place}.{field}"))
    return ChatMessage(
        role=role,
        content=_decode_content(row.get("content"), f"{place}.content"),
        tool_calls=decode_tool_calls(row.get("tool_calls"), f"{place}.tool_calls"),
        tool_call_id=_decode_optional_text(row.get("tool_call_id"), f"{place}.tool_call_id"),
        name=_decode_optional_text(row.get("name"), f"{place}.name") or "",
    )


def _decode_optional_text(value: Any, place: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise MessageFormatError(place, f"expected text, got {type(value).__name__}")


def _decode_content(content: Any, place: str) -> Content:
    if content is None or isinstance(content, str):
        return content or ""  # null is allowed next to tool calls
    if not isinstance(content, list | tuple):
        raise MessageFormatError(
            place, f"expected text or a list of parts, got {type(content).__name__}"
        )
    return tuple(_decode_part(part, f"{place}[{index}]") for index, part in enumerate(content))


def _decode_part(part: Any, place: str) -> ContentPart:
    if not isinstance(part, Mapping):
        raise MessageFormatError(place, f"expected an object, got {type(part).__name__}")
    kind = part.get("type")
    if kind is not None and not isinstance(kind, str):
        raise MessageFormatError(f"{place}.type", f"expected text, got {describe_value(kind)}")
    if is_text_part(kind) and read_part_text(kind, part) is None:
        raise MessageFormatError(place, f"a part of the type {describe_value(kind)} needs a text")
    return ContentPart(kind, {key: value for key, value in part.items() if key != "type"})


def _decode_variables(variables: Any, place: str) -> dict[str, Any]:
    if variables is None:
        return {}
    if not isinstance(variables, Mapping) or not all(isinstance(key, str) for key in variables):
        raise MessageFormatError(place, "expected an object of variables by name")
    return dict(variables)


def _decode_event(event: Any, place: str) -> Event:
    try:
        return event_from_nemo(event)
    except EventError as error:
        raise MessageFormatError(place, str(error)) from error
