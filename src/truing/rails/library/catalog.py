"""The shipped rails: their flows (``*.co``) and the actions that these execute.

A library module is a pair ``NAME.co`` and ``NAME.py``; the Python file names its actions in
`ACTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from truing.rails.colang.ast import BotText, Flow
from truing.rails.colang.parser import parse_colang
from truing.rails.library import (
    checks,
    guard_models,
    injection,
    safety,
    service_actions,
    texts,
    tool_guards,
    tools,
)
from truing.rails.library.wolfram_alpha import wolfram_alpha_request
from truing.rails.runtime.rail_library import RailLibrary

# (name, actions) of the modules that every configuration has.
BASE_MODULES: tuple[tuple[str, Sequence[Callable[..., Any]]], ...] = (
    ("pipeline", ()),
    ("checks", (*checks.ACTIONS, wolfram_alpha_request)),
)
# Those that are read only where a configuration names one of their flows: a runtime without them
# starts faster, and their bot messages do not become examples in its prompts.
OPTIONAL_MODULES: tuple[tuple[str, Sequence[Callable[..., Any]]], ...] = (
    ("texts", texts.ACTIONS),
    ("safety", safety.ACTIONS),
    ("guard_models", guard_models.ACTIONS),
    ("injection", injection.ACTIONS),
    ("tools", tools.ACTIONS),
    ("tool_guards", tool_guards.ACTIONS),
    ("services", service_actions.ACTIONS),
)


RAIL_TITLES: dict[str, tuple[str, str]] = {
    "self check input": ("input", "NeMo's self check by your prompt."),
    "self check output": ("output", "NeMo's self check by your prompt."),
    "self check facts": ("output", "NeMo's check of an answer against retrieved chunks."),
    "self check hallucination": ("output", "NeMo's check of an answer against further samples."),
    "hallucination warning": ("output", "The same, with a warning in place of a refusal."),
    "moderation check input": ("input", "Any judge on the message."),
    "moderation check output": ("output", "Any judge on the answer."),
    "self harm support": ("input", "Signs of self-harm get support and your local help."),
    "jailbreak detection heuristics": ("input", "Known jailbreak forms, by pattern."),
    "prompt injection check input": ("input", "Prompt injection, by a classifier."),
    "prompt injection check retrieval": ("retrieval", "Chunks that hold instructions."),
    "injection detection": ("output", "Code that would be executed, by YARA rules."),
    "topic control": ("input", "Messages unlike your examples of allowed topics."),
    "tone check output": ("output", "Answers that break your tone policy are rewritten."),
    "jailbreak detection model": ("input", "Jailbreaks, by a classifier or NVIDIA's service."),
    "content safety check input": (
        "input",
        "A guard model, in its published form or by your prompt.",
    ),
    "content safety check output": (
        "output",
        "A guard model, in its published form or by your prompt.",
    ),
    "llama guard check input": ("input", "Llama Guard, in its published form or by your prompt."),
    "llama guard check output": ("output", "Llama Guard, in its published form or by your prompt."),
    "topic safety check input": ("input", "A topic guard model with your prompt."),
    "detect sensitive data on input": ("input", "Blocks personal data."),
    "detect sensitive data on output": ("output", "Blocks personal data."),
    "detect sensitive data on retrieval": ("retrieval", "Drops chunks with personal data."),
    "mask sensitive data on input": ("input", "Masks personal data."),
    "mask sensitive data on output": ("output", "Masks personal data."),
    "mask sensitive data on retrieval": ("retrieval", "Masks personal data."),
    "regex check input": ("input", "Your patterns."),
    "regex check output": ("output", "Your patterns."),
    "regex check retrieval": ("retrieval", "Your patterns."),
    "check text input": ("input", "Hidden characters, secrets, links, length, language."),
    "check text output": ("output", "Hidden characters, secrets, links, length, language."),
    "service check input": ("input", "Your own service over HTTP."),
    "service check output": ("output", "Your own service over HTTP."),
    "service check retrieval": ("retrieval", "Your own service over HTTP."),
    "fiddler user safety": ("input", "Fiddler's service."),
    "fiddler bot safety": ("output", "Fiddler's service."),
    "fiddler bot faithfulness": ("output", "Fiddler's service, against retrieved chunks."),
    "autoalign check input": ("input", "AutoAlign's service; may rewrite."),
    "autoalign check output": ("output", "AutoAlign's service; may rewrite."),
    "autoalign groundedness output": ("output", "AutoAlign's service, against chunks."),
    "autoalign factcheck output": ("output", "AutoAlign's fact checker."),
    "detect pii on input": ("input", "Private AI blocks personal data."),
    "detect pii on output": ("output", "Private AI blocks personal data."),
    "detect pii on retrieval": ("retrieval", "Private AI blocks personal data."),
    "mask pii on input": ("input", "Private AI masks personal data."),
    "mask pii on output": ("output", "Private AI masks personal data."),
    "mask pii on retrieval": ("retrieval", "Private AI masks personal data."),
    "protect prompt": ("input", "Prompt Security's service; may rewrite."),
    "protect response": ("output", "Prompt Security's service; may rewrite."),
    "pangea ai guard input": ("input", "Pangea's service; may rewrite."),
    "pangea ai guard output": ("output", "Pangea's service; may rewrite."),
    "trend ai guard input": ("input", "Trend Micro's service."),
    "trend ai guard output": ("output", "Trend Micro's service."),
    "clavata check input": ("input", "Clavata's policies."),
    "clavata check output": ("output", "Clavata's policies."),
    "patronus api check output": ("output", "Patronus' evaluators."),
    "patronus lynx check output hallucination": ("output", "Patronus' Lynx model."),
    "activefence moderation on input": ("input", "ActiveFence's service."),
    "activefence moderation on output": ("output", "ActiveFence's service."),
    "alignscore check facts": ("output", "An AlignScore server, against retrieved chunks."),
    **{
        f"gliner {verb} pii on {source}": (source, f"GLiNER {title} personal data.")
        for verb, title in (("detect", "blocks"), ("mask", "masks"))
        for source in ("input", "output", "retrieval")
    },
    "crowdstrike aidr guard input": ("input", "CrowdStrike AIDR; may rewrite."),
    "crowdstrike aidr guard output": ("output", "CrowdStrike AIDR; may rewrite."),
    "f5 guardrails scan input": ("input", "F5 Guardrails."),
    "f5 guardrails scan output": ("output", "F5 Guardrails."),
    "ai defense inspect prompt": ("input", "Cisco AI Defense."),
    "ai defense inspect response": ("output", "Cisco AI Defense."),
    "gcpnlp moderation": ("input", "Google's text moderation, one threshold."),
    "gcpnlp moderation detailed": ("input", "Google's text moderation, one a category."),
    "cleanlab trustworthiness": ("output", "Cleanlab's trust score; adds a caution."),
    "check tool calls": ("tool output", "Allowed tools, argument rules, number of calls."),
    "check tool results": ("tool input", "Results that are too long or hold instructions."),
    "check tool recipients": ("tool output", "Recipients that only a tool's result has named."),
    "judge tool calls": ("tool output", "Any judge on each call."),
    "judge tool results": ("tool input", "Any judge on each result."),
    "ask a person": ("tool output", "A person allows each call in time, or it is denied."),
}
"""Name of a rail -> (its stage, what it does in one line), as `truing list rails` shows them."""


@lru_cache(maxsize=1)
def load_base_library() -> RailLibrary:
    """Returns the part that every configuration has."""
    return _read_library(BASE_MODULES)


@lru_cache(maxsize=1)
def load_optional_modules() -> dict[str, RailLibrary]:
    """Returns the optional modules by name."""
    return {module[0]: _read_library((module,)) for module in OPTIONAL_MODULES}


def load_library_for(flow_names: Iterable[str]) -> RailLibrary:
    """Returns the base library and each optional module that has one of these flows."""
    used = set(flow_names)
    optional = (
        module
        for module in load_optional_modules().values()
        if any(flow.name in used for flow in module.flows)
    )
    libraries = [load_base_library(), *optional]
    bot_messages: dict[str, list[BotText]] = {}
    for part in libraries:
        for name, message_texts in part.bot_messages.items():
            bot_messages.setdefault(name, message_texts)
    return RailLibrary(
        flows=tuple(flow for part in libraries for flow in part.flows),
        bot_messages=bot_messages,
        actions=tuple(action for part in libraries for action in part.actions),
        pure_actions=pure_action_names(),
    )


def _whole_library() -> tuple[RailLibrary, ...]:
    return load_base_library(), *load_optional_modules().values()


def library_flow_names() -> frozenset[str]:
    """Returns the names of all flows of the library."""
    return frozenset(flow.name for part in _whole_library() for flow in part.flows)


def all_actions() -> tuple[Callable[..., Any], ...]:
    """Returns all actions of the library."""
    return tuple(action for part in _whole_library() for action in part.actions)


def pure_action_names() -> frozenset[str]:
    """Returns the names of the library's actions that rails in parallel may run.

    They are all of them but the one that asks a person. Such an action may ask models, judges and
    services, and reads the settings and the messages of the conversation, which no rail changes.
    Of the variables it reads only its arguments and those in `parallel_rails.ACTION_READS`, and it
    writes none: its result and the record of its rail are all that is left of it.
    """
    impure = tool_guards.ask_person
    return frozenset(action.__name__ for action in all_actions() if action is not impure)


def _read_library(modules: Iterable[tuple[str, Sequence[Callable[..., Any]]]]) -> RailLibrary:
    """Parses the Colang files of modules; of two messages of one name the first holds."""
    flows: list[Flow] = []
    bot_messages: dict[str, list[BotText]] = {}
    actions: list[Callable[..., Any]] = []
    for name, module_actions in modules:
        source = (files("truing.rails.library") / f"{name}.co").read_text(encoding="utf-8")
        parsed = parse_colang(f"library/{name}.co", source)
        for flow in parsed.flows:
            flow.system = True
        flows.extend(parsed.flows)
        for message, message_texts in parsed.bot_messages.items():
            bot_messages.setdefault(message, message_texts)
        actions.extend(module_actions)
    return RailLibrary(tuple(flows), bot_messages, tuple(actions))
