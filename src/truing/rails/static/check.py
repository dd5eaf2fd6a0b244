"""Checks a configuration without running it.

`check_rails_config` reports every fault with its place, the largest number of LLM calls of a turn,
and the loaded configuration. `actions.py` is read as text, never imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truing.core.errors import PlanError, TruingError
from truing.rails.colang.compiler import CompiledFlow, Program, compile_flow
from truing.rails.colang.flow_reference import parse_flow_name
from truing.rails.config.engines import ENGINES, TRUING_ENGINE
from truing.rails.config.key_effects import find_differences, find_unused_keys
from truing.rails.config.loader import RailsConfig, iterate_stages, list_rail_flow_names
from truing.rails.config.models import find_engine_fault, find_entry_faults
from truing.rails.config.service_addresses import find_service_addresses
from truing.rails.config.trust import find_code_uses
from truing.rails.library.catalog import all_actions, pure_action_names
from truing.rails.library.guard_models import find_guard_faults
from truing.rails.library.pii import split_entities
from truing.rails.library.references import (
    find_missing_references,
    find_parser_faults,
    find_pattern_faults,
    library_for_config,
)
from truing.rails.runtime import dialog_actions, parallel_rails
from truing.rails.runtime.prompt_filters import PARSERS
from truing.rails.runtime.prompts import PromptManager
from truing.rails.runtime.templates import PromptError, dollar_to_jinja
from truing.rails.runtime.templates import template_variables as find_template_variables
from truing.rails.static.action_sources import read_action_sources
from truing.rails.static.findings import Finding, Level, finding_sort_key
from truing.rails.static.given_up import find_given_up_checks
from truing.rails.static.llm_call_counts import LlmCallCounter, TurnCallCount
from truing.rails.static.name_checks import NameChecker
from truing.rails.static.reachability import check_reachability

# Library rails whose order matters: see `_check_rail_order`.
REWRITING_OUTPUT_RAIL = "tone check output"
JUDGING_OUTPUT_RAILS = frozenset(
    {
        "moderation check output",
        "self check output",
        "self check facts",
        "content safety check output",
    }
)


@dataclass(slots=True)
class RailsCheckReport:
    """The result of a check; without `config` and `calls` if the configuration cannot be read."""

    path: str
    findings: list[Finding] = field(default_factory=list)
    calls: TurnCallCount | None = None
    config: RailsConfig | None = None

    @property
    def errors(self) -> list[Finding]:
        """The findings that make a configuration wrong."""
        return [finding for finding in self.findings if finding.level == "error"]


def check_rails_config(path: str | Path, *, key_variables: Sequence[str] = ()) -> RailsCheckReport:
    """Loads and checks a folder; raises PlanError only if it does not exist.

    `key_variables` are those that the operator lets it send to the addresses that it names.
    """
    root = Path(path)
    if not root.exists():
        raise PlanError(f"{root}: there is no such rails folder")
    report = RailsCheckReport(str(root))
    try:
        # Reading what lies outside the folder runs nothing; the findings name it.
        config = RailsConfig.load(root, read_outside=True, key_variables=key_variables)
    except PlanError as error:
        findings = [_finding_from_fault(fault, "read") for fault in error.faults]
        report.findings = sorted(findings, key=finding_sort_key)
        return report
    library = library_for_config(config)
    sources = read_action_sources(config.code, root if root.is_dir() else root.parent)
    actions = collect_builtin_actions()
    compiled, compile_findings = _compile_flows(config)
    program = Program(compiled, pure_action_names())
    findings = [
        *sources.findings,
        *_check_models(config),
        *_check_rail_references(config),
        *_check_output_parsers(config),
        *_check_templates(config),
        *NameChecker(config, library, sources, actions).check(),
        *check_reachability(config.flows),
        *compile_findings,
        *_notes_to_findings(config),
        *_list_differences(config),
        *_check_concurrency(config, program),
        *_check_speculation(config, program),
        *find_given_up_checks(config, program),
        *_check_rail_order(config),
        *_check_entities(config),
        *_list_code(config),
    ]
    # Two checks may find the same: `dict.fromkeys` drops duplicates.
    report.findings = sorted(dict.fromkeys(findings), key=finding_sort_key)
    report.calls = LlmCallCounter(config, program, actions, sources).count_turn()
    report.config = config
    return report


def collect_builtin_actions() -> dict[str, Callable[..., Any]]:
    """Returns the actions that every runtime has, by name."""
    functions = (*dialog_actions.ACTIONS, *all_actions())
    actions = {function.__name__: function for function in functions}
    return {**actions, "create_event": _create_event, **parallel_rails.ACTIONS}


async def _create_event(turn: Any, event: dict[str, Any]) -> None:
    """Has the signature of ``create_event``, which the runtime runs without an action."""


def _finding_from_fault(fault: str, kind: str) -> Finding:
    """Splits a fault of the form ``file:line: message``."""
    place, colon, message = fault.partition(": ")
    if not colon:
        return Finding(place="config", kind=kind, what=fault)
    return Finding(place=place, kind=kind, what=message)


def _notes_to_findings(config: RailsConfig) -> Iterator[Finding]:
    for place, message in config.notes:
        yield Finding(place=place, kind="twice", what=message, level="warning")


def _list_differences(config: RailsConfig) -> Iterator[Finding]:
    """Yields the settings that run otherwise than in NeMo Guardrails, or have no effect."""
    for place, message in find_differences(config):
        yield Finding(place=place, kind="nemo", what=message, level="difference")
    for place, message in find_unused_keys(config):
        yield Finding(place=place, kind="unused_key", what=message, level="note")


def _compile_flows(config: RailsConfig) -> tuple[list[CompiledFlow], list[Finding]]:
    compiled: list[CompiledFlow] = []
    findings: list[Finding] = []
    rail_names = list_rail_flow_names(config)
    for flow in (*config.flows, *library_for_config(config).flows):
        try:
            compiled_flow = compile_flow(flow)
        except TruingError as error:
            faults = getattr(error, "faults", (str(error),))
            findings += [_finding_from_fault(fault, "expression") for fault in faults]
            continue
        if compiled_flow.id in rail_names:
            # As in the runtime: a flow used as a rail does not start by itself.
            compiled_flow.system = compiled_flow.is_subflow = True
        compiled.append(compiled_flow)
    return compiled, findings


def _check_models(config: RailsConfig) -> Iterator[Finding]:
    """An unknown engine is only a warning: a model may be passed in its place (``--model``)."""
    for index, model_entry in enumerate(config.models):
        # NeMo's embedding models are not used: truing has its own encoder.
        if model_entry.type == "embeddings":
            continue
        engine_fault = find_engine_fault(model_entry)
        if engine_fault:
            place = config.locate("key", f"models.{index}")
            yield Finding(place=place, kind="engine", what=engine_fault, level="warning")
        if model_entry.engine == TRUING_ENGINE or model_entry.engine in ENGINES:
            for place, message in find_entry_faults(model_entry, config):
                yield Finding(place=place, kind="parameter", what=message)


def _check_rail_references(config: RailsConfig) -> Iterator[Finding]:
    """Rails without a flow, and library rails without their prompt."""
    flows = [*config.flows, *library_for_config(config).flows]
    for place, message in find_missing_references(config, flows, PromptManager(config)):
        yield Finding(place=place, kind="rail", what=message)
    for place, message in find_pattern_faults(config):
        yield Finding(place=place, kind="pattern", what=message)
    for place, message in find_guard_faults(config):
        yield Finding(place=place, kind="guard", what=message)
    try:
        find_service_addresses(config)
    except PlanError as error:
        for fault in error.faults:
            yield _finding_from_fault(fault, "service")


def _list_code(config: RailsConfig) -> Iterator[Finding]:
    """Yields a note for everything that needs ``--trust-code``; without it nothing is loaded."""
    for use in find_code_uses(config):
        message = f"needs --trust-code: {use.what}"
        yield Finding(place=use.place, kind="code", what=message, level="note")


def _check_output_parsers(config: RailsConfig) -> Iterator[Finding]:
    """Yields the parsers that do not exist: a warning where a config.py may register them."""
    has_init = any(Path(file).name == "config.py" for file in config.code)
    for place, message in find_parser_faults(config, PARSERS):
        is_open = has_init and "there is no output_parser" in message
        level: Level = "warning" if is_open else "error"
        yield Finding(place=place, kind="parser", what=message, level=level)


def _check_templates(config: RailsConfig) -> Iterator[Finding]:
    for index, prompt in enumerate(config.prompts):
        place = config.locate("key", f"prompts.{index}")
        for template in (prompt.content, *(text for _, text in prompt.messages)):
            if template:
                yield from _check_template(template, place)
    for name, texts in config.bot_messages.items():
        for text in texts:
            yield from _check_template(dollar_to_jinja(text.text), config.locate("bot", name))


def _check_template(template: str, place: str) -> Iterator[Finding]:
    try:
        find_template_variables(template)
    except PromptError as error:
        yield Finding(place=place, kind="template", what=str(error))


def _rails_with_unknown_effects(program: Program, references: list[str]) -> list[str]:
    return [
        reference
        for reference in references
        if parallel_rails.variable_effects(program, reference) is None
    ]


def _check_concurrency(config: RailsConfig, program: Program) -> Iterator[Finding]:
    """The setting `concurrent` has no effect on rails that are not shown to be independent."""
    if not config.truing.get("concurrent"):
        return
    for name, stage in iterate_stages(config):
        if name not in ("input", "output") or len(stage.flows) < 2:
            continue
        unknown = _rails_with_unknown_effects(program, stage.flows)
        if unknown:
            message = (
                f"{', '.join(unknown)}: what it does to the others is not known, "
                f"so the {name} rails run one after the other"
            )
        elif not parallel_rails.can_run_in_parallel(program, stage.flows):
            message = (
                f"one of the {name} rails writes what another reads, "
                "so they run one after the other"
            )
        else:
            continue
        place = config.locate("key", f"rails.{name}")
        yield Finding(place=place, kind="concurrent", level="warning", what=message)


def _check_speculation(config: RailsConfig, program: Program) -> Iterator[Finding]:
    """The setting `speculative` has no effect beside a rail whose effects are not known."""
    if not config.truing.get("speculative"):
        return
    unknown = _rails_with_unknown_effects(program, config.rails.input.flows)
    if unknown:
        message = (
            f"{', '.join(unknown)}: its effects are not known, "
            "so nothing is generated ahead of the input rails"
        )
        place = config.locate("key", "rails.input")
        yield Finding(place=place, kind="speculative", level="warning", what=message)


def _check_rail_order(config: RailsConfig) -> Iterator[Finding]:
    """A rail that lets the LLM rewrite the answer after another has judged it.

    The rewritten answer would be shown without being judged.
    """
    flows = config.rails.output.flows
    names = [parse_flow_name(reference) for reference in flows]
    if REWRITING_OUTPUT_RAIL not in names:
        return
    position = names.index(REWRITING_OUTPUT_RAIL)
    for reference, name in zip(flows[:position], names):
        if name in JUDGING_OUTPUT_RAILS:
            yield Finding(
                place=config.locate("key", f"rails.output.flows.{position}"),
                kind="order",
                level="warning",
                what=f"{REWRITING_OUTPUT_RAIL!r} rewrites what {reference!r} has judged, "
                "and nothing judges it again: list it before that",
            )
            return


def _check_entities(config: RailsConfig) -> Iterator[Finding]:
    """Kinds of personal data that no detector knows."""
    detection = _as_dict(_as_dict(config.raw.get("rails")).get("config"))
    entity_lists: list[tuple[str, Any]] = []
    for stage, block in _as_dict(detection.get("sensitive_data_detection")).items():
        if isinstance(block, dict):
            key = f"rails.config.sensitive_data_detection.{stage}.entities"
            entity_lists.append((key, block.get("entities")))
    sensitive = _as_dict(config.truing.get("sensitive"))
    entity_lists.append(("truing.sensitive.entities", sensitive.get("entities")))
    for key, entities in entity_lists:
        for index, entity in enumerate(entities or []):
            try:
                split_entities([str(entity)], key)
            except PlanError as error:
                place = _locate_first(config, f"{key}.{index}", key)
                yield Finding(place=place, kind="entity", what=error.faults[0])


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _locate_first(config: RailsConfig, *keys: str) -> str:
    """Returns the place of the first key that has one; the folder if none has."""
    for key in keys:
        if ("key", key) in config.locations:
            return config.locate("key", key)
    return config.path
