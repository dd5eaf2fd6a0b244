"""How often a bot's answers keep to its tone policy, before and after the tone rail.

    python benchmarks/rails/tone.py examples/bot [--model local:smollm2] [--n 40]
                                                 [--suffix "Be very excited!"]

The prompts are the users' turns of the bot's own dialogues, its examples of user messages, and
everyday instructions (builtin:helpful, builtin:honest). Each is answered with the bot's
instructions and facts, by the LLM alone (no flow answers for it), and then passes the tone rail.
Before: the share of the LLM's answers that keep to the policy. After: the share of prompts whose
shown answer does; a withheld answer counts as not. Both are by the policy's own rules
(`tone:DIR`): that is what the rail promises, not what a reader would say of the tone.
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


class FirstAnswerRecorder:
    """A model that records its first answer to each turn: what is shown without the rail."""

    def __init__(self, model: Model) -> None:
        self.model, self.name, self.lineage = model, model.name, model.lineage
        self.first: Answer | None = None

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Calls the model; records the first answer since `first` was reset."""
        answers = await self.model.generate(conversation, sampling)
        self.first = self.first or answers[0]
        return answers


def select_prompts(folder: Path, config: RailsConfig, n: int) -> list[str]:
    """Returns users' turns of the dialogues, then a sample of examples and instructions."""
    dialogue_turns = [
        str(t["user"])
        for d in read_dialogues(find_dialogue_files(folder))
        for t in d.turns
        if "user" in t
    ]
    examples = [text for texts in config.user_messages.values() for text in texts]
    for spec in ("builtin:helpful", "builtin:honest"):
        examples += [row.sample.prompt for row in resolve(spec, "data").rows()]
    examples = [text for text in dict.fromkeys(examples) if text not in dialogue_turns]
    selected = list(dict.fromkeys(dialogue_turns))[:n]
    return selected + Random(0).sample(examples, min(len(examples), n - len(selected)))


def tone_only_config(folder: Path) -> RailsConfig:
    """Returns the bot's instructions, facts and tone, without its dialog and other rails."""
    config = RailsConfig.load(folder)
    config.user_messages.clear()
    config.flows.clear()
    config.rails.input.flows.clear()
    config.rails.retrieval.flows.clear()
    config.rails.output.flows[:] = [RAIL]
    return config


async def measure(folder: Path, model: Model, texts: list[str], tokens: int) -> dict[str, object]:
    """Answers each prompt once; returns before and after by prompt, and what the rail did."""
    config = tone_only_config(folder)
    policy = TonePolicy.from_settings(config.truing["tone"])
    recorder = FirstAnswerRecorder(model)
    bot = GuardedModel(config, recorder)
    before, after, ms = list[bool](), list[bool](), list[float]()
    outcomes, llm_calls = Counter[str](), 0
    for text in texts:
        recorder.first = None
        answer = await bot.answer(Conversation.of(text), Sampling(max_tokens=tokens))
        ruling = next((r for r in answer.rulings if r.name == RAIL), None)
        if recorder.first is None or not recorder.first.text.strip() or ruling is None:
            outcomes["no answer"] += 1
            continue
        before.append(not policy.violations(recorder.first.text.strip()))
        after.append(answer.finish_reason != "blocked" and not policy.violations(answer.text))
        outcomes[re.split(r"[:;]", ruling.reason or "")[0]] += 1
        ms.append(ruling.ms)
        llm_calls += ruling.llm_calls
    return {
        "before": before,
        "after": after,
        "by": dict(outcomes),
        "rail_ms": sorted(ms),
        "rail_llm_calls": llm_calls,
    }


def main() -> None:
    """Prints the two shares, their difference, and what the rail did."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="local:smollm2")
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument(
        "--suffix", default="", help="appended to each prompt, such as a request for another tone"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model: Model = resolve(arguments.model, "model")
    texts = [
        f"{text} {arguments.suffix}".strip()
        for text in select_prompts(
            arguments.folder, RailsConfig.load(arguments.folder), arguments.n
        )
    ]
    started = time.perf_counter()
    figures = asyncio.run(measure(arguments.folder, model, texts, arguments.tokens))
    before, after = figures["before"], figures["after"]
    assert isinstance(before, list) and isinstance(after, list)
    for name, on_tone in (("before", before), ("after", after)):
        share = wilson(sum(on_tone), len(on_tone))
        print(
            f"{name}: {sum(on_tone)} of {len(on_tone)} on tone, {100 * share.estimate:.0f} % "
            f"[{100 * share.lower:.0f}, {100 * share.upper:.0f}]"
        )
    gain = newcombe_paired(PairedTable.from_outcomes(before, after))
    print(
        f"difference {100 * gain.estimate:+.0f} points "
        f"[{100 * gain.lower:+.0f}, {100 * gain.upper:+.0f}] (Newcombe, paired)"
    )
    print(
        f"the rail: {figures['by']}, {figures['rail_llm_calls']} LLM calls; "
        f"{time.perf_counter() - started:.0f} s in all"
    )
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"model": model.name, "prompts": len(texts), **figures}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
