"""Messages and conversations, and their form in the OpenAI chat API.

`truing.core.types` exports all of them beside the other types of the data model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from msgspec import Struct

Role = Literal["system", "user", "assistant", "tool"]


class ToolCall(Struct, frozen=True):
    """A tool call that the model requests; `arguments` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str = "{}"

    def to_openai(self) -> dict[str, Any]:
        """Returns the call in the form of the OpenAI chat API's `tool_calls`."""
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }

    @classmethod
    def from_openai(cls, row: Any) -> ToolCall:
        """Parses the form that `to_openai` writes.

        A missing or null id becomes "", missing or empty arguments become "{}"; arguments that are
        an object (Ollama) become its JSON text. Raises KeyError, TypeError or AttributeError for
        any other form.
        """
        function = row["function"]
        # Some servers send null for the id or the arguments of a call without parameters.
        arguments = function.get("arguments") or "{}"
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments, ensure_ascii=False)
        call_id, name = row.get("id") or "", function["name"]
        if isinstance(call_id, int):
            call_id = str(call_id)
        for text in (call_id, name, arguments):
            if not isinstance(text, str):
                raise TypeError(f"a tool call has a {type(text).__name__} where text is expected")
        return cls(call_id, name, arguments)


class Tool(Struct, frozen=True):
    """A tool that the model may call; `parameters` is its JSON Schema as JSON text."""

    name: str
    description: str = ""
    parameters: str = '{"type":"object","properties":{}}'


class Message(Struct, frozen=True):
    """One message of a conversation; `tool_call_id` is only set for role ``tool``."""

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


class ImageMessage(Message, frozen=True):
    """A message with images, for models that read them (`reads_images`).

    `images` are ``data:`` addresses, which hold the image itself.
    """

    images: tuple[str, ...] = ()


class Conversation(Struct, frozen=True):
    """A sequence of messages, oldest first."""

    messages: tuple[Message, ...] = ()

    @classmethod
    def of(cls, prompt: str, *, system: str | None = None) -> Conversation:
        """Returns a conversation of one user message, after the system message if there is one."""
        system_messages = (Message("system", system),) if system else ()
        return cls((*system_messages, Message("user", prompt)))

    @property
    def last(self) -> Message:
        """The newest message; raises IndexError if the conversation is empty."""
        return self.messages[-1]

    @property
    def prompt(self) -> str:
        """The text of the newest user message, or an empty string."""
        for message in reversed(self.messages):
            if message.role == "user":
                return message.content
        return ""

    @property
    def system(self) -> str | None:
        """The text of the leading system message, if there is one."""
        if self.messages and self.messages[0].role == "system":
            return self.messages[0].content
        return None

    def then(self, message: Message) -> Conversation:
        """Returns this conversation with the message appended."""
        return Conversation((*self.messages, message))

    def to_openai(self) -> list[dict[str, Any]]:
        """Returns the `messages` array of the OpenAI chat API."""
        return [_message_to_openai(m) for m in self.messages]

    @classmethod
    def from_openai(
        cls, rows: Iterable[dict[str, Any]], *, with_images: bool = False
    ) -> Conversation:
        """Parses the `messages` array of the OpenAI chat API; text parts are joined.

        `with_images`: messages of the user may hold images, as ``data:`` addresses. Raises
        MessageFormatError, a ValueError that names the field, for anything else.
        """
        if isinstance(rows, str | bytes | dict) or not isinstance(rows, Iterable):
            raise MessageFormatError("messages", f"expected a list, got {type(rows).__name__}")
        return cls(
            tuple(_message_from_openai(row, index, with_images) for index, row in enumerate(rows))
        )


class MessageFormatError(ValueError):
    """Messages that are not in the OpenAI form; `field` is the path of the faulty one, such as
    ``messages[2].content``.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",  # OpenAI's name for the system role since the o1 models
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


def _message_to_openai(message: Message) -> dict[str, Any]:
    # Keys without a value are left out: OpenAI's API refuses an empty `tool_calls` array.
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if isinstance(message, ImageMessage):
        images = [{"type": "image_url", "image_url": {"url": image}} for image in message.images]
        row["content"] = [{"type": "text", "text": message.content}, *images]
    if message.tool_calls:
        row["tool_calls"] = [call.to_openai() for call in message.tool_calls]
    if message.tool_call_id is not None:
        row["tool_call_id"] = message.tool_call_id
    return row


def _message_from_openai(row: Any, index: int, with_images: bool) -> Message:
    place = f"messages[{index}]"
    if not isinstance(row, dict):
        raise MessageFormatError(place, f"expected an object, got {type(row).__name__}")
    role_name = row.get("role")
    role = _ROLES.get(role_name) if isinstance(role_name, str) else None
    if role is None:
        reason = f"{describe_value(role_name)} is none of system, user, assistant, tool"
        raise MessageFormatError(f"{place}.role", reason)
    allows_images = with_images and role == "user"
    content, images = _content_from_openai(row.get("content"), f"{place}.content", allows_images)
    tool_calls = decode_tool_calls(row.get("tool_calls"), f"{place}.tool_calls")
    call_id = row.get("tool_call_id")
    if call_id is not None and not isinstance(call_id, str):
        reason = f"expected text, got {type(call_id).__name__}"
        raise MessageFormatError(f"{place}.tool_call_id", reason)
    if images:
        return ImageMessage(role, content, tool_calls, call_id, images)
    return Message(role, content, tool_calls, call_id)


def describe_value(value: Any) -> str:
    """Returns a value for an error message, which must not repeat a long input."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "...")
    return "null" if value is None else f"a {type(value).__name__}"


def decode_tool_calls(rows: Any, place: str) -> tuple[ToolCall, ...]:
    """Parses a `tool_calls` array of the OpenAI chat API; null is an empty one.

    Raises MessageFormatError, whose field begins with `place`, for anything else.
    """
    if rows is None:
        return ()
    if not isinstance(rows, list | tuple):
        raise MessageFormatError(place, f"expected a list, got {type(rows).__name__}")
    tool_calls = []
    for index, row in enumerate(rows):
        try:
            tool_calls.append(ToolCall.from_openai(row))
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise MessageFormatError(f"{place}[{index}]", "not in the OpenAI form") from error
    return tuple(tool_calls)


# The kinds of content parts that are text, and the key of each that holds it. The name of the kind
# may be missing; "refusal" is what OpenAI's own answers contain.
_TEXT_PARTS = {
    None: "text",
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
}


def read_part_text(kind: str | None, fields: Mapping[str, Any]) -> str | None:
    """Returns the text of a content part of a kind (None: the part names none); None if parts of
    this kind are no text, or the part has none.
    """
    key = _TEXT_PARTS.get(kind)
    text = fields.get(key) if key is not None else None
    return text if isinstance(text, str) else None


_IMAGE_FORM = '{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}'
_IMAGE_ADDRESS = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}")


def is_text_part(kind: str | None) -> bool:
    """Returns whether content parts of this kind (None: the part names none) are texts."""
    return kind in _TEXT_PARTS


def _content_from_openai(
    content: Any, place: str, allows_images: bool
) -> tuple[str, tuple[str, ...]]:
    """Returns the text and the images of a `content` value: a string, null, or a list of parts."""
    if content is None or isinstance(content, str):
        # null is allowed next to tool calls.
        return content or "", ()
    if not isinstance(content, list | tuple):
        raise MessageFormatError(place, f"expected text, got {type(content).__name__}")
    texts, images = [], []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else ""
        text = None
        if isinstance(part, dict) and (kind is None or isinstance(kind, str)):
            text = read_part_text(kind, part)
        if text is not None:
            texts.append(text)
        elif not allows_images:
            raise MessageFormatError(f"{place}[{index}]", "only text parts are supported")
        else:
            images.append(_image_address(part, f"{place}[{index}]"))
    return "".join(texts), tuple(images)


def _image_address(part: Any, place: str) -> str:
    """Returns the ``data:`` address of an image part. Raises MessageFormatError for another part,
    and for a link: who checks the image and who answers could be shown two pictures behind it.
    """
    fields = part if isinstance(part, dict) else {}
    image = fields.get("image_url")
    address = image.get("url") if isinstance(image, dict) else None
    is_image = fields.get("type") == "image_url"
    if is_image and isinstance(address, str) and _IMAGE_ADDRESS.fullmatch(address):
        return address
    reason = f"a part is a text, or a PNG, JPEG, GIF or WebP image in this form: {_IMAGE_FORM}"
    raise MessageFormatError(place, reason)
