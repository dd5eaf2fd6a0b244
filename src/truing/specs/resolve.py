"""Builds objects from spec strings.

A builder is a function from `Args` to the object. Built-in builders are listed in `builders.py`;
plug-ins register theirs as entry points in the groups ``truing.model``, ``truing.judge``, ...

Only the outer layers (`truing.plan`, `truing.cli`, `truing.serve`) resolve specs; all other
functions take objects.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeVar, overload

from truing.core.errors import SpecError, did_you_mean
from truing.core.secret import Secret
from truing.specs.builders import BUILDERS
from truing.specs.extras import needs_extra
from truing.specs.keys import OPENAI_VARIABLE, resolve_api_key
from truing.specs.parser import Spec, parse_spec, redact_spec_text
from truing.specs.suggestions import suggest_spec

RoleName = Literal["model", "judge", "data", "attack", "aligner", "rail"]
T = TypeVar("T")


class Args:
    """The name and the arguments of a spec, for its builder.

    Each read converts an argument and marks it as known; after the builder, `reject_unknown` raises
    for the others. `objects` holds nested arguments that are given as objects instead of specs.
    """

    def __init__(self, spec: Spec, objects: Mapping[str, Any] | None = None) -> None:
        self.spec = spec
        self._read: set[str] = set()
        self._objects = objects or {}

    @property
    def name(self) -> str:
        """The name: the part after the colon, with any secret in it."""
        return self.spec.name if self.spec.address is None else self.spec.address.reveal()

    def _raw(self, key: str) -> Any:
        self._read.add(key)
        value = self.spec.args.get(key)
        return value.reveal() if isinstance(value, Secret) else value

    def fault(self, what: str) -> SpecError:
        """Returns a SpecError whose message shows the spec."""
        return SpecError(f"spec '{self.spec}': {what}")

    @overload
    def text(self, key: str) -> str | None: ...
    @overload
    def text(self, key: str, default: str) -> str: ...
    def text(self, key: str, default: str | None = None) -> str | None:
        """Returns a text argument."""
        value = self._raw(key)
        if isinstance(value, Spec):
            raise self.fault(f"{key} is text, not a nested spec")
        return default if value is None else str(value)

    def _convert(self, key: str, convert: Callable[[str], T], type_name: str) -> T | None:
        value = self.text(key)
        if value is None:
            return None
        try:
            return convert(value)
        except ValueError as error:
            raise self.fault(f"{key}={redact_spec_text(value)!r} is not {type_name}") from error

    @overload
    def integer(self, key: str) -> int | None: ...
    @overload
    def integer(self, key: str, default: int) -> int: ...
    def integer(self, key: str, default: int | None = None) -> int | None:
        """Returns an integer argument."""
        value = self._convert(key, int, "a whole number")
        return default if value is None else value

    @overload
    def number(self, key: str) -> float | None: ...
    @overload
    def number(self, key: str, default: float) -> float: ...
    def number(self, key: str, default: float | None = None) -> float | None:
        """Returns a number argument."""
        value = self._convert(key, float, "a number")
        return default if value is None else value

    def flag(self, key: str, default: bool = False) -> bool:
        """Returns a boolean argument: true/false, yes/no or 1/0."""
        value = self.text(key)
        if value is None:
            return default
        if value.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise self.fault(f"{key}={value!r} is neither true nor false")
        return value.lower() in ("true", "yes", "1")

    def api_key(self, base_url: str, *, default: str | None = OPENAI_VARIABLE) -> Secret | None:
        """Returns the API key for requests to `base_url` (`truing.specs.keys.resolve_api_key`).

        Reads `api_key_env=NAME`, the name of an environment variable, and `allow_http=`: specs are
        stored and printed, so they must not contain the secret itself.
        """
        if "api_key" in self.spec.args:
            # Not self.fault(): its message would show the spec, and with it the secret.
            raise SpecError(
                f"spec of kind {self.spec.kind!r}: a spec must not contain secrets; "
                "use api_key_env=NAME"
            )
        variable, allow_http = self.text("api_key_env"), self.flag("allow_http")
        try:
            return resolve_api_key(variable, base_url, default=default, allow_http=allow_http)
        except SpecError as error:
            raise self.fault(str(error)) from error

    def nested(self, key: str, role: RoleName) -> Any:
        """Returns the object of a nested spec `key=(...)`, or None if the argument is absent."""
        if key in self._objects:
            self._read.add(key)
            return self._objects[key]
        value = self._raw(key)
        if value is None:
            return None
        return resolve(value if isinstance(value, Spec) else parse_spec(value), role)

    def required(self, key: str, role: RoleName) -> Any:
        """Like `nested`, but raises SpecError if the argument is absent."""
        nested_object = self.nested(key, role)
        if nested_object is None:
            raise self.fault(f"{key}=(...) is missing: a {role} spec")
        return nested_object

    def take_remaining(self) -> dict[str, str | Spec]:
        """Returns all arguments that were not read yet, and marks them as read."""
        return {k: self._raw(k) for k in self.spec.args if k not in self._read}

    def reject_unknown(self) -> None:
        """Raises SpecError for arguments that were not read."""
        unknown = [k for k in self.spec.args if k not in self._read]
        if unknown:
            raise self.fault(
                "; ".join(f"unknown argument {k!r}{did_you_mean(k, self._read)}" for k in unknown)
            )


def list_kinds(role: RoleName) -> dict[str, str]:
    """Returns the kinds of a role with the dotted paths of their builders, plug-ins included."""
    builders = dict(BUILDERS[role])
    for point in importlib.metadata.entry_points(group=f"truing.{role}"):
        builders.setdefault(point.name, point.value)
    return builders


def load_object(path: str) -> Any:
    """Imports the object at ``package.module:name``.

    Raises MissingExtra if an optional package that it needs is not installed.
    """
    module, _, attribute = path.partition(":")
    with needs_extra(module):
        return getattr(importlib.import_module(module), attribute)


Wrap = Callable[[RoleName, Spec, Any], Any]
"""Takes the role, the spec and the built object; returns the object to use in its place."""

InstanceCache = dict[tuple[str, str], Any]
_shared_instances: ContextVar[tuple[InstanceCache, Wrap] | None] = ContextVar(
    "shared", default=None
)


@contextmanager
def share_instances(wrap: Wrap | None = None) -> Iterator[InstanceCache]:
    """Builds each distinct spec only once within the context, also where it is nested in others.

    A model that several parts of a plan name is so loaded once. `wrap` is applied to each new
    object.
    """
    instances: InstanceCache = {}
    token = _shared_instances.set((instances, wrap or (lambda role, spec, built: built)))
    try:
        yield instances
    finally:
        _shared_instances.reset(token)


def resolve(spec: str | Spec, role: RoleName, **objects: Any) -> Any:
    """Builds the object that a spec describes in a role.

    `objects` are values for nested arguments (`of=model`); such a result is never shared.
    """
    parsed = _parse(spec, role) if isinstance(spec, str) else spec
    shared = _shared_instances.get()
    if shared is None or objects:
        return _build(parsed, role, objects)
    instances, wrap = shared
    # With its secrets: two specs that differ in a header are two objects.
    key = (role, parsed.reveal())
    if key not in instances:
        instances[key] = wrap(role, parsed, _build(parsed, role, objects))
    return instances[key]


def _parse(text: str, role: RoleName) -> Spec:
    """Parses a spec; the error for a hub id or a path (`Qwen/NAME`) suggests the spec for it."""
    try:
        return parse_spec(text)
    except SpecError as error:
        raise SpecError(f"{error}{suggest_spec(text, role)}") from error


def check_kind(spec: str | Spec, role: RoleName) -> Spec:
    """Returns a parsed spec. Raises SpecError if it is malformed or nothing has its kind.

    Builds nothing, so that a wrong name is told before weights are loaded.
    """
    parsed = _parse(spec, role) if isinstance(spec, str) else spec
    builders = list_kinds(role)
    if parsed.kind not in builders:
        suggestion = suggest_spec(str(parsed).replace('"', ""), role) or did_you_mean(
            parsed.kind, builders
        )
        raise SpecError(f"spec '{parsed}': there is no {role} of kind {parsed.kind!r}{suggestion}")
    return parsed


def _build(spec: Spec, role: RoleName, objects: Mapping[str, Any]) -> Any:
    check_kind(spec, role)
    args = Args(spec, objects)
    built = load_object(list_kinds(role)[spec.kind])(args)
    args.reject_unknown()
    return built
