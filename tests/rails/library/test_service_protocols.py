"""The vendors' services: each request and verdict against a recorded stand-in over HTTP."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest
from tests.servers import Request, serving

from truing.core.errors import PlanError
from truing.core.types import Answer, Conversation, Sampling
from truing.http.limits import close_connections
from truing.models.scripted import ScriptedModel
from truing.rails.config import service_addresses
from truing.rails.config.loader import RailsConfig
from truing.rails.config.service_addresses import VENDOR_RAILS, find_service_addresses
from truing.rails.guarded import GuardedModel
from truing.rails.library.service_protocols import _FIDDLER_SCORES, SERVICE_PROTOCOLS
from truing.rails.library.service_rails import ServiceInputs
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.embeddings import LexicalEncoder

KEY = "key-of-a-vendor"
POLICY = "00000000-0000-0000-0000-000000000001"
CLAVATA = {
    "policies": {"mild": POLICY},
    "input": {"policy": "mild", "labels": ["Spam"]},
    "output": {"policy": POLICY},
}
PATRONUS = {"output": {"evaluate_config": {"params": {"evaluators": [{"evaluator": "lynx"}]}}}}


def _clavata_reply(label: str) -> dict[str, Any]:
    sections = [{"name": label, "message": "", "result": "OUTCOME_TRUE"}]
    report = {"result": "OUTCOME_TRUE", "sectionEvaluationReports": sections}
    return {"job": {"status": "JOB_STATUS_COMPLETED", "results": [{"report": report}]}}


def _private_ai_reply(text: str, *entities: str) -> list[dict[str, Any]]:
    return [{"processed_text": text, "entities_present": bool(entities)}]


def _fiddler_reply(**scores: Any) -> dict[str, Any]:
    return {**dict.fromkeys(_FIDDLER_SCORES, 0.0), **scores}


def _violation(score: Any) -> dict[str, Any]:
    return {"violation_type": "x.y", "risk_score": score}


# Rail, its block, the reply of the service, and the ruling (a rewrite with its text).
CASES: list[tuple[str, dict[str, Any], Any, str]] = [
    ("fiddler user safety", {}, _fiddler_reply(fdl_harmful=0.9), "block"),
    ("fiddler user safety", {"safety_threshold": 0.95}, _fiddler_reply(fdl_sexist=0.9), "allow"),
    ("fiddler user safety", {}, {"other": 0.9}, "unclear"),
    # A score that has another name than expected is missing.
    ("fiddler user safety", {}, {"fdl_harmful": 0.0, "fdl_abusive": 0.9}, "unclear"),
    ("fiddler user safety", {}, _fiddler_reply(fdl_harmful="NaN"), "unclear"),
    ("fiddler user safety", {}, _fiddler_reply(fdl_harmful=True), "unclear"),
    ("fiddler bot safety", {}, _fiddler_reply(fdl_jailbreaking=0.01), "allow"),
    ("fiddler bot faithfulness", {}, {"fdl_faithful_score": "nan"}, "unclear"),
    ("fiddler bot faithfulness", {}, {"fdl_faithful_score": "inf"}, "unclear"),
    ("fiddler bot faithfulness", {}, {"fdl_faithful_score": 0.01}, "block"),
    ("fiddler bot faithfulness", {}, {"fdl_faithful_score": 0.9}, "allow"),
    (
        "detect pii on input",
        {"input": {"entities": ["NAME"]}},
        _private_ai_reply("[N]", "N"),
        "block",
    ),
    ("detect pii on input", {}, _private_ai_reply("hi"), "allow"),
    ("mask pii on output", {}, _private_ai_reply("[NAME] says hello.", "N"), "rewrite"),
    ("mask pii on input", {}, [], "unclear"),
    ("protect prompt", {}, {"result": {"action": "block"}}, "block"),
    ("protect prompt", {}, {"result": {"action": "log"}}, "allow"),
    ("protect prompt", {}, {"result": {}}, "unclear"),
    (
        "protect response",
        {},
        {"result": {"action": "modify", "response": {"modified_text": "Hello, ***."}}},
        "rewrite",
    ),
    ("pangea ai guard input", {"input": {"recipe": "r"}}, {"result": {"blocked": True}}, "block"),
    ("pangea ai guard input", {}, {"result": {"blocked": None}}, "unclear"),
    (
        "pangea ai guard output",
        {},
        {
            "result": {
                "blocked": False,
                "transformed": True,
                "prompt_messages": [{"role": "assistant", "content": "Hello, ***."}],
            }
        },
        "rewrite",
    ),
    ("trend ai guard input", {}, {"action": "Block", "reason": "rule 3"}, "block"),
    ("trend ai guard output", {}, {"action": "Allow", "reason": "none"}, "allow"),
    ("trend ai guard output", {}, {"action": "Perhaps"}, "unclear"),
    ("clavata check input", CLAVATA, _clavata_reply("Spam"), "block"),
    ("clavata check input", CLAVATA, _clavata_reply("Other"), "allow"),
    ("clavata check output", CLAVATA, _clavata_reply("Other"), "block"),
    ("clavata check output", CLAVATA, {"job": {"status": "JOB_STATUS_RUNNING"}}, "unclear"),
    (
        "patronus api check output",
        PATRONUS,
        {"results": [{"evaluation_result": {"pass": True}}]},
        "allow",
    ),
    (
        "patronus api check output",
        PATRONUS,
        {"results": [{"evaluation_result": {"pass": False}}]},
        "block",
    ),
    ("patronus api check output", PATRONUS, {"results": []}, "unclear"),
    (
        "activefence moderation on input",
        {},
        {"violations": [{"violation_type": "x.y", "risk_score": 0.8}]},
        "block",
    ),
    (
        "activefence moderation on input",
        {},
        {"violations": [_violation(0.9), _violation(0.1)]},
        "block",
    ),
    ("activefence moderation on input", {}, {"violations": [_violation("nan")]}, "unclear"),
    ("activefence moderation on output", {}, {"violations": []}, "allow"),
    ("jailbreak detection heuristics", {}, {"jailbreak": True}, "block"),
    ("jailbreak detection heuristics", {}, {"jailbreak": False}, "allow"),
    ("jailbreak detection heuristics", {}, {"jailbreak": None}, "unclear"),
    ("jailbreak detection model", {}, {"jailbreak": False}, "allow"),
]
BLOCKS = {
    "fiddler": "fiddler",
    "detect": "privateai",
    "mask": "privateai",
    "protect": "prompt_security",
    "pangea": "pangea",
    "trend": "trend_micro",
    "clavata": "clavata",
    "patronus": "patronus",
    "activefence": "activefence",
    "jailbreak": "jailbreak_detection",
    "autoalign": "autoalign",
}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIDDLER_API_KEY", "PAI_API_KEY", "PS_APP_ID", "PANGEA_API_TOKEN", "V1_API_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setattr("truing.rails.library.service_rails.DEFAULT_RETRIES", 0)
    for name in ("CLAVATA_API_KEY", "PATRONUS_API_KEY", "ACTIVEFENCE_API_KEY", "AUTOALIGN_API_KEY"):
        monkeypatch.setenv(name, KEY)


def guard(
    rail: str, settings: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch
) -> GuardedModel:
    """Returns a model behind one rail, whose service is the stand-in at `url`."""
    block = BLOCKS[rail.split()[0]]
    addresses = {
        "fiddler": {"fiddler_endpoint": url},
        "privateai": {"server_endpoint": url},
        "trend_micro": {"v1_url": url},
        "clavata": {"server_endpoint": url},
        "jailbreak_detection": {"server_endpoint": url},
        "autoalign": {
            "parameters": {"endpoint": url, "fact_check_endpoint": url},
        },
    }
    monkeypatch.setenv("PS_PROTECT_URL", url)
    monkeypatch.setenv("PANGEA_BASE_URL_TEMPLATE", url)
    for vendor in ("patronus", "activefence"):
        make_address = VENDOR_RAILS.get(rail)
        if rail.startswith(vendor) and make_address is not None:
            address = make_address(RailsConfig())
            assert address is not None
            moved = service_addresses.ServiceAddress(
                service=vendor, url=url, key="", variable=address.variable, header=address.header
            )
            monkeypatch.setitem(VENDOR_RAILS, rail, lambda config, moved=moved: moved)
    config: dict[str, Any] = {
        "instructions": [{"type": "general", "content": "Be kind."}],
        "rails": {
            ("input" if _is_input(rail) else "output"): {"flows": [rail]},
            "config": {block: {**addresses.get(block, {}), **settings}},
        },
    }
    loaded = RailsConfig.from_text(json.dumps(config), trust_code=True)
    parts = RuntimeParts(encoder=LexicalEncoder())
    return GuardedModel(loaded, ScriptedModel("Hello."), parts=parts)


def _is_input(rail: str) -> bool:
    return rail.split()[-1] in ("input", "prompt", "heuristics", "model") or "user" in rail


def ask(model: GuardedModel) -> Answer:
    async def run() -> Answer:
        try:
            return await model.answer(Conversation.of("hi"), Sampling())
        finally:
            await close_connections()

    return asyncio.run(run())


@pytest.mark.parametrize(("rail", "settings", "reply", "expected"), CASES)
def test_verdicts(
    rail: str,
    settings: dict[str, Any],
    reply: Any,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def handler(request: Request) -> None:
        await request.send(200, json.dumps(reply).encode())

    with serving(handler) as server:
        answer = ask(guard(rail, settings, server.url, monkeypatch))
    (ruling,) = [r for r in answer.rulings if r.name == rail]
    if expected == "unclear":
        assert ruling.ruling == "block" and "could not tell" in (ruling.reason or "")
    else:
        assert ruling.ruling == expected, ruling
    if expected == "rewrite":
        assert answer.text == ruling.text != "Hello."
    if expected == "allow":
        assert answer.text == "Hello."
    assert len(server.requests) == 1


def test_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(request: Request) -> None:
        await request.send(500, {})

    sent: dict[str, Any] = {}
    headers: dict[str, dict[str, str]] = {}
    with serving(handler) as server:
        for rail, settings, _, _ in CASES:
            if rail not in sent:
                ask(guard(rail, settings, server.url, monkeypatch))
                sent[rail] = server.requests[-1].json
                headers[rail] = server.requests[-1].headers
    assert sent["fiddler user safety"] == {"data": {"prompt": ["hi"]}}
    assert headers["fiddler user safety"]["authorization"] == f"Bearer {KEY}"
    assert sent["mask pii on output"]["text"] == ["Hello."]
    assert "x-api-key" not in headers["mask pii on output"]  # not the vendor's own address
    assert sent["protect response"] == {
        "prompt": None,
        "system_prompt": None,
        "response": "Hello.",
        "user": None,
    }
    assert headers["protect prompt"]["app-id"] == KEY
    assert [row["role"] for row in sent["pangea ai guard output"]["messages"]] == [
        "system",
        "user",
        "assistant",
    ]
    assert sent["trend ai guard input"] == {"guard": "hi"}
    assert sent["clavata check input"]["policy_id"] == POLICY
    assert sent["patronus api check output"]["evaluated_model_output"] == "Hello."
    assert sent["jailbreak detection heuristics"]["lp_threshold"] == 89.79


def test_autoalign(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"task": "pii", "guarded": True, "response": "PII redacted text: hi ***"},
        {"task": "toxicity_detection", "guarded": False, "response": ""},
    ]

    async def handler(request: Request) -> None:
        if request.number == 2:
            rows[1]["guarded"] = True
        body = "\n".join(json.dumps(row) for row in rows)
        await request.send(200, body.encode())

    settings = {
        "input": {"guardrails_config": {"pii": {"mask": True}, "toxicity_detection": None}},
    }
    with serving(handler) as server:
        settings["parameters"] = {"endpoint": server.url}
        model = guard("autoalign check input", settings, server.url, monkeypatch)
        rewritten = ask(model)
        body = server.requests[0].json
        config = body["config"]
        assert config["pii"]["mode"] == config["toxicity_detection"]["mode"] == "DETECT"
        assert config["harm_detection"]["mode"] == "OFF" and config["pii"]["mask"] is True
        assert rewritten.rulings[0].text == "hi ***"
        rows[1]["guarded"] = True
        assert ask(model).finish_reason == "blocked"


@pytest.mark.parametrize(
    ("service", "reply"),
    [
        (
            "autoalign groundedness_check_endpoint",
            [{"task": "groundedness_checker", "response": "Factcheck Score: nan"}],
        ),
        ("autoalign fact_check_endpoint", {"all_overall_fact_scores": ["nan"]}),
        ("alignscore", {"alignscore": "nan"}),
        ("alignscore", {"alignscore": "-inf"}),
        ("alignscore", {"alignscore": 10**400}),
    ],
)
def test_a_score_that_is_no_finite_number_is_no_verdict(service: str, reply: Any) -> None:
    inputs = ServiceInputs("output", "Hello.", "hi", "Hello.", ("a",), {}, "")
    with pytest.raises(ValueError, match="is no score"):
        SERVICE_PROTOCOLS[service].read_verdict(reply, inputs)


def test_a_threshold_is_a_finite_number() -> None:
    for service, name, reply in (
        ("ftl-safety", "safety_threshold", _fiddler_reply(fdl_harmful=0.9)),
        ("ftl-response-faithfulness", "faithfulness_threshold", {"fdl_faithful_score": 0.0}),
    ):
        inputs = ServiceInputs("output", "Hello.", "hi", "Hello.", (), {name: math.nan}, "")
        with pytest.raises(ValueError, match="is no score"):
            SERVICE_PROTOCOLS[service].read_verdict(reply, inputs)


@pytest.mark.parametrize("rail", ["jailbreak detection model", "jailbreak detection heuristics"])
def test_the_address_of_a_jailbreak_server_is_http(rail: str) -> None:
    config = {
        "rails": {
            "input": {"flows": [rail]},
            "config": {"jailbreak_detection": {"server_endpoint": "localhost:1337/model"}},
        }
    }
    with pytest.raises(PlanError, match=f"{rail}' needs an http address in rails.config.jailbreak"):
        find_service_addresses(RailsConfig.from_text(json.dumps(config)))


@pytest.mark.parametrize(
    ("step", "service"),
    [
        ("do jailbreak detection model", "jailbreak server"),
        ("do  private check", "private ai"),
        ("$score = execute alignscore_check_facts", "alignscore"),
    ],
)
def test_the_services_of_rails_that_own_flows_run_are_found(step: str, service: str) -> None:
    colang = (
        f"define subflow my rail\n  if $user_message\n    {step}\n\n"
        "define subflow private check\n  do detect pii on input\n"
    )
    config = {
        "rails": {
            "input": {"flows": ["my rail"]},
            "config": {
                "jailbreak_detection": {"server_endpoint": "http://localhost:1/m"},
                "fact_checking": {"parameters": {"endpoint": "http://localhost:1/a"}},
            },
        }
    }
    addresses = find_service_addresses(RailsConfig.from_text(json.dumps(config), colang))
    assert service in {address.service for address in addresses}


def test_a_text_that_names_a_rail_runs_none() -> None:
    colang = 'define flow\n  user ask\n  bot say "do fiddler user safety"\n'
    assert find_service_addresses(RailsConfig.from_text("", colang)) == []


def test_every_protocol_is_used_by_a_rail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PS_PROTECT_URL", "https://eu.prompt.security/api/protect")
    endpoints = dict.fromkeys(
        ("endpoint", "fact_check_endpoint", "groundedness_check_endpoint"), "https://a.example"
    )
    config = {
        "rails": {
            "input": {"flows": list(VENDOR_RAILS)},
            "config": {
                "fiddler": {"fiddler_endpoint": "https://f.example"},
                "autoalign": {"parameters": endpoints},
                "fact_checking": {"parameters": {"endpoint": "http://localhost:1/a"}},
                "jailbreak_detection": {"server_endpoint": "http://localhost:1/h"},
            },
        }
    }
    addresses = find_service_addresses(RailsConfig.from_text(json.dumps(config)))
    assert {address.service for address in addresses} == set(SERVICE_PROTOCOLS)
    of_vendors = {a.service: a.url for a in addresses if a.service in ("patronus", "activefence")}
    assert all(url.startswith("https://api") for url in of_vendors.values())
