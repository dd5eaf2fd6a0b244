"""A model's parameters in a configuration: what each call is drawn with, who goes before whom, what is wrong with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from adapter_truing import BagOfWordsEncoder

from truing.core.errors import PlanError
from truing.core.protocols import StreamingModel
from truing.core.types import Answer, Conversation, Lineage, Message, Sampling
from truing.rails.config.loader import RailsConfig
from truing.rails.config.models import build_model_spec
from truing.rails.config.parameters import (
    DefaultSampling,
    find_parameter_faults,
    with_default_sampling,
)
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.app import RuntimeParts
from truing.rails.static.check import check_rails_config

GIVEN = {"temperature": 0.7, "max_tokens": 33, "top_p": 0.9, "stop": ["END"]}
DIALOG = 'define user greet\n  "hello"\n\ndefine flow\n  user greet\n  bot answer greeting\n'


class Ear:
    """Says a text and keeps what it was asked with."""

    name = "ear"
    lineage = Lineage(name="ear")

    def __init__(self) -> None:
        self.heard: list[tuple[str, Sampling]] = []
        self.closed = False

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        prompt = conversation.messages[-1].content
        self.heard.append((prompt, sampling))
        return (
            Answer(
                message=Message(
                    "assistant", "  greet" if "canonical" in prompt else '  "Good day."'
                )
            ),
        )

    async def close(self) -> None:
        self.closed = True


class Speaking(Ear):
    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        self.heard.append((conversation.messages[-1].content, sampling))
        yield "Good day."


def _ask(
    ear: Ear, yaml: str, colang: str = "", sampling: Sampling | None = None, **more: object
) -> Answer:
    bot = GuardedModel(
        RailsConfig.from_text(yaml, colang),
        with_default_sampling(ear, GIVEN),
        parts=RuntimeParts(encoder=BagOfWordsEncoder()),
    )
    return asyncio.run(bot.answer(Conversation.of("hello"), sampling or Sampling(seed=5), **more))  # type: ignore[arg-type]


def test_a_plain_answer_is_drawn_with_the_parameters() -> None:
    ear = Ear()
    _ask(ear, "models: []")
    ((_, used),) = ear.heard
    assert (used.temperature, used.max_tokens, used.top_p, used.seed) == (0.7, 33, 0.9, 5)


def test_a_task_goes_before_the_parameters_and_these_before_the_defaults() -> None:
    """As in NeMo: canonical forms are drawn at the lowest temperature, messages at the model's."""
    ear = Ear()
    said = _ask(ear, "lowest_temperature: 0.25", DIALOG)
    assert said.text == "Good day."
    form, message = (s for _, s in ear.heard)
    assert (form.temperature, form.max_tokens, form.top_p) == (0.25, 33, 0.9)
    assert (message.temperature, message.max_tokens, message.top_p) == (0.7, 33, 0.9)


def test_a_self_check_keeps_its_own_length() -> None:
    ear = Ear()
    prompts = "prompts: [{task: self_check_input, content: 'canonical {{ user_input }}', max_tokens: 3}]\n"
    _ask(ear, prompts + "rails: {input: {flows: [self check input]}}")
    assert (ear.heard[0][1].max_tokens, ear.heard[0][1].temperature) == (3, 0.001)


@pytest.mark.parametrize(
    ("sampling", "asked", "want"),
    [
        (Sampling(), None, (0.7, 33)),
        (Sampling(temperature=0.2), None, (0.2, 33)),
        (Sampling(max_tokens=8), None, (0.7, 8)),
        (Sampling(), {"temperature"}, (0.0, 33)),
        (Sampling(temperature=0.2, max_tokens=512), set(), (0.7, 33)),
    ],
)
def test_the_request_goes_before_the_parameters(
    sampling: Sampling, asked: set[str] | None, want: tuple[float, int]
) -> None:
    """By name where the door says what was asked for; else by what differs from the defaults."""
    ear = Ear()
    _ask(ear, "models: []", sampling=sampling, explicit_fields=asked)
    assert (ear.heard[0][1].temperature, ear.heard[0][1].max_tokens) == want


def test_options_of_a_request_go_before_all() -> None:
    ear = Ear()
    _ask(ear, "models: []", options={"llm_params": {"temperature": 1.5, "max_tokens": 4}})
    assert (ear.heard[0][1].temperature, ear.heard[0][1].max_tokens) == (1.5, 4)


def test_it_streams_and_closes_where_the_model_does() -> None:
    ear = Speaking()
    bot = GuardedModel(
        RailsConfig.from_text("models: []"),
        with_default_sampling(ear, GIVEN),
        parts=RuntimeParts(encoder=BagOfWordsEncoder()),
    )

    async def go() -> str:
        said = "".join([piece async for piece in bot.stream(Conversation.of("hello"), Sampling())])
        await bot.close()
        return said

    assert asyncio.run(go()) == "Good day." and ear.closed
    assert ear.heard[0][1].max_tokens == 33
    assert not isinstance(with_default_sampling(Ear(), GIVEN), StreamingModel)
    assert with_default_sampling(ear, {"streaming": True, "timeout": 3}) is ear


def test_a_seed_and_a_single_stop() -> None:
    own = DefaultSampling.from_parameters({"seed": 9, "stop": "X", "max_completion_tokens": 7})
    assert own.apply_to(Sampling(), None) == Sampling(seed=9, stop=("X",), max_tokens=7)
    assert own.apply_to(Sampling(seed=4), None).seed == 4
    assert own.apply_to(Sampling(seed=0), {"seed"}).seed == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tempreture": 1}, "did you mean 'temperature'"),
        ({"temperature": "hot"}, "expected a number from 0 to 2, got 'hot'"),
        ({"temperature": 3}, "from 0 to 2"),
        ({"temperature": True}, "a number"),
        ({"temperature": float("nan")}, "a number"),
        ({"max_tokens": 0}, "a whole number from 1"),
        ({"max_tokens": 2.5}, "a whole number"),
        ({"top_p": 0}, "a number from"),
        ({"stop": 3}, "a text or a list of texts"),
        ({"stop": ["a", 1]}, "a text or a list of texts"),
        ({"n": 2}, "'n' of the model is not known"),
        ({"model_kwargs": "x"}, "expected keys"),
        ({"timeout": -1}, "a number from"),
        ({"streaming": "yes"}, "true or false"),
        ({"base_url": 4}, "a text"),
    ],
)
def test_wrong_parameters(given: dict[str, object], said: str) -> None:
    ((key, what),) = find_parameter_faults(given, "openai")
    assert key in given and said in what


def test_the_engine_truing_takes_sampling_alone() -> None:
    assert list(find_parameter_faults(GIVEN, "truing")) == []
    ((_, what),) = find_parameter_faults({"base_url": "http://x"}, "truing")
    assert "takes it in the spec" in what


def test_check_gives_every_fault_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(
        "models:\n  - type: main\n    engine: truing\n    model: scripted:echo\n    parameters:\n"
        "      temperature: hot\n      max_token: 30\n  - {type: self_check_input, engine: opanai, model: x}\n"
        "  - {type: embeddings, engine: FastEmbed, model: y, parameters: {device: cpu}}\n"
    )
    report = check_rails_config(tmp_path)
    assert [str(f).split(", got")[0] for f in report.findings] == [
        "config.yml:6: error: parameters.temperature: expected a number from 0 to 2",
        "config.yml:7: error: the parameter 'max_token' of the model is not known; did you mean 'max_tokens'?",
        "config.yml:8: warning: the engine 'opanai' is not known; did you mean 'openai'? (engine: truing takes any truing spec)",
    ]
    config = RailsConfig.load(tmp_path)
    with pytest.raises(PlanError) as caught:
        build_model_spec(config.models[0], config)
    assert len(caught.value.faults) == 2 and caught.value.faults[0].startswith("config.yml:6")
