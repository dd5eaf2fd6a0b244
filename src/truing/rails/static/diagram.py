"""Draws the flows of a configuration: as a tree for the terminal, and as an SVG image.

The image is a structogram: blocks (if, while, when) are boxes around the boxes of their steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from truing.rails.colang import ast

# Pixels.
COLUMN_WIDTH, ROW_HEIGHT, PADDING, GAP = 360, 22, 8, 18
MIN_BLOCK_WIDTH = 60
CHARACTER_WIDTH = 6.4  # average, of a 12-pixel sans-serif font

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
    """A step as it is drawn: `kind` selects the colour.

    A simple step has a `text`; a compound one has `parts`, each with a heading and inner blocks.
    """

    text: str
    kind: str
    parts: list[tuple[str, list[DiagramBlock]]] = field(default_factory=list)


def build_blocks(steps: Sequence[ast.FlowStep]) -> list[DiagramBlock]:
    """Returns the blocks of a flow's steps."""
    return [_build_block(step) for step in steps]


def _build_block(step: ast.FlowStep) -> DiagramBlock:
    match step:
        case ast.If():
            return DiagramBlock("", "if", _build_if_parts(step))
        case ast.While():
            return DiagramBlock("", "if", [(f"while {step.condition}", build_blocks(step.body))])
        case ast.When():
            parts = []
            for branch in step.branches:
                awaited, _ = _describe_step(branch[0])
                parts.append((f"when {awaited}", build_blocks(branch[1:])))
            if step.orelse is not None:
                parts.append(("else", build_blocks(step.orelse)))
            return DiagramBlock("", "wait", parts)
        case ast.AnyOf():
            return DiagramBlock("", "wait", [("any", build_blocks(step.steps))])
    text, kind = _describe_step(step)
    return DiagramBlock(text, kind)


def _build_if_parts(step: ast.If) -> list[tuple[str, list[DiagramBlock]]]:
    branches = [(f"if {step.condition}", build_blocks(step.body))]
    orelse = step.orelse
    while len(orelse) == 1 and isinstance(orelse[0], ast.If):
        nested = orelse[0]
        branches.append((f"else if {nested.condition}", build_blocks(nested.body)))
        orelse = nested.orelse
    if orelse:
        branches.append(("else", build_blocks(orelse)))
    return branches


def _describe_step(step: ast.FlowStep) -> tuple[str, str]:
    """Returns the text and the kind of a simple step."""
    match step:
        case ast.UserIntent():
            suffix = f" as ${step.variable}" if step.variable else ""
            return f"user {step.intent}{suffix}", "user"
        case ast.BotMessage(text=None, intent="stop"):
            return "stop", "stop"
        case ast.BotMessage(text=None):
            return f"bot {step.intent}", "bot"
        case ast.BotMessage():
            return f'bot "{step.text}"', "bot"
        case ast.MatchEvent():
            return f"event {step.type}", "wait"
        case ast.CreateEvent():
            event, _ = _describe_step(step.event)
            return f"create {event}", "set"
        case ast.ExecuteAction():
            target = f"${step.result} = " if step.result else ""
            return f"{target}execute {step.action}", "execute"
        case ast.CallFlow():
            return f"do {step.flow}", "do"
        case ast.Assign():
            # The LLM makes the value of `$name = ...`.
            kind = "execute" if step.expression == "..." else "set"
            return f"${step.variable} = {step.expression}", kind
        case ast.CheckCondition():
            return f"check {step.expression}", "if"
        case ast.FlowLabel():
            return f"label {step.name}", "set"
        case ast.Goto():
            return f"goto {step.label}", "stop"
    return type(step).__name__.lower(), "stop"


def _describe_flow(flow: ast.Flow) -> str:
    kind = "subflow" if flow.meta.get("subflow") else "flow"
    return f"{kind} {flow.name}"


# -- tree ------------------------------------------------------------------------------------------


def render_tree(flows: Sequence[ast.Flow]) -> str:
    """Returns all flows as text with lines, as `tree` prints directories."""
    lines: list[str] = []
    for flow in flows:
        lines.append(f"{_describe_flow(flow)}  ({flow.file}:{flow.line})")
        lines += _render_branches(build_blocks(flow.steps), "")
        lines.append("")
    return "\n".join(lines)


def _render_branches(blocks: Sequence[DiagramBlock], indent: str) -> Iterator[str]:
    # The parts of a compound block are drawn as branches of their own.
    branches: list[tuple[str, list[DiagramBlock]]] = []
    for block in blocks:
        branches += block.parts or [(block.text, [])]
    for index, (text, inner_blocks) in enumerate(branches):
        is_last = index == len(branches) - 1
        yield f"{indent}{'└─ ' if is_last else '├─ '}{text}"
        yield from _render_branches(inner_blocks, indent + ("   " if is_last else "│  "))


# -- SVG -------------------------------------------------------------------------------------------


def render_svg(flows: Sequence[ast.Flow], columns: int = 3) -> str:
    """Returns all flows as one SVG image, in columns of about the same height."""
    heights = [0.0] * max(1, min(columns, len(flows)))
    elements: list[str] = []
    text_width = COLUMN_WIDTH - 2 * PADDING
    for flow in flows:
        column = heights.index(min(heights))
        left = GAP + column * (COLUMN_WIDTH + GAP)
        top = GAP + heights[column]
        steps: list[str] = []
        bottom = PADDING + _draw_blocks(
            build_blocks(flow.steps), left + PADDING, top + ROW_HEIGHT + PADDING, text_width, steps
        )
        # The box first: later elements cover earlier ones.
        elements.append(_draw_box(left, top, COLUMN_WIDTH, bottom - top, "#f9fafb"))
        title = _describe_flow(flow)
        baseline = top + ROW_HEIGHT - 4
        elements.append(_draw_text(title, left + PADDING, baseline, text_width, bold=True))
        elements += steps
        heights[column] += bottom - top + GAP
    width = GAP + len(heights) * (COLUMN_WIDTH + GAP)
    height = max(heights) + 2 * GAP
    size = f'width="{width}" height="{height:.0f}"'
    header = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    )
    background = f'<rect {size} fill="#ffffff"/>'
    return "\n".join([header, background, *elements, "</svg>", ""])


def _draw_blocks(
    blocks: Sequence[DiagramBlock], left: float, top: float, width: float, elements: list[str]
) -> float:
    """Appends blocks one under the other; returns the y coordinate of the lower end."""
    next_top = top
    for block in blocks:
        if not block.parts:
            elements.append(_draw_box(left, next_top, width, ROW_HEIGHT, _COLOURS[block.kind]))
            elements.append(_draw_text(block.text, left + 6, next_top + 15, width - 12))
            next_top += ROW_HEIGHT + 2
            continue
        block_top = next_top
        box_index = len(elements)
        for heading, inner_blocks in block.parts:
            elements.append(_draw_text(heading, left + 6, next_top + 15, width - 12, bold=True))
            inner_width = max(width - 18, MIN_BLOCK_WIDTH)
            next_top = 2 + _draw_blocks(
                inner_blocks, left + 14, next_top + ROW_HEIGHT, inner_width, elements
            )
        # The height is known only now, but the box has to stand before what it contains.
        box = _draw_box(left, block_top, width, next_top - block_top, _COLOURS[block.kind])
        elements.insert(box_index, box)
        next_top += 2
    return next_top


def _draw_box(left: float, top: float, width: float, height: float, fill: str) -> str:
    return (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'fill="{fill}" stroke="#9ca3af"/>'
    )


def _draw_text(text: str, left: float, baseline: float, width: float, *, bold: bool = False) -> str:
    """Returns a text that is cut to the width; the whole text is its tooltip."""
    # Control characters are not allowed in XML.
    text = "".join(char for char in text if char >= " ")
    limit = max(int(width / CHARACTER_WIDTH), 4)
    drawn_text = text if len(text) <= limit else text[: limit - 1] + "…"
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{left:.0f}" y="{baseline:.0f}"{weight}>'
        f"{escape(drawn_text)}<title>{escape(text[:500])}</title></text>"
    )
