"""`truing evidence`: what runs say about each item of a framework, and what they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from truing.cli.parameters import Flag, OptionalPaths
from truing.cli.report import group_runs
from truing.cli.tables import print_json, print_next_steps, print_text
from truing.core.errors import UserError
from truing.core.private_files import create_folder, replace_file


def command(
    *runs: Path,
    for_: Annotated[list[str], Parameter(name="--for", consume_multiple=True, negative="")],
    out: Path = Path("."),
    card: OptionalPaths = None,
    json: Flag = False,
) -> int:
    """Writes OUT/FRAMEWORK.md and .json: figures of runs by the items of a framework.

    Each figure has its interval, its judge and a link to its run; what was not tested is said.

    Parameters
    ----------
    runs
        Run folders, or output folders of `truing run`; the first variant is the baseline.
    for_
        Frameworks: ailuminate, eu-gpai, mitre-atlas, nist, owasp-agents, owasp-llm, system-card.
    out
        Folder for the files.
    card
        Cards of the runs' judges, for differences that are transported from them.
    json
        Print the paths of the files as JSON.
    """
    from truing.cli.run_folders import cards_by_judge
    from truing.report.assembly import ReportOptions, assemble_report
    from truing.report.evidence import collect_evidence_for
    from truing.report.evidence_page import render_evidence
    from truing.report.frameworks import load_framework

    if not runs:
        raise UserError("evidence: give at least one run folder")
    frameworks = [load_framework(name) for name in dict.fromkeys(for_)]
    grouped = group_runs(runs)
    options = ReportOptions(
        title=" / ".join(grouped), baseline=next(iter(grouped)), cards=cards_by_judge(card)
    )
    report = assemble_report(grouped, options)
    create_folder(out)
    paths: list[Path] = []
    for framework in frameworks:
        evidence = collect_evidence_for(framework, report)
        page = render_evidence(evidence, out).encode()
        evidence_json = msgspec.json.format(msgspec.json.encode(evidence), indent=1) + b"\n"
        for suffix, content in (("md", page), ("json", evidence_json)):
            paths.append(out / f"{framework.name}.{suffix}")
            replace_file(paths[-1], content)
        if not json:
            measured = sum(item.status == "measured" for item in evidence.items)
            print_text(f"{framework.title}: {measured} of {len(evidence.items)} items measured")
    if json:
        print_json(msgspec.json.encode([str(path) for path in paths]))
        return 0
    for path in paths:
        print_text(f"  {path}")
    print_next_steps([("truing", "report", *runs, "--out", out, "--pdf", out / "report.pdf")])
    return 0
