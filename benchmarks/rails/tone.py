"""How often a bot's answers are on tone before and after the tone rail, and by what.

    python benchmarks/rails/tone.py examples/bot [--model local:smollm2] [--n 40] [--suffix "Be very excited!"]

The prompts are the users' turns of the bot's own dialogues, its examples of what users say, and everyday instructions
(builtin:helpful, builtin:honest), the same for before and after. Each is answered with the bot's instructions and facts, by
the LLM alone (no flow answers for it), and then passes the tone rail. Before: the share of the LLM's answers that keep to the
policy; after: the share of prompts whose shown answer does, an answer that was withheld counting as not. Both are by the
policy's own rules (`tone:DIR`): that is what the rail promises, not what a reader would say of the tone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections import Counter
from pathlib import Path
from random import Random

from truing.core.protocols import Model
from truing.core.types import Answer, Conversation, Sampling
from truing.rails.config.loader import RailsConfig
from truing.rails.dialogue_tests import find_dialogue_files, read_dialogues
from truing.rails.guarded import GuardedModel
from truing.rails.library.tone import TonePolicy
from truing.specs.resolve import resolve
from truing.stats.intervals import wilson
from truing.stats.paired import PairedTable, newcombe_paired

RAIL = "tone check output"


class Ear:
    """A model that keeps the first answer to each turn: what would be shown without the rail."""

    def __init__(self, model: Model) -> None:
        self.model, self.name, self.lineage = model, model.name, model.lineage
        self.first: Answer | None = None

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """As the model."""
        made = await self.model.generate(conversation, sampling)
        self.first = self.first or made[0]
        return made


def prompts(folder: Path, config: RailsConfig, n: int) -> list[str]:
    """The users' turns of the dialogues, then examples and everyday instructions by a seed."""
    own = [
        str(t["user"])
        for d in read_dialogues(find_dialogue_files(folder))
        for t in d.turns
        if "user" in t
    ]
    more = [text for texts in config.user_messages.values() for text in texts]
    for spec in ("builtin:helpful", "builtin:honest"):
        more += [row.sample.prompt for row in resolve(spec, "data").rows()]
    more = [text for text in dict.fromkeys(more) if text not in own]
    own = list(dict.fromkeys(own))[:n]
    return own + Random(0).sample(more, min(len(more), n - len(own)))


def alone(folder: Path) -> RailsConfig:
    """The bot's instructions, facts and tone, without its dialog and its other rails."""
    config = RailsConfig.load(folder)
    config.user_messages.clear()
    config.flows.clear()
    config.rails.input.flows.clear()
    config.rails.retrieval.flows.clear()
    config.rails.output.flows[:] = [RAIL]
    return config


async def measure(folder: Path, model: Model, texts: list[str], tokens: int) -> dict[str, object]:
    """Each prompt once."""
    config = alone(folder)
    policy, ear = TonePolicy.from_settings(config.truing["tone"]), Ear(model)
    bot = GuardedModel(config, ear)
    before, after, ms = list[bool](), list[bool](), list[float]()
    ways, calls = Counter[str](), 0
    for text in texts:
        ear.first = None
        answer = await bot.answer(Conversation.of(text), Sampling(max_tokens=tokens))
        ruling = next((r for r in answer.rulings if r.name == RAIL), None)
        if ear.first is None or not ear.first.text.strip() or ruling is None:
            ways["no answer"] += 1
            continue
        before.append(not policy.violations(ear.first.text.strip()))
        after.append(answer.finish_reason != "blocked" and not policy.violations(answer.text))
        ways[re.split(r"[:;]", ruling.reason or "")[0]] += 1
        ms.append(ruling.ms)
        calls += ruling.llm_calls
    return {
        "before": before,
        "after": after,
        "by": dict(ways),
        "rail_ms": sorted(ms),
        "rail_llm_calls": calls,
    }


def main() -> None:
    """The two shares, their difference, and what the rail did."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="local:smollm2")
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument(
        "--suffix", default="", help="said after each prompt, such as a wish for another tone"
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    model: Model = resolve(given.model, "model")
    texts = [
        f"{text} {given.suffix}".strip()
        for text in prompts(given.folder, RailsConfig.load(given.folder), given.n)
    ]
    began = time.perf_counter()
    found = asyncio.run(measure(given.folder, model, texts, given.tokens))
    before, after = found["before"], found["after"]
    assert isinstance(before, list) and isinstance(after, list)
    for name, shares in (("before", before), ("after", after)):
        share = wilson(sum(shares), len(shares))
        print(
            f"{name}: {sum(shares)} of {len(shares)} on tone, {100 * share.estimate:.0f} % "
            f"[{100 * share.lower:.0f}, {100 * share.upper:.0f}]"
        )
    gain = newcombe_paired(PairedTable.from_outcomes(before, after))
    print(
        f"difference {100 * gain.estimate:+.0f} points [{100 * gain.lower:+.0f}, {100 * gain.upper:+.0f}] (Newcombe, paired)"
    )
    print(
        f"the rail: {found['by']}, {found['rail_llm_calls']} LLM calls; {time.perf_counter() - began:.0f} s in all"
    )
    if given.json:
        given.json.write_text(
            json.dumps({"model": model.name, "prompts": len(texts), **found}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
