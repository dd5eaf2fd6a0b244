"""The bounds of one server, all in one place; docs/serve.md has them as a table."""

from __future__ import annotations

from msgspec import Struct

MEGABYTE = 1_000_000


class ServerLimits(Struct, frozen=True, kw_only=True):
    """What one server accepts from its clients and sends to them.

    Raises ValueError for a limit that is not positive; only `per_minute` may be 0, which means no
    limit, and `waiting` 0, which means no queue.

    Admission:

    - `seconds`: of an answer, streams included; also the longest wait for a free slot
    - `concurrency`, `waiting`: requests that are answered, and that wait, at a time
    - `per_minute`: requests of one key in 60 seconds

    The connection and the body:

    - `connections`: open at a time
    - `header_bytes`, `headers`: of the request line and the headers together, and their number
    - `header_seconds`, `body_seconds`: for the headers and the body to arrive
    - `send_seconds`: that a client may leave a response unread before it is cut off
    - `body`: bytes; `json_depth`: nested arrays and objects

    The request:

    - `messages`, `message_characters`: of a conversation, and of the text of each message
    - `images`, `image_bytes`: of a conversation, and of the ``data:`` address of each image
    - `name_characters`: of a model name, a configuration id, a tool call's id and name
    - `tools`, `tool_bytes`: tools of a request, and bytes of all their descriptions and schemas
    - `stop_strings`, `stop_characters`
    - `choices`: answers (`n`) of one request, which are generated at the same time
    - `moderation_texts`: texts of a moderation request

    The answer:

    - `max_tokens`: tokens; a request may ask for fewer
    - `response_bytes`: bytes of a response, streams included
    """

    body: int = 2 * MEGABYTE
    seconds: float = 120.0
    concurrency: int = 64
    waiting: int = 256
    max_tokens: int = 512
    per_minute: int = 0
    connections: int = 2_000
    header_bytes: int = 32_768
    headers: int = 100
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    send_seconds: float = 60.0
    json_depth: int = 64
    messages: int = 1_000
    message_characters: int = 200_000
    images: int = 8
    image_bytes: int = 1_500_000
    name_characters: int = 256
    tools: int = 128
    tool_bytes: int = 262_144
    stop_strings: int = 16
    stop_characters: int = 256
    choices: int = 32
    moderation_texts: int = 256
    response_bytes: int = 16 * MEGABYTE

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            lowest_is_zero = name in ("per_minute", "waiting")
            # `not >` instead of `<=`: NaN is no limit either.
            if not (value >= 0 if lowest_is_zero else value > 0):
                bound = "0 or more" if lowest_is_zero else "above 0"
                raise ValueError(f"{name}: {value} must be {bound}")
