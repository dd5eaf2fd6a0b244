"""Where the services of NeMo's library rails are, and the variables whose keys they get.

Each reads its block under ``rails.config``, or the environment variables that NeMo names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from truing.core.errors import PlanError
from truing.rails.config.loader import RailsConfig

TREND_MICRO_ADDRESS = "https://api.xdr.trendmicro.com/v3.0/aiSecurity/applyGuardrails"
GLINER_ADDRESS = "http://localhost:8000/v1/chat/completions"  # NVIDIA's NIM on this machine


class ServiceAddress(Struct, frozen=True, kw_only=True):
    """Where a service is, and the environment variable whose key it gets, in which header.

    With `is_key_optional` the key is sent only to the vendor's own address. `key` is the YAML key
    of the address.
    """

    service: str
    url: str
    key: str
    variable: str | None = None
    header: str = "Authorization"
    prefix: str = "Bearer "
    headers: Mapping[str, str] = {}
    timeout: float | None = None  # seconds
    is_key_optional: bool = False
    allow_http: bool = False


def read_block(config: RailsConfig, name: str) -> dict[str, Any]:
    """Returns a block under ``rails.config``; empty where there is none."""
    block = ((config.raw.get("rails") or {}).get("config") or {}).get(name)
    return block if isinstance(block, dict) else {}


def _fiddler(config: RailsConfig, path: str) -> ServiceAddress:
    base = str(read_block(config, "fiddler").get("fiddler_endpoint") or "").rstrip("/")
    return ServiceAddress(
        service=path,
        url=base and f"{base}/v3/guardrails/{path}",
        key="rails.config.fiddler.fiddler_endpoint",
        variable="FIDDLER_API_KEY",
    )


def _autoalign(config: RailsConfig, parameter: str) -> ServiceAddress:
    parameters = read_block(config, "autoalign").get("parameters") or {}
    return ServiceAddress(
        service=f"autoalign {parameter}",
        url=str(parameters.get(parameter) or ""),
        key=f"rails.config.autoalign.parameters.{parameter}",
        variable="AUTOALIGN_API_KEY",
        header="x-api-key",
        prefix="",
    )


def _private_ai(config: RailsConfig) -> ServiceAddress:
    default = "http://localhost:8080/process/text"
    return ServiceAddress(
        service="private ai",
        url=str(read_block(config, "privateai").get("server_endpoint") or default),
        key="rails.config.privateai.server_endpoint",
        variable="PAI_API_KEY",
        header="x-api-key",
        prefix="",
        is_key_optional=True,
    )


def _prompt_security(config: RailsConfig) -> ServiceAddress:
    return ServiceAddress(
        service="prompt security",
        url=os.environ.get("PS_PROTECT_URL", ""),
        key="PS_PROTECT_URL",
        variable="PS_APP_ID",
        header="APP-ID",
        prefix="",
    )


def _pangea(config: RailsConfig) -> ServiceAddress:
    template = os.environ.get(
        "PANGEA_BASE_URL_TEMPLATE", "https://{SERVICE_NAME}.aws.us.pangea.cloud"
    )
    base = template.replace("{SERVICE_NAME}", "ai-guard").rstrip("/")
    return ServiceAddress(
        service="pangea",
        url=f"{base}/v1/text/guard",
        key="rails.config.pangea",
        variable="PANGEA_API_TOKEN",
    )


def is_beta_address(block: Mapping[str, Any]) -> bool:
    """Returns whether `rails.config.trend_micro` names the API of its beta, which has no names of
    applications.
    """
    return "/beta/" in str(block.get("v1_url") or "")


def _trend_micro(config: RailsConfig) -> ServiceAddress:
    block = read_block(config, "trend_micro")
    application = str(block.get("application_name") or "truing")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", application):
        place = config.locate("key", "rails.config.trend_micro.application_name")
        raise PlanError(f"{place}: application_name: letters, digits, - and _, at most 64")
    form = "representation" if block.get("detailed_response") else "minimal"
    headers = {"TMV1-Application-Name": application, "Prefer": f"return={form}"}
    return ServiceAddress(
        service="trend micro",
        url=str(block.get("v1_url") or TREND_MICRO_ADDRESS),
        headers={} if is_beta_address(block) else headers,
        key="rails.config.trend_micro.api_key_env_var",
        variable=str(block.get("api_key_env_var") or "V1_API_KEY"),
    )


def _clavata(config: RailsConfig) -> ServiceAddress:
    block = read_block(config, "clavata")
    base = str(block.get("server_endpoint") or "https://gateway.app.clavata.ai:8443").rstrip("/")
    return ServiceAddress(
        service="clavata",
        url=f"{base}/v1/jobs",
        key="rails.config.clavata.server_endpoint",
        variable="CLAVATA_API_KEY",
    )


def _patronus(config: RailsConfig) -> ServiceAddress:
    return ServiceAddress(
        service="patronus",
        url="https://api.patronus.ai/v1/evaluate",
        key="rails.config.patronus",
        variable="PATRONUS_API_KEY",
        header="X-API-KEY",
        prefix="",
    )


def _active_fence(config: RailsConfig) -> ServiceAddress:
    return ServiceAddress(
        service="activefence",
        url="https://apis.activefence.com/sync/v3/content/text",
        key="rails.config.activefence",
        variable="ACTIVEFENCE_API_KEY",
        header="af-api-key",
        prefix="",
    )


def _align_score(config: RailsConfig) -> ServiceAddress:
    parameters = read_block(config, "fact_checking").get("parameters") or {}
    return ServiceAddress(
        service="alignscore",
        url=str(parameters.get("endpoint") or ""),
        key="rails.config.fact_checking.parameters.endpoint",
    )


def is_chat_address(block: Mapping[str, Any]) -> bool:
    """Returns whether `rails.config.gliner` names NVIDIA's NIM, a chat endpoint."""
    address = str(block.get("server_endpoint") or GLINER_ADDRESS)
    return address.rstrip("/").endswith("/v1/chat/completions")


GLINER_KEY = ("truing", "gliner", "path")


def read_gliner_path(config: RailsConfig) -> str | None:
    """Returns the folder of a GLiNER model in this process, ``truing: gliner: path:``; or None."""
    settings = config.truing.get("gliner")
    path = settings.get("path") if isinstance(settings, dict) else None
    return str(path) if path else None


def _gliner(config: RailsConfig) -> ServiceAddress | None:
    if read_gliner_path(config) is not None:
        return None
    block = read_block(config, "gliner")
    return ServiceAddress(
        service="gliner",
        url=str(block.get("server_endpoint") or GLINER_ADDRESS),
        key="rails.config.gliner.server_endpoint",
        variable=str(block["api_key_env_var"]) if block.get("api_key_env_var") else None,
    )


def _read_timeout(block: Mapping[str, Any]) -> float | None:
    return float(block["timeout"]) if block.get("timeout") else None


def _crowdstrike(config: RailsConfig) -> ServiceAddress:
    template = os.environ.get(
        "CS_AIDR_BASE_URL_TEMPLATE", "https://api.crowdstrike.com/aidr/{SERVICE_NAME}"
    )
    base = template.replace("{SERVICE_NAME}", "aiguard").rstrip("/")
    return ServiceAddress(
        service="crowdstrike aidr",
        url=f"{base}/v1/guard_chat_completions",
        key="rails.config.crowdstrike_aidr",
        variable="CS_AIDR_TOKEN",
        timeout=_read_timeout(read_block(config, "crowdstrike_aidr")),
    )


def _f5(config: RailsConfig) -> ServiceAddress:
    named = os.environ.get("F5_GUARDRAILS_API_URL") or read_block(config, "f5").get("api_url")
    return ServiceAddress(
        service="f5",
        url=f"{str(named or 'https://us1.calypsoai.app').rstrip('/')}/backend/v1/scans",
        key="rails.config.f5.api_url",
        variable="F5_GUARDRAILS_API_KEY",
    )


def _ai_defense(config: RailsConfig) -> ServiceAddress:
    return ServiceAddress(
        service="ai defense",
        url=os.environ.get("AI_DEFENSE_API_ENDPOINT", ""),
        key="AI_DEFENSE_API_ENDPOINT",
        variable="AI_DEFENSE_API_KEY",
        header="X-Cisco-AI-Defense-API-Key",
        prefix="",
        timeout=_read_timeout(read_block(config, "ai_defense")),
    )


def _google(service: str) -> ServiceAddress:
    return ServiceAddress(
        service=service,
        url="https://language.googleapis.com/v2/documents:moderateText",
        key="rails.config.gcp_moderate_text",
        variable="GOOGLE_API_KEY",
        header="X-Goog-Api-Key",
        prefix="",
    )


def _cleanlab(config: RailsConfig) -> ServiceAddress:
    return ServiceAddress(
        service="cleanlab",
        url="https://api.cleanlab.ai/api/v0/trustworthy_llm/get_confidence_score",
        key="rails.config.cleanlab",
        variable="CLEANLAB_API_KEY",
        prefix="bearer ",
    )


def _jailbreak_server(config: RailsConfig) -> ServiceAddress | None:
    """NeMo's own server of its jailbreak checks; a NIM is asked by a judge."""
    block = read_block(config, "jailbreak_detection")
    if not block.get("server_endpoint"):
        return None
    return ServiceAddress(
        service="jailbreak server",
        url=str(block["server_endpoint"]),
        key="rails.config.jailbreak_detection.server_endpoint",
    )


def _jailbreak_model_server(config: RailsConfig) -> ServiceAddress | None:
    has_nim = read_block(config, "jailbreak_detection").get("nim_base_url")
    return None if has_nim else _jailbreak_server(config)


_MakeAddress = Callable[[RailsConfig], ServiceAddress | None]
VENDOR_RAILS: dict[str, _MakeAddress] = {
    "fiddler user safety": lambda config: _fiddler(config, "ftl-safety"),
    "fiddler bot safety": lambda config: _fiddler(config, "ftl-safety"),
    "fiddler bot faithfulness": lambda config: _fiddler(config, "ftl-response-faithfulness"),
    "autoalign check input": lambda config: _autoalign(config, "endpoint"),
    "autoalign check output": lambda config: _autoalign(config, "endpoint"),
    "autoalign groundedness output": lambda c: _autoalign(c, "groundedness_check_endpoint"),
    "autoalign factcheck output": lambda config: _autoalign(config, "fact_check_endpoint"),
    **{
        f"{verb} pii on {source}": _private_ai
        for verb in ("detect", "mask")
        for source in ("input", "output", "retrieval")
    },
    "protect prompt": _prompt_security,
    "protect response": _prompt_security,
    "pangea ai guard input": _pangea,
    "pangea ai guard output": _pangea,
    "trend ai guard input": _trend_micro,
    "trend ai guard output": _trend_micro,
    "clavata check input": _clavata,
    "clavata check output": _clavata,
    "patronus api check output": _patronus,
    "activefence moderation on input": _active_fence,
    "activefence moderation on output": _active_fence,
    "alignscore check facts": _align_score,
    **{
        f"gliner {verb} pii on {source}": _gliner
        for verb in ("detect", "mask")
        for source in ("input", "output", "retrieval")
    },
    "crowdstrike aidr guard input": _crowdstrike,
    "crowdstrike aidr guard output": _crowdstrike,
    "f5 guardrails scan input": _f5,
    "f5 guardrails scan output": _f5,
    "ai defense inspect prompt": _ai_defense,
    "ai defense inspect response": _ai_defense,
    "gcpnlp moderation": lambda config: _google("google moderation"),
    "gcpnlp moderation detailed": lambda config: _google("google moderation detailed"),
    "cleanlab trustworthiness": _cleanlab,
    "jailbreak detection heuristics": _jailbreak_server,
    "jailbreak detection model": _jailbreak_model_server,
}
