"""State of the pages: rate limits, names of models, CSRF tokens."""

from __future__ import annotations

import pytest

from truing.annotation.store import RequestRejected, open_store
from truing.models.scripted import ScriptedModel
from truing.serve.annotation.app_state import AppState, name_models
from truing.serve.throttling import Throttle


def test_a_throttle_refills() -> None:
    seconds = [0.0]
    throttle = Throttle(2, clock=lambda: seconds[0])
    throttle.check("a"), throttle.check("a")
    with pytest.raises(RequestRejected, match="Too many requests"):
        throttle.check("a")
    seconds[0] += 31  # two tokens a minute: one after 30 s
    throttle.check("a")
    with pytest.raises(RequestRejected, match="^Too many requests"):
        throttle.check("a")


def test_a_throttle_forgets_the_least_recently_seen_key() -> None:
    throttle = Throttle(1, max_keys=3, clock=lambda: 0.0)
    for key in "abcd":
        throttle.check(key)
    throttle.check("a")  # forgotten when "d" came, so its bucket is full again
    with pytest.raises(RequestRejected, match="^Too many requests"):
        throttle.check("d")


def test_keys_have_buckets_of_their_own() -> None:
    throttle = Throttle(1, clock=lambda: 0.0)
    throttle.check("a"), throttle.check("b")
    with pytest.raises(RequestRejected, match="^Too many requests"):
        throttle.check("a")


def test_models_with_one_name_get_numbers() -> None:
    models = [
        ScriptedModel("a", name="m"),
        ScriptedModel("b", name="m"),
        ScriptedModel("c", name="m"),
    ]
    assert list(name_models(models)) == ["m", "m (2)", "m (3)"]


def test_csrf_tokens_depend_on_session_and_server(file_url: str) -> None:
    store = open_store(file_url)
    state, restarted = AppState(store), AppState(store)
    token = state.form_token("session-1")
    assert len(token) == 40 and token == restarted.form_token("session-1")
    assert token != state.form_token("session-2")
    store.close()
