"""Which parts of headers, URLs and bodies count as secret."""

from __future__ import annotations

import pytest

from truing.core.redaction import (
    find_json_secrets,
    find_url_secrets,
    is_secret_name,
    redact_headers,
    redact_json,
    redact_url,
)


@pytest.mark.parametrize(
    "name",
    [
        "key",
        "api_key",
        "apiKey",
        "API-KEY",
        "x-api-key",
        "access_token",
        "accessToken",
        "sig",
        "password",
        "client_secret",
        "Authorization",
        "code",
        "AWSSecretAccessKey",
        "session-id",
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "model",
        "max_tokens",
        "tokens_key",
        "author",
        "monkey",
        "keyboard",
        "api-version",
        "n",
        "language_code",
        "stop",
        "passage",
        "assignment",
        "prompt_cache_key",
        "top_logprobs",
    ],
)
def test_names_of_settings(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/v1?api-version=2&api-key=abc", "https://h/v1?api-version=2&api-key=***"),
        ("https://h/v1?TOKEN=a%20b&x=1#f", "https://h/v1?TOKEN=***&x=1#f"),
        ("https://me:pw@h/v1", "https://h/v1"),
        ("h/chat?x=sk-0123456789abc", "h/chat?x=***"),
        ("https://h/v1?key=", "https://h/v1?key="),
        ("data-?.jsonl", "data-?.jsonl"),
    ],
)
def test_urls(url: str, shown: str) -> None:
    assert redact_url(url, {}) == shown
    assert redact_url(shown, {}) == shown


def test_the_parts_that_are_redacted_are_those_to_search_for() -> None:
    assert {s.reveal() for s in find_url_secrets("https://h?key=a%2Bb&n=1")} == {"a%2Bb", "a+b"}
    body = {
        "model": "m",
        "max_tokens": 5,
        "auth": {"user": "me", "password": "pw"},
        "session": "{{session}}",
        "items": [{"token": "t"}, "sk-0123456789abc"],
        "callback": "https://h/?sig=xyz",
    }
    assert redact_json(body, environment={}) == {
        "model": "m",
        "max_tokens": 5,
        "auth": {"user": "me", "password": "***"},
        "session": "{{session}}",
        "items": [{"token": "***"}, "***"],
        "callback": "https://h/?sig=***",
    }
    assert {s.reveal() for s in find_json_secrets(body)} == {"pw", "t", "sk-0123456789abc", "xyz"}


def test_a_value_that_a_shell_took_from_the_environment_is_a_secret() -> None:
    environment = {"TEAM_TOKEN": "abcdefgh1234", "HOME": "/home/some-one"}
    body = {"user": "abcdefgh1234", "place": "/home/some-one"}
    assert redact_json(body, environment=environment) == {"user": "***", "place": "/home/some-one"}


def test_only_headers_that_are_never_secret_are_shown() -> None:
    headers = {"User-Agent": "me", "X-Team": "blue", "Authorization": "Bearer x"}
    assert redact_headers(headers) == {
        "User-Agent": "me",
        "X-Team": "***",
        "Authorization": "***",
    }
