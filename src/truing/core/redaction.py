"""Which parts of headers, URLs and JSON bodies are secret, and their redacted forms."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote_plus

from truing.core.secret import REDACTED, Secret

# Headers whose values are no secrets; every other header of a spec is taken for one.
_OPEN_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "anthropic-beta",
        "anthropic-version",
        "cache-control",
        "content-type",
        "openai-beta",
        "user-agent",
    }
)
_SECRET_WORDS = frozenset(
    {
        *("apikey", "key", "token", "secret", "password", "passwd", "passphrase", "pwd", "pat"),
        *("auth", "authorisation", "authorization", "bearer", "credential", "credentials", "jwt"),
        *("cookie", "session", "sessionid", "sid", "sig", "signature"),
    }
)
# Names with a secret word whose values are none.
_OPEN_NAMES = frozenset(
    {"auth_header", "tokens_key", "prompt_cache_key", "pad_token", "stop_token"}
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_KNOWN_PREFIX = re.compile(
    r"(?:Bearer |Basic |sk-|gsk_|hf_|nvapi-|xox[abprs]-|gh[pousr]_|github_pat_|glpat-|AKIA|AIza|"
    r"eyJ)"
    r"[A-Za-z0-9_.+/=-]{8,}"
)
_PLACEHOLDER = re.compile(r"\{\{\w+\}\}")
_QUERY = re.compile(r"([?&;])([^?=&;#\s]*)=([^&;#\s]*)")
_USERINFO = re.compile(r"(?<=://)[^/?#\s@]+@")
_MIN_ENVIRONMENT_CHARS = 8


def is_secret_header(name: str) -> bool:
    """Whether the value of a header must not be shown."""
    return name.strip().lower() not in _OPEN_HEADERS


def is_secret_name(name: str) -> bool:
    """Whether a query parameter, a key of a body or an argument of this name holds a secret."""
    if name.lower().replace("-", "_") in _OPEN_NAMES:
        return False
    words = [word.lower() for word in _WORD.findall(name)]
    if words == ["code"]:  # the key of an Azure function; `language_code` is none
        return True
    return not _SECRET_WORDS.isdisjoint(words) or "apikey" in "".join(words)


def is_secret_value(value: str, environment: Mapping[str, str]) -> bool:
    """Whether a text is a secret by its form, or by being a secret variable of the environment."""
    if _KNOWN_PREFIX.match(value):
        return True
    # A shell has put `$MY_KEY` into the spec.
    return len(value) >= _MIN_ENVIRONMENT_CHARS and any(
        value == content and is_secret_name(name) for name, content in environment.items()
    )


def redact_url(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Returns the URL, or a text that contains one, without user, password and secret parameters.

    An empty `environment` makes the result the same everywhere (for hashes).
    """

    def redact_parameter(match: re.Match[str]) -> str:
        mark, name, value = match.groups()
        return f"{mark}{name}={_redact(unquote_plus(name), value, environment)}"

    return _QUERY.sub(redact_parameter, _USERINFO.sub("", text))


def find_url_secrets(text: str) -> Iterator[Secret]:
    """Yields the secret parameters of a URL, as written and decoded."""
    for _, name, value in _QUERY.findall(text):
        if _redact(unquote_plus(name), value, os.environ) != value:
            yield Secret.of(value)
            yield Secret.of(unquote_plus(value))


def _redact(name: str, written: str, environment: Mapping[str, str]) -> str:
    return REDACTED if _is_secret(name, unquote_plus(written), environment) else written


def redact_json(value: Any, name: str = "", environment: Mapping[str, str] = os.environ) -> Any:
    """Returns a JSON value with ``***`` for the secrets in it, at any depth (see `redact_url`)."""
    if isinstance(value, dict):
        return {key: redact_json(item, str(key), environment) for key, item in value.items()}
    if isinstance(value, list):
        return [redact_json(item, name, environment) for item in value]
    if not isinstance(value, str):
        return value
    if _is_secret(name, value, environment):
        return REDACTED
    return redact_url(value, environment)


def find_json_secrets(value: Any, name: str = "") -> Iterator[Secret]:
    """Yields the secrets in a JSON value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from find_json_secrets(item, str(key))
    elif isinstance(value, list):
        for item in value:
            yield from find_json_secrets(item, name)
    elif isinstance(value, str) and _is_secret(name, value, os.environ):
        yield Secret.of(value)
    elif isinstance(value, str):
        yield from find_url_secrets(value)


def _is_secret(name: str, value: str, environment: Mapping[str, str]) -> bool:
    # A placeholder such as `{{session}}` is filled in for each request.
    if not value or _PLACEHOLDER.fullmatch(value):
        return False
    return is_secret_name(name) or is_secret_value(value, environment)


def redact_headers(headers: dict[str, Any]) -> dict[str, Any]:
    """Returns headers with ``***`` for the value of each that may hold a secret."""
    return {k: REDACTED if is_secret_header(k) else v for k, v in headers.items()}
