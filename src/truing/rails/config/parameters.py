"""`parameters:` of an entry of `models:`: checked, and used as the sampling of calls that ask for nothing else.

As in NeMo Guardrails: what a task sets for its call (a low temperature for a canonical form, the length of a self check)
goes first, then what the request asks for, then the model's parameters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from truing.core.errors import did_you_mean
from truing.core.protocols import Closeable, Model, StreamingModel
from truing.core.types import Answer, Conversation, Sampling

ADDRESSES = ("base_url", "openai_api_base", "endpoint_url", "api_base")
# key -> type, least, most (for texts and mappings: none)
_SAMPLING: dict[str, tuple[type, float, float]] = {
    "max_tokens": (int, 1, 1_000_000),
    "max_completion_tokens": (int, 1, 1_000_000),
    "temperature": (float, 0, 2),
    "top_p": (float, 1e-6, 1),
    "seed": (int, 0, 2**63 - 1),
    "stop": (list, 0, 0),
}
_IGNORED = {
    "streaming": (bool, 0, 1),
    "stream": (bool, 0, 1),
}  # truing streams where the caller asks for it
_CONNECTION: dict[str, tuple[type, float, float]] = {
    **dict.fromkeys(ADDRESSES, (str, 0, 0)),
    "api_key": (str, 0, 0),
    "timeout": (float, 1e-3, 1e6),
    "request_timeout": (float, 1e-3, 1e6),
    "max_retries": (int, 0, 100),
}
_BODY: dict[str, tuple[type, float, float]] = {
    "frequency_penalty": (float, -2, 2),
    "presence_penalty": (float, -2, 2),
    "logit_bias": (dict, 0, 0),
    "reasoning_effort": (str, 0, 0),
    "extra_body": (dict, 0, 0),
    "model_kwargs": (dict, 0, 0),
}
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a text or a list of texts",
    dict: "keys",
    bool: "true or false",
}


def faults(given: Mapping[str, Any], engine: str) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) for unknown keys, wrong types and values out of range."""
    known = {**_SAMPLING, **_IGNORED, **({} if engine == "truing" else {**_CONNECTION, **_BODY})}
    for key, value in given.items():
        if key not in known:
            hint = (
                " (engine: truing takes it in the spec: model)"
                if key in _CONNECTION or key in _BODY
                else did_you_mean(key, known)
            )
            yield key, f"the parameter {key!r} of the model is not known{hint}"
        elif value is not None:
            what = _fault(value, *known[key])
            if what:
                yield key, f"parameters.{key}: expected {what}, got {value!r}"


def _fault(value: Any, kind: type, least: float, most: float) -> str | None:
    if kind is list:
        good = isinstance(value, str) or (
            isinstance(value, list) and all(isinstance(v, str) for v in value)
        )
        return None if good else _WORDS[list]
    if kind in (int, float):
        number = isinstance(value, (int, float) if kind is float else int) and not isinstance(
            value, bool
        )
        return (
            None
            if number and least <= value <= most
            else f"{_WORDS[kind]} from {least:g} to {most:g}"
        )
    return None if isinstance(value, kind) else _WORDS[kind]


def body(given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that go into every request of an endpoint as they are."""
    made: dict[str, Any] = {}
    for key in _BODY:
        value = given.get(key)
        if value is not None:
            made.update(value if key in ("extra_body", "model_kwargs") else {key: value})
    return made


class Own(Struct, frozen=True, kw_only=True):
    """The sampling that a configuration gives a model; none where it gives nothing."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Own:
        """From parameters without faults."""
        stop = given.get("stop")
        return cls(
            max_tokens=given.get("max_tokens") or given.get("max_completion_tokens"),
            temperature=given.get("temperature"),
            top_p=given.get("top_p"),
            seed=given.get("seed"),
            stop=None if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        )

    def under(self, base: Sampling, asked: Collection[str] | None) -> Sampling:
        """The sampling of a request with these values where it asks for none. `asked` names what it asks for; without it, what
        differs from `Sampling`'s own defaults."""
        default = Sampling()
        mine = {
            name: value
            for name, value in asdict(self).items()
            if value is not None
            and (
                name not in asked
                if asked is not None
                else getattr(base, name) == getattr(default, name)
            )
        }
        return replace(base, **mine) if mine else base


class Configured:
    """A model with the sampling of its entry in `models:`; the rails' calls read `own`."""

    def __init__(self, model: Model, own: Own) -> None:
        self.model, self.own = model, own
        self.name, self.lineage = model.name, model.lineage

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """As the model."""
        return await self.model.generate(conversation, sampling)

    async def close(self) -> None:
        """Closes the model, where it has anything to close."""
        if isinstance(self.model, Closeable):
            await self.model.close()


class ConfiguredStream(Configured):
    """The same of a model that streams."""

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """As the model."""
        assert isinstance(self.model, StreamingModel)
        async for piece in self.model.stream(conversation, sampling):
            yield piece


def configured(model: Model, parameters: Mapping[str, Any]) -> Model:
    """The model with its own sampling; the model itself where there is none."""
    own = Own.of(parameters)
    if own == Own():
        return model
    return (
        ConfiguredStream(model, own)
        if isinstance(model, StreamingModel)
        else Configured(model, own)
    )
