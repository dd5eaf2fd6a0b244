"""What a configuration refers to: library rails, and flows or prompts that are missing."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from truing.core.errors import did_you_mean
from truing.rails.colang.ast import Flow
from truing.rails.colang.flow_reference import parse_flow_name
from truing.rails.config.loader import RailsConfig, iterate_stages, list_rail_flow_names
from truing.rails.library.catalog import library_flow_names, load_library_for
from truing.rails.library.injection import find_injection_faults
from truing.rails.runtime.prompt_filters import TEXT_PARSERS
from truing.rails.runtime.prompts import PromptManager
from truing.rails.runtime.rail_library import RailLibrary
from truing.rails.runtime.user_patterns import load_user_pattern

# Library rails whose prompt the configuration must bring -> the prompt's task.
REQUIRED_PROMPTS = {
    "self check input": "self_check_input",
    "self check output": "self_check_output",
    "self check facts": "self_check_facts",
    "self check hallucination": "self_check_hallucination",
    "patronus lynx check output hallucination": "patronus_lynx_check_output_hallucination",
}


# NeMo's rails that truing does not have -> what they need.
UNSUPPORTED_RAILS = {
    "guardrailsai check input": "the validators of guardrails-ai",
    "guardrailsai check output": "the validators of guardrails-ai",
}
# Tasks whose reply decides whether a text may pass.
_VERDICT_TASKS = frozenset(
    {
        *(task for task in REQUIRED_PROMPTS.values() if task.startswith("self_check")),
        "content_safety_check_input",
        "content_safety_check_output",
        "llama_guard_check_input",
        "llama_guard_check_output",
    }
)
# Tasks of the library that ask for a bare yes or no: the verdicts of a guard model do not fit.
_YES_NO_TASKS = frozenset({"self_check_facts", "self_check_hallucination"})


def library_for_config(config: RailsConfig) -> RailLibrary:
    """Returns the part of the library that a configuration uses by its rails or its flows.

    Flows are searched as text: a name that stands there by chance only loads a module that is not
    needed.
    """
    flow_text = "\n".join(flow.source or repr(flow) for flow in config.flows)
    mentioned_flows = {name for name in library_flow_names() if name in flow_text}
    return load_library_for(set(list_rail_flow_names(config)) | mentioned_flows)


def find_missing_references(
    config: RailsConfig, flows: Sequence[Flow], prompts: PromptManager
) -> Iterator[tuple[str, str]]:
    """Yields (place, fault) for rails without a flow and for library rails without their prompt."""
    known = {flow.name for flow in flows} | library_flow_names()
    for stage, rails in iterate_stages(config):
        for index, rail in enumerate(rails.flows):
            place = config.locate("key", f"rails.{stage}.flows.{index}")
            name = parse_flow_name(rail)
            if name in UNSUPPORTED_RAILS:
                yield place, f"the rail {name!r} needs {UNSUPPORTED_RAILS[name]}"
            elif name not in known:
                yield place, f"there is no flow {name!r}{did_you_mean(name, known)}"
            task = REQUIRED_PROMPTS.get(name)
            # A rail with $variant=... takes a task of its own, which is looked up when it runs.
            if task is not None and "variant" not in rail and not prompts.has_prompt(task):
                yield place, f"the rail {rail!r} needs a prompt for the task {task!r} under prompts"


def find_parser_faults(
    config: RailsConfig, parsers: Collection[str], *, own_parsers: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yields (place, fault) for an `output_parser` that does not exist, or that gives no verdict.

    `own_parsers` are those of the configuration's code and of the caller: what they return is not
    known here.
    """
    for index, prompt in enumerate(config.prompts):
        name = prompt.output_parser
        if name is None or name in own_parsers:
            continue
        place = config.locate("key", f"prompts.{index}.output_parser")
        task = prompt.task.partition(" ")[0]
        if name not in parsers:
            yield place, f"there is no output_parser {name!r}{did_you_mean(name, parsers)}"
        elif task in _VERDICT_TASKS and name in TEXT_PARSERS:
            yield place, f"the output_parser {name!r} gives no verdict, which {task} needs"
        elif task in _YES_NO_TASKS and name != "is_content_safe":
            yield place, f"{task} asks for yes or no, which the output_parser {name!r} cannot read"


def find_pattern_faults(config: RailsConfig) -> Iterator[tuple[str, str]]:
    """Yields (place, fault) for patterns and YARA rules of rails that cannot be read."""
    yield from find_injection_faults(config)
    for key, pattern in _iterate_patterns(config):
        try:
            load_user_pattern(str(pattern))
        except (re.error, RecursionError, OverflowError) as error:
            yield config.locate("key", key), f"the pattern {pattern!r} cannot be read: {error}"


def _iterate_patterns(config: RailsConfig) -> Iterator[tuple[str, Any]]:
    """Yields (YAML key, pattern) of `regex_detection` and of the rules for tools' arguments."""
    detection = _get_block(config.raw, "rails", "config", "regex_detection")
    for source in detection:
        for index, pattern in enumerate(_get_block(detection, source).get("patterns") or ()):
            key = f"rails.config.regex_detection.{source}.patterns.{index}"
            yield (key if ("key", key) in config.locations else "rails"), pattern
    tools = _get_block(config.truing, "tools", "arguments")
    for tool in tools:
        for argument in _get_block(tools, tool):
            rule = _get_block(tools, tool, argument)
            if "pattern" in rule:
                key = ".".join(("truing", "tools", "arguments", tool, argument, "pattern"))
                yield key, rule["pattern"]


def _get_block(settings: Any, *keys: str) -> dict[str, Any]:
    """Returns a mapping inside others; empty where there is none."""
    for key in keys:
        settings = settings.get(key) if isinstance(settings, dict) else None
    return settings if isinstance(settings, dict) else {}
