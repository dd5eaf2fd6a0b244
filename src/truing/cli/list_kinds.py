"""`truing list models|judges|attacks|rails`: what a spec or a rails configuration can name."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING

from truing.cli.parameters import Flag
from truing.cli.tables import make_console, make_text_table, print_json
from truing.core.text import escape_controls
from truing.specs.catalogue import KINDS

if TYPE_CHECKING:
    from truing.specs.resolve import RoleName

_PLUG_IN = "From an installed plug-in."


def models(*, json: Flag = False) -> int:
    """Lists the kinds of models, with an example of each.

    Parameters
    ----------
    json
        Print the list as JSON.
    """
    return _print_role("model", json, "truing doctor tries one: truing doctor EXAMPLE")


def judges(*, json: Flag = False) -> int:
    """Lists the kinds of judges, with an example of each.

    Parameters
    ----------
    json
        Print the list as JSON.
    """
    return _print_role("judge", json, "how good is one? truing card JUDGE --data SPEC")


def attacks(*, json: Flag = False) -> int:
    """Lists the attacks, with an example of each.

    Parameters
    ----------
    json
        Print the list as JSON.
    """
    return _print_role("attack", json, "use one: truing evaluate --attack EXAMPLE ...")


def rails(*, json: Flag = False) -> int:
    """Lists the rails of the library: the flows that config.yml can name under `rails:`.

    Parameters
    ----------
    json
        Print the list as JSON.
    """
    from truing.rails.library.catalog import RAIL_TITLES

    rows = [
        {"name": name, "stage": stage, "title": title}
        for name, (stage, title) in RAIL_TITLES.items()
    ]
    if json:
        print_json(json_module.dumps(rows, indent=2))
        return 0
    table = make_text_table("flow under rails: <stage>: flows:", "stage", "what it does")
    for row in rows:
        table.add_row(row["name"], row["stage"], row["title"])
    console = make_console()
    console.print(table)
    console.print("settings and examples: docs/rails-library.md", markup=False)
    return 0


def _print_role(role: RoleName, as_json: bool, next_step: str) -> int:
    from truing.specs.resolve import list_kinds

    descriptions = KINDS[role]
    rows = [
        {"kind": kind, "example": described.example, "title": described.title}
        for kind, described in descriptions.items()
    ]
    rows += [
        {"kind": kind, "example": f"{kind}:", "title": _PLUG_IN}
        for kind in list_kinds(role)
        if kind not in descriptions
    ]
    if as_json:
        print_json(json_module.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    table = make_text_table("spec", "what it is")
    for row in rows:
        table.add_row(escape_controls(row["example"]), row["title"])
    console = make_console()
    console.print(table)
    console.print(next_step, markup=False)
    return 0
