"""A configuration looked at without being run: `check` gives every fault with its place, the worst-case number of LLM
calls of a turn, and the flows for a picture. `actions.py` is read as text, never imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truing.core.errors import PlanError, TruingError
from truing.rails.colang.compiler import CompiledFlow, Program, compile_flow
from truing.rails.colang.flow_reference import parse_flow_name
from truing.rails.config.loader import RailsConfig, iterate_stages, list_rail_flow_names
from truing.rails.config.models import ENGINES, find_engine_fault, find_entry_faults
from truing.rails.library.catalog import all_actions, pure_actions
from truing.rails.library.pii import check_names
from truing.rails.library.references import library_of, wiring_faults
from truing.rails.runtime import dialog_actions, parallel_rails
from truing.rails.runtime.prompts import BUILT_IN, Prompts
from truing.rails.runtime.templates import PromptError, with_variables
from truing.rails.runtime.templates import variables as template_variables
from truing.rails.static.action_sources import read_action_sources
from truing.rails.static.findings import Finding, finding_sort_key
from truing.rails.static.llm_call_counts import LlmCallCounter, TurnCallCount
from truing.rails.static.name_checks import NameChecker
from truing.rails.static.reachability import check_reachability

REWRITES = "tone check output"
JUDGES_OUTPUT = frozenset(
    {
        "moderation check output",
        "self check output",
        "self check facts",
        "content safety check output",
    }
)


@dataclass(slots=True)
class RailsCheckReport:
    """What `check` found; `config` and `calls` are none where the configuration could not be read."""

    path: str
    findings: list[Finding] = field(default_factory=list)
    calls: TurnCallCount | None = None
    config: RailsConfig | None = None

    @property
    def errors(self) -> list[Finding]:
        """The findings that make a configuration wrong."""
        return [f for f in self.findings if f.level == "error"]


def builtin_actions() -> dict[str, Callable[..., Any]]:
    """The actions that every runtime has, by name."""
    made = {call.__name__: call for call in (*dialog_actions.ACTIONS, *all_actions())}
    return {**made, "create_event": _create_event, **parallel_rails.ACTIONS}


async def _create_event(turn: Any, event: dict[str, Any]) -> None:
    """Stands for the runtime's own step."""


def check_rails_config(path: str | Path) -> RailsCheckReport:
    """Reads and checks a folder; PlanError only where there is nothing to read."""
    root = Path(path)
    if not root.exists():
        raise PlanError(f"{root}: there is no such rails folder")
    report = RailsCheckReport(str(root))
    try:
        config = RailsConfig.load(root)
    except PlanError as error:
        report.findings = sorted((_of_fault(f, "read") for f in error.faults), key=finding_sort_key)
        return report
    report.config = config
    library = library_of(config)
    sources = read_action_sources(config.code, root if root.is_dir() else root.parent)
    builtin = builtin_actions()
    found = [*sources.findings, *_models(config), *_wiring(config), *_templates(config)]
    found += NameChecker(config, library, sources, builtin).findings()
    found += check_reachability(config.flows)
    compiled, faults = _compile(config)
    found += faults
    program = Program(compiled, pure_actions())
    found += [
        Finding(place=place, kind="twice", what=what, level="warning")
        for place, what in config.notes
    ]
    found += [*_arrangement(config, program), *_order(config), *_entities(config)]
    report.findings = sorted(dict.fromkeys(found), key=finding_sort_key)
    report.calls = LlmCallCounter(config, program, builtin, sources).turn()
    return report


def _of_fault(text: str, kind: str) -> Finding:
    """A fault of an error as a finding: ``file:line: what``."""
    head, sign, rest = text.partition(": ")
    return Finding(place=head if sign else "config", kind=kind, what=rest if sign else text)


def _models(config: RailsConfig) -> Iterator[Finding]:
    """Faults in `models:`. An engine that truing does not know is a warning: another model may be given in its place."""
    for at, entry in enumerate(config.models):
        if entry.type == "embeddings":
            continue
        engine = find_engine_fault(entry)
        if engine:
            yield Finding(
                place=config.locate("key", f"models.{at}"),
                kind="engine",
                what=engine,
                level="warning",
            )
        if entry.engine == "truing" or entry.engine in ENGINES:
            yield from (
                Finding(place=place, kind="parameter", what=what)
                for place, what in find_entry_faults(entry, config)
            )


def _wiring(config: RailsConfig) -> Iterator[Finding]:
    flows = [*config.flows, *library_of(config).flows]
    for place, what in wiring_faults(config, flows, Prompts(config)):
        yield Finding(place=place, kind="rail", what=what)


def _arrangement(config: RailsConfig, program: Program) -> Iterator[Finding]:
    """Where rails were to run side by side, or beside the generation, and it cannot be shown that this changes nothing."""
    for stage, block in iterate_stages(config):
        if (
            config.truing.get("concurrent")
            and stage in ("input", "output")
            and len(block.flows) > 1
        ):
            bad = [name for name in block.flows if parallel_rails.effects(program, name) is None]
            if bad:
                said = f"{', '.join(bad)}: what it does to the others is not known, so the {stage} rails run one after the other"
            elif not parallel_rails.independent(program, block.flows):
                said = f"one of the {stage} rails writes what another reads, so they run one after the other"
            else:
                continue
            yield Finding(
                place=config.locate("key", f"rails.{stage}"),
                kind="concurrent",
                level="warning",
                what=said,
            )
    if config.truing.get("speculative") and config.rails.input.flows:
        bad = [
            name
            for name in config.rails.input.flows
            if parallel_rails.effects(program, name) is None
        ]
        if bad:
            said = f"{', '.join(bad)}: its effects are not known, so nothing is generated ahead of the input rails"
            yield Finding(
                place=config.locate("key", "rails.input"),
                kind="speculative",
                level="warning",
                what=said,
            )


def _entities(config: RailsConfig) -> Iterator[Finding]:
    """Kinds of personal data that nobody can find."""
    own = (config.raw.get("rails") or {}).get("config") or {}
    blocks = [
        (f"rails.config.sensitive_data_detection.{stage}.entities", (given or {}).get("entities"))
        for stage, given in (own.get("sensitive_data_detection") or {}).items()
        if isinstance(given, dict)
    ]
    blocks.append(
        ("truing.sensitive.entities", (config.truing.get("sensitive") or {}).get("entities"))
    )
    for key, entities in blocks:
        for at, entity in enumerate(entities or []):
            try:
                check_names([str(entity)], key)
            except PlanError as error:
                place = next(
                    (
                        config.locate("key", k)
                        for k in (f"{key}.{at}", key)
                        if ("key", k) in config.locations
                    ),
                    config.path,
                )
                yield Finding(place=place, kind="entity", what=error.faults[0])


def _order(config: RailsConfig) -> Iterator[Finding]:
    """A rail that has the LLM write the answer anew behind one that judges it: what it writes is judged by nobody."""
    flows = config.rails.output.flows
    names = [parse_flow_name(f) for f in flows]
    if REWRITES in names:
        at = names.index(REWRITES)
        before = [f for f, name in zip(flows[:at], names) if name in JUDGES_OUTPUT]
        if before:
            said = f"{REWRITES!r} rewrites what {before[0]!r} has judged, and nothing judges it again: put it before"
            yield Finding(
                place=config.locate("key", f"rails.output.flows.{at}"),
                kind="order",
                level="warning",
                what=said,
            )


def _templates(config: RailsConfig) -> Iterator[Finding]:
    tasks = {*BUILT_IN, "general"}
    for at, prompt in enumerate(config.prompts):
        place = config.locate("key", f"prompts.{at}")
        tasks.add(prompt.task)
        for text in (prompt.content, *(m for _, m in prompt.messages)):
            if text:
                yield from _template(text, place)
    for name, texts in config.bot_messages.items():
        for part in texts:
            yield from _template(with_variables(part.text), config.locate("bot", name))


def _template(text: str, place: str) -> Iterator[Finding]:
    try:
        template_variables(text)
    except PromptError as error:
        yield Finding(place=place, kind="template", what=str(error))


def _compile(config: RailsConfig) -> tuple[list[CompiledFlow], list[Finding]]:
    compiled: list[CompiledFlow] = []
    findings: list[Finding] = []
    rails = list_rail_flow_names(config)
    for flow in (*config.flows, *library_of(config).flows):
        try:
            made = compile_flow(flow)
        except TruingError as error:
            faults = getattr(error, "faults", (str(error),))
            findings += [_of_fault(f, "expression") for f in faults]
            continue
        if made.id in rails:
            made.system = made.is_subflow = True
        compiled.append(made)
    return compiled, findings
