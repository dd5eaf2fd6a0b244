"""The requests and verdicts of the services that NeMo's library rails ask.

Forms of the requests and of the replies as in the actions of nemoguardrails 0.17.0 (library/
fiddler, autoalign, privateai, prompt_security, pangea, trend_micro, clavata, patronusai,
activefence, factchecking, jailbreak_detection; Apache-2.0), those of Fiddler and Trend Micro as in
0.24.1, which follows their later APIs. Where those let a text pass because the
service failed, or sent another form, truing blocks.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from truing.rails.config.vendor_addresses import is_beta_address
from truing.rails.library.further_service_protocols import FURTHER_PROTOCOLS
from truing.rails.library.service_rails import (
    ServiceInputs,
    ServiceProtocol,
    ServiceVerdict,
    list_guarded_messages,
    read_flag,
    read_score,
    read_text,
)

# -- Fiddler -----------------------------------------------------------------------------------

_FIDDLER_SCORES = (
    *("fdl_harmful", "fdl_violent", "fdl_unethical", "fdl_illegal", "fdl_sexual", "fdl_racist"),
    *("fdl_jailbreaking", "fdl_harassing", "fdl_hateful", "fdl_sexist"),
)
_FIDDLER_LATER_SCORES = ("fdl_roleplaying",)  # servers of earlier versions have none


def _read_fiddler_safety(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    names = [*_FIDDLER_SCORES, *(name for name in _FIDDLER_LATER_SCORES if name in reply)]
    highest = max(read_score(reply[name]) for name in names)
    threshold = read_score(inputs.settings.get("safety_threshold", 0.1))
    return ServiceVerdict(highest >= threshold, score=highest)


def _read_fiddler_faithfulness(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    score = read_score(reply["fdl_faithful_score"])
    threshold = read_score(inputs.settings.get("faithfulness_threshold", 0.05))
    return ServiceVerdict(score <= threshold, score=score)


# -- AutoAlign ---------------------------------------------------------------------------------

_AUTOALIGN_TASKS = (
    *("pii", "confidential_info_detection", "gender_bias_detection", "harm_detection"),
    *("toxicity_detection", "racial_bias_detection", "tonal_detection", "jailbreak_detection"),
    "intellectual_property",
)
_PII_PREFIX = "PII redacted text: "
_SCORE_PREFIX = "Factcheck Score: "
FACTCHECK_THRESHOLD = 0.5  # NeMo's, in the flows of these rails


def _autoalign_parameters(inputs: ServiceInputs) -> Mapping[str, Any]:
    parameters: Mapping[str, Any] = inputs.settings.get("parameters") or {}
    return parameters


def _autoalign_guardrails(inputs: ServiceInputs) -> dict[str, Any]:
    stage = inputs.settings.get("input" if inputs.source == "input" else "output") or {}
    return dict(stage.get("guardrails_config") or {})


def _make_autoalign_body(inputs: ServiceInputs) -> Any:
    config: dict[str, Any] = {task: {"mode": "OFF"} for task in _AUTOALIGN_TASKS}
    config["pii"]["mask"] = False
    guardrails = _autoalign_guardrails(inputs)
    if not guardrails:
        raise ValueError("guardrails_config names no guardrail")
    for task, settings in guardrails.items():
        if task == "factcheck":
            continue
        config[task] = {**config[task], "mode": "DETECT", **(settings or {})}
    multi_language = bool(_autoalign_parameters(inputs).get("multi_language"))
    return {"prompt": inputs.text, "config": config, "multi_language": multi_language}


def _read_autoalign(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    config = _make_autoalign_body(inputs)["config"]
    asked = {task for task, settings in config.items() if settings["mode"] != "OFF"}
    missing = asked - {row["task"] for row in reply}
    if missing or not reply:
        raise ValueError(f"no answer of the guardrails {', '.join(sorted(missing))}")
    guarded = [row for row in reply if read_flag(row["guarded"])]
    objections = [str(row["task"]) for row in guarded if row["task"] != "pii"]
    if objections:
        return ServiceVerdict(True, ", ".join(objections))
    masked = [str(row["response"]) for row in guarded]
    if not masked:
        return ServiceVerdict(False)
    if not masked[-1].startswith(_PII_PREFIX):
        raise ValueError("no redacted text")
    return ServiceVerdict(False, "pii", masked[-1].removeprefix(_PII_PREFIX))


def _make_groundedness_body(inputs: ServiceInputs) -> Any:
    config = {"groundedness_checker": {"verify_response": False}, **_autoalign_guardrails(inputs)}
    return {"prompt": inputs.text, "documents": list(inputs.chunks), "config": config}


def _read_groundedness(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    for row in reply:
        if row["task"] == "groundedness_checker" and row["response"].startswith(_SCORE_PREFIX):
            score = read_score(row["response"].removeprefix(_SCORE_PREFIX))
            return ServiceVerdict(score < FACTCHECK_THRESHOLD, score=score)
    raise ValueError("no score")


def _make_factcheck_body(inputs: ServiceInputs) -> Any:
    document = {
        "content": inputs.text,
        "type": "text_content",
        "file_name": "HighlightedText.txt",
    }
    return {
        # The key goes in the header alone; NeMo repeats it here.
        "labels": {"session_id": "nemo"},
        "content_moderation_docs": [document],
        "user_query": inputs.user_message,
        "config": _autoalign_guardrails(inputs),
        "multi_language": bool(_autoalign_parameters(inputs).get("multi_language")),
    }


def _read_factcheck(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    score = read_score(reply["all_overall_fact_scores"][0])
    return ServiceVerdict(score < FACTCHECK_THRESHOLD, score=score)


# -- Private AI, Prompt Security, Pangea, Trend Micro -------------------------------------------


def _make_private_ai_body(inputs: ServiceInputs) -> Any:
    detection: dict[str, Any] = {"accuracy": "high_automatic", "return_entity": False}
    entities = (inputs.settings.get(inputs.source) or {}).get("entities")
    if entities:
        detection["entity_types"] = [{"type": "ENABLE", "value": list(entities)}]
    return {"text": [inputs.text], "link_batch": False, "entity_detection": detection}


def _read_private_ai(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    """The rail decides what follows: `detect pii` blocks where entities are present."""
    (result,) = reply
    processed = read_text(result["processed_text"])
    return ServiceVerdict(read_flag(result["entities_present"]), "personal data", processed)


def _make_prompt_security_body(inputs: ServiceInputs) -> Any:
    is_output = inputs.source == "output"
    return {
        "prompt": None if is_output else inputs.text,
        "system_prompt": None,
        "response": inputs.text if is_output else None,
        "user": None,
    }


def _read_prompt_security(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    result = reply["result"]
    action = result["action"]
    if action == "block":
        return ServiceVerdict(True)
    if action == "modify":
        key = "response" if inputs.source == "output" else "prompt"
        return ServiceVerdict(False, rewrite=read_text(result[key]["modified_text"]))
    if action not in ("log", "allow"):
        raise ValueError(f"unknown action {action!r}")
    return ServiceVerdict(False)


def _make_pangea_body(inputs: ServiceInputs) -> Any:
    messages = list_guarded_messages(inputs)
    recipe = (inputs.settings.get(inputs.source) or {}).get("recipe")
    return {"messages": messages, **({"recipe": recipe} if recipe else {})}


def _read_pangea(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    result = reply["result"]
    is_blocked = read_flag(result["blocked"])
    if is_blocked or not result.get("transformed"):
        return ServiceVerdict(is_blocked)
    role = "assistant" if inputs.source == "output" else "user"
    texts = [row["content"] for row in result["prompt_messages"] if row["role"] == role]
    return ServiceVerdict(False, rewrite=read_text(texts[0]))


def _make_trend_micro_body(inputs: ServiceInputs) -> Any:
    return {"guard" if is_beta_address(inputs.settings) else "prompt": inputs.text}


def _read_trend_micro(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    action = str(reply["action"]).lower()
    if action not in ("block", "allow"):
        raise ValueError(f"unknown action {action!r}")
    return ServiceVerdict(action == "block", str(reply.get("reason") or "") or None)


# -- Clavata, Patronus, ActiveFence ------------------------------------------------------------


def _clavata_rail(inputs: ServiceInputs) -> Mapping[str, Any]:
    rail: Mapping[str, Any] = inputs.settings.get(inputs.source) or {}
    return rail


def _make_clavata_body(inputs: ServiceInputs) -> Any:
    policy = str(_clavata_rail(inputs).get("policy") or "")
    policies: Mapping[str, Any] = inputs.settings.get("policies") or {}
    policy_id = str(uuid.UUID(str(policies.get(policy, policy))))
    return {
        "content_data": [{"text": inputs.text}],
        "policy_id": policy_id,
        "wait_for_completion": True,
    }


def _read_clavata(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    job = reply["job"]
    if job["status"] != "JOB_STATUS_COMPLETED":
        raise ValueError(f"the job is {job['status']}")
    (result,) = job["results"]
    report = result["report"]
    if report["result"] not in ("OUTCOME_TRUE", "OUTCOME_FALSE"):
        raise ValueError(f"the outcome is {report['result']}")
    labels = set(map(str, _clavata_rail(inputs).get("labels") or ()))
    if not labels:
        return ServiceVerdict(report["result"] == "OUTCOME_TRUE")
    outcomes = {str(row["name"]): row["result"] for row in report["sectionEvaluationReports"]}
    for label in sorted(labels):
        # A section that failed, or that the policy does not have, says nothing of its label.
        if outcomes[label] not in ("OUTCOME_TRUE", "OUTCOME_FALSE"):
            raise ValueError(f"the outcome of {label[:40]!r} is {str(outcomes[label])[:40]}")
    matched = {name for name, outcome in outcomes.items() if outcome == "OUTCOME_TRUE"}
    needs_all = inputs.settings.get("label_match_logic") == "ALL"
    is_match = labels <= matched if needs_all else bool(labels & matched)
    return ServiceVerdict(is_match, ", ".join(sorted(labels & matched)) or None)


def _patronus_config(inputs: ServiceInputs) -> Mapping[str, Any]:
    config: Mapping[str, Any] = (inputs.settings.get("output") or {}).get("evaluate_config") or {}
    return config


def _make_patronus_body(inputs: ServiceInputs) -> Any:
    params = dict(_patronus_config(inputs).get("params") or {})
    evaluators = params.get("evaluators")
    if not isinstance(evaluators, list) or not all("evaluator" in row for row in evaluators):
        raise ValueError("params.evaluators is a list, and each item names its evaluator")
    return {
        **params,
        "evaluated_model_input": inputs.user_message,
        "evaluated_model_output": inputs.text,
        "evaluated_model_retrieved_context": "\n".join(inputs.chunks) or None,
    }


def _read_patronus(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    passed = [result["evaluation_result"]["pass"] is True for result in reply["results"]]
    evaluators = _patronus_config(inputs)["params"]["evaluators"]
    if not passed or len(passed) < len(evaluators):
        raise ValueError(f"{len(passed)} results of {len(evaluators)} evaluators")
    strategy = _patronus_config(inputs).get("success_strategy") or "all_pass"
    is_passed = any(passed) if strategy == "any_pass" else all(passed)
    return ServiceVerdict(not is_passed)


ACTIVEFENCE_THRESHOLD = 0.7


def _make_activefence_body(inputs: ServiceInputs) -> Any:
    return {"text": inputs.text, "content_id": f"ng-{uuid.uuid4()}"}


def _read_activefence(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    scores: dict[str, float] = {}
    for row in reply["violations"]:
        name, score = str(row["violation_type"]), read_score(row["risk_score"])
        scores[name] = max(score, scores.get(name, score))  # one type may have several rows
    highest = max(scores.values(), default=0.0)
    names = [name for name in scores if scores[name] > ACTIVEFENCE_THRESHOLD]
    return ServiceVerdict(highest > ACTIVEFENCE_THRESHOLD, ", ".join(names) or None, score=highest)


# -- NeMo's own servers ------------------------------------------------------------------------


def _read_align_score(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    score = read_score(reply["alignscore"])
    return ServiceVerdict(score < FACTCHECK_THRESHOLD, score=score)


def _make_jailbreak_body(inputs: ServiceInputs) -> Any:
    """The thresholds are those of NeMo's heuristics; its server of the model ignores them."""
    settings = inputs.settings
    return {
        "prompt": inputs.text,
        "lp_threshold": settings.get("length_per_perplexity_threshold", 89.79),
        "ps_ppl_threshold": settings.get("prefix_suffix_perplexity_threshold", 1845.65),
    }


def _read_jailbreak(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    return ServiceVerdict(reply["jailbreak"])


SERVICE_PROTOCOLS: dict[str, ServiceProtocol] = {
    "ftl-safety": ServiceProtocol(lambda i: {"data": {"input": i.text}}, _read_fiddler_safety),
    "ftl-response-faithfulness": ServiceProtocol(
        lambda i: {"data": {"response": i.text, "context": "\n".join(i.chunks)}},
        _read_fiddler_faithfulness,
    ),
    "autoalign endpoint": ServiceProtocol(_make_autoalign_body, _read_autoalign, is_lines=True),
    "autoalign groundedness_check_endpoint": ServiceProtocol(
        _make_groundedness_body, _read_groundedness, is_lines=True
    ),
    "autoalign fact_check_endpoint": ServiceProtocol(_make_factcheck_body, _read_factcheck),
    "private ai": ServiceProtocol(_make_private_ai_body, _read_private_ai),
    "prompt security": ServiceProtocol(_make_prompt_security_body, _read_prompt_security),
    "pangea": ServiceProtocol(_make_pangea_body, _read_pangea),
    "trend micro": ServiceProtocol(_make_trend_micro_body, _read_trend_micro),
    "clavata": ServiceProtocol(_make_clavata_body, _read_clavata),
    "patronus": ServiceProtocol(_make_patronus_body, _read_patronus),
    "activefence": ServiceProtocol(_make_activefence_body, _read_activefence),
    "alignscore": ServiceProtocol(
        lambda i: {"evidence": list(i.chunks), "claim": i.text}, _read_align_score
    ),
    "jailbreak server": ServiceProtocol(_make_jailbreak_body, _read_jailbreak),
    **FURTHER_PROTOCOLS,
}
"""Name of a service -> how it is asked."""

SERVICE_BLOCKS = {
    "ftl-safety": "fiddler",
    "ftl-response-faithfulness": "fiddler",
    "autoalign endpoint": "autoalign",
    "autoalign groundedness_check_endpoint": "autoalign",
    "autoalign fact_check_endpoint": "autoalign",
    "private ai": "privateai",
    "pangea": "pangea",
    "trend micro": "trend_micro",
    "clavata": "clavata",
    "patronus": "patronus",
    "alignscore": "fact_checking",
    "jailbreak server": "jailbreak_detection",
    "gliner": "gliner",
    "f5": "f5",
}
"""Service -> its block under `rails.config`."""
