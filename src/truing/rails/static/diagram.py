"""The flows of a configuration as a picture: a tree for the terminal, and boxes within boxes (a structogram) as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from truing.rails.colang import ast as n

WIDTH, ROW, PAD, GAP = 360, 22, 8, 18
_COLOURS = {
    "user": "#dbeafe",
    "bot": "#dcfce7",
    "do": "#ede9fe",
    "execute": "#fef3c7",
    "if": "#f3f4f6",
    "wait": "#e0f2fe",
    "set": "#ffffff",
    "stop": "#fee2e2",
}


@dataclass(slots=True)
class DiagramBlock:
    """A step as it is drawn: its text, its kind (a colour), and the blocks in it under their headings."""

    text: str
    kind: str
    parts: list[tuple[str, list[DiagramBlock]]] = field(default_factory=list)


def build_blocks(steps: Sequence[n.FlowStep]) -> list[DiagramBlock]:
    """The steps of a flow as blocks."""
    return [_block(step) for step in steps]


def _block(step: n.FlowStep) -> DiagramBlock:
    if isinstance(step, n.If):
        parts = [(f"if {step.condition}", build_blocks(step.body))]
        other = step.orelse
        while len(other) == 1 and isinstance(other[0], n.If):
            parts.append((f"else if {other[0].condition}", build_blocks(other[0].body)))
            other = other[0].orelse
        if other:
            parts.append(("else", build_blocks(other)))
        return DiagramBlock("", "if", parts)
    if isinstance(step, n.While):
        return DiagramBlock("", "if", [(f"while {step.condition}", build_blocks(step.body))])
    if isinstance(step, n.When):
        parts = [(f"when {_text(b[0])[0]}", build_blocks(b[1:])) for b in step.branches]
        if step.orelse is not None:
            parts.append(("else", build_blocks(step.orelse)))
        return DiagramBlock("", "wait", parts)
    if isinstance(step, n.AnyOf):
        return DiagramBlock("", "wait", [("any", build_blocks(step.steps))])
    return DiagramBlock(*_text(step))


def _text(step: n.FlowStep) -> tuple[str, str]:
    if isinstance(step, n.UserIntent):
        return f"user {step.intent}" + (f" as ${step.variable}" if step.variable else ""), "user"
    if isinstance(step, n.BotMessage):
        said = f'bot "{step.text}"' if step.text is not None else f"bot {step.intent}"
        return ("stop", "stop") if said == "bot stop" else (said, "bot")
    if isinstance(step, n.MatchEvent):
        return f"event {step.type}", "wait"
    if isinstance(step, n.CreateEvent):
        return f"create {_text(step.event)[0]}", "set"
    if isinstance(step, n.ExecuteAction):
        return (f"${step.result} = " if step.result else "") + f"execute {step.action}", "execute"
    if isinstance(step, n.CallFlow):
        return f"do {step.flow}", "do"
    if isinstance(step, n.Assign):
        return (
            f"${step.variable} = {step.expression}",
            "execute" if step.expression == "..." else "set",
        )
    if isinstance(step, n.CheckCondition):
        return f"check {step.expression}", "if"
    if isinstance(step, n.FlowLabel):
        return f"label {step.name}", "set"
    if isinstance(step, n.Goto):
        return f"goto {step.label}", "stop"
    return type(step).__name__.lower(), "stop"


def render_tree(flows: Sequence[n.Flow]) -> str:
    """All flows for the terminal."""
    rows: list[str] = []
    for flow in flows:
        kind = "subflow" if flow.meta.get("subflow") else "flow"
        rows.append(f"{kind} {flow.name}  ({flow.file}:{flow.line})")
        rows += _rows(build_blocks(flow.steps), "")
        rows.append("")
    return "\n".join(rows)


def _rows(made: Sequence[DiagramBlock], indent: str) -> Iterator[str]:
    for at, block in enumerate(made):
        last = at == len(made) - 1
        corner, line = ("└─ ", "   ") if last else ("├─ ", "│  ")
        if not block.parts:
            yield f"{indent}{corner}{block.text}"
        for k, (head, inner) in enumerate(block.parts):
            final = last and k == len(block.parts) - 1
            yield f"{indent}{'└─ ' if final else '├─ '}{head}"
            yield from _rows(inner, indent + ("   " if final else "│  "))
        del line


def render_svg(flows: Sequence[n.Flow], columns: int = 3) -> str:
    """All flows as one SVG image, in columns of about the same height."""
    heights = [0.0] * max(1, min(columns, len(flows) or 1))
    drawn: list[str] = []
    for flow in flows:
        column = heights.index(min(heights))
        x, y = GAP + column * (WIDTH + GAP), GAP + heights[column]
        made: list[str] = []
        kind = "subflow" if flow.meta.get("subflow") else "flow"
        end = _draw(build_blocks(flow.steps), x + PAD, y + ROW + PAD, WIDTH - 2 * PAD, made)
        drawn.append(_box(x, y, WIDTH, end + PAD - y, "#f9fafb"))
        drawn.append(
            _label(f"{kind} {flow.name}", x + PAD, y + ROW - 4, WIDTH - 2 * PAD, bold=True)
        )
        drawn += made
        heights[column] += end + PAD - y + GAP
    width, height = GAP + len(heights) * (WIDTH + GAP), max(heights) + 2 * GAP
    size = f'width="{width}" height="{height:.0f}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, f'<rect {size} fill="#ffffff"/>', *drawn, "</svg>", ""])


def _draw(made: Sequence[DiagramBlock], x: float, y: float, width: float, into: list[str]) -> float:
    """Draws blocks one under the other; gives the lower end."""
    for block in made:
        if not block.parts:
            into.append(_box(x, y, width, ROW, _COLOURS[block.kind]))
            into.append(_label(block.text, x + 6, y + 15, width - 12))
            y += ROW + 2
            continue
        top = y
        at = len(into)
        for head, inner in block.parts:
            into.append(_label(head, x + 6, y + 15, width - 12, bold=True))
            y = _draw(inner, x + 14, y + ROW, max(width - 18, 60), into) + 2
        into.insert(at, _box(x, top, width, y - top, _COLOURS[block.kind]))
        y += 2
    return y


def _box(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" fill="{fill}" stroke="#9ca3af"/>'


def _label(text: str, x: float, y: float, width: float, *, bold: bool = False) -> str:
    longest = max(int(width / 6.4), 4)
    shown = text if len(text) <= longest else text[: longest - 1] + "…"
    weight = ' font-weight="bold"' if bold else ""
    clean = "".join(c for c in shown if c >= " ")
    return f'<text x="{x:.0f}" y="{y:.0f}"{weight}>{escape(clean)}<title>{escape(text[:500])}</title></text>'
