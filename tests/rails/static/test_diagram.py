"""Flows drawn as a tree and as an image."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from truing.rails.colang.ast import Flow
from truing.rails.colang.parser import parse_colang
from truing.rails.static.diagram import render_svg, render_tree

CONTENT = (
    "define flow prices & <more>\n"
    "  user ask price\n"
    "  if $a < 3\n"
    "    bot say hello\n"
    "  else if $b\n"
    "    $n = ...\n"
    "  else\n"
    "    $x = execute look up\n"
    "  when user agree as $y\n"
    "    stop\n"
    "  else when user deny\n"
    '    bot "Bye"\n'
    "\n"
    "define subflow greet\n"
    "  create event Ping\n"
    "  goto end\n"
    "  label end\n"
)


def _flows() -> list[Flow]:
    return parse_colang("rails.co", CONTENT).flows


def test_the_tree() -> None:
    assert render_tree(_flows()) == (
        "flow prices & <more>  (rails.co:1)\n"
        "├─ user ask price\n"
        "├─ if $a < 3\n"
        "│  └─ bot say hello\n"
        "├─ else if $b\n"
        "│  └─ $n = ...\n"
        "├─ else\n"
        "│  └─ $x = execute look up\n"
        "├─ when user agree as $y\n"
        "│  └─ stop\n"
        "└─ when user deny\n"
        '   └─ bot "Bye"\n'
        "\n"
        "subflow greet  (rails.co:14)\n"
        "├─ create event Ping\n"
        "├─ goto end\n"
        "└─ label end\n"
    )


def test_the_image_is_well_formed_and_holds_every_step() -> None:
    root = ET.fromstring(render_svg(_flows()))
    texts = "".join(root.itertext())
    for text in (
        "flow prices & <more>",
        "user ask price",
        "if $a < 3",
        "bot say hello",
        "when user agree as $y",
        'bot "Bye"',
        "subflow greet",
        "create event Ping",
    ):
        assert text in texts


def test_control_characters_are_left_out_of_the_image() -> None:
    (flow,) = parse_colang("rails.co", "define flow a\x01b\n  user c\n").flows
    assert "flow ab" in "".join(ET.fromstring(render_svg([flow])).itertext())


def test_boxes_lie_inside_the_image_and_columns_have_about_equal_height() -> None:
    flows = _flows() * 6
    root = ET.fromstring(render_svg(flows, columns=2))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = [box.attrib for box in root if box.tag.endswith("rect") and "x" in box.attrib]
    assert all(float(box["x"]) + float(box["width"]) <= width for box in boxes)
    assert all(float(box["y"]) + float(box["height"]) <= height for box in boxes)
    bottoms: dict[str, float] = {}
    for box in boxes:
        if box["width"] == "360":
            bottoms[box["x"]] = float(box["y"]) + float(box["height"])
    left, right = bottoms.values()
    assert abs(left - right) < height / 4


def test_no_flows_are_an_empty_image() -> None:
    assert ET.fromstring(render_svg([])).tag.endswith("svg")
