"""Names become objects: the grammar of spec strings, the table of dotted paths, the gate for extras.

    kind:name,key=value,...        local:smollm2        best-of:4,by=(cost:DIR),of=(prompted:hhh,of=(local:smollm2))

A value is bare (up to the next comma), ``"quoted"`` (JSON string escapes) or a spec in parentheses. Parts and acts get
objects, never spec strings; only `plan.py` and the doors call `resolve`. Plug-ins register entry points in the groups
``truing.model``, ``truing.judge``, ...; a builder is a function that takes `Args` and returns the object.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeVar, overload

from truing.core.errors import MissingExtra, SpecError, did_you_mean
from truing.specs.builders import BUILDERS
from truing.specs.parser import Spec, parse_spec

RoleName = Literal["model", "judge", "data", "attack", "aligner", "rail"]
T = TypeVar("T")

# The distribution that an import error names -> the extra that brings it.
_EXTRAS = {
    "torch": "local",
    "transformers": "local",
    "safetensors": "local",
    "gguf": "local",
    "accelerate": "local",
    "onnxruntime": "local",
    "onnx": "local",
    "peft": "train",
    "tensorboard": "train",
    "litestar": "serve",
    "uvicorn": "serve",
    "sqlalchemy": "serve",
    "alembic": "serve",
    "argon2": "serve",
    "psycopg": "serve",
    "prometheus_client": "serve",
    "vllm": "vllm",
    "ray": "ray",
    "huggingface_hub": "hub",
    "pyarrow": "hub",
    "presidio_analyzer": "presidio",
    "opentelemetry": "otel",
}


class Args:
    """A spec's name and arguments, read by type; what was not read is an unknown key."""

    def __init__(self, spec: Spec, made: Mapping[str, Any] | None = None) -> None:
        self.spec = spec
        self._asked: set[str] = set()
        self._made = made or {}

    @property
    def name(self) -> str:
        """The part after the colon."""
        return self.spec.name

    def _raw(self, key: str) -> Any:
        self._asked.add(key)
        return self.spec.args.get(key)

    def fault(self, what: str) -> SpecError:
        """An error that shows the spec."""
        return SpecError(f"spec '{self.spec}': {what}")

    @overload
    def text(self, key: str) -> str | None: ...
    @overload
    def text(self, key: str, default: str) -> str: ...
    def text(self, key: str, default: str | None = None) -> str | None:
        """A text argument."""
        value = self._raw(key)
        if isinstance(value, Spec):
            raise self.fault(f"{key} is text, not a nested spec")
        return default if value is None else str(value)

    def _number(self, key: str, read: Callable[[str], T], word: str) -> T | None:
        value = self.text(key)
        if value is None:
            return None
        try:
            return read(value)
        except ValueError as error:
            raise self.fault(f"{key}={value!r} is not {word}") from error

    @overload
    def integer(self, key: str) -> int | None: ...
    @overload
    def integer(self, key: str, default: int) -> int: ...
    def integer(self, key: str, default: int | None = None) -> int | None:
        """A whole number."""
        value = self._number(key, int, "a whole number")
        return default if value is None else value

    @overload
    def number(self, key: str) -> float | None: ...
    @overload
    def number(self, key: str, default: float) -> float: ...
    def number(self, key: str, default: float | None = None) -> float | None:
        """A number."""
        value = self._number(key, float, "a number")
        return default if value is None else value

    def flag(self, key: str, default: bool = False) -> bool:
        """true / false."""
        value = self.text(key)
        if value is None:
            return default
        if value.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise self.fault(f"{key}={value!r} is neither true nor false")
        return value.lower() in ("true", "yes", "1")

    def secret(self, key: str = "api_key_env", default: str = "OPENAI_API_KEY") -> str | None:
        """The value of the environment variable that the argument names; a secret itself never stands in a spec."""
        if "api_key" in self.spec.args:
            raise SpecError(
                f"spec of kind {self.spec.kind!r}: a spec must not contain secrets; use api_key_env=NAME"
            )
        variable = self.text(key)
        if variable is not None and variable not in os.environ:
            raise self.fault(f"the environment variable {variable} is not set")
        return os.environ.get(variable or default)

    def nested(self, key: str, role: RoleName) -> Any:
        """The object of a nested spec (or, in Python, an object given in its place); none if absent."""
        if key in self._made:
            self._asked.add(key)
            return self._made[key]
        value = self._raw(key)
        if value is None:
            return None
        return resolve(value if isinstance(value, Spec) else parse_spec(value), role)

    def required(self, key: str, role: RoleName) -> Any:
        """As `nested`, but absence is a fault."""
        made = self.nested(key, role)
        if made is None:
            raise self.fault(f"{key}=(...) is missing: a {role} spec")
        return made

    def take_remaining(self) -> dict[str, str | Spec]:
        """All arguments that nobody asked for yet; afterwards they count as asked for."""
        left = {k: v for k, v in self.spec.args.items() if k not in self._asked}
        self._asked.update(left)
        return left

    def reject_unknown(self) -> None:
        """Raises SpecError for arguments that nobody asked for."""
        unknown = [k for k in self.spec.args if k not in self._asked]
        if unknown:
            raise self.fault(
                "; ".join(f"unknown argument {k!r}{did_you_mean(k, self._asked)}" for k in unknown)
            )


def list_kinds(role: RoleName) -> dict[str, str]:
    """Kind -> dotted path of its builder, plug-ins included."""
    table = dict(BUILDERS[role])
    for point in importlib.metadata.entry_points(group=f"truing.{role}"):
        table.setdefault(point.name, point.value)
    return table


def load_object(path: str) -> Any:
    """The object at ``package.module:name``; a missing optional package becomes `MissingExtra`."""
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        raise MissingExtra(extra, f"{module} (package {error.name})") from error


Wrap = Callable[[RoleName, Spec, Any], Any]
_shared: ContextVar[tuple[dict[tuple[str, str], Any], Wrap] | None] = ContextVar(
    "shared", default=None
)


@contextmanager
def share_instances(wrap: Wrap | None = None) -> Iterator[dict[tuple[str, str], Any]]:
    """Within it a spec is resolved once, however often it stands nested in others, and `wrap`ped once."""
    made: dict[tuple[str, str], Any] = {}
    token = _shared.set((made, wrap or (lambda role, spec, built: built)))
    try:
        yield made
    finally:
        _shared.reset(token)


def resolve(spec: str | Spec, role: RoleName, **made: Any) -> Any:
    """The object that a spec names in a role; `made` gives nested arguments as objects."""
    given = parse_spec(spec) if isinstance(spec, str) else spec
    shared = _shared.get()
    if shared is None or made:
        return _build(given, role, made)
    known, wrap = shared
    key = (role, str(given))
    if key not in known:
        known[key] = wrap(role, given, _build(given, role, made))
    return known[key]


def _build(given: Spec, role: RoleName, made: Mapping[str, Any]) -> Any:
    table = list_kinds(role)
    if given.kind not in table:
        raise SpecError(
            f"spec '{given}': there is no {role} of kind {given.kind!r}{did_you_mean(given.kind, table)}"
        )
    args = Args(given, made)
    built = load_object(table[given.kind])(args)
    args.reject_unknown()
    return built
