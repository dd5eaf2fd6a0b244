"""Names that must lead somewhere: intents, messages, subflows, actions and their parameters, variables."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from truing.core.errors import did_you_mean
from truing.rails.colang import ast as n
from truing.rails.colang.expressions import find_variables
from truing.rails.colang.flow_reference import parse_flow_name, parse_flow_parameters
from truing.rails.colang.parser import walk_steps
from truing.rails.config.loader import RailsConfig, iterate_stages
from truing.rails.runtime.action_registry import Actions
from truing.rails.runtime.rail_library import RailLibrary
from truing.rails.runtime.templates import variables as template_variables
from truing.rails.runtime.templates import with_variables
from truing.rails.static.action_sources import ActionSource, ActionSources
from truing.rails.static.findings import Finding

# What the runtime sets, beside the variables of the library's own flows.
BUILT_IN = frozenset(
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
TEMPLATE_GIVEN = frozenset(
    {
        "history",
        "general_instructions",
        "sample_conversation",
        "sample_conversation_two_turns",
        "range",
    }
)
UNRESOLVED = frozenset({"...", "stop", "*"})


@dataclass(slots=True)
class NameChecker:
    """The configuration with what its names can lead to."""

    config: RailsConfig
    library: RailLibrary
    sources: ActionSources
    builtin: Mapping[str, Callable[..., Any]]

    def findings(self) -> Iterator[Finding]:
        """Everything that is named and not there."""
        subflows = {f.name for f in (*self.config.flows, *self.library.flows)}
        messages = {*self.config.bot_messages, *self.library.bots}
        intents = {*self.config.user_messages, self.config.embeddings_fallback or "..."}
        generated = self.config.truing.get("generated_messages") is True
        guessed = self.config.truing.get("generated_intents") is True
        for flow in self.config.flows:
            for step in walk_steps(flow.steps):
                place = f"{flow.file}:{step.line or flow.line}"
                if (
                    isinstance(step, n.UserIntent)
                    and step.intent not in UNRESOLVED
                    and step.intent not in intents
                    and not guessed
                ):
                    hint = did_you_mean(step.intent, intents - UNRESOLVED)
                    yield Finding(
                        place=place,
                        kind="intent",
                        what=f"the intent {step.intent!r} is not defined{hint} (to have the "
                        "LLM find it by its name alone, set truing: {generated_intents: true})",
                    )
                elif isinstance(step, n.BotMessage) and step.text is None and not generated:
                    yield from self._message(step.intent, place, messages)
                elif (
                    isinstance(step, n.CallFlow)
                    and not step.flow.startswith("$")
                    and parse_flow_name(step.flow) not in subflows
                ):
                    yield Finding(
                        place=place,
                        kind="subflow",
                        what=f"there is no subflow {step.flow!r}"
                        f"{did_you_mean(step.flow, {f.name for f in self.config.flows} or subflows)}",
                    )
                elif isinstance(step, n.ExecuteAction):
                    yield from self._action(step, place)
        yield from self._uncalled()
        yield from self._unset()

    def _message(self, name: str, place: str, known: set[str]) -> Iterator[Finding]:
        if name in UNRESOLVED or name.startswith("$") or name in known:
            return
        hint = did_you_mean(name, self.config.bot_messages)
        yield Finding(
            place=place,
            kind="message",
            what=f"the bot message {name!r} is not defined{hint} (to have the LLM "
            "write such messages, set truing: {generated_messages: true})",
        )

    # -- actions -----------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> ActionSource | Callable[..., Any] | None:
        own = Actions()
        for known in (*self.builtin, *self.sources.actions):
            own.register(_nothing, known)
        found = own.find(name)
        if found is None:
            return None
        return self.sources.actions.get(found.name) or self.builtin[found.name]

    def _action(self, step: n.ExecuteAction, place: str) -> Iterator[Finding]:
        found = self._find(step.action)
        if found is None:
            close = get_close_matches(step.action, self.builtin, n=1, cutoff=0.8)
            hint = (
                f"; did you mean {close[0]!r}?"
                if close
                else did_you_mean(step.action, self.sources.actions)
            )
            level = "warning" if self.sources.open_ended else "error"
            yield Finding(
                place=place,
                kind="action",
                what=f"there is no action {step.action!r}{hint}",
                level="warning" if level == "warning" else "error",
            )
            return
        given = {k for k in step.params if not k.startswith("$")}
        if isinstance(found, ActionSource):
            takes, needs = found.parameters, found.required
        else:
            parts = inspect.signature(found).parameters.values()
            takes = (
                None
                if any(p.kind is p.VAR_KEYWORD for p in parts)
                else frozenset(p.name for p in parts)
            )
            needs = frozenset()
        if takes is not None:
            for name in sorted(given - takes):
                yield Finding(
                    place=place,
                    kind="parameter",
                    what=f"the action {step.action!r} takes no parameter {name!r}"
                    f"{did_you_mean(name, takes - {'turn', 'self'})}",
                )
        if len(given) == len(step.params):
            for name in sorted(n_ for n_ in needs - given if not n_.startswith("__context__")):
                yield Finding(
                    place=place,
                    kind="parameter",
                    level="warning",
                    what=f"the action {step.action!r} needs the parameter {name!r}",
                )

    # -- subflows, variables -----------------------------------------------------------------------------------------

    def _uncalled(self) -> Iterator[Finding]:
        steps = [s for f in self.config.flows for s in walk_steps(f.steps)]
        if any(isinstance(s, n.CallFlow) and s.flow.startswith("$") for s in steps):
            return
        called = {parse_flow_name(s.flow) for s in steps if isinstance(s, n.CallFlow)}
        called |= {
            parse_flow_name(name)
            for _, block in iterate_stages(self.config)
            for name in block.flows
        }
        for flow in self.config.flows:
            if (
                flow.meta.get("subflow")
                and flow.name not in called
                and not self._replaces(flow.name)
            ):
                yield Finding(
                    place=f"{flow.file}:{flow.line}",
                    kind="unused",
                    level="warning",
                    what=f"the subflow {flow.name!r} is never called{did_you_mean(flow.name, called)}",
                )

    def _replaces(self, name: str) -> bool:
        return any(f.name == name for f in self.library.flows)

    def _set(self, flows: Iterable[n.Flow]) -> set[str]:
        """The variables that flows, rails' parameters and actions set."""
        known = set(self.sources.updates)
        for flow in flows:
            for step in walk_steps(flow.steps):
                if isinstance(step, n.Assign):
                    known.add(step.variable)
                elif isinstance(step, n.ExecuteAction) and step.result:
                    known.add(step.result)
                elif isinstance(step, n.UserIntent) and step.variable:
                    known.add(step.variable)
                elif isinstance(step, n.CallFlow):
                    known |= set(step.params)
        for _, block in iterate_stages(self.config):
            for name in block.flows:
                known |= set(parse_flow_parameters(name))
        return known

    def _unset(self) -> Iterator[Finding]:
        likely = self._set(self.config.flows)
        known = likely | BUILT_IN | self._set(self.library.flows)
        seen: set[tuple[str, str]] = set()
        for place, name in self._read():
            if name not in known and (place, name) not in seen:
                seen.add((place, name))
                hint = did_you_mean(
                    name,
                    likely
                    | {"user_message", "bot_message", "last_user_message", "relevant_chunks"},
                )
                hint = hint if "did you mean" in hint else ""
                yield Finding(
                    place=place,
                    kind="variable",
                    level="warning",
                    what=f"nothing sets the variable ${name}{hint}",
                )

    def _read(self) -> Iterator[tuple[str, str]]:
        for flow in self.config.flows:
            for step in walk_steps(flow.steps):
                place = f"{flow.file}:{step.line or flow.line}"
                texts: list[str] = []
                if isinstance(step, n.If | n.While):
                    texts = [step.condition]
                elif (isinstance(step, n.Assign) and step.expression != "...") or isinstance(
                    step, n.CheckCondition
                ):
                    texts = [step.expression]
                elif isinstance(step, n.ExecuteAction | n.CallFlow):
                    texts = [v for v in step.params.values() if isinstance(v, str)]
                elif isinstance(step, n.BotMessage) and step.intent.startswith("$"):
                    texts = [step.intent]
                for text in texts:
                    yield from ((place, name) for name in sorted(find_variables(text)))
        for message, parts in self.config.bot_messages.items():
            if message in self.library.bots and parts is self.library.bots[message]:
                continue
            for part in parts:
                place = self.config.locate("bot", message)
                place = (
                    f"{place.rpartition(':')[0]}:{part.line}"
                    if part.line and ":" in place
                    else place
                )
                yield from ((place, name) for name in sorted(_template(part.text)))
                for condition in part.conditions:
                    yield from ((place, name) for name in sorted(find_variables(condition)))


def _template(text: str) -> frozenset[str]:
    try:
        return template_variables(with_variables(text)) - TEMPLATE_GIVEN
    except Exception:  # a template that cannot be read is reported by the check of templates
        return frozenset()


def _nothing() -> None:
    """Stands for an action whose name alone matters."""
