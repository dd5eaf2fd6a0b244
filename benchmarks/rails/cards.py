"""A card for each rail of the library: what it finds, what it wrongly stops, what it costs.

    TRUING_DATA=... python benchmarks/rails/cards.py [--only NAME...]

Each rail stands alone before a model that repeats the prompt. Detection and false alarms are shares with 95 % Wilson
intervals; the cost is the median of the rail's own milliseconds. Rules were written by us: on sets that they were written
against (builtin:support, our own attacks) the figures are in-sample, and the table says so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import yaml

from truing.models.scripted import Scripted
from truing.rails.guarded import Guarded
from truing.registry import resolve
from truing.stats.intervals import wilson
from truing.types import Conversation, Row, Sampling

DATA = Path(os.environ.get("TRUING_DATA", "../shared/data"))
Keep = Callable[[Row], bool]


def prompts(spec: str, keep: Keep = lambda row: True, most: int = 2000) -> list[str]:
    """Distinct prompts of a set."""
    rows = resolve(spec, "data").rows()
    return list(islice(dict.fromkeys(r.sample.prompt for r in rows if keep(r) and r.sample.prompt.strip()), most))


def attacked(*names: str) -> list[str]:
    """Our attacks on the built-in red-team prompts."""
    return [p for n in names for p in prompts(f"attacked:{n},plain=false,of=(builtin:safety)", lambda r: "attack" in r.sample.tags)]


def benign() -> list[str]:
    """What must pass: the benign twins, helpful and honest prompts, XSTest's safe prompts."""
    own = prompts("builtin:safety", lambda r: r.sample.expect == "comply") + prompts("builtin:helpful") + prompts("builtin:honest")
    return own + prompts(f"xstest:{DATA}/xstest,part=prompts", lambda r: r.sample.expect == "comply")


def sets() -> dict[str, tuple[dict[str, object], list[tuple[str, list[str]]], list[tuple[str, list[str]]]]]:
    """Rail -> settings under `truing:`, sets with what it must find, sets with what it must let pass."""
    support = prompts("builtin:support", lambda r: r.sample.expect == "support")
    risky = prompts(f"diasafety:{DATA}/diasafety/val.json", lambda r: r.sample.tags.get("category") == "Risk Ignorance")
    calm = prompts(f"diasafety:{DATA}/diasafety/val.json", lambda r: r.sample.tags.get("category") == "Unauthorized Expertise")
    injected = f"prompt-injections:{DATA}/prompt_injections/deepset_train.csv"
    orders = prompts(injected, lambda r: any(j.verdict for j in r.judgements))
    plain = prompts(injected, lambda r: not any(j.verdict for j in r.judgements))
    fine = [("benign prompts (own twins, helpful, honest; XSTest safe)", benign())]
    framed = attacked("role-play", "refusal-suppression", "prefix-injection")
    coded = attacked("base64", "morse")
    # Twins of the support set: the same words, no distress.
    twins = prompts("builtin:support", lambda r: r.sample.expect == "comply")
    distress_sets = [("builtin:support (in-sample)", support), ("DiaSafety val, Risk Ignorance contexts", risky)]
    harmless = [("builtin:support twins", twins), ("DiaSafety val, other contexts", calm), *fine]
    harmful = prompts("builtin:safety", lambda r: r.sample.expect == "refuse")
    moderated = [("builtin:safety, harmful prompts", harmful)]
    return {
        "self harm support": ({}, distress_sets, harmless),
        "self harm support, with the encoder": ({"self_harm": {"encoder": True}}, distress_sets, harmless),
        "jailbreak detection heuristics": (
            {}, [("our framings (in-sample)", framed), ("our encodings (in-sample)", coded), ("deepset prompt-injections", orders)],
            [("deepset, no injection", plain), *fine],
        ),
        "moderation check input": ({"moderation": {"judge": "moderation:open"}}, moderated, fine),
    }


def measure(name: str, settings: dict[str, object], texts: Iterable[str]) -> tuple[int, int, float]:
    """How many were stopped, of how many, and the median milliseconds of the rail."""
    with tempfile.TemporaryDirectory() as folder:
        rail = name.split(",")[0]
        config = {"rails": {"input": {"flows": [rail]}}, **({"truing": settings} if settings else {})}
        (Path(folder) / "config.yml").write_text(yaml.safe_dump(config))
        one = Guarded(folder, Scripted("echo"))

        async def go() -> tuple[int, int, float]:
            stopped, n, ms = 0, 0, []
            for text in texts:
                answer = (await one.generate(Conversation.of(text), Sampling()))[0]
                n += 1
                stopped += answer.finish_reason == "blocked"
                ms += [r.ms for r in answer.rulings if r.name == rail]
            return stopped, n, statistics.median(ms) if ms else 0.0

        return asyncio.run(go())


def main() -> None:
    """One line a rail and set."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    lines = []
    print("| rail | data | n | must | stopped | ms |\n|---|---|---|---|---|---|")
    for name, (settings, find, leave) in sets().items():
        if given.only and name not in given.only:
            continue
        for must, group in (("find", find), ("pass", leave)):
            for data, texts in group:
                stopped, n, ms = measure(name, settings, texts)
                share = wilson(stopped, n)
                print(f"| {name} | {data} | {n} | {must} | {100 * share.estimate:.1f} % [{100 * share.lower:.1f}, "
                      f"{100 * share.upper:.1f}] | {ms:.2f} |", flush=True)
                lines.append({"rail": name, "data": data, "n": n, "must": must, "stopped": stopped, "ms": ms})
    if given.json:
        given.json.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
