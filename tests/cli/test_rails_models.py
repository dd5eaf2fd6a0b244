"""The main model of a rails configuration, and its faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from truing.cli.rails_models import load_main_model
from truing.core.errors import PlanError, SpecError, UserError
from truing.rails.config.loader import RailsConfig
from truing.rails.config.models import build_model_spec, build_task_models
from truing.specs.parser import Spec


def parse_config(models: str) -> RailsConfig:
    return RailsConfig.from_text(models)


def test_an_openai_entry_becomes_an_openai_spec(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_KEY", "not-shown")
    (tmp_path / "config.yml").write_text(
        "models:\n  - type: main\n    engine: openai\n    model: some-model\n    api_key_env_var: MY_KEY\n"
        "    parameters:\n      openai_api_base: http://localhost:9/v1\n      request_timeout: 7\n"
        "      frequency_penalty: 0.5\n"
    )
    config = RailsConfig.load(tmp_path)
    spec = build_model_spec(config.models[0], config)
    assert isinstance(spec, Spec)
    assert spec.args["base_url"] == "http://localhost:9/v1"
    assert spec.args["api_key_env"] == "MY_KEY"
    assert spec.args["timeout"] == "7"
    assert json.loads(spec.args["body"]) == {"frequency_penalty": 0.5}
    with pytest.raises(PlanError, match=r"config.yml:5: sends the environment variable MY_KEY"):
        load_main_model(tmp_path)
    assert load_main_model(tmp_path, key_variables=["MY_KEY"]).name == "openai:some-model"
    monkeypatch.setenv("TRUING_RAILS_KEY_VARIABLES", "OTHER, MY_KEY")
    model = load_main_model(tmp_path)
    assert model.name == "openai:some-model"
    assert "not-shown" not in str(spec) + str(model.lineage)


def test_plain_http_needs_the_word_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "a-key-for-the-lab")
    yaml = (
        "models:\n  - type: main\n    engine: openai\n    model: m\n    api_key_env_var: MY_KEY\n"
        "    parameters: {base_url: 'http://lab.example/v1'ALLOW}\n"
    )
    for allow in ("", ", allow_http: false"):
        config = RailsConfig.from_text(yaml.replace("ALLOW", allow), trust_code=True)
        with pytest.raises(UserError, match="over plain http"):
            load_main_model(config)
    config = RailsConfig.from_text(yaml.replace("ALLOW", ", allow_http: true"), trust_code=True)
    assert load_main_model(config).name == "openai:m"


def test_the_engine_truing_takes_any_spec() -> None:
    config = parse_config(
        "models:\n  - {type: main, engine: truing, model: 'scripted:mixed'}\n"
        "  - {type: self_check_input, engine: truing, model: 'scripted:refuse'}\n"
        "  - {type: embeddings, engine: FastEmbed, model: all-MiniLM-L6-v2}\n"
    )
    assert load_main_model(config).name.startswith("scripted")
    assert list(build_task_models(config)) == ["self_check_input"]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("models: []", "no model of type main"),
        ("models: [{type: main, engine: opanai, model: x}]", "did you mean 'openai'"),
        ("models: [{type: main, engine: vllm_openai, model: x}]", "needs parameters: base_url"),
        (
            "models: [{type: main, engine: openai, model: x, parameters: {api_key: abc}}]",
            "api_key_env_var",
        ),
        (
            "models: [{type: main, engine: openai, model: x, parameters: {tempreture: 1}}]",
            "did you mean 'temperature'",
        ),
    ],
)
def test_faults_have_their_place_and_no_secret(models: str, message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        load_main_model(parse_config(models))
    assert "abc" not in str(caught.value)
    if "[]" not in models:
        assert str(caught.value).startswith("config.yml:1")


def test_a_key_that_is_not_set_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVIDIA_API_KEY", raising=False)
    with pytest.raises(SpecError, match="NVIDIA_API_KEY"):
        load_main_model(parse_config("models: [{type: main, engine: nim, model: meta/llama}]"))
