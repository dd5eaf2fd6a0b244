"""Finds names that lead nowhere: intents, messages, subflows, actions, parameters, variables."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from typing import Any

from truing.core.errors import did_you_mean
from truing.rails.colang import ast
from truing.rails.colang.expressions import find_variables
from truing.rails.colang.flow_reference import parse_flow_name, parse_flow_parameters
from truing.rails.colang.parser import walk_steps
from truing.rails.config.loader import RailsConfig, iterate_stages
from truing.rails.runtime.action_registry import ActionRegistry
from truing.rails.runtime.rail_library import RailLibrary
from truing.rails.runtime.templates import dollar_to_jinja
from truing.rails.runtime.templates import template_variables as find_template_variables
from truing.rails.static.action_sources import ActionSource, ActionSources
from truing.rails.static.findings import Finding

# Variables that the runtime sets.
RUNTIME_VARIABLES = frozenset(
    {
        "user_message",
        "bot_message",
        "last_user_message",
        "last_bot_message",
        "relevant_chunks",
        "relevant_chunks_sep",
        "retrieved_for",
        "event",
        "config",
        "generation_options",
        "triggered_input_rail",
        "triggered_output_rail",
        "skip_output_rails",
        "check_facts",
        "check_hallucination",
        "hallucination_warning",
        "bot_thinking",
        "tool_calls",
        "tool_messages",
        "tool_message",
        "tool_name",
        "tool_call_id",
        "i",
    }
)
# Names that only templates can use.
TEMPLATE_VARIABLES = frozenset(
    {
        "history",
        "general_instructions",
        "sample_conversation",
        "sample_conversation_two_turns",
        "range",
    }
)
# Runtime variables that are worth a "did you mean".
_SUGGESTED_VARIABLES = frozenset(
    {"user_message", "bot_message", "last_user_message", "relevant_chunks"}
)
# Actions that NeMo Guardrails brings with it, and truing does not.
NEMO_ACTIONS = frozenset({"summarize_document"})
# Those that it brings only where NEMO_GUARDRAILS_DEMO_ACTIONS is set: elsewhere they are missing.
_DEMO_ACTIONS = frozenset(
    {
        *("apify", "bing_search", "google_search", "searx_search", "google_serper"),
        *("openweather_query", "serp_api_query", "wikipedia_query", "wolframalpha_query"),
        "zapier_nla_query",
    }
)
# Intents and messages that need no definition.
_WILDCARDS = frozenset({"...", "stop", "*"})


def _place_of(step: ast.FlowStep, flow: ast.Flow) -> str:
    return f"{flow.file}:{step.line or flow.line}"


@dataclass(slots=True)
class NameChecker:
    """Checks the names in a configuration against what it, its library and its actions define."""

    config: RailsConfig
    library: RailLibrary
    sources: ActionSources
    builtin: Mapping[str, Callable[..., Any]]

    def check(self) -> Iterator[Finding]:
        """Yields a finding for every name that is used, but not defined."""
        yield from self._check_steps()
        yield from self._check_script()
        yield from self._find_unused_subflows()
        yield from self._find_unset_variables()

    # -- intents, messages and subflows ------------------------------------------------------------

    def _check_steps(self) -> Iterator[Finding]:
        messages_are_generated = self.config.truing.get("generated_messages") is True
        intents_are_generated = self.config.truing.get("generated_intents") is True
        own_flows = {flow.name for flow in self.config.flows}
        known_flows = own_flows | {flow.name for flow in self.library.flows}
        for flow in self.config.flows:
            for step in walk_steps(flow.steps):
                place = _place_of(step, flow)
                match step:
                    case ast.UserIntent():
                        if not intents_are_generated:
                            yield from self._check_intent(step.intent, place)
                    case ast.BotMessage(text=None):
                        if not messages_are_generated:
                            yield from self._check_message(step.intent, place)
                    case ast.CallFlow():
                        yield from self._check_subflow(step.flow, place, own_flows, known_flows)
                    case ast.ExecuteAction():
                        yield from self._check_action(step, place)

    def _check_script(self) -> Iterator[Finding]:
        """Yields a finding for each action of the Colang 2 flows that does not exist."""
        calls = self.config.script.iterate_actions() if self.config.script is not None else ()
        for place, call in calls:
            params = {a.name or "$0": a.expression for a in call.arguments}
            yield from self._check_action(
                ast.ExecuteAction(action=call.action, params=params), place
            )

    def _check_intent(self, intent: str, place: str) -> Iterator[Finding]:
        known = {*self.config.user_messages}
        if self.config.embeddings_fallback:
            known.add(self.config.embeddings_fallback)
        if intent in _WILDCARDS or intent in known:
            return
        hint = did_you_mean(intent, known - _WILDCARDS)
        # Embeddings find only an intent with examples.
        is_fault = (
            self.config.truing.get("generated_intents") is False
            or self.config.embeddings_only
            or _find_misspelt(intent, known) is not None
        )
        yield Finding(
            place=place,
            kind="intent",
            level="error" if is_fault else "warning",
            what=f"the intent {intent!r} is not defined{hint} (to have the "
            "LLM find it by its name alone, set truing: {generated_intents: true})",
        )

    def _check_message(self, name: str, place: str) -> Iterator[Finding]:
        is_defined = name in self.config.bot_messages or name in self.library.bot_messages
        if is_defined or name in _WILDCARDS or name.startswith("$"):
            return
        hint = did_you_mean(name, self.config.bot_messages)
        is_fault = (
            self.config.truing.get("generated_messages") is False
            or _find_misspelt(name, self.config.bot_messages) is not None
        )
        yield Finding(
            place=place,
            kind="message",
            level="error" if is_fault else "warning",
            what=f"the bot message {name!r} is not defined{hint} (to have the LLM "
            "write such messages, set truing: {generated_messages: true})",
        )

    def _check_subflow(
        self, reference: str, place: str, own_flows: set[str], known_flows: set[str]
    ) -> Iterator[Finding]:
        if reference.startswith("$") or parse_flow_name(reference) in known_flows:
            return
        hint = did_you_mean(reference, own_flows or known_flows)
        yield Finding(
            place=place,
            kind="subflow",
            what=f"there is no subflow {reference!r}{hint}",
        )

    def _find_unused_subflows(self) -> Iterator[Finding]:
        calls = [
            step
            for flow in self.config.flows
            for step in walk_steps(flow.steps)
            if isinstance(step, ast.CallFlow)
        ]
        if any(call.flow.startswith("$") for call in calls):
            # The name of the called subflow is only known at run time.
            return
        used = {parse_flow_name(call.flow) for call in calls}
        for _, stage in iterate_stages(self.config):
            used |= {parse_flow_name(reference) for reference in stage.flows}
        # A flow with the name of a library flow replaces that.
        replaced = {flow.name for flow in self.library.flows}
        for flow in self.config.flows:
            if flow.meta.get("subflow") and flow.name not in (used | replaced):
                yield Finding(
                    place=f"{flow.file}:{flow.line}",
                    kind="unused",
                    level="warning",
                    what=f"the subflow {flow.name!r} is never called"
                    f"{did_you_mean(flow.name, used)}",
                )

    # -- actions -----------------------------------------------------------------------------------

    def _find_action(self, name: str) -> ActionSource | Callable[..., Any] | None:
        """Looks an action up as the runtime does, which also accepts other spellings of a name."""
        registry = ActionRegistry()
        for known_name in (*self.builtin, *self.sources.actions):
            registry.register(_placeholder_action, known_name)
        entry = registry.find(name)
        if entry is None:
            return None
        return self.sources.actions.get(entry.name) or self.builtin[entry.name]

    def _check_action(self, step: ast.ExecuteAction, place: str) -> Iterator[Finding]:
        action = self._find_action(step.action)
        if action is None and step.action in NEMO_ACTIONS:
            yield Finding(
                place=place,
                kind="nemo_action",
                what=f"the action {step.action!r} of NeMo Guardrails is not part of truing; define "
                "it in actions.py",
            )
            return
        if action is None:
            demo = " (NeMo Guardrails has it only with NEMO_GUARDRAILS_DEMO_ACTIONS)"
            close = get_close_matches(step.action, self.builtin, n=1, cutoff=0.8)
            if close:
                hint = f"; did you mean {close[0]!r}?"
            else:
                hint = did_you_mean(step.action, self.sources.actions)
            yield Finding(
                place=place,
                kind="action",
                what=f"there is no action {step.action!r}{hint}"
                f"{demo if step.action in _DEMO_ACTIONS else ''}",
                level="warning" if self.sources.open_ended else "error",
            )
            return
        accepted, required = _describe_parameters(action)
        passed = {name for name in step.params if not name.startswith("$")}
        if accepted is not None:
            for name in sorted(passed - accepted):
                hint = did_you_mean(name, accepted - {"turn", "self"})
                yield Finding(
                    place=place,
                    kind="parameter",
                    what=f"the action {step.action!r} takes no parameter {name!r}{hint}",
                )
        has_positional = len(passed) < len(step.params)
        if has_positional:
            # Which parameters these fill is decided at run time.
            return
        for name in sorted(required - passed):
            if not name.startswith("__context__"):
                yield Finding(
                    place=place,
                    kind="parameter",
                    level="warning",
                    what=f"the action {step.action!r} needs the parameter {name!r}",
                )

    # -- variables ---------------------------------------------------------------------------------

    def _find_unset_variables(self) -> Iterator[Finding]:
        own_variables = self._collect_set_variables(self.config.flows)
        known = own_variables | RUNTIME_VARIABLES | self._collect_set_variables(self.library.flows)
        reported: set[tuple[str, str]] = set()
        for place, name in self._find_reads():
            if name in known or (place, name) in reported:
                continue
            reported.add((place, name))
            hint = did_you_mean(name, own_variables | _SUGGESTED_VARIABLES)
            # Without a close name, the list of all variables would not help.
            hint = hint if "did you mean" in hint else ""
            yield Finding(
                place=place,
                kind="variable",
                level="warning",
                what=f"nothing sets the variable ${name}{hint}",
            )

    def _collect_set_variables(self, flows: Iterable[ast.Flow]) -> set[str]:
        """Returns the variables that flows, parameters of rails and actions set."""
        names = set(self.sources.updates)
        for flow in flows:
            for step in walk_steps(flow.steps):
                match step:
                    case ast.Assign():
                        names.add(step.variable)
                    case ast.ExecuteAction(result=str(result)) if result:
                        names.add(result)
                    case ast.UserIntent(variable=str(variable)) if variable:
                        names.add(variable)
                    case ast.CallFlow():
                        names |= set(step.params)
        for _, stage in iterate_stages(self.config):
            for reference in stage.flows:
                names |= set(parse_flow_parameters(reference))
        return names

    def _find_reads(self) -> Iterator[tuple[str, str]]:
        """Yields (place, variable) for every read of a variable in a flow or a bot message."""
        for flow in self.config.flows:
            for step in walk_steps(flow.steps):
                for expression in _expressions_of(step):
                    for name in sorted(find_variables(expression)):
                        yield _place_of(step, flow), name
        for message, texts in self.config.bot_messages.items():
            if texts is self.library.bot_messages.get(message):
                continue
            for text in texts:
                place = self.config.locate("bot", message)
                file, colon, _ = place.rpartition(":")
                if text.line and colon:
                    place = f"{file}:{text.line}"
                for name in sorted(_variables_of_template(text.text)):
                    yield place, name
                for condition in text.conditions:
                    for name in sorted(find_variables(condition)):
                        yield place, name


def _find_misspelt(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that differs from `name` by the spelling of one word, if any."""
    words = name.split()
    for other in known:
        other_words = other.split()
        if len(other_words) != len(words):
            continue
        changed = [pair for pair in zip(words, other_words, strict=True) if pair[0] != pair[1]]
        if len(changed) == 1 and SequenceMatcher(None, *changed[0]).ratio() >= 0.8:
            return other
    return None


def _describe_parameters(
    action: ActionSource | Callable[..., Any],
) -> tuple[frozenset[str] | None, frozenset[str]]:
    """Returns the accepted parameters (None for any), and the required ones."""
    if isinstance(action, ActionSource):
        return action.parameters, action.required
    parameters = inspect.signature(action).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None, frozenset()
    # The runtime fills in what a built-in action needs.
    return frozenset(parameter.name for parameter in parameters), frozenset()


def _expressions_of(step: ast.FlowStep) -> list[str]:
    """Returns the texts in a step in which $name reads a variable."""
    match step:
        case ast.If() | ast.While():
            return [step.condition]
        case ast.Assign(expression="..."):
            return []
        case ast.Assign() | ast.CheckCondition():
            return [step.expression]
        case ast.ExecuteAction() | ast.CallFlow():
            return [value for value in step.params.values() if isinstance(value, str)]
        case ast.BotMessage() if step.intent.startswith("$"):
            return [step.intent]
    return []


def _variables_of_template(text: str) -> frozenset[str]:
    try:
        return find_template_variables(dollar_to_jinja(text)) - TEMPLATE_VARIABLES
    except Exception:
        # `check` reports a malformed template itself.
        return frozenset()


def _placeholder_action() -> None:
    """Is registered for an action of which only the name matters."""
