"""The reliability diagram: where its dots stand."""

from __future__ import annotations

from xml.etree import ElementTree

from truing.report.charts.calibration import reliability_diagram
from truing.stats.calibration import ReliabilityBin
from truing.stats.intervals import Interval

LEFT, TOP, SIDE = 58.0, 12.0, 250.0
BINS = [
    ReliabilityBin(0.0, Interval(0.2, 0.1, 0.3), 29),
    ReliabilityBin(0.8, Interval(0.6, 0.5, 0.7), 30),
]


def test_dots_stand_at_stated_and_observed_share() -> None:
    root = ElementTree.fromstring(reliability_diagram(BINS, "title"))
    dots = [(float(e.attrib["cx"]), float(e.attrib["cy"])) for e in root.iter("circle")]
    assert dots == [(LEFT, TOP + SIDE * 0.8), (LEFT + SIDE * 0.8, TOP + SIDE * 0.4)]
    whiskers = [
        (float(e.attrib["y1"]), float(e.attrib["y2"]))
        for e in root.iter("line")
        if e.attrib["class"].startswith("whisker")
    ]
    assert whiskers == [
        (TOP + SIDE * 0.9, TOP + SIDE * 0.7),
        (TOP + SIDE * 0.5, TOP + SIDE * 0.3),
    ]


def test_small_bins_are_hollow() -> None:
    root = ElementTree.fromstring(reliability_diagram(BINS, "title"))
    assert ["hollow" in e.attrib["class"] for e in root.iter("circle")] == [True, False]


def test_tooltips_ticks_and_diagonal() -> None:
    svg = reliability_diagram(BINS, "a <title>")
    assert "states 80 %: 60 % of 30 confirmed" in svg
    assert "<title>a &lt;title&gt;</title>" in svg
    # The diagonal runs from the lower left corner to the upper right one.
    assert 'd="M58.0 262.0L308.0 12.0"' in svg
    root = ElementTree.fromstring(svg)
    ticks = [e.text for e in root.iter("text") if e.attrib.get("class") == "tick"]
    assert ticks == [t for p in (0, 25, 50, 75, 100) for t in [f"{p} %"] * 2]
