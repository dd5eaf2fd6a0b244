"""Any JSON API as a model: `http:URL,body="{...}",answer=PATH`.

`body` is a JSON template: a string that is exactly ``{{messages}}``, ``{{max_tokens}}``,
``{{temperature}}`` or ``{{seed}}`` becomes that value; ``{{prompt}}``, ``{{system}}``,
``{{session}}`` are put into any string. `answer` is the path to the text
(``data.choices[0].text``); without it the usual names are tried. With `session=PATH` the service's
session id is read there, and the next turn of the same conversation carries it as ``{{session}}``.
Further arguments: `method`, `headers` (a JSON object), `api_key_env` with `auth_header` (default
``Authorization: Bearer``), `timeout`, `retries`, `budget_requests`.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import OrderedDict
from typing import Any

import msgspec

from truing.core.ids import stream_seed
from truing.core.lineage import digest
from truing.core.redaction import find_json_secrets, redact_json
from truing.core.secret import Secret
from truing.core.types import Answer, Conversation, Failure, Lineage, Message, Sampling
from truing.http.client import Endpoint, bearer_headers, read_budget, validate_url
from truing.http.retry import RetryPolicy
from truing.specs.resolve import Args

# Where services put the text, tried in this order when `answer` is not given.
_USUAL_PATHS = (
    "answer",
    "response",
    "text",
    "output",
    "reply",
    "message.content",
    "message",
    "content",
    "result",
    "choices[0].message.content",
    "choices[0].text",
    "generated_text",
    "[0].generated_text",
    "data.answer",
)
_DEFAULT_BODY = '{"prompt":"{{prompt}}"}'
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_PATH = re.compile(r"\.?([^.\[\]]+)|\[(-?\d+)\]")
_MAX_SESSIONS = 10_000  # conversations whose session id is remembered


def read_path(value: Any, path: str) -> Any:
    """Returns the value at a path such as `a.b[0].c`. Raises KeyError if there is none."""
    position = 0
    while position < len(path):
        step = _PATH.match(path, position)
        if step is None:
            raise KeyError(path)
        name, index = step.groups()
        try:
            value = value[int(index)] if index is not None else value[name]
        except (KeyError, IndexError, TypeError):
            raise KeyError(path) from None
        position = step.end()
    return value


def fill_template(template: Any, values: dict[str, Any]) -> Any:
    """Returns a JSON template with its placeholders replaced.

    A string that is one placeholder becomes the value itself, of any type; inside longer strings,
    its text.
    """
    if isinstance(template, str):
        placeholder = _PLACEHOLDER.fullmatch(template)
        if placeholder and placeholder.group(1) in values:
            return values[placeholder.group(1)]
        return _PLACEHOLDER.sub(lambda m: str(values.get(m.group(1), m.group(0))), template)
    if isinstance(template, dict):
        return {k: fill_template(v, values) for k, v in template.items()}
    if isinstance(template, list):
        return [fill_template(v, values) for v in template]
    return template


class HttpModel:
    """A service that takes a prompt as JSON and returns an answer as JSON."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        body: Any = None,
        answer: str = "",
        session: str = "",
        method: str = "POST",
    ) -> None:
        self.name = f"http:{endpoint.url.with_query(None)}"
        self.endpoint = endpoint
        self._body = json.loads(_DEFAULT_BODY) if body is None else body
        self._answer = answer
        self._session = session
        self._method = method
        self._session_ids: OrderedDict[str, str] = OrderedDict()
        # Without secrets: a new key is no other model.
        template = json.dumps(redact_json(self._body, environment={}))
        self.lineage = Lineage(
            name=self.name, hash=digest("http", endpoint.identity, template, answer)
        )

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Sends one request for each answer."""
        answers: list[Answer] = []
        for index in range(sampling.n):
            seed = sampling.seed if index == 0 else stream_seed(sampling.seed, index)
            answers.append(await self._generate_one(conversation, sampling, seed))
        return tuple(answers)

    async def _generate_one(
        self, conversation: Conversation, sampling: Sampling, seed: int
    ) -> Answer:
        # The session is looked up by the turns before the new prompt. A first turn has none, so
        # it gets a fresh id, which services that take ids from the client accept as a new
        # session.
        session = (
            self._session_ids.get(_history_key(conversation.messages[:-1]), "") or uuid.uuid4().hex
        )
        template_values: dict[str, Any] = {
            "prompt": conversation.prompt,
            "system": conversation.system or "",
            "messages": conversation.to_openai(),
            "session": session,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            # Some servers take a signed 32-bit seed only (as in `openai`).
            "seed": seed & 0x7FFFFFFF,
        }
        body = (
            b""
            if self._method == "GET"
            else msgspec.json.encode(fill_template(self._body, template_values))
        )
        reply = await self.endpoint.send_request(body, self._read_reply, self._method)
        if isinstance(reply, Failure):
            return Answer(message=Message("assistant"), finish_reason="error", failure=reply)
        text, new_session = reply
        answer = Answer.of(text)
        self._remember_session(conversation.then(answer.message), new_session or session)
        return answer

    def _remember_session(self, conversation: Conversation, session: str) -> None:
        # Stored under the history with this answer, which is what the next turn will send.
        self._session_ids[_history_key(conversation.messages)] = session
        if len(self._session_ids) > _MAX_SESSIONS:
            self._session_ids.popitem(last=False)

    def _read_reply(self, data: bytes) -> tuple[str, str]:
        reply_json = msgspec.json.decode(data)
        if isinstance(reply_json, str) and not self._answer:
            return reply_json, ""
        session = ""
        if self._session:
            try:
                session = str(read_path(reply_json, self._session))
            except KeyError:
                session = ""
        # A usual name may hold an object or a list ("message" does in chat APIs): only text
        # counts.
        for path in (self._answer,) if self._answer else _USUAL_PATHS:
            try:
                text = read_path(reply_json, path)
            except KeyError:
                continue
            if isinstance(text, str):
                return text, session
        expected = self._answer or "any of the usual names (give answer=PATH)"
        raise ValueError(f"no text at {expected}; the answer has {_describe(reply_json)}")


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        return "the keys " + ", ".join(sorted(map(str, value))[:8])
    return f"a {type(value).__name__}"


def _history_key(messages: tuple[Message, ...]) -> str:
    """Returns a hash of the turns so far; a first turn has no session yet."""
    return digest(*(f"{m.role}\0{m.content}" for m in messages)) if len(messages) > 1 else ""


def _read_json(args: Args, key: str, default: str, kind: type | tuple[type, ...] = dict) -> Any:
    try:
        value = json.loads(args.text(key, default))
    except json.JSONDecodeError as error:
        raise args.fault(f"{key} is not JSON: {error.msg}") from error
    if not isinstance(value, kind):
        raise args.fault(f"{key} is no JSON object")
    return value


def build(args: Args) -> HttpModel:
    """Returns the model of an `http:` spec; `http:host/path` and `http:https://host/path` both
    work.
    """
    url = args.name if "://" in args.name else f"http://{args.name.lstrip('/')}"
    validate_url(args, url)
    written = _read_json(args, "headers", "{}")
    headers = {str(name): Secret.of(str(value)) for name, value in written.items()}
    for name, value in headers.items():
        if not (name + value.reveal()).isprintable():
            raise args.fault(f"headers: {name!r} holds a line break or another control character")
    body = _read_json(args, "body", _DEFAULT_BODY, (dict, list))
    # Any host may be named here, so no key is sent that the spec does not name.
    key = args.api_key(url, default=None)
    header = args.text("auth_header", "Authorization")
    if key:
        # Services with a header of their own (x-api-key) want the bare key.
        headers.update(bearer_headers(key) if header == "Authorization" else {header: key})
    endpoint = Endpoint(
        url,
        key=key,
        headers=headers,
        secrets=find_json_secrets(body),
        retry_policy=RetryPolicy.from_args(args),
        budget=read_budget(args),
    )
    method = args.text("method", "POST").upper()
    if method not in ("GET", "POST", "PUT"):
        raise args.fault(f"method={method!r} is none of GET, POST, PUT")
    return HttpModel(
        endpoint,
        body=body,
        answer=args.text("answer", ""),
        session=args.text("session", ""),
        method=method,
    )
