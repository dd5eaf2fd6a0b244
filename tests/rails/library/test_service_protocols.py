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
from truing.rails.config.loader import RailsConfig
from truing.rails.config.service_addresses import find_service_addresses
from truing.rails.config.vendor_addresses import VENDOR_RAILS, ServiceAddress
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


def _clavata_reply(label: str, **outcomes: str) -> dict[str, Any]:
    named = {label: "OUTCOME_TRUE", **outcomes}
    sections = [{"name": name, "message": "", "result": named[name]} for name in named]
    report = {"result": "OUTCOME_TRUE", "sectionEvaluationReports": sections}
    return {"job": {"status": "JOB_STATUS_COMPLETED", "results": [{"report": report}]}}


def _private_ai_reply(text: str, *entities: str) -> list[dict[str, Any]]:
    return [{"processed_text": text, "entities_present": bool(entities)}]


def _fiddler_reply(**scores: Any) -> dict[str, Any]:
    return {**dict.fromkeys(_FIDDLER_SCORES, 0.0), **scores}


def _violation(score: Any) -> dict[str, Any]:
    return {"violation_type": "x.y", "risk_score": score}


def _gliner_reply(*spans: tuple[int, int, str]) -> dict[str, Any]:
    entities = [{"text": "x", "start": s, "end": e, "label": label} for s, e, label in spans]
    content = json.dumps({"entities": entities, "total_entities": len(entities)})
    return {"choices": [{"message": {"content": content}}]}


def _gliner_server_reply(start: int, end: int) -> dict[str, Any]:
    entity = {"value": "x", "suggested_label": "name", "start_position": start, "end_position": end}
    return {"entities": [{**entity, "score": 0.9}], "total_entities": 1, "tagged_text": ""}


def _google_reply(**scores: float) -> dict[str, Any]:
    rows = [{"name": name, "confidence": score} for name, score in scores.items()]
    return {"moderationCategories": [*rows, {"name": "Legal"}]}


def _crowdstrike_reply(role: str, text: str | None) -> dict[str, Any]:
    messages = [{"role": role, "content": text}]
    result = {"blocked": False, "transformed": True, "guard_output": {"messages": messages}}
    return {"result": result}


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
    (
        "detect pii on input",
        {},
        [{"processed_text": "hi", "entities_present": None}],
        "unclear",
    ),
    # A text with personal data that comes back as it was is not masked.
    ("mask pii on input", {}, _private_ai_reply("hi", "N"), "block"),
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
    (
        "pangea ai guard input",
        {},
        {
            "result": {
                "blocked": False,
                "transformed": True,
                "prompt_messages": [{"role": "user", "content": None}],
            }
        },
        "unclear",
    ),
    ("trend ai guard input", {}, {"action": "Block", "reason": "rule 3"}, "block"),
    ("trend ai guard output", {}, {"action": "Allow", "reason": "none"}, "allow"),
    ("trend ai guard output", {}, {"action": "Perhaps"}, "unclear"),
    ("clavata check input", CLAVATA, _clavata_reply("Spam"), "block"),
    ("clavata check input", CLAVATA, _clavata_reply("Other", Spam="OUTCOME_FALSE"), "allow"),
    ("clavata check input", CLAVATA, _clavata_reply("Other", Spam="OUTCOME_FAILED"), "unclear"),
    # A label that the policy does not have would never block.
    ("clavata check input", CLAVATA, _clavata_reply("Other"), "unclear"),
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
        "patronus api check output",
        {"output": {"evaluate_config": {"params": {"evaluators": [{"evaluator": "lynx"}] * 2}}}},
        {"results": [{"evaluation_result": {"pass": True}}]},
        "unclear",
    ),
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
    ("fiddler user safety", {}, _fiddler_reply(fdl_roleplaying=0.9), "block"),
    ("gliner detect pii on input", {}, _gliner_reply((0, 2, "name")), "block"),
    ("gliner detect pii on input", {}, _gliner_reply(), "allow"),
    ("gliner detect pii on input", {}, _gliner_reply((0, 3, "name")), "unclear"),
    ("gliner detect pii on input", {}, {"choices": [{"message": {"content": "{}"}}]}, "unclear"),
    ("gliner detect pii on input", {}, {"entities": [], "total_entities": 0}, "unclear"),
    (
        "gliner mask pii on output",
        {},
        _gliner_reply((0, 4, "first name"), (2, 5, "name")),
        "rewrite",
    ),
    ("gliner mask pii on output", {"path": "/v1/extract"}, _gliner_server_reply(0, 5), "rewrite"),
    ("gliner mask pii on output", {"path": "/v1/extract"}, {"entities": None}, "unclear"),
    ("crowdstrike aidr guard input", {}, {"result": {"blocked": True}}, "block"),
    ("crowdstrike aidr guard input", {}, {"result": {"blocked": False}}, "allow"),
    ("crowdstrike aidr guard input", {}, {"result": {}}, "unclear"),
    ("crowdstrike aidr guard output", {}, _crowdstrike_reply("assistant", "***."), "rewrite"),
    ("crowdstrike aidr guard output", {}, _crowdstrike_reply("user", "***."), "unclear"),
    ("crowdstrike aidr guard input", {}, _crowdstrike_reply("user", None), "unclear"),
    ("f5 guardrails scan input", {}, {"result": {"outcome": "cleared"}}, "allow"),
    ("f5 guardrails scan input", {"fail_open": True}, {"result": {"outcome": "flagged"}}, "block"),
    ("f5 guardrails scan output", {}, {"result": {"outcome": None}}, "unclear"),
    ("f5 guardrails scan output", {}, {"error": "x"}, "unclear"),
    ("ai defense inspect prompt", {}, {"is_safe": True}, "allow"),
    ("ai defense inspect prompt", {}, {"is_safe": False, "rules": [{"rule_name": "r"}]}, "block"),
    ("ai defense inspect response", {"fail_open": True}, {"is_safe": "yes"}, "unclear"),
    ("gcpnlp moderation", {}, _google_reply(Toxic=0.9), "block"),
    ("gcpnlp moderation", {}, _google_reply(Toxic=0.7), "allow"),
    ("gcpnlp moderation", {}, {"moderationCategories": []}, "unclear"),
    ("gcpnlp moderation detailed", {}, _google_reply(Derogatory=0.5), "block"),
    ("gcpnlp moderation detailed", {}, _google_reply(Derogatory=0.3, Toxic=0.7), "allow"),
    ("gcpnlp moderation detailed", {}, {"error": {"code": 403}}, "unclear"),
    ("cleanlab trustworthiness", {}, {"confidence_score": 0.9}, "allow"),
    ("cleanlab trustworthiness", {}, {"confidence_score": None}, "unclear"),
    (
        "cleanlab trustworthiness",
        {},
        {"confidence_score": 0.9, "deberta_success": False},
        "unclear",
    ),
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
    "gliner": "gliner",
    "crowdstrike": "crowdstrike_aidr",
    "f5": "f5",
    "ai": "ai_defense",
    "gcpnlp": "gcp_moderate_text",
    "cleanlab": "cleanlab",
}
KEY_VARIABLES = (
    *("FIDDLER_API_KEY", "PAI_API_KEY", "PS_APP_ID", "PANGEA_API_TOKEN", "V1_API_KEY"),
    *("CLAVATA_API_KEY", "PATRONUS_API_KEY", "ACTIVEFENCE_API_KEY", "AUTOALIGN_API_KEY"),
    *("CS_AIDR_TOKEN", "F5_GUARDRAILS_API_KEY", "AI_DEFENSE_API_KEY", "GOOGLE_API_KEY"),
    "CLEANLAB_API_KEY",
)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEY_VARIABLES:
        monkeypatch.setenv(name, KEY)
    monkeypatch.setattr("truing.rails.library.service_rails.DEFAULT_RETRIES", 0)


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
        "gliner": {"server_endpoint": url + settings.get("path", "/v1/chat/completions")},
        "f5": {"api_url": url},
    }
    monkeypatch.setenv("CS_AIDR_BASE_URL_TEMPLATE", url)
    monkeypatch.setenv("AI_DEFENSE_API_ENDPOINT", url)
    monkeypatch.setenv("PS_PROTECT_URL", url)
    monkeypatch.setenv("PANGEA_BASE_URL_TEMPLATE", url)
    for vendor in ("patronus", "activefence", "gcpnlp", "cleanlab"):
        make_address = VENDOR_RAILS.get(rail)
        if rail.startswith(vendor) and make_address is not None:
            address = make_address(RailsConfig())
            assert address is not None
            moved = ServiceAddress(
                service=address.service,
                url=url,
                key="",
                variable=address.variable,
                header=address.header,
                prefix=address.prefix,
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
    return (
        rail.split()[-1] in ("input", "prompt", "heuristics", "model", "moderation", "detailed")
        or "user" in rail
    )


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
    assert sent["fiddler user safety"] == {"data": {"input": "hi"}}
    assert sent["gliner detect pii on input"] == {
        "model": "nvidia/gliner-pii",
        "messages": [{"role": "user", "content": "hi"}],
        "threshold": 0.5,
        "chunk_length": 384,
        "overlap": 128,
        "flat_ner": False,
    }
    assert sent["crowdstrike aidr guard output"]["guard_input"]["messages"][-1] == {
        "role": "assistant",
        "content": "Hello.",
    }
    assert sent["f5 guardrails scan output"] == {"input": "Hello."}
    assert headers["ai defense inspect prompt"]["x-cisco-ai-defense-api-key"] == KEY
    assert sent["gcpnlp moderation"] == {"document": {"type": "PLAIN_TEXT", "content": "hi"}}
    assert headers["gcpnlp moderation"]["x-goog-api-key"] == KEY
    assert sent["cleanlab trustworthiness"]["response"] == {"response": "Hello."}
    assert headers["cleanlab trustworthiness"]["authorization"] == f"bearer {KEY}"
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
    assert sent["trend ai guard input"] == {"prompt": "hi"}
    assert headers["trend ai guard input"]["tmv1-application-name"] == "truing"
    assert headers["trend ai guard input"]["prefer"] == "return=minimal"
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
        # A guardrail that did not answer, or with null, has let nothing pass.
        rows[1]["guarded"] = None
        assert ask(model).finish_reason == "blocked"
        rows.pop()
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
    monkeypatch.setenv("AI_DEFENSE_API_ENDPOINT", "https://us.api.inspect.aidefense.example")
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


def test_a_text_that_google_flags_gets_the_message_of_its_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = [("Insult", 0.75), ("Sexual", 0.75), ("Health", 0.85)]

    async def handler(request: Request) -> None:
        name, score = scores[request.number]
        await request.send(200, _google_reply(**{name: score}))

    with serving(handler) as server:
        model = guard("gcpnlp moderation detailed", {}, server.url, monkeypatch)
        assert [ask(model).text for _ in scores] == [
            "I will not engage in any abusive or harmful behavior.",
            "I will not engage with inappropriate content.",
            "I will not engage with sensitive content.",
        ]


def test_an_untrustworthy_answer_carries_a_caution(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(request: Request) -> None:
        await request.send(200, {"confidence_score": 0.2})

    with serving(handler) as server:
        answer = ask(guard("cleanlab trustworthiness", {}, server.url, monkeypatch))
    assert answer.text == (
        "Hello.\nCAUTION: THIS ANSWER HAS BEEN FLAGGED AS POTENTIALLY UNTRUSTWORTHY"
    )


@pytest.mark.parametrize("reply", [b"<html>busy</html>", b"", b"[]", b"{}", b"null", b"\xff"])
def test_no_vendor_passes_a_text_on_another_reply(
    reply: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(request: Request) -> None:
        await request.send(200, reply)

    rails = list(dict.fromkeys(case[0] for case in CASES))
    with serving(handler) as server:
        for rail in rails:
            settings = next(case[1] for case in CASES if case[0] == rail)
            answer = ask(guard(rail, settings, server.url, monkeypatch))
            assert answer.finish_reason == "blocked" and answer.text != "Hello.", rail


def test_the_beta_of_trend_micro_is_asked_in_its_own_form(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = ServiceInputs("input", "hi", "hi", "", (), {"v1_url": "https://x/beta/guard"}, "")
    assert SERVICE_PROTOCOLS["trend micro"].make_body(inputs) == {"guard": "hi"}
    config = {
        "rails": {
            "input": {"flows": ["trend ai guard input"]},
            "config": {"trend_micro": {"application_name": "two words"}},
        }
    }
    with pytest.raises(PlanError, match="application_name: letters"):
        find_service_addresses(RailsConfig.from_text(json.dumps(config)))
