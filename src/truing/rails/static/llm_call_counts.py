"""How many LLM calls one turn can take at most, rail by rail: the longest path through the compiled flows.

Between two messages of the user a flow runs from one element that waits to the next; the dearest such stretch counts. A
loop with calls in it, or an action of the configuration that is given the LLM, makes the number a lower end (`open`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from truing.rails.colang import compiler as p
from truing.rails.colang.flow_reference import parse_flow_name
from truing.rails.config.loader import RailsConfig, iterate_stages
from truing.rails.library.references import library_of
from truing.rails.static.action_sources import ActionSources


@dataclass(frozen=True)
class LlmCallCount:
    """A number of calls; `open` names what can add to it without a bound that is known."""

    most: int = 0
    open: frozenset[str] = frozenset()

    def __add__(self, other: LlmCallCount) -> LlmCallCount:
        return LlmCallCount(self.most + other.most, self.open | other.open)

    def larger(self, other: LlmCallCount) -> LlmCallCount:
        """The dearer of two ways."""
        return LlmCallCount(max(self.most, other.most), self.open | other.open)

    def __str__(self) -> str:
        return f"{self.most} or more" if self.open else str(self.most)


@dataclass(frozen=True)
class PathCosts:
    """The dearest way that goes on after the flow, and the dearest that ends the turn (``stop``), if there is one."""

    on: LlmCallCount | None = LlmCallCount()
    stopped: LlmCallCount | None = None

    def larger(self, other: PathCosts) -> PathCosts:
        """The dearer of each kind."""
        return PathCosts(_dearer(self.on, other.on), _dearer(self.stopped, other.stopped))

    def then(self, other: PathCosts) -> PathCosts:
        """This, and after it the other."""
        if self.on is None:
            return self
        stopped = self.on + other.stopped if other.stopped is not None else None
        return PathCosts(
            self.on + other.on if other.on is not None else None, _dearer(self.stopped, stopped)
        )

    @property
    def worst(self) -> LlmCallCount:
        """The dearer of both kinds."""
        return _dearer(self.on, self.stopped) or LlmCallCount()


def _dearer(a: LlmCallCount | None, b: LlmCallCount | None) -> LlmCallCount | None:
    return b if a is None else a if b is None else a.larger(b)


@dataclass
class TurnCallCount:
    """The dearest turn: its parts by name, and the sum."""

    total: LlmCallCount = field(default_factory=LlmCallCount)
    parts: dict[str, LlmCallCount] = field(default_factory=dict)


class LlmCallCounter:
    """Counts over the compiled flows of a configuration."""

    def __init__(
        self,
        config: RailsConfig,
        program: p.Program,
        builtin: Mapping[str, Callable[..., Any]],
        sources: ActionSources,
    ) -> None:
        self.config, self.program, self.builtin, self.sources = config, program, builtin, sources
        self._flows: dict[str, PathCosts] = {}
        self._running: set[str] = set()
        self._rails = {stage: block.flows for stage, block in iterate_stages(config)}
        self._messages: dict[str, LlmCallCount] = {}
        self._texts = {*config.bot_messages, *library_of(config).bots}

    def turn(self) -> TurnCallCount:
        """The dearest turn of this configuration: through all input rails and the dialog, or stopped by an input rail."""
        rails, dialog = self.stage("input"), self._dialog()
        total = rails.then(PathCosts(dialog)).worst
        return TurnCallCount(total, {"input rails": rails.worst, "dialog and output rails": dialog})

    def stage(self, stage: str) -> PathCosts:
        """All rails of a stage, one after the other."""
        made = PathCosts()
        for name in self._rails.get(stage, ()):
            made = made.then(self.flow(parse_flow_name(name)))
        return made

    def flow(self, name: str) -> PathCosts:
        """The dearest ways through a flow, from its start to a wait or its end."""
        if name in self._flows:
            return self._flows[name]
        flow = self.program.flows.get(name)
        if flow is None or name in self._running:
            return PathCosts(
                LlmCallCount(
                    0, frozenset({f"{name} calls itself"}) if name in self._running else frozenset()
                )
            )
        self._running.add(name)
        made = _Paths(self, flow).dearest()
        self._running.discard(name)
        self._flows[name] = made
        return made

    def message(self, name: str) -> LlmCallCount:
        """What a bot message takes: retrieval rails, its generation, output rails."""
        if name in ("...", "stop"):
            return LlmCallCount()
        if name not in self._messages:
            own = name not in self._texts and not name.startswith('"')
            again = f"the output rails say {name!r}, which passes through them again"
            self._messages[name] = LlmCallCount(
                0, frozenset({again} if own and self._rails.get("output") else ())
            )
            made = self.stage("retrieval").worst
            if own:
                made += LlmCallCount(0 if name.startswith("$") else 1) + self.stage("output").worst
            self._messages[name] = made
        return self._messages[name]

    def action(self, name: str) -> LlmCallCount:
        """What an action takes."""
        if name in self.builtin:
            return LlmCallCount(int(getattr(self.builtin[name], "llm_calls", 0)))
        own = self.sources.actions.get(name)
        if own is not None and own.asks_llm:
            return LlmCallCount(1, frozenset({f"the action {name} is given the LLM"}))
        return LlmCallCount()

    def _dialog(self) -> LlmCallCount:
        config = self.config
        after = self.stage("output").worst + self.stage("retrieval").worst
        answer = LlmCallCount(1) + after
        if not config.user_messages:
            own = [f for f in self.program.flows.values() if not f.system and not f.is_subflow]
            if not own:
                return answer
            return answer.larger(self._flows_worst())
        sure = config.embeddings_only and (
            config.embeddings_threshold is None or bool(config.embeddings_fallback)
        )
        intent = LlmCallCount(0 if sure else 1)
        if config.single_call:
            return LlmCallCount(1) + self._flows_worst().larger(after)
        free = (
            LlmCallCount(1) + answer
        )  # no flow goes on: the next step and its message are generated
        if config.multi_step:
            free = LlmCallCount(free.most, frozenset({"several steps can be generated at once"}))
        return intent + self._flows_worst().larger(free)

    def _flows_worst(self) -> LlmCallCount:
        worst, after = LlmCallCount(), LlmCallCount()
        for flow in self.program.flows.values():
            if flow.system or flow.is_subflow:
                continue
            cost = self.flow(flow.id).worst
            if flow.instructions and flow.instructions[0].op == p.BOT:
                after = after.larger(cost)
            else:
                worst = worst.larger(cost)
        return worst + after


class _Paths:
    """The longest stretch of one flow between waits."""

    def __init__(self, counter: LlmCallCounter, flow: p.CompiledFlow) -> None:
        self.counter, self.flow = counter, flow
        self.known: dict[int, PathCosts] = {}
        self.path: set[int] = set()

    def dearest(self) -> PathCosts:
        """The ways from the start, and from each wait on."""
        elements = self.flow.instructions
        starts = [0, *(i + 1 for i, e in enumerate(elements) if e.op in (p.USER, p.EVENT))]
        starts += [
            i + h + 1
            for i, e in enumerate(elements)
            if e.op == p.BRANCH
            for h in (*e.branch_offsets, e.else_offset or e.branch_offsets[0])
        ]
        worst = PathCosts()
        for start in starts:
            self.path.clear()
            waits = (
                start == 0 and not self.flow.is_subflow
            )  # a flow waits for its first element, a subflow begins with it
            worst = worst.larger(self.after(start, first=waits))
        return worst

    def after(self, at: int, *, first: bool = False) -> PathCosts:
        """From an element on, up to the next wait."""
        elements = self.flow.instructions
        if not 0 <= at < len(elements) or at in self.path:
            return PathCosts()
        if at in self.known and not first:
            return self.known[at]
        if len(self.path) > 800:
            return PathCosts(LlmCallCount(0, frozenset({f"{self.flow.id} is too long to follow"})))
        e = elements[at]
        if e.op in (p.USER, p.EVENT, p.NEVER) and not first:
            return PathCosts()
        if e.op == p.BOT and e.name == "stop" and not first:
            return PathCosts(None, LlmCallCount())
        self.path.add(at)
        following: PathCosts | None = None
        loops = frozenset[str]()
        for target in self._next(e, at):
            if target in self.path:
                around = self._around(target, at)
                if around.most or around.open:
                    loops |= {f"a loop in {self.flow.id}, line {elements[target].line}"}
                continue
            found = self.after(target)
            following = found if following is None else following.larger(found)
        self.path.discard(at)
        made = (
            self._own(e, first)
            .then(PathCosts(LlmCallCount(0, loops)))
            .then(following or PathCosts())
        )
        if not first:
            self.known[at] = made
        return made

    def _own(self, e: p.Instruction, first: bool) -> PathCosts:
        if e.op == p.BOT:
            return PathCosts() if first else PathCosts(self.counter.message(e.name))
        if e.op == p.ACTION:
            return PathCosts(self.counter.action(e.name))
        if e.op == p.FLOW:
            if e.expression is not None:
                return PathCosts(
                    LlmCallCount(0, frozenset({f"{self.flow.id} calls subflows by a variable"}))
                )
            return self.counter.flow(parse_flow_name(e.name))
        return PathCosts()

    def _next(self, e: p.Instruction, at: int) -> list[int]:
        if e.op == p.IF:
            return [at + 1, at + e.jump]
        if e.op == p.WHILE:
            return [at + 1, at + e.break_offset]
        if e.op == p.JUMP:
            return [at + e.jump] if e.jump else []
        if e.op == p.BREAK:
            return [at + (e.break_offset or 1)]
        if e.op == p.CONTINUE:
            return [at + (e.continue_offset or 1)]
        if e.op == p.BRANCH:
            return []
        return [at + 1]

    def _around(self, start: int, end: int) -> LlmCallCount:
        """What the elements between the head of a loop and its end take."""
        body = self.flow.instructions[min(start, end) : max(start, end) + 1]
        return sum((self._own(e, False).worst for e in body), LlmCallCount())
