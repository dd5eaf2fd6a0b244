"""Translates the part of Colang 2 that configurations of rails use into Colang 1.0.

Input and output rails (`flow input rails $input_text`), dialog flows of intents and messages that
are activated, and `activate llm continuation`. The lines keep their numbers. Everything else is
refused with file, line and reason: it needs Colang 2's own runtime of parallel events.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from truing.core.errors import PlanError

# Imports whose flows this translation knows; those of the library name rails.
_IMPORTS = ("core", "llm", "guardrails", "passthrough")
_LIBRARY = "nemoguardrails.library."
MAX_LINE = 2_000  # characters; the patterns below take quadratic time on some lines
CONTINUATION = "llm continuation"
_STAGES = {"input rails": "input", "output rails": "output"}
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_USER_SAID = re.compile(rf"(?:or\s+)?user said ({_QUOTED})(?:\s+(?=or\b))?")
_BOT_SAY = re.compile(rf"(?:or\s+)?bot say ({_QUOTED})(?:\s+(?=or\b))?")
_STEP = re.compile(r"(user|bot) [a-z][\w ']*")
_PARAMETER = rf"\s+\$\w+\s*=\s*(?:{_QUOTED}|[\w.]+)"
_RAIL = re.compile(rf"(?:await )?([a-z][\w ]*?)((?:{_PARAMETER})*)(?:\s+\$\w+)?")


@dataclass(slots=True)
class Translation:
    """A Colang 2 file in Colang 1.0, and the rails that it names, as in `rails.input.flows`.

    `rail_lines` and `continuation_line` are lines of the file; 0 where it has none.
    """

    name: str
    colang: str = ""
    rails: dict[str, list[str]] = field(default_factory=dict)
    rail_lines: dict[str, int] = field(default_factory=dict)
    continuation_line: int = 0


@dataclass(slots=True)
class _Flow:
    name: str
    line: int
    decorators: list[str]
    body: list[tuple[int, str]] = field(default_factory=list)


def translate_colang2(files: list[tuple[str, str]]) -> list[Translation]:
    """Returns the files in Colang 1.0; PlanError holds every statement that is not translated."""
    faults: list[str] = []
    parsed = [(name, text, list(_read_flows(name, text, faults))) for name, text in files]
    flows = [flow for _, _, file_flows in parsed for flow in file_flows]
    active = {"main"} | {flow.name for flow in flows if "@active" in flow.decorators}
    translations = []
    main_body = [line for flow in flows if flow.name == "main" for _, line in flow.body]
    active |= {line.removeprefix("activate ") for line in main_body}
    for name, text, file_flows in parsed:
        translations.append(_translate_file(name, text, file_flows, active, faults))
    has_main = any(flow.name == "main" for flow in flows)
    continues = any(translation.continuation_line for translation in translations)
    if has_main and not continues:
        place = next(f"{n}:{f.line}" for n, _, fs in parsed for f in fs if f.name == "main")
        faults.append(
            f"{place}: Colang 2: flow main does not `activate {CONTINUATION}`; without it the bot "
            "only reacts to exact words, which needs Colang 2's runtime"
        )
    if faults:
        raise PlanError(*dict.fromkeys(faults))
    return translations


def _read_flows(name: str, text: str, faults: list[str]) -> Iterator[_Flow]:
    """Yields the flows with their lines; docstrings, comments and blank lines are left out."""
    code = re.sub(r'"""[\s\S]*?"""', lambda m: "\n" * m[0].count("\n"), text)
    decorators: list[str] = []
    flow: _Flow | None = None
    for number, raw in enumerate(code.split("\n"), 1):
        if len(raw) > MAX_LINE:
            faults.append(f"{name}:{number}: Colang 2: more than {MAX_LINE} characters")
            continue
        line = _strip_comment(raw)
        if not line.strip():
            continue
        if line[0].isspace():
            if flow is None:
                faults.append(f"{name}:{number}: Colang 2: a statement outside of a flow")
            else:
                flow.body.append((number, line.strip()))
            continue
        if flow is not None and not line.startswith("@"):
            yield flow
            flow = None
        if line.startswith("import "):
            _check_import(name, number, line.removeprefix("import ").strip(), faults)
        elif line.startswith("@"):
            if flow is not None:
                yield flow
                flow = None
            if line.strip() != "@active" and not line.startswith("@meta"):
                faults.append(f"{name}:{number}: Colang 2: {line.strip()} is not translated")
            decorators.append(line.strip())
        elif line.startswith("flow "):
            header = line.removeprefix("flow ").strip().rstrip(":")
            flow = _Flow(header, number, decorators)
            decorators = []
        else:
            faults.append(f"{name}:{number}: Colang 2: {line.strip()!r} is not translated")
    if flow is not None:
        yield flow


def _strip_comment(line: str) -> str:
    """Removes a comment; a `#` in quotes is none."""
    return re.sub(rf"({_QUOTED})|#.*$", lambda match: match[1] or "", line).rstrip()


def _check_import(name: str, number: int, module: str, faults: list[str]) -> None:
    if module not in _IMPORTS and not module.startswith(_LIBRARY):
        faults.append(
            f"{name}:{number}: Colang 2: import {module}: its flows need Colang 2's runtime"
        )


def _translate_file(
    name: str, text: str, flows: list[_Flow], active: set[str], faults: list[str]
) -> Translation:
    translation = Translation(name)
    lines = [""] * (text.count("\n") + 1)
    for flow in flows:
        stage = next((s for f, s in _STAGES.items() if flow.name.split("$")[0].strip() == f), None)
        if stage is not None:
            translation.rails[stage] = list(_read_rails(name, flow, faults))
            translation.rail_lines[stage] = flow.line
        elif flow.name == "main":
            _read_main(name, flow, translation, faults)
        elif "$" in flow.name or "->" in flow.name:
            faults.append(f"{name}:{flow.line}: Colang 2: flows with parameters are not translated")
        elif flow.name.startswith(("user ", "bot ")):
            _translate_texts(name, flow, lines, faults)
        elif flow.name in active:
            _translate_dialog(name, flow, lines, faults)
    translation.colang = "\n".join(lines)
    return translation


def _read_main(name: str, flow: _Flow, translation: Translation, faults: list[str]) -> None:
    for number, statement in flow.body:
        target = statement.removeprefix("activate ")
        if target == CONTINUATION:
            translation.continuation_line = number
        elif target == statement:
            faults.append(
                f"{name}:{number}: Colang 2: {statement!r} in flow main is not translated; there "
                "may be `activate FLOW`"
            )


def _read_rails(name: str, flow: _Flow, faults: list[str]) -> Iterator[str]:
    """Yields the rails of a stage, as references with their `$model=...`."""
    for number, statement in flow.body:
        match = _RAIL.fullmatch(statement)
        if match is None or match[1] in ("pass", "abort", "return"):
            faults.append(
                f"{name}:{number}: Colang 2: {statement!r} is not translated; a stage of rails may "
                'name rails, such as `content safety check input $model="content_safety"`'
            )
            continue
        parameters = ", ".join(p.strip() for p in re.findall(r"\$\w+\s*=\s*[^\s]+", match[2]))
        yield f"{match[1]} {parameters}".strip()


def _translate_texts(name: str, flow: _Flow, lines: list[str], faults: list[str]) -> None:
    """`flow user X` with `user said "..."` becomes `define user X`, and so the bot's messages."""
    kind = flow.name.split()[0]
    pattern = _USER_SAID if kind == "user" else _BOT_SAY
    lines[flow.line - 1] = f"define {flow.name}"
    for number, statement in flow.body:
        texts = pattern.findall(statement)
        rest = pattern.sub("", statement).strip()
        if rest or not texts:
            faults.append(
                f"{name}:{number}: Colang 2: {statement!r} is not translated; a flow of {kind} "
                f'may hold `{"user said" if kind == "user" else "bot say"} "TEXT"` with `or`'
            )
            continue
        # One line holds one text in Colang 1.0.
        lines[number - 1] = f"  {texts[0]}"
        for offset, text in enumerate(texts[1:], 1):
            if number - 1 + offset >= len(lines) or lines[number - 1 + offset]:
                faults.append(f"{name}:{number}: Colang 2: write each text on a line of its own")
                break
            lines[number - 1 + offset] = f"  {text}"


def _translate_dialog(name: str, flow: _Flow, lines: list[str], faults: list[str]) -> None:
    """An activated flow of intents and messages becomes `define flow`."""
    lines[flow.line - 1] = f"define flow {flow.name}"
    for number, statement in flow.body:
        if _STEP.fullmatch(statement) and not statement.startswith(("user said", "bot say")):
            lines[number - 1] = f"  {statement}"
        else:
            faults.append(
                f"{name}:{number}: Colang 2: {statement!r} is not translated; a dialog flow may "
                "hold the names of `flow user ...` and `flow bot ...`"
            )
