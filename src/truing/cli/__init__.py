"""Measure how unsafe a language model is, make it safer, put controls around it, and prove it.

One file per verb, loaded when it is called.
"""

from __future__ import annotations

import sys

from cyclopts import App

from truing.cli.commands import GROUPS, VERBS
from truing.core.errors import TruingError
from truing.core.version import __version__


def build() -> App:
    """The command tree; verbs are dotted paths, so that `truing --help` loads none of them."""
    app = App(name="truing", version=__version__, help=(__doc__ or "").splitlines()[0])
    groups: dict[str, App] = {}
    for verb, (path, line) in VERBS.items():
        head, _, tail = verb.partition(" ")
        if not tail:
            app.command(path, name=head, help=line)
            continue
        if head not in groups:
            groups[head] = App(name=head, help=GROUPS.get(head, ""))
            app.command(groups[head])
        groups[head].command(path, name=tail, help=line)
    return app


def main() -> None:
    """Runs a verb; exit status 0 done, 1 error, 2 a finding, 3 inconclusive, 130 interrupted."""
    try:
        status = build()(sys.argv[1:], result_action="return_value")
    except TruingError as error:
        print(f"truing: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)
