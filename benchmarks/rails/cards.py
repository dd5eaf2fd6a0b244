"""A card for each rail of the library: what it finds, what it wrongly stops, what it costs.

    TRUING_DATA=... python benchmarks/rails/cards.py [--only NAME...]

Each rail stands alone before a model that repeats the prompt, or, for a rail on output, gives the recorded answer.
Detection and false alarms are shares with 95 % Wilson intervals; the cost is the median of the rail's own milliseconds
over sixty texts asked one by one. Rules were written by us: on sets that they were written against (builtin:support, our
own attacks) the figures are in-sample, and the table says so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import yaml

from truing.core.types import Answer, Conversation, Row, Sampling
from truing.models.scripted import ScriptedModel
from truing.rails.guarded import GuardedModel
from truing.specs.resolve import resolve
from truing.stats.intervals import wilson

DATA = Path(os.environ.get("TRUING_DATA", "../shared/data"))
TIMED = 60  # texts that are asked one by one, for the latency
Keep = Callable[[Row], bool]
Text = str | tuple[str, str]  # a prompt, or a prompt and its recorded answer
Sets = list[tuple[str, list[Text]]]


def prompts(spec: str, keep: Keep = lambda row: True, most: int = 2000) -> list[Text]:
    """Distinct prompts of a set; of more than `most` a seeded sample."""
    rows = resolve(spec, "data").rows()
    found = list[Text](
        dict.fromkeys(r.sample.prompt for r in rows if keep(r) and r.sample.prompt.strip())
    )
    return found if len(found) <= most else Random(0).sample(found, most)


def answers(spec: str, keep: Keep, most: int = 400) -> list[Text]:
    """Prompts with their recorded answers, a seeded sample; one answer a prompt, so that the prompt names it."""
    rows = [
        r
        for r in resolve(spec, "data").rows()
        if r.responses and r.responses[0].text.strip() and keep(r)
    ]
    found = list[Text](
        {r.sample.prompt: (r.sample.prompt, r.responses[0].text) for r in rows}.values()
    )
    return found if len(found) <= most else Random(0).sample(found, most)


def said(question: str, verdict: bool) -> Keep:
    """Rows whose labels answer a question so: any rater's yes, or nobody's."""
    return lambda r: any(j.question == question and j.verdict for j in r.judgements) is verdict


def attacked(*names: str) -> list[Text]:
    """Our attacks on the built-in red-team prompts."""
    return [
        p
        for n in names
        for p in prompts(
            f"attacked:{n},plain=false,of=(builtin:safety)", lambda r: "attack" in r.sample.tags
        )
    ]


def benign() -> list[Text]:
    """What must pass: the benign twins, helpful and honest prompts, XSTest's safe prompts."""
    own = (
        prompts("builtin:safety", lambda r: r.sample.expect == "comply")
        + prompts("builtin:helpful")
        + prompts("builtin:honest")
    )
    return own + prompts(
        f"xstest:{DATA}/xstest,part=prompts", lambda r: r.sample.expect == "comply"
    )


def moderated() -> dict[str, tuple[dict[str, object], Sets, Sets]]:
    """The moderation rails, on data that their judge did not learn from."""
    asked, chat = f"xstest:{DATA}/xstest,part=prompts", f"toxic-chat:{DATA}/toxic_chat/train.json"
    bad, good = (lambda r: r.sample.expect == "refuse"), (lambda r: r.sample.expect == "comply")
    jbb = f"jailbreakbench:{DATA}/jailbreakbench/behaviors.json"
    plain: Sets = [
        (
            "builtin:helpful and builtin:honest",
            prompts("builtin:helpful") + prompts("builtin:honest"),
        )
    ]
    find: Sets = [
        ("XSTest, unsafe prompts", prompts(asked, bad)),
        ("ToxicChat, toxic prompts", prompts(chat, said("harmful_prompt", True))),
        (
            "Do-Not-Answer",
            prompts(f"do-not-answer:{DATA}/do_not_answer/responses_human_labels.jsonl"),
        ),
    ]
    leave: Sets = [
        *plain,
        ("ToxicChat, other prompts", prompts(chat, said("harmful_prompt", False), 600)),
        ("XSTest, safe prompts", prompts(asked, good)),
    ]
    rated = f"beavertails:{DATA}/beavertails/qa_14_categories.jsonl"
    out = (
        [("BeaverTails, harmful answers", answers(rated, said("harmful", True)))],
        [
            ("BeaverTails, safe answers", answers(rated, said("harmful", False))),
            (
                "XSTest, answers to safe prompts",
                answers(f"xstest:{DATA}/xstest,part=completions", good),
            ),
        ],
    )
    judge, other = {"judge": "moderation:open"}, {"judge": "moderation:default"}
    jailbreak: tuple[Sets, Sets] = (
        [("JailbreakBench, harmful", prompts(jbb, bad))],
        [*plain, ("JailbreakBench, benign", prompts(jbb, good))],
    )
    return {
        "moderation check input": ({"moderation": judge}, find, leave),
        "moderation check input, threshold 0.9": (
            {"moderation": {**judge, "threshold": 0.9}},
            find,
            leave,
        ),
        "moderation check input, moderation:default": ({"moderation": other}, *jailbreak),
        "moderation check output": ({"moderation": judge}, *out),
        "moderation check output, threshold 0.9": (
            {"moderation": {**judge, "threshold": 0.9}},
            *out,
        ),
    }


def sets() -> dict[str, tuple[dict[str, object], Sets, Sets]]:
    """Rail -> settings under `truing:`, sets with what it must find, sets with what it must let pass."""
    support = prompts("builtin:support", lambda r: r.sample.expect == "support")
    risky = prompts(
        f"diasafety:{DATA}/diasafety/val.json",
        lambda r: r.sample.tags.get("category") == "Risk Ignorance",
    )
    calm = prompts(
        f"diasafety:{DATA}/diasafety/val.json",
        lambda r: r.sample.tags.get("category") == "Unauthorized Expertise",
    )
    injected = f"prompt-injections:{DATA}/prompt_injections/deepset_train.csv"
    orders = prompts(injected, lambda r: any(j.verdict for j in r.judgements))
    plain = prompts(injected, lambda r: not any(j.verdict for j in r.judgements))
    fine = [("benign prompts (own twins, helpful, honest; XSTest safe)", benign())]
    framed = attacked("role-play", "refusal-suppression", "prefix-injection")
    coded = attacked("base64", "morse")
    # Twins of the support set: the same words, no distress.
    twins = prompts("builtin:support", lambda r: r.sample.expect == "comply")
    distress_sets = [
        ("builtin:support (in-sample)", support),
        ("DiaSafety val, Risk Ignorance contexts", risky),
    ]
    harmless = [("builtin:support twins", twins), ("DiaSafety val, other contexts", calm), *fine]
    return {
        "self harm support": ({}, distress_sets, harmless),
        "self harm support, with the encoder": (
            {"self_harm": {"encoder": True}},
            distress_sets,
            harmless,
        ),
        "jailbreak detection heuristics": (
            {},
            [
                ("our framings (in-sample)", framed),
                ("our encodings (in-sample)", coded),
                ("deepset prompt-injections", orders),
            ],
            [("deepset, no injection", plain), *fine],
        ),
        **moderated(),
    }


def measure(
    name: str, settings: dict[str, object], texts: Sequence[Text]
) -> tuple[int, int, float]:
    """How many were stopped, of how many (64 at a time), and the median milliseconds of the rail, one text at a time."""
    with tempfile.TemporaryDirectory() as folder:
        rail = name.split(",")[0]
        stage = "output" if rail.endswith("output") else "input"
        config = {"rails": {stage: {"flows": [rail]}}, **({"truing": settings} if settings else {})}
        (Path(folder) / "config.yml").write_text(yaml.safe_dump(config))
        recorded = {t[0]: t[1] for t in texts if isinstance(t, tuple)}
        one = GuardedModel(
            folder, ScriptedModel(lambda c, s: recorded.get(c.prompt, c.prompt), name="recorded")
        )

        async def ask(text: Text) -> Answer:
            return (
                await one.generate(
                    Conversation.of(text if isinstance(text, str) else text[0]), Sampling()
                )
            )[0]

        async def go() -> tuple[int, int, float]:
            alone = [await ask(text) for text in texts[:TIMED]]
            made = [
                a
                for at in range(0, len(texts), 64)
                for a in await asyncio.gather(*map(ask, texts[at : at + 64]))
            ]
            ms = [r.ms for a in alone[1:] for r in a.rulings if r.name == rail]
            return (
                sum(a.finish_reason == "blocked" for a in made),
                len(made),
                statistics.median(ms) if ms else 0.0,
            )

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
        if given.only and not {name, name.split(",")[0]} & set(given.only):
            continue
        for must, group in (("find", find), ("pass", leave)):
            for data, texts in group:
                stopped, n, ms = measure(name, settings, texts)
                share = wilson(stopped, n)
                print(
                    f"| {name} | {data} | {n} | {must} | {100 * share.estimate:.1f} % [{100 * share.lower:.1f}, "
                    f"{100 * share.upper:.1f}] | {ms:.2f} |",
                    flush=True,
                )
                lines.append(
                    {"rail": name, "data": data, "n": n, "must": must, "stopped": stopped, "ms": ms}
                )
    if given.json:
        given.json.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
