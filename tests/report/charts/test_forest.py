"""The forest plot: positions of estimates and intervals, the rule at zero."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from truing.report.charts.forest import forest_plot
from truing.report.charts.svg import Mark

MIDDLE = 210 + (760 - 210 - 76) / 2  # of the plot area: left margin, width, room for values


def attribute_values(svg: str, tag: str, kind: str, name: str) -> list[float]:
    """Returns an attribute of all elements whose class begins with `kind`."""
    root = ElementTree.fromstring(svg)
    return [
        float(element.attrib[name])
        for element in root.iter(tag)
        if element.attrib.get("class", "").startswith(kind)
    ]


def test_zero_is_in_the_middle_and_sides_are_symmetric() -> None:
    marks = [Mark("better", -0.2, -0.3, -0.1), Mark("worse", 0.2, 0.1, 0.3)]
    svg = forest_plot([("all", marks)], "differences")
    assert attribute_values(svg, "line", "axis", "x1") == [MIDDLE]
    left, right = attribute_values(svg, "circle", "dot", "cx")
    assert left < MIDDLE < right
    assert MIDDLE - left == pytest.approx(right - MIDDLE, abs=0.11)  # one decimal in the SVG
    # The axis reaches 5 % beyond the widest interval.
    half_width = (760 - 210 - 76) / 2
    assert right - MIDDLE == pytest.approx(half_width * 0.2 / (0.3 * 1.05), abs=0.06)


def test_values_and_ticks_carry_signs() -> None:
    svg = forest_plot([("all", [Mark("b", -0.123, -0.2, -0.05, note=", n = 9")])], "t")
    assert "−12.3 pp" in svg
    assert "b: −12.3 points [-20.0, -5.0], n = 9" in svg
    ticks = re.findall(r'class="tick">([^<]+)<', svg)
    assert ticks == ["−20", "−10", "0", "+10", "+20"]


def test_each_group_has_a_label_and_titles_are_escaped() -> None:
    mark = Mark("m", 0.0, -0.01, 0.01)
    svg = forest_plot([("<one>", [mark]), ("two", [mark, mark])], "a & b")
    root = ElementTree.fromstring(svg)
    labels = [e.text for e in root.iter("text") if e.attrib.get("class") == "label"]
    assert labels == ["<one>", "two"]
    assert "<title>a &amp; b</title>" in svg
    assert len(attribute_values(svg, "circle", "dot", "cx")) == 3


def test_an_empty_plot_still_has_an_axis() -> None:
    assert attribute_values(forest_plot([], "empty"), "line", "axis", "x1") == [MIDDLE]
