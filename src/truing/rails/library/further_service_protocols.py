"""Requests and verdicts of services that NeMo Guardrails' later library asks (0.24.1; Apache-2.0).

GLiNER, CrowdStrike AIDR, F5 Guardrails and Cisco AI Defense in the forms of its actions; Google's
text moderation and Cleanlab, for which it uses the vendors' packages, in the forms that those send
over HTTP (documents:moderateText of the Natural Language API v2; get_confidence_score of
cleanlab-tlm 1.1.39). Where NeMo lets a text pass because the service failed, truing blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from truing.rails.config.vendor_addresses import is_chat_address
from truing.rails.library.service_rails import (
    ServiceInputs,
    ServiceProtocol,
    ServiceVerdict,
    list_guarded_messages,
    read_flag,
    read_score,
    read_text,
)

# -- GLiNER ------------------------------------------------------------------------------------

GLINER_MODEL = "nvidia/gliner-pii"
_GLINER_DEFAULTS = {"threshold": 0.5, "chunk_length": 384, "overlap": 128, "flat_ner": False}


def _make_gliner_body(inputs: ServiceInputs) -> Any:
    """Returns the request to a server of GLiNER, or to NVIDIA's NIM, a chat endpoint."""
    settings = inputs.settings
    body = {key: settings.get(key, default) for key, default in _GLINER_DEFAULTS.items()}
    labels = (settings.get(inputs.source) or {}).get("entities")
    if labels:
        body["labels"] = list(labels)
    if is_chat_address(settings):
        message = {"role": "user", "content": inputs.text}
        return {"model": settings.get("model") or GLINER_MODEL, "messages": [message], **body}
    return {"text": inputs.text, **body}


def _read_gliner(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    """The rail decides what follows: `gliner detect pii` blocks where entities are present."""
    if is_chat_address(inputs.settings):
        reply = msgspec.json.decode(reply["choices"][0]["message"]["content"])
    spans = [_read_span(entity, len(inputs.text)) for entity in reply["entities"]]
    total = reply.get("total_entities", len(spans))
    if total != len(spans):
        raise ValueError(f"{total} entities, of which {len(spans)} are listed")
    labels = ", ".join(dict.fromkeys(label for _, _, label in spans))
    return ServiceVerdict(bool(spans), labels or None, mask_spans(inputs.text, spans))


def _read_span(entity: Mapping[str, Any], length: int) -> tuple[int, int, str]:
    """Returns (start, end, label) of an entity, whose keys differ between the two servers."""
    start = entity["start"] if "start" in entity else entity["start_position"]
    end = entity["end"] if "end" in entity else entity["end_position"]
    label = entity["label"] if "label" in entity else entity["suggested_label"]
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= length:
        raise ValueError(f"the entity {str(label)[:40]!r} lies outside the text")
    return start, end, str(label)


def mask_spans(text: str, spans: list[tuple[int, int, str]]) -> str:
    """Returns a text with ``[LABEL]`` for each span; spans that overlap are masked as one."""
    merged: list[tuple[int, int, str]] = []
    for start, end, label in sorted(spans, key=lambda span: (span[0], -span[1])):
        if merged and start < merged[-1][1]:
            first_start, last_end, first_label = merged[-1]
            merged[-1] = (first_start, max(last_end, end), first_label)
        else:
            merged.append((start, end, label))
    for start, end, label in reversed(merged):
        text = f"{text[:start]}[{label.upper()}]{text[end:]}"
    return text


# -- CrowdStrike AIDR, F5 Guardrails, Cisco AI Defense -------------------------------------------


def _make_crowdstrike_body(inputs: ServiceInputs) -> Any:
    return {"guard_input": {"messages": list_guarded_messages(inputs)}}


def _read_crowdstrike(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    result = reply["result"]
    is_blocked = read_flag(result["blocked"])
    if is_blocked or not result.get("transformed"):
        return ServiceVerdict(is_blocked)
    role = "assistant" if inputs.source == "output" else "user"
    messages = result["guard_output"]["messages"]
    texts = [row["content"] for row in messages if row["role"] == role]
    return ServiceVerdict(False, rewrite=read_text(texts[0]))


def _read_f5(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    outcome = read_text(reply["result"]["outcome"])
    return ServiceVerdict(outcome != "cleared", None if outcome == "cleared" else outcome)


def _make_ai_defense_body(inputs: ServiceInputs) -> Any:
    role = "assistant" if inputs.source == "output" else "user"
    return {"messages": [{"role": role, "content": inputs.text}]}


def _read_ai_defense(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    is_safe = read_flag(reply["is_safe"])
    rules = ", ".join(str(rule.get("rule_name")) for rule in reply.get("rules") or ())
    return ServiceVerdict(not is_safe, rules or None)


# -- Google's text moderation, Cleanlab ----------------------------------------------------------

GOOGLE_THRESHOLD = 0.8
# NeMo's, in `gcpnlp moderation detailed`; the other categories have GOOGLE_THRESHOLD.
GOOGLE_THRESHOLDS = {"Insult": 0.7, "Profanity": 0.6, "Derogatory": 0.4, "Sexual": 0.7}
CLEANLAB_THRESHOLD = 0.6


def _make_google_body(inputs: ServiceInputs) -> Any:
    return {"document": {"type": "PLAIN_TEXT", "content": inputs.text}}


def _read_google_scores(reply: Any) -> dict[str, float]:
    rows = reply["moderationCategories"]
    # A category that scores 0 has no confidence: the API leaves out default values.
    scores = {str(row["name"]): read_score(row.get("confidence", 0)) for row in rows}
    if not scores:
        raise ValueError("no category was scored")
    return scores


def _read_google(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    scores = _read_google_scores(reply)
    worst = max(scores, key=scores.__getitem__)
    return ServiceVerdict(scores[worst] > GOOGLE_THRESHOLD, worst, score=scores[worst])


def _read_google_detailed(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    scores = _read_google_scores(reply)
    over = [n for n in scores if scores[n] > GOOGLE_THRESHOLDS.get(n, GOOGLE_THRESHOLD)]
    worst = max(over or scores, key=scores.__getitem__)
    return ServiceVerdict(bool(over), worst, score=scores[worst])


def _make_cleanlab_body(inputs: ServiceInputs) -> Any:
    return {
        "prompt": inputs.user_message,
        "response": {"response": inputs.text},
        "quality": "medium",
        "task": "default",
        "options": {},
    }


def _read_cleanlab(reply: Any, inputs: ServiceInputs) -> ServiceVerdict:
    if reply.get("deberta_success", True) is not True:
        raise ValueError("the score is partial")
    score = read_score(reply["confidence_score"])
    return ServiceVerdict(score < CLEANLAB_THRESHOLD, score=score)


FURTHER_PROTOCOLS: dict[str, ServiceProtocol] = {
    "gliner": ServiceProtocol(_make_gliner_body, _read_gliner),
    "crowdstrike aidr": ServiceProtocol(_make_crowdstrike_body, _read_crowdstrike),
    "f5": ServiceProtocol(lambda i: {"input": i.text}, _read_f5),
    "ai defense": ServiceProtocol(_make_ai_defense_body, _read_ai_defense),
    "google moderation": ServiceProtocol(_make_google_body, _read_google),
    "google moderation detailed": ServiceProtocol(_make_google_body, _read_google_detailed),
    "cleanlab": ServiceProtocol(_make_cleanlab_body, _read_cleanlab),
}
