"""`truing data list` and `truing data show SPEC`: data sets as counts, without text."""

from __future__ import annotations

import json as json_module
import os
from collections import Counter
from pathlib import Path
from typing import Any

from rich.table import Table

from truing.cli.parameters import Flag
from truing.cli.tables import make_console, print_json
from truing.core.lineage import hash_prompt
from truing.core.protocols import Dataset
from truing.core.types import Judgement


def list_data(*, json: Flag = False) -> int:
    """Lists the data sets that truing reads, with their licences and the parts found here.

    Parameters
    ----------
    json
        Print the list as JSON.
    """
    rows = _list_rows()
    if json:
        print_json(json_module.dumps(rows, indent=2))
        return 0
    table = Table("kind", "set", "parts (* found here)", "licence", box=None, pad_edge=False)
    for row in rows:
        if row["parts"]:
            parts = " ".join(f"{p}*" if p in row["found"] else p for p in row["parts"])
        else:
            parts = " ".join(row["found"])
        table.add_row(row["kind"], row["title"], parts, row["licence"])
    make_console().print(table)
    return 0


def _list_rows() -> list[dict[str, Any]]:
    """Returns a row for each published set, then one for each kind that a plug-in brings."""
    from truing.datasets.catalogue import CATALOGUE, find_available_parts
    from truing.specs.resolve import list_kinds

    # Without TRUING_DATA nothing is found: no file lies below the null device.
    root = Path(os.environ.get("TRUING_DATA") or os.devnull)
    published = [
        {
            "kind": entry.kind,
            "title": entry.title,
            "licence": entry.licence,
            "source": entry.source,
            "parts": list(entry.parts),
            "found": list(find_available_parts(entry, root)),
            "hub": entry.hub,
            "labels": list(entry.labels),
            "red_team": entry.red_team,
            "imitate": entry.imitate,
        }
        for entry in CATALOGUE
    ]
    unknown: dict[str, Any] = {
        "title": "",
        "licence": "",
        "source": "",
        "parts": [],
        "found": [],
        "labels": [],
    }
    plug_ins = [
        {"kind": kind, **unknown}
        for kind, builder in list_kinds("data").items()
        if not builder.startswith("truing.datasets.")
    ]
    return published + plug_ins


def show(spec: str, /, *, json: Flag = False) -> int:
    """Counts the rows, labels and categories of a data set; shows licence and hash, but no text.

    Parameters
    ----------
    spec
        Spec of the data set, such as beavertails,part=evaluation or file:rows.jsonl.
    json
        Print the result as JSON.
    """
    from truing.specs.resolve import resolve

    facts = summarise_dataset(resolve(spec, "data"))
    if json:
        print_json(json_module.dumps(facts, indent=2))
        return 0
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for key, value in facts.items():
        if isinstance(value, dict):
            for name, count in value.items():
                table.add_row(key, str(name), _format_value(count))
        elif value not in ("", None, []):
            table.add_row(key, _format_value(value))
    make_console().print(table)
    return 0


def _format_value(value: object) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def summarise_dataset(dataset: Dataset) -> dict[str, Any]:
    """Returns counts, licence and hash of a data set as plain data, without the text of any row."""
    counts: Counter[str] = Counter()
    expectations: Counter[str] = Counter()
    harms: Counter[str] = Counter()
    labels: dict[str, Counter[str]] = {}
    raters: set[tuple[str, str]] = set()
    prompts: set[str] = set()
    for row in dataset.rows():
        sample = row.sample
        messages = sample.conversation.messages
        counts["rows"] += 1
        counts["responses"] += len(row.responses)
        counts["multi_turn"] += sum(m.role == "user" for m in messages) > 1
        counts["twins"] += sample.pair is not None
        counts["choices"] += bool(sample.choices)
        counts["checks"] += sample.check is not None
        # Hashes, not texts: a large set would not fit in memory.
        prompts.add(hash_prompt("\n".join(m.content for m in messages)))
        expectations[sample.expect] += 1
        harms.update(sample.harms)
        for judgement in row.judgements:
            name = f"{judgement.judge} {judgement.question}"
            labels.setdefault(name, Counter())[_label_class(judgement)] += 1
            if judgement.rater is not None:
                raters.add((judgement.judge, judgement.rater))
    preferences = Counter(preference.dimension for preference in dataset.preferences())
    dataset_info = dataset.info
    return {
        "spec": dataset_info.spec,
        "title": dataset_info.title,
        "source": dataset_info.source,
        "licence": dataset_info.licence,
        "sha256": dataset.sha256(),
        "red_team": dataset_info.red_team,
        "imitate": dataset_info.imitate,
        "rows": counts["rows"],
        "distinct_prompts": len(prompts),
        "skipped": int(getattr(dataset, "skipped", 0)),
        **{k: counts[k] for k in ("responses", "multi_turn", "twins", "choices", "checks")},
        "raters": len(raters),
        "preferences": dict(preferences),
        "expect": dict(expectations),
        "harms": dict(harms.most_common()),
        "labels": {name: dict(classes) for name, classes in labels.items()},
    }


def _label_class(judgement: Judgement) -> str:
    """Returns true or false for a verdict, else value, or open for a failed label."""
    if judgement.verdict is not None:
        return "true" if judgement.verdict else "false"
    return "open" if judgement.failure else "value"
