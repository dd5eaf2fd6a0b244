"""`truing weights list` and `truing weights pull`: the small models that truing knows by name."""

from __future__ import annotations

import sys

import msgspec

from truing.cli.parameters import Flag
from truing.hf.weights import NAMED_SOURCES, Weights, find_cached_weights, verify_weights


def list_weights(*, json: Flag = False) -> int:
    """Lists the weights that have a name, their licence, and whether they are on this machine.

    Parameters
    ----------
    json
        Print as JSON.
    """
    rows = []
    for name, source in NAMED_SOURCES.items():
        cached = find_cached_weights(name)
        rows.append(
            {
                "name": name,
                "title": source.title,
                "licence": source.licence,
                "package": f"{source.distribution}=={source.version}",
                "path": None if cached is None else str(cached.path),
            }
        )
    if json:
        print(msgspec.json.encode(rows).decode())
        return 0
    for row in rows:
        place = row["path"] or "not downloaded"
        print(f"{row['name']:<10} {row['title']:<42} {row['licence']:<12} {place}")
    return 0


def pull(name: str, /, *, json: Flag = False) -> int:
    """Downloads weights if they are not on this machine, and checks the SHA-256 of each file.

    Parameters
    ----------
    name
        A name from `truing weights list`, or a hub id.
    json
        Print as JSON.
    """

    def print_progress(line: str) -> None:
        print(line, file=sys.stderr)

    weights: Weights = verify_weights(name, on_progress=None if json else print_progress)
    if json:
        fields = {"name": weights.name, "path": str(weights.path), "sha256": weights.sha256}
        print(msgspec.json.encode(fields).decode())
    else:
        licence = weights.licence or "licence not stated"
        print(f"{weights.name}: {weights.path} (sha256 {weights.sha256[:12]}..., {licence})")
    return 0
