"""A gate's verdict as JUnit XML: one test case a rule; what is inconclusive is an error, never a skip."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from truing.gates.gate import GateVerdict

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\u25a1", text)


def to_junit(verdict: GateVerdict) -> bytes:
    """The file that CI systems read."""
    count = {s: sum(o.status == s for o in verdict.outcomes) for s in ("failed", "inconclusive")}
    suite = ET.Element(
        "testsuite",
        name=_clean(f"truing {verdict.title}"),
        tests=str(len(verdict.outcomes)),
        failures=str(count["failed"]),
        errors=str(count["inconclusive"]),
    )
    for outcome in verdict.outcomes:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=_clean(verdict.run),
            name=_clean(outcome.name or outcome.rule),
        )
        if outcome.status != "passed":
            tag = "failure" if outcome.status == "failed" else "error"
            note = ET.SubElement(case, tag, type=outcome.status, message=_clean(outcome.reason))
            note.text = _clean(f"{outcome.rule}: {outcome.reason}")
        else:
            ET.SubElement(case, "system-out").text = _clean(outcome.reason)
    if verdict.not_tested:
        ET.SubElement(suite, "system-out").text = _clean(
            "Not tested: " + "; ".join(verdict.not_tested)
        )
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"
