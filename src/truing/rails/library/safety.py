"""Rails that ask a judge, a guard model or the encoder: moderation, self-harm, jailbreak, injection, topic, tone.

What cannot be told blocks, with the reason. A judge that is used here never measures the guarded model: it stands in the
model's lineage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from truing.core.protocols import Judge
from truing.core.taxonomy import load_taxonomy
from truing.core.types import Answer, Conversation, Judgement, Message, Response, Sample
from truing.rails.actions import RailOutcome
from truing.rails.colang.flow_reference import parse_flow_parameters
from truing.rails.library import distress, tone
from truing.rails.library.classifier_heads import score as head_score
from truing.rails.library.texts import block
from truing.rails.runtime.turn_context import Turn

DEFAULT_JUDGE = "moderation:open"
ALTERNATIVE = "If there is something safe behind your question, tell me about it and I'll gladly help with that."
GUARD_TOKENS = 1024


def judge_specs(truing: dict[str, Any], rails: frozenset[str]) -> list[str]:
    """The judges that the configured rails need, as spec strings."""
    stages = (stage for stage in ("input", "output") if f"moderation check {stage}" in rails)
    wanted = list(
        dict.fromkeys(_moderation(truing.get("moderation") or {}, stage)[0] for stage in stages)
    )
    own = (truing.get("self_harm") or {}).get("judge")
    if own and "self harm support" in rails:
        wanted.append(str(own))
    return wanted


def _moderation(settings: Mapping[str, Any], source: str) -> tuple[str, dict[str, Any]]:
    """The judge's spec and the settings of a stage: what stands under ``input:`` or ``output:`` goes before the common ones."""
    found = {**settings, **(settings.get(source) or {})}
    return str(found.get("judge") or DEFAULT_JUDGE), found


async def _judged(turn: Turn, judge: Judge, source: str, text: str) -> Judgement:
    """Of input the message: as a prompt where the judge knows prompts, else as if it were an answer. Of output the answer to
    the conversation."""
    answer = Response.of("rail", 0, "rail", Answer.of(text))
    if source != "input":
        return await judge.judge(Sample(conversation=_prompt(turn), id="rail"), answer)
    prompts = getattr(judge, "of_prompts", None)
    if prompts is None:
        return await judge.judge(Sample(conversation=Conversation(), id="rail"), answer)
    made: Judgement = await prompts().judge(
        Sample(conversation=Conversation.of(text), id="rail"), answer
    )
    return made


def _prompt(turn: Turn) -> Conversation:
    """The conversation up to the user's newest message."""
    rows = [
        m
        for m in turn.chat
        if m.get("role") in ("system", "user", "assistant") and isinstance(m.get("content"), str)
    ]
    while rows and rows[-1]["role"] != "user":
        rows.pop()
    return Conversation(tuple(Message(m["role"], m["content"]) for m in rows))


async def moderation_check(turn: Turn, source: str, text: str, **params: Any) -> RailOutcome:
    """Asks the judge of ``truing: moderation: judge:``; over its threshold, or unscored, the text is blocked.

    `threshold` is for harm of any kind (default: the judge's own verdict), `thresholds` for categories by name; both, and the
    judge, may differ for `input:` and `output:`.
    """
    spec, settings = _moderation(block(turn, "moderation"), source)
    made = await _judged(turn, turn.services.judges[spec], source, text or "")
    alternative = str(settings.get("alternative") or ALTERNATIVE)
    over = {
        category: p
        for category, p in made.harms.items()
        if (limit := _limit(settings.get("thresholds") or {}, category)) is not None and p >= limit
    }
    threshold = settings.get("threshold")
    harmful = (
        made.score is not None and made.score >= float(threshold)
        if threshold is not None
        else made.verdict is not False
    )
    if made.verdict is None and made.score is None:
        why = made.failure.message if made.failure else "no verdict"
        turn.because(f"could not be judged: {why}")
        return RailOutcome.block(
            reason="I could not check that it is safe", metadata={"alternative": alternative}
        )
    if not over and not (harmful and (threshold is not None or not settings.get("thresholds"))):
        turn.because("the judge has nothing to object", score=made.score)
        return RailOutcome.allow()
    worst = max(over or made.harms or {"": 0.0}, key=lambda c: (over or made.harms or {"": 0.0})[c])
    name = _name(worst)
    turn.because(
        f"{spec} says harmful{f', {name}' if name else ''}", score=over.get(worst, made.score)
    )
    reason = f"it could do harm ({name})" if name else "it could do harm"
    return RailOutcome.block(
        reason=reason, metadata={"alternative": alternative, "category": worst}
    )


def _limit(thresholds: dict[str, Any], category: str) -> float | None:
    found = thresholds.get(category, thresholds.get(category.split(",", 1)[0]))
    return float(found) if found is not None else None


def _name(category: str) -> str:
    try:
        return load_taxonomy("beavertails").find(category).name.lower() if category else ""
    except Exception:  # a judge of another taxonomy: its own id is the name
        return category


async def self_harm_check(turn: Turn, text: str, **params: Any) -> RailOutcome:
    """Blocks with a supportive message, with the help of ``truing: self_harm:``, never with a bare refusal.

    Words of self-harm are found by pattern; with ``encoder: true`` distress of any kind by the shared encoder, with
    ``judge: SPEC`` the judge's category self_harm at `threshold` (0.5) counts too. A judge that cannot tell is not enough
    to stop: the other rails decide.
    """
    settings = block(turn, "self_harm")
    words = distress.in_distress(text or "")
    why, value = (f"words of self-harm: {words!r}", 1.0) if words else (None, None)
    if why is None and settings.get("encoder") and (text or "").strip():
        value, over = await head_score("distress", text)
        why = "the message sounds like distress" if over else None
    if why is None and settings.get("judge"):
        judge = turn.services.judges[str(settings["judge"])]
        response = Response.of("rail", 0, "rail", Answer.of(text or ""))
        made = await judge.judge(Sample(conversation=Conversation(), id="rail"), response)
        value = next((p for c, p in made.harms.items() if c.startswith("self_harm")), None)
        why = (
            "the judge says self-harm"
            if value is not None and value >= float(settings.get("threshold", 0.5))
            else None
        )
    if why is None:
        return RailOutcome.allow()
    turn.because(why, score=value)
    return RailOutcome.block(
        reason=why,
        metadata={"message": distress.support(settings.get("message"), settings.get("help"))},
    )


_ORDERS = re.compile(
    r"(?i)\b(?:ignore|disregard|forget|override|bypass)\b[^.\n]{0,40}"
    r"\b(?:instructions?|rules?|guidelines?|prompts?|restrictions?)\b"
    r"|\b(?:ignore|disregard|forget) (?:all|everything|anything) (?:of )?(?:the |that )?(?:above|before|previous|said)"
    r"|\b(?:you are now|act as|pretend (?:to be|you are)|from now on you|you speak only as|play the role of)\b[^\n]{0,90}\b(?:dan"
    r"|jailbroken|unfiltered|uncensored|amoral|without (?:any )?(?:restrictions?|rules|filters?|limits?|ethics)"
    r"|no (?:restrictions?|rules|filters?|limits?|ethics)|(?:answers?|says|tells) (?:every|any|all|anything|everything))"
    r"|\bdo anything now\b|\bdeveloper mode\b[^.\n]{0,40}\b(?:on|enabled|activated)\b"
    r"|\b(?:reveal|print|repeat|show|tell me)\b[^.\n]{0,30}\b(?:system prompt|hidden prompt"
    r"|initial instructions|your instructions)\b"
    r"|\bwithout (?:any )?(?:warnings?|disclaimers?|ethical|moral)\b[^.\n]{0,40}"
    r"\b(?:constraints?|considerations?|warnings?|at all)\b"
    r"|\b(?:never|do not|don't|must not|cannot) (?:say|use|write|include|output)\b[^.\n]{0,40}"
    r"\b(?:sorry|cannot|can't|unable|however)\b"
    r"|\bno (?:apolog(?:y|ies)|refusals?)\b[^.\n]{0,60}\b(?:warnings?|cannot|disclaimers?|unable)\b"
    r"|\b(?:never|do not|don't) refuse\b"
    r"|\b(?:begin|start|open) (?:your|the|every) (?:answer|response|reply) (?:with|by)\b[^.\n]{0,60}"
    r"\b(?:sure|absolutely|of course|certainly|yes)\b"
    r"|\b(?:decode|decipher|translate) (?:it|this|the following)\b[^\n]{0,40}\b(?:then|and) (?:answer|follow|do|obey)\b"
)
_ENCODED = re.compile(
    r"(?:[A-Za-z0-9+/]{40,}={0,2})|(?:(?:[.-]{1,6}|/) ){14,}|(?:\b[01]{8}\b ?){6,}"
)


async def jailbreak_detection_heuristics(turn: Turn, text: str, **params: Any) -> RailOutcome:
    """Generic signs of a jailbreak: orders to drop the rules, unbound personas, forced openings, encoded payloads, and the
    unlikely character runs of optimised suffixes. No model is needed; NeMo asks a gpt2-large here."""
    plain = text or ""
    sign = None
    if found := _ORDERS.search(plain):
        sign = f"an order to drop the rules: {found.group()[:60]!r}"
    elif _ENCODED.search(plain):
        sign = "a long encoded run"
    elif _scrambled(plain):
        sign = "an unlikely run of characters"
    if sign is None:
        return RailOutcome.allow()
    turn.because(sign, score=1.0)
    return RailOutcome.block(reason=sign)


def _scrambled(text: str) -> bool:
    """The tail of optimised suffixes: twenty words of which most mix letters, brackets and other marks."""
    words = text.split()
    if len(words) < 20:
        return False
    odd = [
        w
        for w in words[-20:]
        if len(re.findall(r"[^\w\s.,!?'\"-]", w)) >= 2 or re.search(r"[a-z][A-Z][a-z]+[A-Z]", w)
    ]
    return len(odd) >= 8


async def injection_check(turn: Turn, text: str, **params: Any) -> RailOutcome:
    """The injection head of the shared encoder; `threshold` under ``truing: injection:`` is a probability."""
    if not (text or "").strip():
        return RailOutcome.allow()
    value, over = await head_score("injection", text)
    limit = block(turn, "injection").get("threshold")
    if not (value >= float(limit) if limit is not None else over):
        turn.because("no sign of an injection", score=value)
        return RailOutcome.allow()
    turn.because("it tries to give the assistant new orders", score=value)
    return RailOutcome.block(reason="it tries to give the assistant new orders")


def orders_in(text: str) -> str | None:
    """The words of a document that give orders to the assistant, by pattern, or none."""
    found = _ORDERS.search(text)
    return found.group()[:60] if found else None


async def injection_check_chunks(turn: Turn, text: Any, **params: Any) -> RailOutcome:
    """Drops the retrieved pieces that give orders to the assistant, by pattern: the head learned from short messages only."""
    parts = text if isinstance(text, list) else str(text or "").split("\n\n")
    kept = [p for p in parts if orders_in(str(p)) is None]
    if len(kept) == len(parts):
        return RailOutcome.allow()
    turn.because(f"{len(parts) - len(kept)} of {len(parts)} retrieved pieces give orders")
    joined: Any = kept if isinstance(text, list) else "\n\n".join(map(str, kept))
    return RailOutcome(decision="transform", transforms={"relevant_chunks": joined})


async def topic_check(turn: Turn, text: str, **params: Any) -> RailOutcome:
    """On topic if near one of ``truing: topic: allow:`` (examples), off if nearer to one of `deny`; `threshold` is a cosine."""
    settings = block(turn, "topic")
    allow, deny = (
        [str(t) for t in settings.get("allow") or ()],
        [str(t) for t in settings.get("deny") or ()],
    )
    if not (text or "").strip() or not allow:
        return RailOutcome.allow()
    vectors = turn.services.vectors
    one = await vectors.one(text)
    near = max(float(one @ v) for v in vectors.many(allow))
    far = max((float(one @ v) for v in vectors.many(deny)), default=-1.0)
    if near >= float(settings.get("threshold", 0.25)) and near >= far:
        turn.because("on topic", score=near)
        return RailOutcome.allow()
    turn.because("off topic", score=near)
    alternative = str(settings.get("alternative") or f"I can help with: {', '.join(allow[:3])}.")
    return RailOutcome.block(reason="off topic", metadata={"alternative": alternative})


async def tone_check(turn: Turn, text: str, **params: Any) -> RailOutcome:
    """An answer off the tone policy is rewritten by the LLM, at most `rewrites` times (1), then by rule; else withheld."""
    policy = tone.Policy.of(block(turn, "tone"))
    faults = policy.faults(text or "")
    if not faults:
        turn.because("on tone")
        return RailOutcome.allow()
    said = text
    for _ in range(policy.rewrites):
        reply = await turn.llm("tone")(
            policy.prompt(said, faults), temperature=turn.services.config.lowest_temperature
        )
        made = reply.content.strip().strip('"')
        if made and not policy.faults(made) and policy.keeps(said, made):
            turn.because(f"rewritten: {'; '.join(faults)}")
            return RailOutcome(decision="transform", transforms={"bot_message": made})
    mended = policy.mend(said)
    if mended and not policy.faults(mended):
        turn.because(f"mended by rule: {'; '.join(faults)}")
        return RailOutcome(decision="transform", transforms={"bot_message": mended})
    turn.because(f"off tone: {'; '.join(faults)}")
    return RailOutcome.block(reason="; ".join(faults))


def _named(turn: Turn, stage: str) -> str:
    """The model of a rail such as ``content safety check input $model=guard``."""
    rail = turn.talk.context.get(f"triggered_{stage}_rail") or turn.rail or ""
    found = parse_flow_parameters(rail).get("model") if isinstance(rail, str) else None
    return str(found or turn.talk.context.get("model") or "").strip("'\"")


async def _guard(turn: Turn, task: str, given: dict[str, Any], name: str) -> RailOutcome:
    prompts = turn.services.prompts
    if name not in turn.services.models:
        turn.because(f"there is no model {name!r}")
        return RailOutcome.block(reason=f"there is no model {name!r} for {task}")
    scoped = f"{task} $model={name}"
    prompt = prompts.render_task_prompt(scoped, {**given, "reasoning_enabled": False})
    reply = await turn.llm(name)(
        prompt,
        stop=prompts.get_stop_tokens(scoped),
        temperature=1e-20,
        max_tokens=prompts.get_max_tokens(scoped) or GUARD_TOKENS,
    )
    verdict = prompts.parse_task_output(
        scoped, reply.content, None if prompts.has_output_parser(scoped) else "is_content_safe"
    )
    if isinstance(verdict, (list, tuple)) and verdict and verdict[0] is True:
        turn.because("the guard model has nothing to object")
        return RailOutcome.allow(metadata={"policy_violations": []})
    violated = [str(v) for v in verdict[1:]] if isinstance(verdict, (list, tuple)) else []
    turn.because(
        f"the guard model objects: {', '.join(violated) or 'no category'}",
        evidence=reply.content[:200],
    )
    return RailOutcome.block(metadata={"policy_violations": violated})


async def content_safety_check_input(turn: Turn, **params: Any) -> RailOutcome:
    """NeMo's content safety rail on the input: the guard model named by ``$model=``, with its prompt."""
    given = {"user_input": turn.talk.context.get("user_message") or ""}
    return await _guard(turn, "content_safety_check_input", given, _named(turn, "input"))


async def content_safety_check_output(turn: Turn, **params: Any) -> RailOutcome:
    """NeMo's content safety rail on the output."""
    context = turn.talk.context
    given = {
        "user_input": context.get("user_message") or "",
        "bot_response": context.get("bot_message") or "",
    }
    return await _guard(turn, "content_safety_check_output", given, _named(turn, "output"))


_TOPIC_ENDING = (
    'If any of the above conditions are violated, please respond with "off-topic". '
    'Otherwise, respond with "on-topic". You must respond with "on-topic" or "off-topic".'
)


async def topic_safety_check_input(turn: Turn, **params: Any) -> RailOutcome:
    """NeMo's topic rail: the model named by ``$model=`` says on-topic or off-topic; anything but a clear on-topic blocks."""
    name = _named(turn, "input")
    if name not in turn.services.models:
        turn.because(f"there is no model {name!r}")
        return RailOutcome.block(reason=f"there is no model {name!r}")
    task = f"topic_safety_check_input $model={name}"
    system = str(turn.services.prompts.render_task_prompt(task, {})).strip()
    if not system.endswith(_TOPIC_ENDING):
        system = f"{system}\n\n{_TOPIC_ENDING}"
    history = [
        {"type": m["role"], "content": m["content"]}
        for m in turn.chat
        if m.get("role") in ("user", "assistant")
    ]
    reply = await turn.llm(name)(
        [{"type": "system", "content": system}, *history], temperature=0.01
    )
    said = reply.content.lower().strip().strip(".\"'")
    if said == "on-topic":
        return RailOutcome.allow()
    turn.because(
        "off topic" if said == "off-topic" else "the verdict is unclear, which counts as off topic",
        evidence=said[:80],
    )
    return RailOutcome.block()


for _call in (
    content_safety_check_input,
    content_safety_check_output,
    topic_safety_check_input,
    tone_check,
):
    vars(_call)["llm_calls"] = 1  # for the worst-case count of `truing rails check`

ACTIONS = (
    moderation_check,
    self_harm_check,
    jailbreak_detection_heuristics,
    injection_check,
    injection_check_chunks,
    topic_check,
    tone_check,
    content_safety_check_input,
    content_safety_check_output,
    topic_safety_check_input,
)
