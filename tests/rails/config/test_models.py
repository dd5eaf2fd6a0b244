"""The specs of the models that a configuration names, and faults with their place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from truing.core.errors import PlanError
from truing.rails.config.loader import RailsConfig
from truing.rails.config.models import (
    build_model,
    build_model_spec,
    build_task_models,
    find_engine_fault,
    find_entry_faults,
)
from truing.specs.parser import Spec


def _load(entry: str) -> RailsConfig:
    return RailsConfig.from_text(f"models:\n  - {{{entry}}}\n")


def _build_spec(entry: str) -> Spec | str:
    config = _load(entry)
    return build_model_spec(config.models[0], config)


@pytest.mark.parametrize(
    ("entry", "arguments"),
    [
        ("type: main, engine: openai, model: m", {}),
        (
            "type: main, engine: openai, model: m, api_key_env_var: MY_KEY",
            {"api_key_env": "MY_KEY"},
        ),
        (
            "type: main, engine: ollama, model: m",
            {"base_url": "http://localhost:11434/v1"},
        ),
        (
            "type: main, engine: groq, model: m",
            {"base_url": "https://api.groq.com/openai/v1", "api_key_env": "GROQ_API_KEY"},
        ),
        (
            "type: main, engine: groq, model: m, parameters: {api_base: 'http://x', api_key: none}",
            {"base_url": "http://x"},
        ),
        (
            "type: main, engine: vllm, model: m, "
            "parameters: {base_url: 'http://x/v1', request_timeout: 7, max_retries: 2}",
            {"base_url": "http://x/v1", "timeout": "7", "retries": "2"},
        ),
        (
            "type: main, engine: azure, model: gpt, "
            "parameters: {azure_endpoint: 'https://x.openai.azure.com/', deployment_name: m}",
            {
                "base_url": "https://x.openai.azure.com/openai/v1",
                "api_key_env": "AZURE_OPENAI_API_KEY",
            },
        ),
        (
            "type: main, engine: anthropic, model: m",
            {"base_url": "https://api.anthropic.com/v1", "api_key_env": "ANTHROPIC_API_KEY"},
        ),
        (
            "type: main, engine: vertexai, model: m, api_key_env_var: TOKEN, "
            "parameters: {project: p, location: us-east1}",
            {
                "base_url": "https://us-east1-aiplatform.googleapis.com/v1/projects/p/locations/"
                "us-east1/endpoints/openapi",
                "api_key_env": "TOKEN",
            },
        ),
        (
            "type: main, engine: bedrock, model: m, parameters: {region_name: eu-west-1}",
            {
                "base_url": "https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1",
                "api_key_env": "AWS_BEARER_TOKEN_BEDROCK",
            },
        ),
        (
            "type: main, engine: huggingface_endpoint, model: m, "
            "parameters: {endpoint_url: 'https://x.endpoints.huggingface.cloud'}",
            {"base_url": "https://x.endpoints.huggingface.cloud/v1"},
        ),
        (
            "type: main, engine: bedrock, model: m, parameters: {region_name: 'x.attacker.example/'}",
            {"base_url": "https://bedrock-runtime.x.attacker.example/.amazonaws.com/openai/v1"},
        ),
    ],
)
def test_arguments_of_endpoints(entry: str, arguments: dict[str, str]) -> None:
    assert _build_spec(entry) == Spec("openai", "m", arguments)


def test_parameters_of_the_request_body_are_json() -> None:
    spec = _build_spec(
        "type: main, engine: openai, model: m, parameters: {presence_penalty: 1, temperature: 0.5}"
    )
    assert isinstance(spec, Spec)
    assert json.loads(spec.args["body"]) == {"presence_penalty": 1}


def test_the_engine_truing_passes_its_spec_on() -> None:
    assert _build_spec("type: main, engine: truing, model: 'scripted:echo'") == "scripted:echo"


def test_task_models_leave_out_main_embeddings_and_excluded_tasks() -> None:
    config = RailsConfig.from_text(
        "models:\n"
        "  - {type: main, engine: truing, model: 'scripted:mixed'}\n"
        "  - {type: embeddings, engine: FastEmbed, model: x}\n"
        "  - {type: self_check_input, engine: truing, model: 'scripted:refuse'}\n"
        "  - {type: content_safety, engine: truing, model: 'scripted:echo'}\n"
    )
    assert list(build_task_models(config)) == ["self_check_input", "content_safety"]
    assert list(build_task_models(config, ["content_safety"])) == ["self_check_input"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("type: main, engine: opanai, model: m", "did you mean 'openai'"),
        ("type: main, engine: vllm_openai, model: m", "needs parameters: base_url"),
    ],
)
def test_engine_faults(entry: str, message: str) -> None:
    fault = find_engine_fault(_load(entry).models[0])
    assert fault is not None
    assert message in fault


def test_all_faults_of_an_entry_have_their_line(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(
        "models:\n"
        "  - type: main\n"
        "    engine: vllm\n"
        "    model: m\n"
        "    parameters:\n"
        "      temperature: hot\n"
        "      api_key: sk-123\n"
    )
    config = RailsConfig.load(tmp_path)
    with pytest.raises(PlanError) as caught:
        build_model_spec(config.models[0], config)
    places = [fault.split(": ")[0] for fault in caught.value.faults]
    assert places == ["config.yml:2", "config.yml:6", "config.yml:7"]
    assert "sk-123" not in str(caught.value)


@pytest.mark.parametrize("placeholder", ["none", "EMPTY", "not-needed"])
def test_placeholders_are_no_secret_keys(placeholder: str) -> None:
    config = _load(f"type: main, engine: openai, model: m, parameters: {{api_key: {placeholder}}}")
    assert list(find_entry_faults(config.models[0], config)) == []


def test_models_without_a_chat_api_are_asked_for_completions() -> None:
    config = RailsConfig.from_text(
        "models:\n"
        "  - {type: main, engine: openai, model: gpt-3.5-turbo-instruct}\n"
        "  - {type: a, engine: vllm_openai, model: m, mode: text, parameters: {base_url: 'http://h/v1'}}\n"
        "  - {type: b, engine: openai, model: gpt-4o-mini}\n"
    )
    apis = [
        spec.reveal_values().get("api")
        for spec in (build_model_spec(entry, config) for entry in config.models)
        if not isinstance(spec, str)
    ]
    assert apis == ["completions", "completions", None]


def test_verdicts_of_guard_models_are_cached_where_the_entry_says_so() -> None:
    config = RailsConfig.from_text(
        "models:\n"
        "  - {type: guard, engine: truing, model: 'scripted:echo', cache: {enabled: true}}\n"
        "  - {type: main, engine: truing, model: 'scripted:echo', cache: {enabled: true}}\n"
        "  - {type: other, engine: truing, model: 'scripted:echo', cache: {enabled: false}}\n"
    )
    kinds = [type(build_model(entry, config)).__name__ for entry in config.models]
    assert kinds == ["VerdictCache", "ScriptedModel", "ScriptedModel"]
    with pytest.raises(PlanError, match="cache.maxsize is at least 1"):
        RailsConfig.from_text(
            "models: [{type: g, engine: truing, model: x, cache: {enabled: true, maxsize: -1}}]"
        )
    with pytest.raises(PlanError, match="chat or text"):
        RailsConfig.from_text("models: [{type: g, engine: truing, model: x, mode: voice}]")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("engine: trt_llm, model: m", "the engine 'trt_llm' has an API of its own; NVIDIA's NIM"),
        ("engine: hf_pipeline_bloke, model: m", "runs a model in NeMo's process; serve it"),
        ("engine: azure, model: m", "needs parameters: azure_endpoint: https://NAME"),
        ("engine: vertexai, model: m, parameters: {project: p}", "project: NAME and location:"),
        ("engine: bedrock, model: m", "needs parameters: region_name: REGION"),
        ("engine: litellm, model: m", "needs parameters: base_url: http://HOST:PORT/v1"),
    ],
)
def test_engines_that_are_refused_say_what_to_do(
    entry: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_OPENAI_ENDPOINT", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    config = _load(f"type: main, {entry}")
    fault = find_engine_fault(config.models[0])
    assert fault is not None and message in fault


def test_a_parameter_of_an_engine_is_no_field_of_a_request() -> None:
    azure = "azure_endpoint: 'https://x.openai.azure.com', api_version: '2024-02-01'"
    spec = _build_spec(f"type: main, engine: azure, model: m, parameters: {{{azure}}}")
    assert isinstance(spec, Spec) and "body" not in spec.reveal_values()
    config = _load(f"type: main, engine: openai, model: m, parameters: {{{azure}}}")
    faults = [message for _, message in find_entry_faults(config.models[0], config)]
    assert len(faults) == 2 and "azure_endpoint" in faults[0]
