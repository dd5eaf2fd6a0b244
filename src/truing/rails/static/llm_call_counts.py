"""Bounds the number of LLM calls of one turn: the longest path through the compiled flows.

Between two events that a flow waits for, it runs a stretch of instructions; the stretch with the
most calls counts. Where a loop contains calls, or an action of the configuration is given the LLM,
no upper bound is known: the number is then a lower bound, and `open` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from truing.rails.colang import compiler
from truing.rails.colang.compiler import CompiledFlow, Instruction, Program
from truing.rails.colang.flow_reference import parse_flow_name
from truing.rails.config.client_settings import ClientSettings
from truing.rails.config.loader import RailsConfig, iterate_stages
from truing.rails.library.references import library_for_config
from truing.rails.static.action_sources import ActionSources

MAX_PATH_LENGTH = 800  # instructions; the search recurses once for each


@dataclass(frozen=True)
class LlmCallCount:
    """At most `most` calls, plus what `open` names: sources of calls without a known bound."""

    most: int = 0
    open: frozenset[str] = frozenset()

    def __add__(self, other: LlmCallCount) -> LlmCallCount:
        return LlmCallCount(self.most + other.most, self.open | other.open)

    def max_with(self, other: LlmCallCount) -> LlmCallCount:
        """Returns the bound for a choice between two paths."""
        return LlmCallCount(max(self.most, other.most), self.open | other.open)

    def __str__(self) -> str:
        return f"{self.most} or more" if self.open else str(self.most)


@dataclass(frozen=True)
class PathCosts:
    """The costs of a flow's paths, by how they end; None if no path ends so.

    `completed` are the paths after which the turn goes on, `stopped` those that end the turn
    (``stop``).
    """

    completed: LlmCallCount | None = LlmCallCount()
    stopped: LlmCallCount | None = None

    def max_with(self, other: PathCosts) -> PathCosts:
        """Returns the costs of a choice between two sets of paths."""
        return PathCosts(
            _max_cost(self.completed, other.completed), _max_cost(self.stopped, other.stopped)
        )

    def then(self, following: PathCosts) -> PathCosts:
        """Returns the costs of these paths, followed by others where they do not stop."""
        if self.completed is None:
            return self
        completed = stopped = None
        if following.completed is not None:
            completed = self.completed + following.completed
        if following.stopped is not None:
            stopped = self.completed + following.stopped
        return PathCosts(completed, _max_cost(self.stopped, stopped))

    @property
    def worst(self) -> LlmCallCount:
        """The most expensive path of either kind."""
        return _max_cost(self.completed, self.stopped) or LlmCallCount()


def _max_cost(first: LlmCallCount | None, second: LlmCallCount | None) -> LlmCallCount | None:
    if first is None or second is None:
        return first or second
    return first.max_with(second)


@dataclass
class TurnCallCount:
    """The most expensive turn: its total, and its parts by name."""

    total: LlmCallCount = field(default_factory=LlmCallCount)
    parts: dict[str, LlmCallCount] = field(default_factory=dict)


class LlmCallCounter:
    """Counts the LLM calls of the compiled flows of a configuration."""

    def __init__(
        self,
        config: RailsConfig,
        program: Program,
        builtin: Mapping[str, Callable[..., Any]],
        sources: ActionSources,
    ) -> None:
        self.config = config
        self.program = program
        self.builtin = builtin
        self.sources = sources
        self._rails = {name: stage.flows for name, stage in iterate_stages(config)}
        self._messages_with_text = {*config.bot_messages, *library_for_config(config).bot_messages}
        self._flow_costs: dict[str, PathCosts] = {}
        self._message_costs: dict[str, LlmCallCount] = {}
        self._active_flows: set[str] = set()

    def count_turn(self) -> TurnCallCount:
        """Returns the worst turn: through all input rails and the dialog, or stopped by a rail.

        In every turn but the first, the input rails also read what is new joined to what it stands
        beside, in one text (`joined_texts`).
        """
        input_rails = self.count_stage("input")
        dialog = self._count_dialog()
        calls_by_part = {"input rails": input_rails.worst, "dialog and output rails": dialog}
        total = input_rails.then(PathCosts(dialog)).worst
        if (
            input_rails.worst != LlmCallCount()
            and ClientSettings.of(self.config.truing).joins_turns
        ):
            calls_by_part["joined turns"] = input_rails.worst
            total += calls_by_part["joined turns"]
        return TurnCallCount(total, calls_by_part)

    def count_stage(self, stage: str) -> PathCosts:
        """Returns the costs of all rails of a stage, one after the other."""
        costs = PathCosts()
        for reference in self._rails.get(stage, ()):
            costs = costs.then(self.count_flow(parse_flow_name(reference)))
        return costs

    def count_flow(self, name: str) -> PathCosts:
        """Returns the costs of the worst stretch of a flow."""
        if name in self._flow_costs:
            return self._flow_costs[name]
        if name in self._active_flows:
            return PathCosts(LlmCallCount(0, frozenset({f"{name} calls itself"})))
        flow = self.program.flows.get(name)
        if flow is None:
            return PathCosts()
        self._active_flows.add(name)
        costs = _PathSearch(self, flow).find_worst()
        self._active_flows.discard(name)
        self._flow_costs[name] = costs
        return costs

    def count_message(self, name: str) -> LlmCallCount:
        """Returns the cost of a bot message: retrieval rails, its generation, output rails."""
        if name in ("...", "stop"):
            return LlmCallCount()
        if name in self._message_costs:
            return self._message_costs[name]
        has_text = name in self._messages_with_text or name.startswith('"')
        # An output rail that says a message without a text starts the output rails again. While
        # this message is counted, a nested one of the same name gets this open count.
        repeats = frozenset[str]()
        if not has_text and self._rails.get("output"):
            repeats = frozenset({f"the output rails say {name!r}, which passes through them again"})
        self._message_costs[name] = LlmCallCount(0, repeats)
        cost = self.count_stage("retrieval").worst
        if not has_text:
            # `bot $variable` has its text in a variable: nothing is generated.
            generation = LlmCallCount(0 if name.startswith("$") else 1)
            cost += generation + self.count_stage("output").worst
        self._message_costs[name] = cost
        return cost

    def count_action(self, name: str) -> LlmCallCount:
        """Returns the cost of an action."""
        if name in self.builtin:
            return LlmCallCount(int(getattr(self.builtin[name], "llm_calls", 0)))
        source = self.sources.actions.get(name)
        if source is not None and source.takes_llm:
            return LlmCallCount(1, frozenset({f"the action {name} is given the LLM"}))
        return LlmCallCount()

    def _count_dialog(self) -> LlmCallCount:
        """Returns the cost of the part of a turn after the input rails."""
        config = self.config
        answer_rails_cost = self.count_stage("output").worst + self.count_stage("retrieval").worst
        general_answer = LlmCallCount(1) + answer_rails_cost
        if not config.user_messages:
            flows = self.program.flows.values()
            if not any(not flow.system and not flow.is_subflow for flow in flows):
                return general_answer
            return general_answer.max_with(self._count_flows_of_turn())
        if config.single_call:
            # Intent, next step and message come from one call.
            return LlmCallCount(1) + self._count_flows_of_turn().max_with(answer_rails_cost)
        intent_is_embedded = config.embeddings_only and (
            config.embeddings_threshold is None or bool(config.embeddings_fallback)
        )
        intent = LlmCallCount(0 if intent_is_embedded else 1)
        # No flow matches the intent: the LLM generates the next step and its message.
        generated = LlmCallCount(1) + general_answer
        if config.multi_step:
            generated = LlmCallCount(
                generated.most, frozenset({"several steps can be generated at once"})
            )
        return intent + self._count_flows_of_turn().max_with(generated)

    def _count_flows_of_turn(self) -> LlmCallCount:
        """Returns the worst flow started by an intent, plus the worst started by a message."""
        started_by_intent = started_by_message = LlmCallCount()
        for flow in self.program.flows.values():
            if flow.system or flow.is_subflow:
                continue
            cost = self.count_flow(flow.id).worst
            if flow.instructions and flow.instructions[0].op == compiler.BOT:
                started_by_message = started_by_message.max_with(cost)
            else:
                started_by_intent = started_by_intent.max_with(cost)
        return started_by_intent + started_by_message


class _PathSearch:
    """Finds the most expensive stretch of one flow between waits (depth-first, memoised)."""

    def __init__(self, counter: LlmCallCounter, flow: CompiledFlow) -> None:
        self.counter = counter
        self.flow = flow
        self._costs_from: dict[int, PathCosts] = {}
        self._path: set[int] = set()

    def find_worst(self) -> PathCosts:
        """Returns the costs from the start, and from after each wait."""
        worst = PathCosts()
        for start in self._find_starts():
            self._path.clear()
            # A flow starts when its first instruction has matched; a subflow executes it.
            is_matched = start == 0 and not self.flow.is_subflow
            worst = worst.max_with(self._costs_at(start, is_matched=is_matched))
        return worst

    def _find_starts(self) -> list[int]:
        starts = [0]
        branch_starts: list[int] = []
        for position, instruction in enumerate(self.flow.instructions):
            if instruction.op in (compiler.USER, compiler.EVENT):
                starts.append(position + 1)
            elif instruction.op == compiler.BRANCH:
                offsets = [*instruction.branch_offsets]
                offsets.append(instruction.else_offset or instruction.branch_offsets[0])
                branch_starts += [position + offset + 1 for offset in offsets]
        return starts + branch_starts

    def _costs_at(self, position: int, *, is_matched: bool = False) -> PathCosts:
        """Returns the costs from an instruction to the next wait or the end of the flow."""
        instructions = self.flow.instructions
        if not 0 <= position < len(instructions) or position in self._path:
            return PathCosts()
        if position in self._costs_from and not is_matched:
            return self._costs_from[position]
        if len(self._path) > MAX_PATH_LENGTH:
            return PathCosts(LlmCallCount(0, frozenset({f"{self.flow.id} is too long to follow"})))
        instruction = instructions[position]
        if not is_matched:
            if instruction.op in (compiler.USER, compiler.EVENT, compiler.NEVER):
                return PathCosts()
            if instruction.op == compiler.BOT and instruction.name == "stop":
                return PathCosts(None, LlmCallCount())
        self._path.add(position)
        following: PathCosts | None = None
        loops = frozenset[str]()
        for target in self._find_successors(instruction, position):
            if target in self._path:
                # A jump back: what the loop's body costs may be repeated without a bound.
                loop_cost = self._sum_costs(target, position)
                if loop_cost.most or loop_cost.open:
                    loops |= {f"a loop in {self.flow.id}, line {instructions[target].line}"}
                continue
            target_costs = self._costs_at(target)
            following = target_costs if following is None else following.max_with(target_costs)
        self._path.discard(position)
        costs = self._cost_of(instruction, is_matched)
        costs = costs.then(PathCosts(LlmCallCount(0, loops))).then(following or PathCosts())
        if not is_matched:
            self._costs_from[position] = costs
        return costs

    def _cost_of(self, instruction: Instruction, is_matched: bool = False) -> PathCosts:
        if instruction.op == compiler.BOT:
            if is_matched:
                return PathCosts()
            return PathCosts(self.counter.count_message(instruction.name))
        if instruction.op == compiler.ACTION:
            return PathCosts(self.counter.count_action(instruction.name))
        if instruction.op == compiler.FLOW:
            if instruction.expression is not None:
                reason = f"{self.flow.id} calls subflows by a variable"
                return PathCosts(LlmCallCount(0, frozenset({reason})))
            return self.counter.count_flow(parse_flow_name(instruction.name))
        return PathCosts()

    def _find_successors(self, instruction: Instruction, position: int) -> list[int]:
        match instruction.op:
            case compiler.IF:
                offsets = [1, instruction.jump]
            case compiler.WHILE:
                offsets = [1, instruction.break_offset]
            case compiler.JUMP:
                offsets = [instruction.jump] if instruction.jump else []
            case compiler.BREAK:
                offsets = [instruction.break_offset or 1]
            case compiler.CONTINUE:
                offsets = [instruction.continue_offset or 1]
            case compiler.BRANCH:
                offsets = []  # a wait; its paths are starts of their own
            case _:
                offsets = [1]
        return [position + offset for offset in offsets]

    def _sum_costs(self, first: int, last: int) -> LlmCallCount:
        """Returns the cost of all instructions between the head of a loop and its end."""
        body = self.flow.instructions[min(first, last) : max(first, last) + 1]
        return sum((self._cost_of(instruction).worst for instruction in body), LlmCallCount())
