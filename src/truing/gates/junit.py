"""A gate's verdict as JUnit XML, which CI systems read."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from truing.gates.verdict import GateVerdict

# Characters that XML 1.0 forbids even as references; names of runs may hold any.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _replace_forbidden(text: str) -> str:
    return _FORBIDDEN.sub("\u25a1", text)


def to_junit(verdict: GateVerdict) -> bytes:
    """Returns the XML: one test case per rule.

    An inconclusive rule is an error and not a skip, which CI systems would count as success.
    """
    count = {s: sum(o.status == s for o in verdict.outcomes) for s in ("failed", "inconclusive")}
    suite = ET.Element(
        "testsuite",
        name=_replace_forbidden(f"truing {verdict.title}"),
        tests=str(len(verdict.outcomes)),
        failures=str(count["failed"]),
        errors=str(count["inconclusive"]),
    )
    for outcome in verdict.outcomes:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=_replace_forbidden(verdict.run),
            name=_replace_forbidden(outcome.name or outcome.rule),
        )
        reason = _replace_forbidden(outcome.reason)
        if outcome.status == "passed":
            ET.SubElement(case, "system-out").text = reason
        else:
            tag = "failure" if outcome.status == "failed" else "error"
            problem = ET.SubElement(case, tag, type=outcome.status, message=reason)
            problem.text = _replace_forbidden(f"{outcome.rule}: {outcome.reason}")
    if verdict.not_tested:
        not_tested = "Not tested: " + "; ".join(verdict.not_tested)
        ET.SubElement(suite, "system-out").text = _replace_forbidden(not_tested)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"
