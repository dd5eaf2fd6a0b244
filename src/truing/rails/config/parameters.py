"""`parameters:` of an entry of `models:`: validation, and the sampling defaults that they set.

Precedence, as in NeMo Guardrails: what a task sets for its call (a low temperature for a canonical
form, the length of a self check), then what the request sets, then the model's parameters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import asdict, replace

from truing.core.errors import did_you_mean
from truing.core.protocols import Closeable, Model, StreamingModel, TurnReadingModel
from truing.core.types import Answer, Conversation, Sampling
from truing.rails.config.engines import ADDRESS_KEYS, ENGINE_PARAMETERS


class _Range(NamedTuple):
    """The type of a parameter; `least` and `most` apply to numbers."""

    type: type
    least: float = 0
    most: float = 0


_SAMPLING = {
    "max_tokens": _Range(int, 1, 1_000_000),
    "max_completion_tokens": _Range(int, 1, 1_000_000),
    "temperature": _Range(float, 0, 2),
    "top_p": _Range(float, 1e-6, 1),
    "seed": _Range(int, 0, 2**63 - 1),
    "stop": _Range(list),
}
# Accepted without effect: truing streams if the request asks for it.
_IGNORED_PARAMETERS = {"streaming": _Range(bool), "stream": _Range(bool)}
_CONNECTION = {
    **dict.fromkeys(ADDRESS_KEYS, _Range(str)),
    "api_key": _Range(str),
    "timeout": _Range(float, 1e-3, 1e6),
    "request_timeout": _Range(float, 1e-3, 1e6),
    "max_retries": _Range(int, 0, 100),
    "allow_http": _Range(bool),  # a key may leave this machine over plain http
}
_REQUEST_BODY = {
    "frequency_penalty": _Range(float, -2, 2),
    "presence_penalty": _Range(float, -2, 2),
    "logit_bias": _Range(dict),
    "reasoning_effort": _Range(str),
    "extra_body": _Range(dict),
    "model_kwargs": _Range(dict),
}
_TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "a string or a list of strings",
    dict: "a mapping",
    bool: "true or false",
}


def find_parameter_faults(parameters: Mapping[str, Any], engine: str) -> Iterator[tuple[str, str]]:
    """Yields (key, message) for unknown keys, wrong types and values out of range."""
    known = {**_SAMPLING, **_IGNORED_PARAMETERS}
    if engine != "truing":
        known.update(_CONNECTION)
        known.update(_REQUEST_BODY)
        known.update(dict.fromkeys(ENGINE_PARAMETERS.get(engine, ()), _Range(str)))
    for key, value in parameters.items():
        if key not in known:
            if key in _CONNECTION or key in _REQUEST_BODY:
                hint = " (with engine: truing, set it in the spec under model)"
            else:
                hint = did_you_mean(key, known)
            yield key, f"the parameter {key!r} of the model is not known{hint}"
        elif value is not None and not _is_in_range(value, known[key]):
            expected = _describe_range(known[key])
            yield key, f"parameters.{key}: expected {expected}, got {value!r}"


def _is_in_range(parameter: Any, allowed: _Range) -> bool:
    if allowed.type is list:
        texts = parameter if isinstance(parameter, list) else [parameter]
        return all(isinstance(text, str) for text in texts)
    if allowed.type in (int, float):
        number_types = (int, float) if allowed.type is float else int
        # bool is a subclass of int; NaN fails both comparisons.
        is_number = isinstance(parameter, number_types) and not isinstance(parameter, bool)
        return is_number and allowed.least <= parameter <= allowed.most
    return isinstance(parameter, allowed.type)


def _describe_range(allowed: _Range) -> str:
    name = _TYPE_NAMES[allowed.type]
    if allowed.type in (int, float):
        return f"{name} from {allowed.least:g} to {allowed.most:g}"
    return name


def build_request_body(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters that go unchanged into the body of every request."""
    body: dict[str, Any] = {}
    for key in _REQUEST_BODY:
        value = parameters.get(key)
        if value is not None:
            body.update(value if key in ("extra_body", "model_kwargs") else {key: value})
    return body


class DefaultSampling(Struct, frozen=True, kw_only=True):
    """The sampling that a configuration sets for a model; None where it sets nothing."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> DefaultSampling:
        """Reads parameters without faults."""
        stop = parameters.get("stop")
        if isinstance(stop, str):
            stop = (stop,)
        return cls(
            max_tokens=parameters.get("max_tokens") or parameters.get("max_completion_tokens"),
            temperature=parameters.get("temperature"),
            top_p=parameters.get("top_p"),
            seed=parameters.get("seed"),
            stop=None if stop is None else tuple(stop),
        )

    def apply_to(self, request: Sampling, explicit_fields: Collection[str] | None) -> Sampling:
        """Fills in the fields of a request's sampling that the request does not set.

        `explicit_fields` names the fields that the request sets. If it is None, these are taken to
        be the fields that differ from `Sampling()`.
        """
        if explicit_fields is None:
            default_sampling = Sampling()
            explicit_fields = {
                name
                for name in self.__struct_fields__
                if getattr(request, name) != getattr(default_sampling, name)
            }
        defaults = {
            name: value
            for name, value in asdict(self).items()
            if value is not None and name not in explicit_fields
        }
        return replace(request, **defaults) if defaults else request


class ConfiguredModel:
    """A model with the sampling defaults of its entry in `models:`.

    `generate` passes its sampling on unchanged: the rails' LLM client reads `default_sampling` and
    applies it, since it knows what the task and the request set.
    """

    def __init__(self, model: Model, default_sampling: DefaultSampling) -> None:
        self.model = model
        self.default_sampling = default_sampling
        self.name = model.name
        self.lineage = model.lineage

    @property
    def reads_images(self) -> bool:
        """Whether the model is sent images."""
        return bool(getattr(self.model, "reads_images", False))

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Calls the model."""
        return await self.model.generate(conversation, sampling)

    def turn_reader(self, *, keep_prefix: bool = False) -> Model:
        """Returns the turn reader of the model, or this model if that has none."""
        if not isinstance(self.model, TurnReadingModel):
            return self
        return self.model.turn_reader(keep_prefix=keep_prefix)

    async def close(self) -> None:
        """Closes the model if it holds resources."""
        if isinstance(self.model, Closeable):
            await self.model.close()


class ConfiguredStreamingModel(ConfiguredModel):
    """A `ConfiguredModel` for a model that can stream."""

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """Streams from the model."""
        assert isinstance(self.model, StreamingModel)
        async for chunk in self.model.stream(conversation, sampling):
            yield chunk


def with_default_sampling(model: Model, parameters: Mapping[str, Any]) -> Model:
    """Wraps a model with the sampling in `parameters`; returns it unchanged if there is none."""
    default_sampling = DefaultSampling.from_parameters(parameters)
    if default_sampling == DefaultSampling():
        return model
    # Two classes, because `isinstance(model, StreamingModel)` looks for the method.
    if isinstance(model, StreamingModel):
        return ConfiguredStreamingModel(model, default_sampling)
    return ConfiguredModel(model, default_sampling)
