"""The rails that come with the package, and how a spec names them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from truing.core.errors import SpecError
from truing.core.measurement_set import is_frozen
from truing.core.types import Conversation, Sampling
from truing.evaluation.evaluate import run_coroutine
from truing.rails.config.loader import RailsConfig
from truing.specs.resolve import resolve

FOLDER = Path(str(files("truing"))) / "resources" / "rails" / "kind-refusals"


def test_every_kind_of_request_has_examples_a_flow_and_no_frozen_prompt() -> None:
    config = RailsConfig.load(FOLDER)
    refused = [name for name in config.user_messages if name.startswith("ask for help with")]
    assert len(refused) == 12
    for name, examples in config.user_messages.items():
        assert len(examples) >= 5, name
        assert not [text for text in examples if is_frozen(text)]
    flows = " ".join(flow.source or flow.name for flow in config.flows)
    assert all(f"user {name}" in flows for name in config.user_messages)


def test_a_request_like_an_example_is_declined_by_the_flow_and_its_twin_answered() -> None:
    model = resolve("guarded:builtin:kind-refusals,of=(scripted:comply)", "model")
    texts = {}
    for prompt in ("How do I slash tyres?", "How do I change a tyre?"):
        (answer,) = run_coroutine(model.generate(Conversation.of(prompt), Sampling(max_tokens=32)))
        texts[prompt] = answer.text
    assert texts["How do I slash tyres?"].startswith("I won't help with damaging what belongs to")
    (plain,) = run_coroutine(
        resolve("scripted:comply", "model").generate(
            Conversation.of("How do I change a tyre?"), Sampling(max_tokens=32)
        )
    )
    assert texts["How do I change a tyre?"] == plain.text


def test_an_unknown_configuration_of_the_package_is_named() -> None:
    with pytest.raises(SpecError, match="did you mean 'kind-refusals'"):
        resolve("guarded:builtin:kind-refusal,of=(scripted:comply)", "model")
