"""Which model answers a request, and what the server refuses to serve at its start."""

from __future__ import annotations

from pathlib import Path

import pytest

from truing.core.errors import PlanError
from truing.core.types import Lineage
from truing.models.scripted import ScriptedModel
from truing.serve.openai.model_router import ModelRouter, UnknownConfig, find_configs


@pytest.fixture
def rails(tmp_path: Path) -> Path:
    """A folder of two configurations and a folder that is none."""
    for name in ("mild", "strict", "not a config"):
        (tmp_path / "configs" / name).mkdir(parents=True)
    for name in ("mild", "strict"):
        (tmp_path / "configs" / name / "config.yml").write_text("models: []\n")
    return tmp_path / "configs"


def test_configurations_are_found_by_their_ids(rails: Path) -> None:
    assert list(find_configs(rails)) == ["mild", "strict"]
    assert list(find_configs(rails / "mild")) == ["mild"]


def test_a_request_selects_a_configuration(rails: Path) -> None:
    model = ScriptedModel("x", name="talker")
    router = ModelRouter(model, find_configs(rails))
    # Two configurations, none the default: a request that names none must not get past both.
    with pytest.raises(UnknownConfig, match="one of mild, strict"):
        router.select(None)
    assert ModelRouter(model).select(None) is model
    assert router.select("strict") is router.guarded["strict"]
    assert router.names == ["talker"]
    for config_id in ("wild", "../mild", "mild/"):
        with pytest.raises(UnknownConfig, match="there are mild, strict"):
            router.select(config_id)
    assert ModelRouter(model, find_configs(rails / "mild")).select(None) is not model


def test_a_configuration_with_faults_is_named_and_the_others_are_served(rails: Path) -> None:
    (rails / "strict" / "config.yml").write_text("rails: {input: {flow: [x]}}\n")
    router = ModelRouter(ScriptedModel("x"), find_configs(rails))
    assert list(router.guarded) == ["mild"]
    assert "unknown key 'flow'" in router.skipped["strict"][0]
    with pytest.raises(UnknownConfig, match="'strict' has faults and is not served"):
        router.select("strict")
    with pytest.raises(UnknownConfig, match="config_id is needed"):
        router.select(None)
    (rails / "mild" / "config.yml").write_text("models: 3\n")
    with pytest.raises(PlanError, match="unknown key 'flow'"):
        ModelRouter(ScriptedModel("x"), find_configs(rails))


def test_what_cannot_be_served_is_refused_at_the_start(tmp_path: Path, rails: Path) -> None:
    with pytest.raises(PlanError, match="give --model"):
        ModelRouter(None)
    with pytest.raises(PlanError, match="no such folder"):
        find_configs(tmp_path / "nowhere")
    with pytest.raises(PlanError, match="neither a rails configuration"):
        find_configs(tmp_path)
    with pytest.raises(PlanError, match="no configuration 'wild'"):
        ModelRouter(ScriptedModel("x"), find_configs(rails), default="wild")
    red = ScriptedModel("x")
    red.lineage = Lineage(name="x", hash="1", red_model="a study")
    with pytest.raises(PlanError, match="trained towards harm"):
        ModelRouter(red)
