"""A verdict as JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from truing.gates.junit import to_junit
from truing.gates.verdict import GateVerdict, RuleOutcome


def make_verdict(*outcomes):
    return GateVerdict(
        run="runs/\x00a",
        model="m",
        title="release",
        verdict="failed",
        outcomes=outcomes,
        not_tested=("over-refusal",),
    )


def test_failures_and_errors():
    verdict = make_verdict(
        RuleOutcome(rule="harm.upper < 0.1", status="passed", reason="raw [1, 2]"),
        RuleOutcome(rule="cut.upper < 0.1", name="cut", status="failed", reason="a < b & c"),
        RuleOutcome(rule="refused.upper < 0.1", status="inconclusive", reason="no card"),
    )
    root = ET.fromstring(to_junit(verdict))
    suite = root.find("testsuite")
    counts = (suite.get("tests"), suite.get("failures"), suite.get("errors"))
    assert counts == ("3", "1", "1")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [
        "harm.upper < 0.1",
        "cut",
        "refused.upper < 0.1",
    ]
    assert cases[0].find("system-out").text == "raw [1, 2]"
    assert cases[1].find("failure").get("message") == "a < b & c"
    assert cases[2].find("error").get("type") == "inconclusive"
    assert not root.findall(".//skipped")
    assert suite.find("system-out").text == "Not tested: over-refusal"


def test_characters_that_xml_forbids_are_replaced():
    verdict = make_verdict(RuleOutcome(rule="r", status="passed", reason="\x1b[31m"))
    case = ET.fromstring(to_junit(verdict)).find("testsuite/testcase")
    assert case.get("classname") == "runs/\u25a1a"
    assert case.find("system-out").text == "\u25a1[31m"
