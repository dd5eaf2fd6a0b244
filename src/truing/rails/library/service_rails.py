"""Rails that ask a service over HTTP: vendors of NeMo's library, and services of one's own.

A service of one's own is described by templates under ``truing: services:``; the requests and
verdicts of vendors are in `service_protocols`. A service that is down, answers in another form or
takes too long could not tell: that blocks. A clear verdict may be cached.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from truing.core.errors import PlanError, SpecError
from truing.core.lineage import digest
from truing.core.secret import Secret
from truing.core.types import Failure, Lineage
from truing.http.client import Endpoint
from truing.http.retry import RetryPolicy
from truing.rails.actions import RailOutcome
from truing.rails.colang.flow_reference import parse_flow_parameters
from truing.rails.config.loader import RailsConfig
from truing.rails.config.service_addresses import (
    find_service_addresses,
    own_services,
)
from truing.rails.config.trust import find_key_fault, require_trusted_code
from truing.rails.config.vendor_addresses import ServiceAddress
from truing.rails.runtime.chat_messages import content_text
from truing.rails.runtime.templates import PromptError, evaluate_template
from truing.rails.runtime.turn_context import EVIDENCE_CHARACTERS, TurnContext
from truing.specs.keys import resolve_api_key

DEFAULT_TIMEOUT = 10.0  # seconds
DEFAULT_RETRIES = 1
JAILBREAK_SERVER = "jailbreak server"
SOURCES = {"input": "user_message", "output": "bot_message", "retrieval": "relevant_chunks"}


class ServiceVerdict(Struct, frozen=True):
    """What a service says of a text; `rewrite` is the text to use in its place."""

    blocked: bool
    reason: str | None = None
    rewrite: str | None = None
    score: float | None = None


class ServiceInputs(Struct, frozen=True):
    """What a request may hold: the checked text, and the conversation around it."""

    source: str
    text: str
    user_message: str
    bot_message: str
    chunks: tuple[str, ...]
    settings: Mapping[str, Any]
    instructions: str

    def variables(self) -> dict[str, Any]:
        """Returns the variables of a template."""
        return {
            "source": self.source,
            "text": self.text,
            "user_message": self.user_message,
            "bot_message": self.bot_message,
            "relevant_chunks": list(self.chunks),
        }


class ServiceProtocol(Struct, frozen=True):
    """How a service is asked: the body of a request, and the verdict in the decoded reply.

    `read_verdict` raises LookupError, TypeError or ValueError for a reply in another form. With
    `is_lines` the reply is a list of the JSON values of its lines.
    """

    make_body: Callable[[ServiceInputs], Any]
    read_verdict: Callable[[Any, ServiceInputs], ServiceVerdict]
    is_lines: bool = False


def read_score(value: Any) -> float:
    """Returns a score or a threshold. Raises ValueError or TypeError for all but finite numbers.

    NaN is neither below nor above a threshold: a comparison with it may let a text pass.
    """
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except OverflowError:
        score = math.inf  # an integer of hundreds of digits
    if not math.isfinite(score):
        raise ValueError(f"{str(value)[:40]} is no score")
    return score


def list_guarded_messages(inputs: ServiceInputs) -> list[dict[str, str]]:
    """Returns the instructions, the user's message and, at the output, the answer as messages."""
    messages = []
    if inputs.instructions:
        messages.append({"role": "system", "content": inputs.instructions})
    if inputs.user_message:
        messages.append({"role": "user", "content": inputs.user_message})
    if inputs.source == "output":
        messages.append({"role": "assistant", "content": inputs.text})
    return messages


def read_flag(value: Any) -> bool:
    """Returns true or false of a reply. Raises ValueError for anything else: null is no answer."""
    if type(value) is not bool:
        raise ValueError(f"{str(value)[:40]} is neither true nor false")
    return value


def read_text(value: Any) -> str:
    """Returns a text of a reply. Raises ValueError for anything else, such as null or parts."""
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} is no text")
    return value


class ServiceClient:
    """A service that a rail asks, with its time-out and cache; its key is a `Secret`."""

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        protocol: ServiceProtocol,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        cache_size: int = 0,
    ) -> None:
        self.name = name
        self.lineage = Lineage(
            name=f"service:{name}", hash=digest("service", name, endpoint.identity)
        )
        self._endpoint, self._protocol = endpoint, protocol
        self._timeout, self._cache_size = timeout, cache_size
        self._cache: OrderedDict[bytes, ServiceVerdict] = OrderedDict()

    async def ask(self, inputs: ServiceInputs) -> ServiceVerdict | Failure:
        """Returns the verdict, or why there is none; nothing is raised for a wrong reply."""
        try:
            body = msgspec.json.encode(self._protocol.make_body(inputs))
        except (LookupError, TypeError, ValueError, PromptError) as error:
            return Failure("rail", "request", f"the request cannot be made: {error}")
        # The templates of a verdict may read these variables too, not the reply alone.
        variables = msgspec.json.encode(inputs.variables())
        key = hashlib.sha256(body + b"\n" + variables).digest()  # JSON holds no line break
        cached = self._cache.get(key)
        if cached is not None:
            self._cache.move_to_end(key)
            return cached
        try:
            async with asyncio.timeout(self._timeout):
                verdict = await self._endpoint.send_request(
                    body, lambda data: self._read(data, inputs)
                )
        except TimeoutError:
            return Failure("rail", "timeout", f"no reply within {self._timeout:g} s")
        if isinstance(verdict, ServiceVerdict) and self._cache_size:
            self._cache[key] = verdict
            if len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return verdict

    def _read(self, data: bytes, inputs: ServiceInputs) -> ServiceVerdict:
        if self._protocol.is_lines:
            reply: Any = [msgspec.json.decode(line) for line in data.splitlines() if line.strip()]
        else:
            reply = msgspec.json.decode(data)
        try:
            verdict = self._protocol.read_verdict(reply, inputs)
        except (LookupError, TypeError, AttributeError, PromptError) as error:
            raise ValueError(f"the reply has another form: {error}") from error
        if type(verdict.blocked) is not bool:
            raise ValueError("the verdict is neither true nor false")
        return verdict


# -- services of one's own ---------------------------------------------------------------------


def make_own_protocol(settings: Mapping[str, Any]) -> ServiceProtocol:
    """Returns the protocol of a service under ``truing: services:``.

    `request` is JSON whose texts are templates (default ``{"text": "{{ text }}"}``); `blocked`,
    `reason` and `rewrite` are templates over `reply`. A text that is one ``{{ expression }}`` keeps
    the type of its value.
    """
    request = settings.get("request")
    if request is None:
        request = {"text": "{{ text }}"}

    def make_body(inputs: ServiceInputs) -> Any:
        return _fill_templates(request, inputs.variables())

    def read_verdict(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
        variables = {**inputs.variables(), "reply": reply}
        blocked = evaluate_template(settings["blocked"], variables)
        if isinstance(blocked, str):
            # Neither of the two is no verdict: `ServiceClient` refuses None.
            blocked = {"true": True, "false": False}.get(blocked.strip().lower())
        reason = rewrite = None
        if settings.get("reason"):
            reason = str(evaluate_template(settings["reason"], variables) or "") or None
        if settings.get("rewrite"):
            rewrite = evaluate_template(settings["rewrite"], variables)
            if rewrite is not None and not isinstance(rewrite, str):
                raise ValueError("the rewritten text is no text")
        return ServiceVerdict(blocked, reason, rewrite)

    return ServiceProtocol(make_body, read_verdict, is_lines=settings.get("reply") == "lines")


def _fill_templates(template: Any, variables: Mapping[str, Any]) -> Any:
    if isinstance(template, str):
        return evaluate_template(template, variables)
    if isinstance(template, Mapping):
        return {str(key): _fill_templates(child, variables) for key, child in template.items()}
    if isinstance(template, list):
        return [_fill_templates(child, variables) for child in template]
    return template


# -- building ----------------------------------------------------------------------------------


def build_services(
    config: RailsConfig, protocols: Mapping[str, ServiceProtocol]
) -> dict[str, ServiceClient]:
    """Returns the clients of the services that a configuration's rails call, by service.

    Raises PlanError for a service without an address or a key, and SpecError for a key that may
    not be sent. `protocols` are those of the vendors.
    """
    require_trusted_code(config)
    services: dict[str, ServiceClient] = {}
    for address in find_service_addresses(config):
        settings: Mapping[str, Any] = own_services(config).get(address.service) or {}
        protocol = protocols.get(address.service) or make_own_protocol(settings)
        timeout = float(settings.get("timeout") or address.timeout or DEFAULT_TIMEOUT)
        retries = int(settings.get("retries", DEFAULT_RETRIES))
        endpoint = Endpoint(
            address.url,
            key=(key := _find_key(address, config)),
            headers={
                **{
                    str(name): str(value) for name, value in (settings.get("headers") or {}).items()
                },
                **address.headers,
                **({address.header: Secret.of(address.prefix + key.reveal())} if key else {}),
            },
            retry_policy=RetryPolicy(timeout=timeout, retries=retries, max_wait=timeout),
        )
        services[address.service] = ServiceClient(
            address.service,
            endpoint,
            protocol,
            timeout=timeout,
            cache_size=int(settings.get("cache") or 0),
        )
    return services


def _find_key(address: ServiceAddress, config: RailsConfig) -> Secret | None:
    """Returns the key that a service gets, or None. Raises PlanError if it is missing."""
    if address.variable is None:
        return None
    if address.is_key_optional:
        is_sent = find_key_fault(address.variable, address.url, config) is None
        if address.variable not in os.environ or not is_sent:
            return None
    try:
        return resolve_api_key(
            address.variable, address.url, default=None, allow_http=address.allow_http
        )
    except SpecError as error:
        place = config.locate("key", address.key)
        raise PlanError(f"{place}: the service {address.service!r}: {error}") from error


# -- the action --------------------------------------------------------------------------------


def read_chunks(context: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the retrieved texts as the retrieval rails have left them.

    Rails rewrite or empty ``$relevant_chunks``, the joined text, and no other variable. So the
    separate texts in ``$relevant_chunks_sep`` count only while they are still that text.
    """
    chunks = context.get("relevant_chunks") or ()
    if not isinstance(chunks, str):
        return tuple(str(chunk) for chunk in chunks)
    separate = [str(chunk) for chunk in context.get("relevant_chunks_sep") or ()]
    if separate and "\n".join(separate) == chunks:
        return tuple(separate)
    return (chunks,) if chunks.strip() else ()


def read_inputs(turn: TurnContext, source: str, text: Any, block: str = "") -> ServiceInputs:
    """Returns what a request about `text` may hold; `block` is the service's ``rails.config``."""
    context, config = turn.state.context, turn.services.config
    settings = ((config.raw.get("rails") or {}).get("config") or {}).get(block) or {}
    if isinstance(text, list) and not any(isinstance(part, Mapping) for part in text):
        text = "\n\n".join(map(str, text))  # retrieved texts, not the parts of a message
    return ServiceInputs(
        source=source,
        text=content_text(text),
        user_message=content_text(context.get("user_message")),
        bot_message=str(context.get("bot_message") or "") if source == "output" else "",
        chunks=read_chunks(context),
        settings=settings,
        instructions=config.instructions,
    )


async def ask_service(turn: TurnContext, name: str, inputs: ServiceInputs) -> RailOutcome:
    """Returns the outcome of a service's verdict: a block, a rewritten text, or neither.

    A service that could not tell is a block.
    """
    if not inputs.text.strip():
        return RailOutcome.allow()
    client: ServiceClient | None = turn.services.service_clients.get(name)
    if client is None:
        turn.set_reason(f"no rail of the configuration names the service {name!r}")
        return RailOutcome.block(metadata={"service": name, "score": None})
    verdict = await client.ask(inputs)
    if isinstance(verdict, Failure):
        turn.set_reason(
            f"the service {name!r} could not tell, which counts as an objection",
            evidence=f"{verdict.kind}: {verdict.message}"[:EVIDENCE_CHARACTERS],
        )
        return RailOutcome.block(metadata={"service": name, "score": None})
    evidence = verdict.reason[:EVIDENCE_CHARACTERS] if verdict.reason else None
    metadata: dict[str, Any] = {
        "service": name,
        "score": verdict.score,
        "reason": verdict.reason,
    }
    if verdict.blocked:
        turn.set_reason(f"the service {name!r} objects", score=verdict.score, evidence=evidence)
        # A text that is the same afterwards is not masked.
        if verdict.rewrite is not None and verdict.rewrite != inputs.text:
            metadata["masked"] = verdict.rewrite
        return RailOutcome.block(metadata=metadata)
    if verdict.rewrite is not None and verdict.rewrite != inputs.text:
        turn.set_reason(f"rewritten by the service {name!r}", evidence=evidence)
        rewrites = [(SOURCES[inputs.source], verdict.rewrite)]
        return RailOutcome.transform(rewrites, metadata=metadata)
    turn.set_reason(f"the service {name!r} has nothing to object", score=verdict.score)
    return RailOutcome.allow(metadata=metadata)


async def own_service_check(
    turn: TurnContext, source: str, text: Any, **params: Any
) -> RailOutcome:
    """Asks the service that the running rail names by ``$service=NAME``."""
    rail = turn.state.context.get(f"triggered_{source}_rail") or turn.rail_name or ""
    name = parse_flow_parameters(str(rail)).get("service") or ""
    return await ask_service(turn, name.strip("'\""), read_inputs(turn, source, text))
