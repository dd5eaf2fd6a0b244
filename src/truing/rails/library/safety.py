"""Rails on safety, by a judge, a guard model, the encoder or patterns; also topic and tone.

Content that cannot be judged is blocked, with the reason. A judge that is used here never measures
the guarded model: it stands in the model's lineage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truing.core.flagged_categories import (
    UNCATEGORISED,
    category_threshold,
    category_thresholds,
    flag_categories,
)
from truing.core.protocols import Judge, StreamingJudge
from truing.core.taxonomy import load_taxonomy
from truing.core.types import Answer, Judgement, Response, Sample
from truing.http.client import find_endpoints
from truing.rails.actions import RailOutcome
from truing.rails.colang.flow_reference import parse_flow_name
from truing.rails.config.jailbreak_service import JAILBREAK_BLOCK
from truing.rails.config.loader import RailsConfig
from truing.rails.library import distress
from truing.rails.library.classifier_heads import score_text
from truing.rails.library.guard_models import read_model_name
from truing.rails.library.jailbreak_patterns import find_injected_instruction, find_jailbreak_sign
from truing.rails.library.judged_texts import EMPTY_CONVERSATION, judge_text
from truing.rails.library.service_rails import (
    JAILBREAK_SERVER,
    ask_service,
    read_inputs,
)
from truing.rails.library.texts import rail_settings
from truing.rails.library.tone import TonePolicy
from truing.rails.runtime.turn_context import EVIDENCE_CHARACTERS, TurnContext

DEFAULT_JUDGE = "moderation:fast"
DEFAULT_ALTERNATIVE = (
    "If there is something safe behind your question, tell me about it and I'll gladly help with "
    "that."
)
UNCHECKED_MESSAGE = "I can't answer this: a check that has to run first could not tell."


# -- moderation --------------------------------------------------------------------------------


def required_judge_specs(truing: dict[str, Any], rails: frozenset[str]) -> list[str]:
    """Returns the spec strings of the judges that the configured rails need."""
    settings = truing.get("moderation") or {}
    stages = [stage for stage in ("input", "output") if f"moderation check {stage}" in rails]
    specs = list(dict.fromkeys(_moderation_judge(settings, stage)[0] for stage in stages))
    self_harm_judge = (truing.get("self_harm") or {}).get("judge")
    if self_harm_judge and "self harm support" in rails:
        specs.append(str(self_harm_judge))
    return specs


def choose_stream_mode(config: RailsConfig, judges: Mapping[str, Judge]) -> str:
    """Returns how answers stream where the configuration does not say.

    `sentences` if the output rails ask a judge of this process alone, which reads each sentence
    once. One at an endpoint reads all of the answer at each sentence, and may be slower than the
    model: `hold`.
    """
    names = {parse_flow_name(flow) for flow in config.rails.output.flows}
    if names != {"moderation check output"}:
        return "hold"
    spec, _ = _moderation_judge(config.truing.get("moderation") or {}, "output")
    judge = judges.get(spec)
    keeps_up = isinstance(judge, StreamingJudge) and not find_endpoints(judge)
    return "sentences" if keeps_up else "hold"


def _moderation_judge(settings: Mapping[str, Any], source: str) -> tuple[str, dict[str, Any]]:
    """Returns the judge's spec and settings of a stage; those under its own key go first."""
    merged = {**settings, **(settings.get(source) or {})}
    return str(merged.get("judge") or DEFAULT_JUDGE), merged


async def moderation_check(turn: TurnContext, source: str, text: str, **params: Any) -> RailOutcome:
    """Asks the judge of ``truing: moderation: judge:``; blocks a text that is harmful or unscored.

    `threshold` is for harm of any kind (default: the judge's own verdict), `thresholds` for
    categories by name. Where only the latter are set, they alone decide. All settings may differ
    for `input:` and `output:`.
    """
    spec, settings = _moderation_judge(rail_settings(turn, "moderation"), source)
    judge = turn.services.judges[spec]
    judgement = await judge_text(turn, judge, source, text or "")
    alternative = str(settings.get("alternative") or DEFAULT_ALTERNATIVE)
    thresholds = settings.get("thresholds") or {}
    gap = _find_judgement_gap(judgement, settings.get("threshold"), thresholds)
    if gap is not None:
        # The failure may quote a model's reply, and clients see the reason.
        failure = judgement.failure.message[:EVIDENCE_CHARACTERS] if judgement.failure else None
        turn.set_reason(f"could not be judged: {gap}", evidence=failure)
        return RailOutcome.block(
            reason="I could not check that it is safe", metadata={"alternative": alternative}
        )
    harms_over_threshold = {
        category: probability
        for category, probability in judgement.harms.items()
        if (limit := _category_threshold(thresholds, category)) is not None and probability >= limit
    }
    if not harms_over_threshold and not _is_harmful(judgement, settings):
        turn.set_reason("the judge has nothing to object", score=judgement.score)
        return RailOutcome.allow()
    # By the operator's thresholds, else by the judge's own.
    assigned = harms_over_threshold or flag_categories(judgement.harms, category_thresholds(judge))
    worst = max(assigned, key=lambda category: judgement.harms[category], default="")
    name = _category_name(worst)
    turn.set_reason(
        f"{spec} says harmful, {name or UNCATEGORISED}",
        score=harms_over_threshold.get(worst, judgement.score),
    )
    return RailOutcome.block(
        reason=f"it could do harm ({name})" if name else "it could do harm",
        metadata={"alternative": alternative, "category": worst},
    )


def _find_judgement_gap(
    judgement: Judgement, threshold: Any, thresholds: Mapping[str, Any]
) -> str | None:
    """Returns what a judgement lacks for the decision of the settings, or None.

    A judge that failed, or read the text in part, has not found it harmless whatever its score.
    """
    if judgement.failure is not None or (judgement.verdict is None and judgement.score is None):
        return "no verdict"
    if judgement.verdict is False:
        return None
    if threshold is not None and judgement.score is None:
        return "no score to compare with the threshold"
    names = {name for harm in judgement.harms for name in (harm, harm.split(",", 1)[0])}
    missing = [str(category) for category in thresholds if category not in names]
    if missing and threshold is None:
        return f"no score of {', '.join(missing)} to compare with its threshold"
    return None


def _is_harmful(judgement: Judgement, settings: Mapping[str, Any]) -> bool:
    """Returns whether a text is harmful by the overall threshold, else by the judge's verdict."""
    threshold = settings.get("threshold")
    if threshold is not None:
        return judgement.score is not None and judgement.score >= float(threshold)
    return judgement.verdict is not False and not settings.get("thresholds")


def _category_threshold(thresholds: dict[str, Any], category: str) -> float | None:
    """Returns the threshold of a category, by its id or by the part before the first comma."""
    threshold = thresholds.get(category, thresholds.get(category.split(",", 1)[0]))
    return float(threshold) if threshold is not None else None


def _category_name(category: str) -> str:
    try:
        return load_taxonomy("beavertails").find(category).name.lower() if category else ""
    except Exception:
        return category  # a judge with another taxonomy: its id is the name


# -- self-harm ---------------------------------------------------------------------------------


async def self_harm_check(turn: TurnContext, text: str, **params: Any) -> RailOutcome:
    """Blocks with a supportive message, never with a bare refusal (``truing: self_harm:``).

    Words of self-harm are found by pattern. With ``encoder: true``, distress of any kind by the
    shared encoder counts too; with ``judge: SPEC``, the judge's category self_harm at `threshold`
    (default: the judge's own for it, else 0.5). A judge that cannot tell blocks, with a message
    that says so.
    """
    settings = rail_settings(turn, "self_harm")
    text = text or ""
    reason: str | None = None
    score: float | None = None
    words = distress.find_distress_signs(text)
    if words:
        reason, score = f"words of self-harm: {words!r}", 1.0
    if reason is None and settings.get("encoder") and text.strip():
        score, is_over_threshold = await score_text("distress", text)
        reason = "the message sounds like distress" if is_over_threshold else None
    if reason is None and settings.get("judge"):
        judge = turn.services.judges[str(settings["judge"])]
        score = await _self_harm_score(judge, text)
        if score is None:
            turn.set_reason("the judge could not tell whether it is about self-harm")
            return RailOutcome.block(metadata={"message": UNCHECKED_MESSAGE})
        if score >= float(settings.get("threshold", category_threshold(judge, "self_harm"))):
            reason = "the judge says self-harm"
    if reason is None:
        return RailOutcome.allow()
    turn.set_reason(reason, score=score)
    message = distress.support_message(settings.get("message"), settings.get("help"))
    return RailOutcome.block(reason=reason, metadata={"message": message})


async def _self_harm_score(judge: Judge, text: str) -> float | None:
    """Returns the judge's probability of self-harm; None if it could not judge the text."""
    response = Response.of("rail", 0, "rail", Answer.of(text))
    sample = Sample(conversation=EMPTY_CONVERSATION, id="rail")
    judgement = await judge.judge(sample, response)
    if judgement.failure is not None:
        return None
    scores = (p for category, p in judgement.harms.items() if category.startswith("self_harm"))
    # A judge that lists only the categories that it finds has not found this one.
    return next(scores, 0.0 if judgement.verdict is not None else None)


# -- jailbreak and injection -------------------------------------------------------------------


async def jailbreak_detection_heuristics(
    turn: TurnContext, text: str, **params: Any
) -> RailOutcome:
    """Blocks a text with generic signs of a jailbreak, by pattern.

    (NeMo uses the perplexity of gpt2-large here.) With NeMo's `server_endpoint`, its server of the
    heuristics is asked instead.
    """
    if JAILBREAK_SERVER in turn.services.service_clients:
        inputs = read_inputs(turn, "input", text, JAILBREAK_BLOCK)
        return await ask_service(turn, JAILBREAK_SERVER, inputs)
    sign = find_jailbreak_sign(text or "")
    if sign is None:
        return RailOutcome.allow()
    turn.set_reason(sign, score=1.0)
    return RailOutcome.block(reason=sign)


async def injection_check(turn: TurnContext, text: str, **params: Any) -> RailOutcome:
    """Blocks by the injection head of the shared encoder.

    `threshold` under ``truing: injection:`` is a probability; the default is the head's own
    threshold.
    """
    if not (text or "").strip():
        return RailOutcome.allow()
    score, is_over_threshold = await score_text("injection", text)
    threshold = rail_settings(turn, "injection").get("threshold")
    if threshold is not None:
        is_over_threshold = score >= float(threshold)
    if not is_over_threshold:
        turn.set_reason("no sign of an injection", score=score)
        return RailOutcome.allow()
    reason = "it tries to give the assistant new orders"
    turn.set_reason(reason, score=score)
    return RailOutcome.block(reason=reason)


async def injection_check_chunks(turn: TurnContext, text: Any, **params: Any) -> RailOutcome:
    """Drops the retrieved chunks that give orders to the assistant.

    By pattern, not by the injection head, which was trained on short messages only.
    """
    chunks = text if isinstance(text, list) else str(text or "").split("\n\n")
    clean = [chunk for chunk in chunks if find_injected_instruction(str(chunk)) is None]
    if len(clean) == len(chunks):
        return RailOutcome.allow()
    n_dropped = len(chunks) - len(clean)
    turn.set_reason(f"{n_dropped} of {len(chunks)} retrieved chunks give orders")
    rewritten: Any = clean if isinstance(text, list) else "\n\n".join(map(str, clean))
    return RailOutcome(decision="transform", transforms={"relevant_chunks": rewritten})


# -- topic and tone ----------------------------------------------------------------------------


async def topic_check(turn: TurnContext, text: str, **params: Any) -> RailOutcome:
    """Blocks a text that is off topic, by similarity to examples under ``truing: topic:``.

    On topic is a text with a cosine of at least `threshold` (0.25) to one of `allow`, unless one of
    `deny` is nearer.
    """
    settings = rail_settings(turn, "topic")
    allow = [str(example) for example in settings.get("allow") or ()]
    deny = [str(example) for example in settings.get("deny") or ()]
    if not (text or "").strip() or not allow:
        return RailOutcome.allow()
    embeddings = turn.services.embeddings
    vector = await embeddings.embed(text)
    allow_similarity = max(float(vector @ v) for v in embeddings.encode(allow))
    deny_similarity = max((float(vector @ v) for v in embeddings.encode(deny)), default=-1.0)
    threshold = float(settings.get("threshold", 0.25))
    if allow_similarity >= max(threshold, deny_similarity):
        turn.set_reason("on topic", score=allow_similarity)
        return RailOutcome.allow()
    turn.set_reason("off topic", score=allow_similarity)
    alternative = str(settings.get("alternative") or f"I can help with: {', '.join(allow[:3])}.")
    return RailOutcome.block(reason="off topic", metadata={"alternative": alternative})


async def tone_check(turn: TurnContext, text: str, **params: Any) -> RailOutcome:
    """Rewrites an answer that is off the tone policy.

    By the LLM, at most `rewrites` times (1), and if that fails by rule. Blocks an answer that is
    still off tone.
    """
    policy = TonePolicy.from_settings(rail_settings(turn, "tone"))
    violations = policy.violations(text or "")
    if not violations:
        turn.set_reason("on tone")
        return RailOutcome.allow()
    description = "; ".join(violations)
    temperature = turn.services.config.lowest_temperature
    for _ in range(policy.rewrites):
        prompt = policy.rewrite_prompt(text, violations)
        reply = await turn.llm("tone")(prompt, temperature=temperature)
        rewrite = reply.content.strip().strip('"')
        is_on_tone = bool(rewrite) and not policy.violations(rewrite)
        if is_on_tone and policy.preserves_content(text, rewrite):
            turn.set_reason(f"rewritten: {description}")
            return RailOutcome(decision="transform", transforms={"bot_message": rewrite})
    fixed = policy.fix_by_rules(text)
    if fixed and not policy.violations(fixed):
        turn.set_reason(f"fixed by rule: {description}")
        return RailOutcome(decision="transform", transforms={"bot_message": fixed})
    turn.set_reason(f"off tone: {description}")
    return RailOutcome.block(reason=description)


# -- NeMo's topic guard ------------------------------------------------------------------------

# NeMo's text.
_TOPIC_ENDING = (
    'If any of the above conditions are violated, please respond with "off-topic". '
    'Otherwise, respond with "on-topic". You must respond with "on-topic" or "off-topic".'
)


async def topic_safety_check_input(turn: TurnContext, **params: Any) -> RailOutcome:
    """NeMo's topic rail: the model named by ``$model=`` says on-topic or off-topic.

    Anything but a clear on-topic blocks.
    """
    name = read_model_name(turn, "input")
    if name not in turn.services.models:
        turn.set_reason(f"there is no model {name!r}")
        return RailOutcome.block(reason=f"there is no model {name!r}")
    task = f"topic_safety_check_input $model={name}"
    system = str(turn.services.prompts.render_task_prompt(task, {})).strip()
    if not system.endswith(_TOPIC_ENDING):
        system = f"{system}\n\n{_TOPIC_ENDING}"
    history = [
        {"type": message.role, "content": message.text}
        for message in turn.messages
        if message.role in ("user", "assistant")
    ]
    prompt = [{"type": "system", "content": system}, *history]
    reply = await turn.llm(name)(prompt, temperature=0.01)
    verdict = reply.content.lower().strip().strip(".\"'")
    if verdict == "on-topic":
        return RailOutcome.allow()
    is_clear = verdict == "off-topic"
    turn.set_reason(
        "off topic" if is_clear else "the verdict is unclear, which counts as off topic",
        evidence=verdict[:80],
    )
    return RailOutcome.block()


# For the worst-case count of `truing rails check`.
for _action in (
    topic_safety_check_input,
    tone_check,
):
    vars(_action)["llm_calls"] = 1

ACTIONS = (
    moderation_check,
    self_harm_check,
    jailbreak_detection_heuristics,
    injection_check,
    injection_check_chunks,
    topic_check,
    tone_check,
    topic_safety_check_input,
)
