"""A small configuration folder for the tests of the static checks."""

from __future__ import annotations

from pathlib import Path

from truing.rails.static.check import RailsCheckReport, check_rails_config

# A flow that is appended starts in line 11; its first step stands in line 12.
MESSAGES = """
define user express greeting
  "hello"

define user ask price
  "how much is it"

define bot say hello
  "Hello!"
"""
PRICE_FLOW = "\ndefine flow\n  user ask price\n"


def check_folder(
    folder: Path, colang: str = "", config: str = "models: []\n", actions: str | None = None
) -> RailsCheckReport:
    """Writes a configuration and checks it; Colang code comes after `MESSAGES`."""
    (folder / "config.yml").write_text(config)
    if colang:
        (folder / "rails.co").write_text(MESSAGES + colang)
    if actions is not None:
        (folder / "actions.py").write_text(actions)
    return check_rails_config(folder)


def lines_of(report: RailsCheckReport, level: str = "error") -> list[str]:
    """Returns the findings of a level as they are printed."""
    return [str(finding) for finding in report.findings if finding.level == level]
