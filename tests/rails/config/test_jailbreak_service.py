"""The service of the jailbreak rail: its spec exists exactly where the rail asks it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from truing.rails.config.jailbreak_service import make_jailbreak_spec, read_config_block
from truing.rails.config.loader import RailsConfig

RAIL = "jailbreak detection model"
SERVICE = {"nim_base_url": "http://localhost:9/v1", "api_key_env_var": "NVIDIA_API_KEY"}


def load(flows: list[str], block: Any, truing: dict[str, Any] | None = None) -> RailsConfig:
    rails = {"input": {"flows": flows}, "config": {"jailbreak_detection": block}}
    return RailsConfig.from_text(yaml.safe_dump({"rails": rails, "truing": truing or {}}))


def test_the_settings_of_the_service_are_the_arguments() -> None:
    spec = make_jailbreak_spec(load([RAIL], {**SERVICE, "nim_server_endpoint": "v2/classify"}))
    assert spec is not None
    assert (spec.kind, spec.name) == ("guard", "nemoguard-jailbreak")
    values = spec.reveal_values()
    assert values["base_url"] == "http://localhost:9/v1" and values["path"] == "v2/classify"
    assert values["api_key_env"] == "NVIDIA_API_KEY"
    plain = make_jailbreak_spec(load([RAIL], {"nim_base_url": "http://localhost:9/v1"}))
    assert plain is not None and plain.reveal_values()["path"] == "classify"
    assert "api_key_env" not in plain.reveal_values()


@pytest.mark.parametrize(
    ("flows", "block", "truing"),
    [
        ([], SERVICE, {}),
        ([RAIL], {}, {}),
        ([RAIL], SERVICE, {"jailbreak": {"judge": "rules:refusal"}}),
    ],
)
def test_no_spec_where_the_rail_asks_no_service(
    flows: list[str], block: Any, truing: dict[str, Any]
) -> None:
    assert make_jailbreak_spec(load(flows, block, truing)) is None


def test_an_own_rail_that_runs_the_rail_asks_its_service() -> None:
    config = load(["my rail"], SERVICE)
    config.flows = RailsConfig.from_text("", f"define subflow my rail\n  do {RAIL}\n").flows
    assert make_jailbreak_spec(config) == make_jailbreak_spec(load([RAIL], SERVICE))
    assert make_jailbreak_spec(load(["my rail"], SERVICE)) is None


def test_a_block_that_is_missing_is_empty() -> None:
    assert read_config_block(load([], {}), "content_safety") == {}
    assert read_config_block(load([], SERVICE), "jailbreak_detection") == SERVICE
