"""Builds, or checks, the list of the frozen measurement set.

    TRUING_DATA=... python benchmarks/moderation/frozen_set.py            check against the shipped list
    TRUING_DATA=... python benchmarks/moderation/frozen_set.py --write    build the list again

Frozen are, by normalised prompt (`truing.core.lineage.hash_prompt`):

- BeaverTails' evaluation prompts, XSTest's prompts (hence its answers), StrongREJECT: all;
- JailbreakBench: every goal, harmful and benign, and of the published attack artifacts those whose
  *goal* is in the report half (`assign_half(goal)`), by the attack prompt;
- `builtin:*`: the report half, a prompt and its twin together (`assign_half(pair or prompt)`);
  of `benign` and `article`, which only measure, all;
- refusal_direction's harmless instructions: the report half (`assign_half(instruction)`).

`assign_half` takes the last bit of the hash: odd is the report half. The list holds hashes alone, no text.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import msgspec

from truing.core.lineage import hash_prompts
from truing.core.measurement_set import MeasurementSet, MeasurementSource, load_measurement_set
from truing.datasets.builtin_sets import BUILTIN_DATASETS, COMBINED_SETS
from truing.specs.resolve import resolve

VERSION = 2
ONLY_MEASURE = ("benign", "article")
LIST_FILE = Path(str(files("truing"))) / "resources" / "measurement" / "frozen.json"


def read_prompts(spec: str) -> list[str]:
    """Returns the prompts of a data set."""
    return [row.sample.prompt for row in resolve(spec, "data").rows()]


def build_builtin_sources() -> dict[str, MeasurementSource]:
    """Returns the sources that ship with the package: they need no data folder."""
    rule = "half=report; a prompt and its twin are in the same half"
    halved = {
        f"builtin:{name}": _source(rule, read_prompts(f"builtin:{name},half=report"))
        for name in BUILTIN_DATASETS
        if name not in (*ONLY_MEASURE, *COMBINED_SETS)
    }
    whole = {
        f"builtin:{name}": _source("all prompts", read_prompts(f"builtin:{name}"))
        for name in ONLY_MEASURE
    }
    return {**halved, **whole}


def build_published_sources() -> dict[str, MeasurementSource]:
    """Returns the sources of the published sets, read from TRUING_DATA."""
    artifacts = resolve("jailbreakbench,part=artifacts", "data").rows()
    goals = [row.sample.tags["goal"] for row in artifacts]
    every = "all prompts"
    return {
        "beavertails evaluation": _source(every, read_prompts("beavertails,part=evaluation")),
        "xstest": _source(every, read_prompts("xstest")),
        "strongreject": _source(every, read_prompts("strongreject")),
        "jailbreakbench": _source(
            "all goals, harmful and benign", [*read_prompts("jailbreakbench"), *goals]
        ),
        "jailbreakbench artifacts": _source(
            "half=report; an attack prompt is in the half of its goal",
            read_prompts("jailbreakbench,part=artifacts,half=report"),
        ),
        "refusal-direction harmless": _source(
            "half=report", read_prompts("refusal-direction,half=report")
        ),
    }


def _source(rule: str, prompts: Iterable[str]) -> MeasurementSource:
    return MeasurementSource(rule=rule, hashes=hash_prompts(prompts))


def find_differences(built: dict[str, MeasurementSource]) -> list[str]:
    """Returns in which sources the shipped list differs from what was built."""
    shipped = load_measurement_set().sources
    differences = []
    for name, source in built.items():
        before = shipped.get(name)
        if before is None:
            differences.append(f"{name}: missing in the list")
        elif before.hashes != source.hashes:
            added = len(set(source.hashes) - set(before.hashes))
            removed = len(set(before.hashes) - set(source.hashes))
            differences.append(f"{name}: {added} prompts to be added, {removed} to be removed")
        elif before.rule != source.rule:
            differences.append(f"{name}: another rule in words")
    return differences


def main(argv: list[str]) -> int:
    """Writes or checks the list; the exit status is 1 if the list is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args(argv)
    data_dir = os.environ.get("TRUING_DATA")
    if data_dir is None:
        print("TRUING_DATA is not set: only the built-in sets are read", file=sys.stderr)
    built = build_builtin_sources()
    if data_dir is not None:
        built |= build_published_sources()
    if arguments.write:
        # Published sets that are not here keep their entries.
        sources = built if data_dir else {**load_measurement_set().sources, **built}
        text = msgspec.json.format(
            msgspec.json.encode(MeasurementSet(version=VERSION, sources=sources)), indent=1
        )
        LIST_FILE.write_bytes(text + b"\n")
    differences = [] if arguments.write else find_differences(built)
    for line in differences:
        print(line)
    for name, source in built.items():
        print(f"{name}: {len(source.hashes)} prompts ({source.rule})")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
