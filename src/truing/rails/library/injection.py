"""The rail `injection detection`: YARA rules on the bot's answer, by the package yara-python.

Settings as in NeMo Guardrails' `injection_detection`: `injections` names rules, which are truing's
own (`resources/rails/injection`), those under `yara_rules`, or files ``NAME.yara`` in `yara_path`.
With
`action: omit` what a rule matches is cut out, until no rule matches; a text that still matches
afterwards, and one whose matching takes too long, is blocked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from truing.core.errors import MissingExtra, PlanError
from truing.rails.actions import RailOutcome
from truing.rails.config.loader import RailsConfig
from truing.rails.config.service_addresses import list_used_rails
from truing.rails.config.trust import is_inside
from truing.rails.config.vendor_addresses import read_block
from truing.rails.runtime.turn_context import EVIDENCE_CHARACTERS, TurnContext
from truing.specs.resolve import load_object

INJECTION_RAIL = "injection detection"
INJECTION_BLOCK = "injection_detection"
ACTIONS_OF_NEMO = ("reject", "omit")
RULE_NAMES = ("sqli", "template", "code", "xss")  # as in NeMo
MATCH_TIMEOUT = 5  # seconds, YARA's unit
MAX_ROUNDS = 10  # cutting a match out may join two halves of another
MAX_RULE_BYTES = 1_000_000

# Of one rule: its name, and the matched bytes of its strings.
RuleMatch = tuple[str, frozenset[bytes]]


@cache
def load_own_rules() -> dict[str, str]:
    """Returns the YARA source of truing's own rules, by name.

    They match a statement or a construct, not a single word, so that prose about databases
    ("select the best offer; then insert the card") passes.
    """
    folder = files("truing.resources") / "rails" / "injection"
    return {name: (folder / f"{name}.yara").read_text(encoding="utf-8") for name in RULE_NAMES}


def read_injection_sources(config: RailsConfig) -> dict[str, str]:
    """Returns the YARA source of each rule that `injections` names.

    Raises PlanError for rules that are missing or cannot be read.
    """
    block = read_block(config, INJECTION_BLOCK)
    names = [str(name) for name in block.get("injections") or ()]
    if not names:
        raise PlanError("injections names no rule, so every text would pass")
    own_rules = block.get("yara_rules") or {}
    if own_rules:
        missing = [name for name in names if not isinstance(own_rules.get(name), str)]
        if missing:
            raise PlanError(f"yara_rules has no rule {', '.join(missing)}")
        return {name: own_rules[name] for name in names}
    if block.get("yara_path"):
        return _read_rule_files(config, Path(str(block["yara_path"])).expanduser(), names)
    unknown = [name for name in names if name not in RULE_NAMES]
    if unknown:
        raise PlanError(
            f"there are no rules {', '.join(unknown)} (there are {', '.join(RULE_NAMES)}); "
            "give your own under yara_rules, or in yara_path"
        )
    return {name: load_own_rules()[name] for name in names}


def _read_rule_files(config: RailsConfig, folder: Path, names: list[str]) -> dict[str, str]:
    """Returns the rules of ``NAME.yara`` in a folder, which is relative to the configuration's."""
    root = Path(config.path)
    folder = (root if root.is_dir() else root.parent) / folder
    if not folder.is_dir():
        raise PlanError(f"yara_path: there is no folder {folder}")
    sources: dict[str, str] = {}
    for name in names:
        file = folder / f"{name}.yara"
        if not is_inside(file, config) and not config.trust_code:
            raise PlanError(
                f"yara_path: {file} is outside the folder; it needs the operator's trust "
                "(--trust-code)"
            )
        try:
            if file.stat().st_size > MAX_RULE_BYTES:
                raise PlanError(f"yara_path: {file} is larger than {MAX_RULE_BYTES} bytes")
            sources[name] = file.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise PlanError(f"yara_path: {file}: {error}") from error
    return sources


@lru_cache(maxsize=32)
def compile_rules(sources: tuple[tuple[str, str], ...]) -> Any:
    """Returns the compiled rules of pairs (name, source).

    Raises MissingExtra without yara-python and PlanError for a source that is no YARA rule. A
    rule may include no other file.
    """
    yara_compile = load_object("yara:compile")
    try:
        return yara_compile(sources=dict(sources), includes=False)
    except load_object("yara:Error") as error:
        raise PlanError(f"the YARA rules cannot be read: {error}") from error


def find_injection_faults(config: RailsConfig) -> Iterator[tuple[str, str]]:
    """Yields (place, fault) for what is wrong with the settings of the rail, if it is used."""
    if INJECTION_RAIL not in list_used_rails(config):
        return
    place = _locate_block(config)
    action = str(read_block(config, INJECTION_BLOCK).get("action") or "reject")
    if action not in ACTIONS_OF_NEMO:
        yield place, f"{INJECTION_BLOCK}: action: {action!r} is not one of reject, omit"
    try:
        compile_rules(tuple(read_injection_sources(config).items()))
    except (PlanError, MissingExtra) as error:
        for fault in error.faults:
            yield place, f"{INJECTION_BLOCK}: {fault}"


def _locate_block(config: RailsConfig) -> str:
    key = f"rails.config.{INJECTION_BLOCK}"
    return config.locate("key", key if ("key", key) in config.locations else "rails")


def match_rules(rules: Any, text: str) -> list[RuleMatch]:
    """Returns the rules that match a text. Raises RuntimeError if that takes too long."""
    try:
        matches = rules.match(data=text.encode(errors="replace"), timeout=MATCH_TIMEOUT)
    except load_object("yara:Error") as error:
        raise RuntimeError(f"the rules could not be run: {error}") from error
    return [
        (
            str(match.rule),
            frozenset(
                bytes(instance.matched_data)
                for string in match.strings
                for instance in string.instances
            ),
        )
        for match in matches
    ]


def cut_matches(rules: Any, text: str) -> str | None:
    """Returns a text without what the rules match; None if they match whatever is cut out."""
    remaining = text
    for _ in range(MAX_ROUNDS):
        matches = match_rules(rules, remaining)
        if not matches:
            return remaining
        # The longest first: a short match may be a part of it.
        pieces = sorted({piece for _, found in matches for piece in found}, key=len, reverse=True)
        shortened = remaining
        for piece in pieces:
            shortened = shortened.replace(piece.decode(errors="ignore"), "")
        if shortened == remaining:
            return None
        remaining = shortened
    return None


async def injection_detection(turn: TurnContext, text: Any, **params: Any) -> RailOutcome:
    """Blocks an answer that a rule matches, or cuts the match out (`action: omit`)."""
    config = turn.services.config
    block: Mapping[str, Any] = read_block(config, INJECTION_BLOCK)
    rules = compile_rules(tuple(read_injection_sources(config).items()))
    answer = str(text or "")
    matches = await asyncio.to_thread(match_rules, rules, answer)
    if not matches:
        turn.set_reason("no rule matches")
        return RailOutcome.allow()
    detections = ", ".join(dict.fromkeys(name for name, _ in matches))
    metadata = {"detections": detections}
    turn.set_reason("a rule matches", evidence=detections[:EVIDENCE_CHARACTERS])
    # NeMo raises its exception before it looks at the action.
    if block.get("action") != "omit" or config.enable_rails_exceptions:
        return RailOutcome.block(metadata=metadata)
    shortened = await asyncio.to_thread(cut_matches, rules, answer)
    if shortened is None:
        turn.set_reason("what the rule matches cannot be cut out", evidence=detections)
        return RailOutcome.block(metadata=metadata)
    return RailOutcome.transform([("bot_message", shortened)], metadata=metadata)


ACTIONS = (injection_detection,)
