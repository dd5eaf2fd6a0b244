"""A model's `parameters:`: the sampling of each call, precedence, and validation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from adapter_truing import BagOfWordsEncoder

from truing.core.protocols import StreamingModel
from truing.core.types import Answer, Conversation, Lineage, Message, Sampling
from truing.rails.config.loader import RailsConfig
from truing.rails.config.parameters import (
    DefaultSampling,
    build_request_body,
    find_parameter_faults,
    with_default_sampling,
)
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.app import RuntimeParts

PARAMETERS = {"temperature": 0.7, "max_tokens": 33, "top_p": 0.9, "stop": ["END"]}
DIALOG = 'define user greet\n  "hello"\n\ndefine flow\n  user greet\n  bot answer greeting\n'


class RecordingModel:
    """Records the sampling of each call; knows the intent "greet" and one text."""

    name = "recording"
    lineage = Lineage(name="recording")

    def __init__(self) -> None:
        self.samplings: list[Sampling] = []
        self.closed = False

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        self.samplings.append(sampling)
        asks_for_intent = "canonical" in conversation.messages[-1].content
        text = "  greet" if asks_for_intent else '  "Good day."'
        return (Answer(message=Message("assistant", text)),)

    async def close(self) -> None:
        self.closed = True


class RecordingStreamingModel(RecordingModel):
    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        self.samplings.append(sampling)
        yield "Good day."


def _guard(model: RecordingModel, yaml: str, colang: str = "") -> GuardedModel:
    return GuardedModel(
        RailsConfig.from_text(yaml, colang),
        with_default_sampling(model, PARAMETERS),
        parts=RuntimeParts(encoder=BagOfWordsEncoder()),
    )


def _answer(guarded: GuardedModel, sampling: Sampling | None = None, **options: Any) -> Answer:
    request = sampling or Sampling(seed=5)
    return asyncio.run(guarded.answer(Conversation.of("hello"), request, **options))


# -- precedence ------------------------------------------------------------------------------------


def test_a_plain_answer_is_sampled_with_the_parameters() -> None:
    model = RecordingModel()
    _answer(_guard(model, "models: []"))
    (used,) = model.samplings
    assert (used.temperature, used.max_tokens, used.top_p, used.seed) == (0.7, 33, 0.9, 5)


def test_tasks_override_parameters_and_these_override_the_defaults() -> None:
    """As in NeMo: canonical forms are drawn at the lowest temperature, messages at the model's."""
    model = RecordingModel()
    answer = _answer(_guard(model, "lowest_temperature: 0.25", DIALOG))
    assert answer.text == "Good day."
    intent, message = model.samplings
    assert (intent.temperature, intent.max_tokens, intent.top_p) == (0.25, 33, 0.9)
    assert (message.temperature, message.max_tokens, message.top_p) == (0.7, 33, 0.9)


def test_a_self_check_keeps_the_length_of_its_prompt() -> None:
    model = RecordingModel()
    yaml = (
        "prompts:\n"
        "  - {task: self_check_input, content: 'canonical {{ user_input }}', max_tokens: 3}\n"
        "rails: {input: {flows: [self check input]}}"
    )
    _answer(_guard(model, yaml))
    assert (model.samplings[0].max_tokens, model.samplings[0].temperature) == (3, 0.001)


@pytest.mark.parametrize(
    ("sampling", "explicit_fields", "expected"),
    [
        (Sampling(), None, (0.7, 33)),
        (Sampling(temperature=0.2), None, (0.2, 33)),
        (Sampling(max_tokens=8), None, (0.7, 8)),
        (Sampling(), {"temperature"}, (0.0, 33)),
        (Sampling(temperature=0.2, max_tokens=512), set(), (0.7, 33)),
    ],
)
def test_the_request_overrides_the_parameters(
    sampling: Sampling, explicit_fields: set[str] | None, expected: tuple[float, int]
) -> None:
    """By name where the caller says what the request sets; else by what differs from defaults."""
    model = RecordingModel()
    _answer(_guard(model, "models: []"), sampling, explicit_fields=explicit_fields)
    assert (model.samplings[0].temperature, model.samplings[0].max_tokens) == expected


def test_generation_options_override_all() -> None:
    model = RecordingModel()
    options = {"llm_params": {"temperature": 1.5, "max_tokens": 4}}
    _answer(_guard(model, "models: []"), options=options)
    assert (model.samplings[0].temperature, model.samplings[0].max_tokens) == (1.5, 4)


def test_default_sampling_fills_in_unset_fields() -> None:
    parameters = {"seed": 9, "stop": "X", "max_completion_tokens": 7}
    defaults = DefaultSampling.from_parameters(parameters)
    assert defaults.apply_to(Sampling(), None) == Sampling(seed=9, stop=("X",), max_tokens=7)
    assert defaults.apply_to(Sampling(seed=4), None).seed == 4
    assert defaults.apply_to(Sampling(seed=0), {"seed"}).seed == 0


# -- wrapped models --------------------------------------------------------------------------------


def test_a_streaming_model_still_streams_and_closes() -> None:
    model = RecordingStreamingModel()
    guarded = _guard(model, "models: []")

    async def stream_and_close() -> str:
        stream = guarded.stream(Conversation.of("hello"), Sampling())
        text = "".join([chunk async for chunk in stream])
        await guarded.close()
        return text

    assert asyncio.run(stream_and_close()) == "Good day."
    assert model.closed
    assert model.samplings[0].max_tokens == 33


def test_the_wrapper_streams_only_if_the_model_does() -> None:
    assert isinstance(with_default_sampling(RecordingStreamingModel(), PARAMETERS), StreamingModel)
    assert not isinstance(with_default_sampling(RecordingModel(), PARAMETERS), StreamingModel)


def test_a_model_without_sampling_parameters_is_not_wrapped() -> None:
    model = RecordingModel()
    assert with_default_sampling(model, {"streaming": True, "timeout": 3}) is model


# -- validation ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"tempreture": 1}, "did you mean 'temperature'"),
        ({"temperature": "hot"}, "expected a number from 0 to 2, got 'hot'"),
        ({"temperature": 3}, "from 0 to 2"),
        ({"temperature": True}, "a number"),
        ({"temperature": float("nan")}, "a number"),
        ({"max_tokens": 0}, "a whole number from 1"),
        ({"max_tokens": 2.5}, "a whole number"),
        ({"top_p": 0}, "a number from"),
        ({"stop": 3}, "a string or a list of strings"),
        ({"stop": ["a", 1]}, "a string or a list of strings"),
        ({"n": 2}, "'n' of the model is not known"),
        ({"model_kwargs": "x"}, "expected a mapping"),
        ({"timeout": -1}, "a number from"),
        ({"streaming": "yes"}, "true or false"),
        ({"base_url": 4}, "a string"),
    ],
)
def test_wrong_parameters(parameters: dict[str, object], message: str) -> None:
    ((key, fault),) = find_parameter_faults(parameters, "openai")
    assert key in parameters
    assert message in fault


def test_the_engine_truing_takes_only_sampling() -> None:
    assert list(find_parameter_faults(PARAMETERS, "truing")) == []
    ((_, fault),) = find_parameter_faults({"base_url": "http://x"}, "truing")
    assert "set it in the spec" in fault


def test_the_request_body_merges_nested_parameters() -> None:
    parameters = {
        "temperature": 1,
        "frequency_penalty": 0.5,
        "reasoning_effort": None,
        "extra_body": {"top_k": 3},
        "model_kwargs": {"user": "me"},
    }
    assert build_request_body(parameters) == {"frequency_penalty": 0.5, "top_k": 3, "user": "me"}
