"""Translates the part of Colang 2 that configurations of rails use into Colang 1.0.

Input and output rails (`flow input rails $input_text`), dialog flows of intents and messages that
are activated, and `activate llm continuation`. The lines keep their numbers. Flows that react to
exact words become a `Script`, which needs no LLM. Everything else is refused with file, line and
reason: it needs Colang 2's own runtime of parallel events.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from truing.core.errors import PlanError
from truing.rails.colang.script_ast import Script
from truing.rails.colang.script_lines import FileLines, FlowLines, read_lines
from truing.rails.colang.script_parser import CONTINUATION, parse_script

# Imports whose flows this translation knows; those of the library name rails.
_IMPORTS = ("core", "llm", "guardrails", "passthrough")
_LIBRARY = "nemoguardrails.library."
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


def translate_colang2(files: list[tuple[str, str]]) -> tuple[list[Translation], Script | None]:
    """Returns the files in Colang 1.0, and the flows that react to exact words as a script.

    The script answers first; what its flows do not wait for goes to the LLM where `main` activates
    `llm continuation`, by the translated flows. Raises PlanError with every statement that neither
    holds.
    """
    lines = [read_lines(name, text) for name, text in files]
    faults = [fault for file in lines for fault in file.faults]
    for file in lines:
        for number, module in file.imports:
            _check_import(file.name, number, module, faults)
    flows = [flow for file in lines for flow in file.flows]
    main_body = [line.text for flow in flows if flow.header == "main" for line in flow.block]
    continues = f"activate {CONTINUATION}" in main_body
    translations = []
    for file, (_, text) in zip(lines, files, strict=True):
        translations.append(_translate_file(file, text, flows if continues else [], faults))
    if faults:
        raise PlanError(*dict.fromkeys(faults))
    stages = frozenset(_STAGES)
    try:
        script = parse_script(lines, stages)
    except PlanError:
        if not continues:
            raise
        script = None  # the translated flows hold the dialog, by the LLM
    if script is not None:
        script = replace(script, source="\n".join(text for _, text in files))
    has_dialog = any(_name_of(flow) not in (*_STAGES, "main") for flow in flows)
    return translations, script if has_dialog or not continues else None


def _check_import(name: str, number: int, module: str, faults: list[str]) -> None:
    if module not in _IMPORTS and not module.startswith(_LIBRARY):
        faults.append(
            f"{name}:{number}: Colang 2: import {module}: its flows need Colang 2's runtime"
        )


def _translate_file(
    file: FileLines, text: str, dialog: Sequence[FlowLines], faults: list[str]
) -> Translation:
    """Returns the rails of a file, and of the flows of `dialog` those that the file holds."""
    name = file.name
    translation = Translation(name)
    lines = [""] * (text.count("\n") + 1)
    active = _find_active_flows(dialog)
    for flow in file.flows:
        stage = _STAGES.get(_name_of(flow))
        if stage is not None:
            translation.rails[stage] = list(_read_rails(name, flow, faults))
            translation.rail_lines[stage] = flow.number
        elif flow not in dialog:
            continue
        elif flow.header == "main":
            _read_main(name, flow, translation, faults)
        elif "$" in flow.header or "->" in flow.header:
            reason = "Colang 2: flows with parameters are not translated"
            faults.append(f"{name}:{flow.number}: {reason}")
        elif flow.header.startswith(("user ", "bot ")):
            _translate_texts(name, flow, lines, faults)
        elif flow.header in active:
            _translate_dialog(name, flow, lines, faults)
    translation.colang = "\n".join(lines)
    return translation


def _name_of(flow: FlowLines) -> str:
    return flow.header.partition("$")[0].partition("(")[0].strip()


def _find_active_flows(flows: Sequence[FlowLines]) -> set[str]:
    main = [line.text for flow in flows if flow.header == "main" for line in flow.block]
    active = {flow.header for flow in flows if "@active" in flow.decorators}
    return active | {text.removeprefix("activate ") for text in main}


def _read_main(name: str, flow: FlowLines, translation: Translation, faults: list[str]) -> None:
    for line in flow.block:
        target = line.text.removeprefix("activate ")
        if target == CONTINUATION:
            translation.continuation_line = line.number
        elif target == line.text:
            faults.append(
                f"{name}:{line.number}: Colang 2: {line.text!r} in flow main is not translated; "
                f"beside `activate {CONTINUATION}` there may be `activate FLOW`"
            )


def _read_rails(name: str, flow: FlowLines, faults: list[str]) -> Iterator[str]:
    """Yields the rails of a stage, as references with their `$model=...`."""
    for line in flow.block:
        match = _RAIL.fullmatch(line.text)
        if match is None or line.block or match[1] in ("pass", "abort", "return"):
            faults.append(
                f"{name}:{line.number}: Colang 2: {line.text!r} is not translated; a stage of "
                'rails may name rails, such as `content safety check input $model="content_safety"`'
            )
            continue
        parameters = ", ".join(p.strip() for p in re.findall(r"\$\w+\s*=\s*[^\s]+", match[2]))
        yield f"{match[1]} {parameters}".strip()


def _translate_texts(name: str, flow: FlowLines, lines: list[str], faults: list[str]) -> None:
    """`flow user X` with `user said "..."` becomes `define user X`, and so the bot's messages."""
    kind = flow.header.split()[0]
    pattern = _USER_SAID if kind == "user" else _BOT_SAY
    lines[flow.number - 1] = f"define {flow.header}"
    for line in flow.block:
        texts = pattern.findall(line.text)
        after_keyword = pattern.sub("", line.text).strip()
        if after_keyword or line.block or not texts:
            faults.append(
                f"{name}:{line.number}: Colang 2: {line.text!r} is not translated; a flow of "
                f'{kind} may hold `{"user said" if kind == "user" else "bot say"} "TEXT"` with `or`'
            )
            continue
        # One line holds one text in Colang 1.0.
        lines[line.number - 1] = f"  {texts[0]}"
        for offset, text in enumerate(texts[1:], 1):
            number = line.number - 1 + offset
            if number >= len(lines) or lines[number]:
                reason = "Colang 2: write each text on a line of its own"
                faults.append(f"{name}:{line.number}: {reason}")
                break
            lines[number] = f"  {text}"


def _translate_dialog(name: str, flow: FlowLines, lines: list[str], faults: list[str]) -> None:
    """An activated flow of intents and messages becomes `define flow`."""
    lines[flow.number - 1] = f"define flow {flow.header}"
    for line in flow.block:
        is_step = _STEP.fullmatch(line.text) and not line.block
        if is_step and not line.text.startswith(("user said", "bot say")):
            lines[line.number - 1] = f"  {line.text}"
        else:
            faults.append(
                f"{name}:{line.number}: Colang 2: {line.text!r} is not translated; a dialog flow "
                "may hold the names of `flow user ...` and `flow bot ...`"
            )
