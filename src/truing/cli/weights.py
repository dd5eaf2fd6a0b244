"""`truing weights`: the small models that truing knows by name."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
from cyclopts import Parameter

from truing.hf.weights import NAMED_SOURCES, Weights, find_cached_weights, verify_weights


def list_(*, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Lists the weights that have a name, their licence, and whether this machine has them.

    Parameters
    ----------
    json
        Print as JSON.
    """
    rows = [
        {
            "name": name,
            "title": source.title,
            "licence": source.licence,
            "package": f"{source.distribution}=={source.version}",
            "path": str(found.path) if (found := find_cached_weights(name)) else None,
        }
        for name, source in NAMED_SOURCES.items()
    ]
    if json:
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
        return 0
    for row in rows:
        print(
            f"{row['name']:<10} {row['title']:<42} {row['licence']:<12} {row['path'] or 'not here yet'}"
        )
    return 0


def pull(name: str, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Fetches weights if they are not here, and checks every file of them by its SHA-256.

    Parameters
    ----------
    name
        A name from `truing weights list`, or a hub id.
    json
        Print as JSON.
    """
    found: Weights = verify_weights(
        name, on_progress=None if json else lambda line: print(line, file=sys.stderr)
    )
    if json:
        sys.stdout.write(
            msgspec.json.encode(
                {"name": found.name, "path": str(found.path), "sha256": found.sha256}
            ).decode()
            + "\n"
        )
    else:
        print(
            f"{found.name}: {found.path} (sha256 {found.sha256[:12]}..., {found.licence or 'licence not stated'})"
        )
    return 0
