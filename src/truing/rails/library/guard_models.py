"""NeMo's rails that ask a guard model: content safety, Llama Guard and jailbreak detection.

``content safety check input $model=NAME`` asks the model of that type under `models:`. If the
configuration has a prompt for the task, that prompt is sent, as in NeMo. Without one, a guard that
`GUARDS` recognises by its model name is asked with its published prompt (`guard:`), and its reply
must be exactly in the published format. A reply that is unclear blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from truing.core.errors import PlanError, did_you_mean
from truing.core.language_id import detect_language
from truing.core.protocols import Judge, Model
from truing.rails.actions import RailOutcome
from truing.rails.colang.flow_reference import parse_flow_name, parse_flow_parameters
from truing.rails.config.entries import ModelEntry
from truing.rails.config.jailbreak_service import (
    JAILBREAK_BLOCK,
    JAILBREAK_RAIL,
    make_jailbreak_spec,
    read_config_block,
)
from truing.rails.config.loader import RailsConfig, iterate_stages
from truing.rails.config.service_addresses import list_used_rails
from truing.rails.config.trust import resolve_configured_spec
from truing.rails.library.image_checks import add_images, find_image_fault, find_new_images
from truing.rails.library.judged_texts import judge_text
from truing.rails.library.service_rails import JAILBREAK_SERVER, ask_service, read_inputs
from truing.rails.runtime.chat_messages import content_text
from truing.rails.runtime.prompts import PromptManager
from truing.rails.runtime.turn_context import EVIDENCE_CHARACTERS, TurnContext
from truing.rails.runtime.verdict_parsers import allows, is_objection, read_safe_unsafe
from truing.specs.parser import Spec

# Rail -> the task of its prompt. Llama Guard's rails have no $model=: their model is `llama_guard`.
GUARD_TASKS = {
    "content safety check input": "content_safety_check_input",
    "content safety check output": "content_safety_check_output",
    "llama guard check input": "llama_guard_check_input",
    "llama guard check output": "llama_guard_check_output",
}
LLAMA_GUARD_MODEL = "llama_guard"
LYNX_RAIL, LYNX_MODEL = "patronus lynx check output hallucination", "patronus_lynx"
TOPIC_RAIL = "topic safety check input"
GUARD_MAX_TOKENS = 1024
UNKNOWN_VIOLATION = "unknown"  # in `policy_violations`, for a label that no taxonomy has
GUARD_TEMPERATURE = 1e-20  # NeMo's value
# NeMo's refusals in the languages of `content_safety.multilingual` (library/content_safety of
# nemoguardrails 0.24.1, Apache-2.0).
REFUSAL_MESSAGES = {
    "en": "I'm sorry, I can't respond to that.",
    "es": "Lo siento, no puedo responder a eso.",
    "zh": "抱歉，我无法回应。",
    "de": "Es tut mir leid, darauf kann ich nicht antworten.",
    "fr": "Je suis désolé, je ne peux pas répondre à cela.",
    "hi": "मुझे खेद है, मैं इसका जवाब नहीं दे सकता।",
    "ja": "申し訳ありませんが、それには回答できません。",
    "ar": "عذراً، لا أستطيع الرد على ذلك.",
    "th": "ขออภัย ฉันไม่สามารถตอบได้",
}

# Part of a model's name, in lower case and without punctuation -> the name in a `guard:` spec. The
# first match counts.
GUARDS: tuple[tuple[str, str], ...] = (
    ("nemotroncontentsafetyreasoning", "nemotron-reasoning"),
    ("nemotronsafetyguard", "nemoguard-content-safety"),
    ("nemoguard8bcontentsafety", "nemoguard-content-safety"),
    ("nemoguardcontentsafety", "nemoguard-content-safety"),
    ("qwen3guardgen", "qwen3guard"),
    ("gptosssafeguard", "gpt-oss-safeguard"),
    ("polyguard", "polyguard"),
    ("llamaguard4", "llama-guard-4"),
    ("llamaguard3", "llama-guard-3"),
    ("llamaguard2", "llama-guard-2"),
    ("llamaguard7b", "llama-guard-1"),
    ("wildguard", "wildguard"),
    ("shieldgemma", "shieldgemma"),
    ("graniteguardian", "granite-guardian"),
)


def find_guard_name(model_name: str) -> str | None:
    """Returns the guard of a model such as ``nvidia/llama-3.1-nemoguard-8b-...``, or None."""
    letters_and_digits = re.sub(r"[^a-z0-9]", "", model_name.lower())
    return next((guard for part, guard in GUARDS if part in letters_and_digits), None)


# -- building ------------------------------------------------------------------------------------


_GUARD_PREFIX = "guard of "


def build_guard_judges(config: RailsConfig, models: Mapping[str, Model]) -> dict[str, Judge]:
    """Returns the judges of a configuration's guard rails, by `guard_key`.

    Raises PlanError if the jailbreak rail names neither a judge nor a service.
    """
    judges: dict[str, Judge] = {}
    for entry in _list_guard_entries(config):
        spec = _guard_spec(entry, config)
        if spec is not None and entry.type in models:
            judges[guard_key(entry.type)] = resolve_configured_spec(
                config, spec, "judge", model=models[entry.type]
            )
    if JAILBREAK_RAIL in list_used_rails(config) and not _asks_jailbreak_server(config):
        spec_text = _jailbreak_spec(config)
        judges[guard_key(JAILBREAK_RAIL)] = resolve_configured_spec(config, spec_text, "judge")
    return judges


def guard_key(name: str) -> str:
    """Returns the key of a guard's judge in `RuntimeServices.judges`.

    `name` is the type of the model, or the rail for jailbreak detection.
    """
    return f"{_GUARD_PREFIX}{name}"


def is_guard_key(key: str) -> bool:
    """Returns whether a key is that of a guard's judge."""
    return key.startswith(_GUARD_PREFIX)


def _list_guard_entries(config: RailsConfig) -> Iterator[ModelEntry]:
    """Yields the entries of `models:` that a guard rail without a prompt asks."""
    prompts = PromptManager(config)
    names: set[str] = set()
    for _, stage in iterate_stages(config):
        for rail in stage.flows:
            task = GUARD_TASKS.get(parse_flow_name(rail))
            if task is None:
                continue
            name = _model_type(rail)
            if prompts.find_entry(prompt_task(task, name)) is None:
                names.add(name)
    yield from (entry for entry in config.models if entry.type in names)


def _model_type(rail: str) -> str:
    """Returns the type of the model that a rail asks, as in `models:`."""
    if rail.startswith("llama guard"):
        return LLAMA_GUARD_MODEL
    return str(parse_flow_parameters(rail).get("model") or "").strip("'\"")


def prompt_task(task: str, name: str) -> str:
    """Returns the task of a guard's prompt: with its model, except for NeMo's Llama Guard rails."""
    return task if task.startswith("llama_guard") else f"{task} $model={name}"


def _guard_spec(entry: ModelEntry, config: RailsConfig) -> Spec | None:
    """Returns the `guard:` spec of an entry, without its model; None if the guard is not known."""
    guard = find_guard_name(entry.model)
    if guard is None:
        return None
    arguments: dict[str, Any] = {}
    if guard == "nemotron-reasoning":
        arguments["reasoning"] = "true" if _reasons(config) else "false"
    return Spec("guard", guard, arguments)


def _reasons(config: RailsConfig) -> bool:
    """Returns NeMo's ``rails.config.content_safety.reasoning.enabled``."""
    block = read_config_block(config, "content_safety").get("reasoning")
    return isinstance(block, dict) and bool(block.get("enabled"))


def find_guard_faults(
    config: RailsConfig, passed_models: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yields (place, fault) for guard rails whose model does not exist, or cannot be asked.

    `passed_models` are the types of models that do not come from the configuration.
    """
    prompts = PromptManager(config)
    entries = {entry.type: entry for entry in config.models}
    for stage_name, stage in iterate_stages(config):
        for index, rail in enumerate(stage.flows):
            rail_name = parse_flow_name(rail)
            if rail_name == JAILBREAK_RAIL and not _asks_jailbreak_server(config):
                try:
                    _jailbreak_spec(config)
                except PlanError as error:
                    place = config.locate("key", f"rails.{stage_name}.flows.{index}")
                    yield place, error.faults[0].partition(": ")[2]
                continue
            task = GUARD_TASKS.get(rail_name)
            if task is None and rail_name not in (TOPIC_RAIL, LYNX_RAIL):
                continue
            place = config.locate("key", f"rails.{stage_name}.flows.{index}")
            name = LYNX_MODEL if rail_name == LYNX_RAIL else _model_type(rail)
            if not name:
                yield place, f"the rail {rail!r} names no model: $model=TYPE"
            elif name in passed_models:
                continue
            elif name not in entries:
                hint = did_you_mean(name, entries)
                yield place, f"the rail {rail!r} asks {name!r}: no model has that type{hint}"
            elif (
                task is not None
                and prompts.find_entry(prompt_task(task, name)) is None
                and find_guard_name(entries[name].model) is None
            ):
                yield (
                    place,
                    f"the rail {rail!r} needs a prompt for the task {prompt_task(task, name)!r}: "
                    f"{entries[name].model!r} is no guard model that truing knows",
                )


def _asks_jailbreak_server(config: RailsConfig) -> bool:
    """Returns whether NeMo's own server of the classifier is named, and neither judge nor NIM."""
    has_server = bool(read_config_block(config, JAILBREAK_BLOCK).get("server_endpoint"))
    judge = (config.truing.get("jailbreak") or {}).get("judge")
    return has_server and not judge and make_jailbreak_spec(config) is None


def _jailbreak_spec(config: RailsConfig) -> Spec | str:
    """Returns the spec of the judge of `jailbreak detection model`."""
    judge = (config.truing.get("jailbreak") or {}).get("judge")
    spec = str(judge) if judge else make_jailbreak_spec(config)
    if spec is None:
        raise PlanError(
            f"{config.locate('key', f'rails.config.{JAILBREAK_BLOCK}')}: the rail "
            f"{JAILBREAK_RAIL!r} needs truing: {{jailbreak: {{judge: SPEC}}}} (such as "
            f"guard:prompt-guard-2,path=DIR), or rails.config.{JAILBREAK_BLOCK}.nim_base_url"
        )
    return spec


# -- asking --------------------------------------------------------------------------------------


def find_guard_judge(turn: TurnContext, task: str, name: str) -> Judge | None:
    """Returns the judge of a guard rail; None where the configuration has a prompt of its own."""
    if turn.services.prompts.find_entry(prompt_task(task, name)) is not None:
        return None
    judge: Judge | None = turn.services.judges.get(guard_key(name))
    return judge


async def ask_guard_judge(turn: TurnContext, judge: Judge, source: str, text: str) -> RailOutcome:
    """Returns a block if the guard objects to a text, or cannot judge it."""
    judgement = await judge_text(turn, judge, source, text)
    if judgement.verdict is None:
        # The message may quote the guard's reply, and clients see the reason.
        failure = judgement.failure.message if judgement.failure else "no verdict"
        turn.set_reason(
            "the guard could not judge it, which counts as an objection",
            evidence=failure[:EVIDENCE_CHARACTERS],
        )
        return RailOutcome.block(metadata={"policy_violations": []})
    if not judgement.verdict:
        turn.set_reason("the guard model has nothing to object", score=judgement.score)
        return RailOutcome.allow(metadata={"policy_violations": []})
    labels = [label for label in (judgement.rationale or "").split(", ") if label]
    known_labels: Collection[str] = getattr(judge, "labels", ())
    violations = _bound_labels(labels, known_labels.__contains__)
    known_violations = ", ".join(label for label in violations if label != UNKNOWN_VIOLATION)
    turn.set_reason(
        f"the guard model objects: {known_violations or 'no known category'}",
        score=judgement.score,
        evidence=(judgement.rationale or "")[:EVIDENCE_CHARACTERS] or None,
    )
    return RailOutcome.block(metadata={"policy_violations": violations})


def _bound_labels(labels: Iterable[str], is_known: Callable[[str], bool]) -> list[str]:
    """Returns the distinct labels; those that a guard made up become one `UNKNOWN_VIOLATION`.

    Flows may show `policy_violations` or decide by them, so a guard must not choose their words.
    """
    return list(dict.fromkeys(label if is_known(label) else UNKNOWN_VIOLATION for label in labels))


def read_model_name(turn: TurnContext, stage: str) -> str:
    """Returns NAME of a rail such as ``content safety check input $model=NAME``."""
    rail = turn.state.context.get(f"triggered_{stage}_rail") or turn.rail_name or ""
    name = parse_flow_parameters(rail).get("model") if isinstance(rail, str) else None
    return str(name or turn.state.context.get("model") or "").strip("'\"")


async def _ask_guard(
    turn: TurnContext, task: str, variables: dict[str, Any], name: str
) -> RailOutcome:
    """Asks a guard model with the configuration's prompt, or else with the guard's published one.

    Returns a block unless the reply clearly says that the content is safe.
    """
    prompts = turn.services.prompts
    if name not in turn.services.models:
        turn.set_reason(f"there is no model {name!r}")
        return RailOutcome.block(reason=f"there is no model {name!r} for {task}")
    judge = find_guard_judge(turn, task, name)
    images = find_new_images(turn) if "bot_response" not in variables else ()
    if images:
        fault = find_image_fault(images, turn.services.models[name], judge)
        if fault is not None:
            turn.set_reason(fault)
            return RailOutcome.block(reason=fault, metadata={"policy_violations": []})
    if judge is not None:
        is_input = "bot_response" not in variables
        text = variables["user_input"] if is_input else variables["bot_response"]
        return await ask_guard_judge(turn, judge, "input" if is_input else "output", str(text))
    scoped_task = prompt_task(task, name)
    prompt = prompts.render_task_prompt(
        scoped_task, {**variables, "reasoning_enabled": _reasons(turn.services.config)}
    )
    llm = turn.llm(name)
    llm.images = images
    reply = await llm(
        add_images(prompt, images),
        stop=prompts.get_stop_tokens(scoped_task),
        temperature=GUARD_TEMPERATURE,
        max_tokens=prompts.get_max_tokens(scoped_task) or GUARD_MAX_TOKENS,
    )
    if prompts.has_output_parser(scoped_task):
        verdict = prompts.parse_task_output(scoped_task, reply.content)
    elif task.startswith("llama_guard"):
        verdict = read_safe_unsafe(reply.content)  # "no" is none of Llama Guard's words
    else:
        verdict = prompts.parse_task_output(scoped_task, reply.content, "is_content_safe")
    if allows(verdict):
        turn.set_reason("the guard model has nothing to object")
        turn.passed_images.update(images)
        return RailOutcome.allow(metadata={"policy_violations": []})
    parsed = verdict if isinstance(verdict, (list, tuple)) else ()
    template = prompts.template_text(scoped_task)
    violations = _bound_labels(
        (str(violation) for violation in parsed[1:]), lambda label: _stands_in(label, template)
    )
    is_clear = bool(violations) or is_objection(reply.content)
    turn.set_reason(
        "the guard model objects"
        if is_clear
        else "the guard model's verdict is unclear, which counts as an objection",
        evidence=reply.content[:EVIDENCE_CHARACTERS],
    )
    return RailOutcome.block(metadata={"policy_violations": violations})


def _stands_in(label: str, template: str) -> bool:
    """Returns whether a label stands in a prompt as the configuration's author wrote it."""
    pattern = rf"(?<!\w){re.escape(label)}(?!\w)"
    return bool(label.strip()) and re.search(pattern, template) is not None


async def content_safety_check_input(turn: TurnContext, **params: Any) -> RailOutcome:
    """NeMo's content safety rail on the input: asks the guard model named by ``$model=``."""
    variables = {"user_input": content_text(turn.state.context.get("user_message"))}
    name = read_model_name(turn, "input")
    return await _ask_guard(turn, "content_safety_check_input", variables, name)


async def content_safety_check_output(turn: TurnContext, **params: Any) -> RailOutcome:
    """NeMo's content safety rail on the output."""
    context = turn.state.context
    variables = {
        "user_input": content_text(context.get("user_message")),
        "bot_response": context.get("bot_message") or "",
    }
    name = read_model_name(turn, "output")
    return await _ask_guard(turn, "content_safety_check_output", variables, name)


async def choose_refusal_message(turn: TurnContext, **params: Any) -> str:
    """Returns the refusal in the user's language; "" unless NeMo's `content_safety.multilingual`
    is enabled.

    The languages are NeMo's nine; a message in another one is refused in English.
    """
    block = read_config_block(turn.services.config, "content_safety").get("multilingual")
    settings = block if isinstance(block, dict) else {}
    if settings.get("enabled") is not True:
        return ""
    language = detect_language(str(turn.state.context.get("user_message") or ""))
    messages = {**REFUSAL_MESSAGES, **(settings.get("refusal_messages") or {})}
    return str(messages[language if language in REFUSAL_MESSAGES else "en"])


async def llama_guard_check_input(turn: TurnContext, **params: Any) -> RailOutcome:
    """NeMo's Llama Guard rail on the input: asks the model of the type ``llama_guard``."""
    variables = {"user_input": content_text(turn.state.context.get("user_message"))}
    return await _ask_guard(turn, "llama_guard_check_input", variables, LLAMA_GUARD_MODEL)


async def llama_guard_check_output(turn: TurnContext, **params: Any) -> RailOutcome:
    """NeMo's Llama Guard rail on the output."""
    context = turn.state.context
    variables = {
        "user_input": content_text(context.get("user_message")),
        "bot_response": context.get("bot_message") or "",
    }
    return await _ask_guard(turn, "llama_guard_check_output", variables, LLAMA_GUARD_MODEL)


async def jailbreak_detection_model(turn: TurnContext, text: str, **params: Any) -> RailOutcome:
    """Blocks a message that the judge of jailbreaks objects to, or cannot judge."""
    judge = turn.services.judges.get(guard_key(JAILBREAK_RAIL))
    if judge is None:
        inputs = read_inputs(turn, "input", text, JAILBREAK_BLOCK)
        return await ask_service(turn, JAILBREAK_SERVER, inputs)
    return await ask_guard_judge(turn, judge, "input", text or "")


GUARD_ACTIONS = (
    content_safety_check_input,
    content_safety_check_output,
    llama_guard_check_input,
    llama_guard_check_output,
)
for _action in GUARD_ACTIONS:
    # For the worst-case count of `truing rails check`.
    vars(_action)["llm_calls"] = 1

ACTIONS = (*GUARD_ACTIONS, choose_refusal_message, jailbreak_detection_model)
