"""Measures each rail of the library: detection, false alarms and latency.

    TRUING_DATA=... python benchmarks/rails/cards.py [--only NAME...]

Each rail runs alone in front of a model that repeats the prompt or, for an output rail, returns the
recorded answer. Detection and false alarms are shares with 95 % Wilson intervals; the latency is
the median of the rail's own milliseconds over sixty texts sent one by one. On sets that a rule was
written on (builtin:support, our own attacks) the figures are in-sample, and the table says so.
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
TIMED = 60  # texts that are sent one by one, for the latency
RowFilter = Callable[[Row], bool]
Text = str | tuple[str, str]  # a prompt, or a prompt and its recorded answer
Sets = list[tuple[str, list[Text]]]  # name, texts
# Settings under `truing:`, sets with what the rail must stop, sets with what it must let pass.
Card = tuple[dict[str, object], Sets, Sets]


def prompts(spec: str, keep: RowFilter = lambda row: True, limit: int = 2000) -> list[Text]:
    """Returns the distinct prompts of a set; a seeded sample if there are more than `limit`."""
    rows = resolve(spec, "data").rows()
    texts = list[Text](
        dict.fromkeys(r.sample.prompt for r in rows if keep(r) and r.sample.prompt.strip())
    )
    return texts if len(texts) <= limit else Random(0).sample(texts, limit)


def answers(spec: str, keep: RowFilter, limit: int = 400) -> list[Text]:
    """Returns prompts with their recorded answers, a seeded sample.

    One answer per prompt, because the recorded model looks answers up by prompt.
    """
    rows = [
        r
        for r in resolve(spec, "data").rows()
        if r.responses and r.responses[0].text.strip() and keep(r)
    ]
    texts = list[Text](
        {r.sample.prompt: (r.sample.prompt, r.responses[0].text) for r in rows}.values()
    )
    return texts if len(texts) <= limit else Random(0).sample(texts, limit)


def labelled(question: str, verdict: bool) -> RowFilter:
    """Returns a filter of rows: True for a yes of any rater, False if none said yes."""
    return lambda r: any(j.question == question and j.verdict for j in r.judgements) is verdict


def attacked_prompts(*attacks: str) -> list[Text]:
    """Returns the built-in safety prompts after some of our attacks."""
    return [
        p
        for attack in attacks
        for p in prompts(
            f"attacked:{attack},plain=false,of=(builtin:safety)",
            lambda r: "attack" in r.sample.tags,
        )
    ]


def benign_prompts() -> list[Text]:
    """Returns what must pass: benign twins, helpful and honest prompts, XSTest's safe prompts."""
    builtin = (
        prompts("builtin:safety", lambda r: r.sample.expect == "comply")
        + prompts("builtin:helpful")
        + prompts("builtin:honest")
    )
    return builtin + prompts(
        f"xstest:{DATA}/xstest,part=prompts", lambda r: r.sample.expect == "comply"
    )


def moderation_cards() -> dict[str, Card]:
    """Returns the moderation rails, on data that their judge was not trained on."""
    xstest = f"xstest:{DATA}/xstest,part=prompts"
    toxic_chat = f"toxic-chat:{DATA}/toxic_chat/train.json"
    unsafe, safe = (lambda r: r.sample.expect == "refuse"), (lambda r: r.sample.expect == "comply")
    jailbreakbench = f"jailbreakbench:{DATA}/jailbreakbench/behaviors.json"
    plain: Sets = [
        (
            "builtin:helpful and builtin:honest",
            prompts("builtin:helpful") + prompts("builtin:honest"),
        )
    ]
    must_stop: Sets = [
        ("XSTest, unsafe prompts", prompts(xstest, unsafe)),
        ("ToxicChat, toxic prompts", prompts(toxic_chat, labelled("harmful_prompt", True))),
        (
            "Do-Not-Answer",
            prompts(f"do-not-answer:{DATA}/do_not_answer/responses_human_labels.jsonl"),
        ),
    ]
    must_pass: Sets = [
        *plain,
        ("ToxicChat, other prompts", prompts(toxic_chat, labelled("harmful_prompt", False), 600)),
        ("XSTest, safe prompts", prompts(xstest, safe)),
    ]
    beavertails = f"beavertails:{DATA}/beavertails/qa_14_categories.jsonl"
    output_sets = (
        [("BeaverTails, harmful answers", answers(beavertails, labelled("harmful", True)))],
        [
            ("BeaverTails, safe answers", answers(beavertails, labelled("harmful", False))),
            (
                "XSTest, answers to safe prompts",
                answers(f"xstest:{DATA}/xstest,part=completions", safe),
            ),
        ],
    )
    open_judge, default_judge = {"judge": "moderation:default"}, {"judge": "moderation:research"}
    jailbreak: tuple[Sets, Sets] = (
        [("JailbreakBench, harmful", prompts(jailbreakbench, unsafe))],
        [*plain, ("JailbreakBench, benign", prompts(jailbreakbench, safe))],
    )
    return {
        "moderation check input": ({"moderation": open_judge}, must_stop, must_pass),
        "moderation check input, threshold 0.9": (
            {"moderation": {**open_judge, "threshold": 0.9}},
            must_stop,
            must_pass,
        ),
        "moderation check input, moderation:research": ({"moderation": default_judge}, *jailbreak),
        "moderation check output": ({"moderation": open_judge}, *output_sets),
        "moderation check output, threshold 0.9": (
            {"moderation": {**open_judge, "threshold": 0.9}},
            *output_sets,
        ),
    }


def cards() -> dict[str, Card]:
    """Returns the card of each rail by its name; a suffix after a comma tells settings apart."""
    distress = prompts("builtin:support", lambda r: r.sample.expect == "support")
    risk_ignorance = prompts(
        f"diasafety:{DATA}/diasafety/val.json",
        lambda r: r.sample.tags.get("category") == "Risk Ignorance",
    )
    other_contexts = prompts(
        f"diasafety:{DATA}/diasafety/val.json",
        lambda r: r.sample.tags.get("category") == "Unauthorized Expertise",
    )
    injections = f"prompt-injections:{DATA}/prompt_injections/deepset_train.csv"
    injected = prompts(injections, lambda r: any(j.verdict for j in r.judgements))
    not_injected = prompts(injections, lambda r: not any(j.verdict for j in r.judgements))
    benign = [("benign prompts (own twins, helpful, honest; XSTest safe)", benign_prompts())]
    framings = attacked_prompts("role-play", "refusal-suppression", "prefix-injection")
    encodings = attacked_prompts("base64", "morse")
    # Twins of the distress prompts: the same words, no distress.
    twins = prompts("builtin:support", lambda r: r.sample.expect == "comply")
    distress_sets = [
        ("builtin:support (in-sample)", distress),
        ("DiaSafety val, Risk Ignorance contexts", risk_ignorance),
    ]
    harmless = [
        ("builtin:support twins", twins),
        ("DiaSafety val, other contexts", other_contexts),
        *benign,
    ]
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
                ("our framings (in-sample)", framings),
                ("our encodings (in-sample)", encodings),
                ("deepset prompt-injections", injected),
            ],
            [("deepset, no injection", not_injected), *benign],
        ),
        **moderation_cards(),
    }


def measure(
    name: str, settings: dict[str, object], texts: Sequence[Text]
) -> tuple[int, int, float]:
    """Returns the texts stopped, all texts, and the median latency of the rail in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        rail = name.split(",")[0]
        stage = "output" if rail.endswith("output") else "input"
        config = {"rails": {stage: {"flows": [rail]}}, **({"truing": settings} if settings else {})}
        (Path(folder) / "config.yml").write_text(yaml.safe_dump(config))
        recorded = {t[0]: t[1] for t in texts if isinstance(t, tuple)}
        model = GuardedModel(
            folder, ScriptedModel(lambda c, s: recorded.get(c.prompt, c.prompt), name="recorded")
        )

        async def send(text: Text) -> Answer:
            prompt = text if isinstance(text, str) else text[0]
            return (await model.generate(Conversation.of(prompt), Sampling()))[0]

        async def send_all() -> tuple[int, int, float]:
            # The first answer loads the classifiers: it is not timed.
            timed = [await send(text) for text in texts[:TIMED]][1:]
            replies: list[Answer] = []
            for start in range(0, len(texts), 64):
                replies += await asyncio.gather(*map(send, texts[start : start + 64]))
            ms = [ruling.ms for a in timed for ruling in a.rulings if ruling.name == rail]
            stopped = sum(reply.finish_reason == "blocked" for reply in replies)
            return stopped, len(replies), statistics.median(ms) if ms else 0.0

        return asyncio.run(send_all())


def main() -> None:
    """Prints one line for each rail and set."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    lines = []
    print("| rail | data | n | must | stopped | ms |\n|---|---|---|---|---|---|")
    for name, (settings, must_stop, must_pass) in cards().items():
        if arguments.only and not {name, name.split(",")[0]} & set(arguments.only):
            continue
        for must, group in (("find", must_stop), ("pass", must_pass)):
            for data, texts in group:
                stopped, n, ms = measure(name, settings, texts)
                share = wilson(stopped, n)
                print(
                    f"| {name} | {data} | {n} | {must} | {100 * share.estimate:.1f} % "
                    f"[{100 * share.lower:.1f}, {100 * share.upper:.1f}] | {ms:.2f} |",
                    flush=True,
                )
                lines.append(
                    {"rail": name, "data": data, "n": n, "must": must, "stopped": stopped, "ms": ms}
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
