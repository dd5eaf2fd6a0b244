"""`truing data list` and `truing data show SPEC`: what can be read, and what a set holds. Counts, never text."""

from __future__ import annotations

import json as jsons
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from truing.core.lineage import hash_prompt
from truing.core.protocols import Dataset
from truing.specs.resolve import list_kinds, load_object, resolve

Flag = Annotated[bool, Parameter(negative="")]


def list_(*, json: Flag = False) -> int:
    """Lists the data sets that truing reads, with licence and where their files were found.

    Parameters
    ----------
    json
        Print the list as JSON.
    """
    rows = _listed()
    if json:
        print(jsons.dumps(rows, indent=2))
        return 0
    table = Table("kind", "set", "parts (* found here)", "licence", box=None, pad_edge=False)
    for row in rows:
        parts = " ".join(f"{p}*" if p in row["found"] else p for p in row["parts"]) or " ".join(
            row["found"]
        )
        table.add_row(row["kind"], row["title"], parts, row["licence"])
    Console().print(table)
    return 0


def _listed() -> list[dict[str, Any]]:
    root = Path(os.environ.get("TRUING_DATA") or os.devnull)
    catalogue = load_object("truing.datasets.catalogue:CATALOGUE")
    found_in = load_object("truing.datasets.catalogue:found_in")
    known = [
        {
            "kind": a.kind,
            "title": a.title,
            "licence": a.licence,
            "source": a.source,
            "parts": list(a.parts),
            "found": list(found_in(a, root)),
            "hub": a.hub,
            "labels": list(a.labels),
            "red_team": a.red_team,
            "imitate": a.imitate,
        }
        for a in catalogue
    ]
    plugged = [
        k for k, path in list_kinds("data").items() if not path.startswith("truing.datasets.")
    ]
    empty: dict[str, Any] = {
        "title": "",
        "licence": "",
        "source": "",
        "parts": [],
        "found": [],
        "labels": [],
    }
    return known + [{"kind": kind, **empty} for kind in plugged]


def show(spec: str, /, *, json: Flag = False) -> int:
    """Reads a data set once and shows what it holds: counts of rows, labels, categories; licence; hash. No text.

    Parameters
    ----------
    spec
        Spec of the data set, such as beavertails,part=evaluation or file:rows.jsonl.
    json
        Print the result as JSON.
    """
    shown = summary(resolve(spec, "data"))
    if json:
        print(jsons.dumps(shown, indent=2))
        return 0
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for key, value in shown.items():
        if isinstance(value, dict):
            for name, count in value.items():
                table.add_row(key, str(name), _figure(count))
        elif value not in ("", None, []):
            table.add_row(key, _figure(value))
    Console().print(table)
    return 0


def _figure(value: object) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{k} {v}" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def summary(dataset: Dataset) -> dict[str, Any]:
    """What a set holds, as plain data: counts, licence and hash, no text of any row."""
    count: Counter[str] = Counter()
    expects: Counter[str] = Counter()
    harms: Counter[str] = Counter()
    labels: dict[str, Counter[str]] = {}
    raters: set[tuple[str, str]] = set()
    prompts: set[str] = set()
    for row in dataset.rows():
        sample = row.sample
        count["rows"] += 1
        count["responses"] += len(row.responses)
        count["multi_turn"] += sum(m.role == "user" for m in sample.conversation.messages) > 1
        count["twins"] += sample.pair is not None
        count["choices"] += bool(sample.choices)
        count["checks"] += sample.check is not None
        prompts.add(hash_prompt("\n".join(m.content for m in sample.conversation.messages)))
        expects[sample.expect] += 1
        harms.update(sample.harms)
        for j in row.judgements:
            word = {True: "true", False: "false", None: "open" if j.failure else "value"}[j.verdict]
            labels.setdefault(f"{j.judge} {j.question}", Counter())[word] += 1
            if j.rater is not None:
                raters.add((j.judge, j.rater))
    pairs = Counter(p.dimension for p in dataset.preferences())
    info = dataset.info
    return {
        "spec": info.spec,
        "title": info.title,
        "source": info.source,
        "licence": info.licence,
        "sha256": dataset.sha256(),
        "red_team": info.red_team,
        "imitate": info.imitate,
        "rows": count["rows"],
        "distinct_prompts": len(prompts),
        "skipped": int(getattr(dataset, "skipped", 0)),
        **{k: count[k] for k in ("responses", "multi_turn", "twins", "choices", "checks")},
        "raters": len(raters),
        "preferences": dict(pairs),
        "expect": dict(expects),
        "harms": dict(harms.most_common()),
        "labels": {k: dict(v) for k, v in labels.items()},
    }
