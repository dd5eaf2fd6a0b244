"""The service of NeMo's rail `jailbreak detection model`, as `rails.config` names it."""

from __future__ import annotations

from typing import Any

from truing.rails.config.loader import RailsConfig
from truing.rails.config.service_addresses import list_used_rails
from truing.specs.parser import Spec

JAILBREAK_RAIL = "jailbreak detection model"
JAILBREAK_BLOCK = "jailbreak_detection"
NIM_PATH = "classify"  # NeMo's default of nim_server_endpoint


def make_jailbreak_spec(config: RailsConfig) -> Spec | None:
    """Returns the spec of the service that the rail asks.

    None if the rail is not used, has a judge under ``truing: jailbreak: judge:``, or if
    `nim_base_url` is missing.
    """
    if JAILBREAK_RAIL not in list_used_rails(config):
        return None
    settings = config.truing.get("jailbreak")
    block = read_config_block(config, JAILBREAK_BLOCK)
    address = block.get("nim_base_url")
    if not address and block.get("nim_url"):
        # NeMo's older keys.
        address = f"http://{block['nim_url']}:{block.get('nim_port') or 8000}/v1"
    if not address or (isinstance(settings, dict) and settings.get("judge")):
        return None
    arguments = {
        "base_url": str(address),
        "path": str(block.get("nim_server_endpoint") or NIM_PATH),
    }
    if block.get("api_key_env_var"):
        arguments["api_key_env"] = str(block["api_key_env_var"])
    return Spec("guard", "nemoguard-jailbreak", arguments)


def read_config_block(config: RailsConfig, name: str) -> dict[str, Any]:
    """Returns a block under `rails.config`; empty where there is none."""
    block: Any = config.raw
    for key in ("rails", "config", name):
        block = block.get(key) if isinstance(block, dict) else None
    return block if isinstance(block, dict) else {}
