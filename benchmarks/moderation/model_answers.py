"""Lets small local models answer prompts, for the free judge: training rows, or rows to measure on.

    python benchmarks/moderation/model_answers.py --model smollm2 --out smollm2.jsonl
    python benchmarks/moderation/model_answers.py --model smollm2 --half report --out report.jsonl

`train`: prompts of builtin:safety (training half), refusal-direction (training half), AILuminate,
HarmBench, HH-RLHF and our own (recipes/own_exchanges.jsonl, own_topics.jsonl), none of the frozen
measurement set; temperature (0, 0, 0.7 or 1) and system message are drawn from the prompt's hash.
`report`: benign prompts of the frozen set (builtin:safety and refusal-direction), greedy, without
system message.
Rows that the file already has are not asked again. Do not publish the rows.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
from pathlib import Path
from typing import Any

from prompt_rows import ask_about_topics
from row_files import OWN_EXCHANGES, Row, read_lines

from truing.core.lineage import hash_prompt
from truing.core.measurement_set import is_frozen
from truing.core.types import Conversation, Message, Sampling
from truing.models.local.model import LocalModel
from truing.specs.resolve import resolve

TEMPERATURES = (0.0, 0.0, 0.7, 1.0)
SYSTEM_MESSAGES = (
    "",
    "",
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are a friendly expert who explains things clearly.",
)
REPORT_INSTRUCTIONS = 100
ANSWERED_PROMPTS = Path(__file__).parent / "recipes" / "answered_prompts.json"


def make_prompt(group: str, prompt: str, harms: tuple[str, ...] = ()) -> Row:
    """Returns a prompt of a group; its id is the same in every run."""
    key = f"{group}/{hash_prompt(prompt)}"
    return {"id": key, "group": group, "prompt": prompt, "harms": list(harms)}


def list_training_prompts(name: str) -> list[Row]:
    """Returns the prompts to train on of a list in `recipes/answered_prompts.json`."""
    rows = []
    for asked in ask_about_topics(random.Random("answers"), 1):
        if asked["harmful"]:
            rows.append(make_prompt("topic_refuse", asked["prompt"], (asked["category"],)))
        else:
            rows.append(make_prompt("topic_comply", asked["prompt"]))
    for own in read_lines(OWN_EXCHANGES):
        rows.append(make_prompt("own_comply", own["benign_prompt"]))
        rows.append(make_prompt("own_refuse", own["harmful_prompt"], (own["category"],)))
    for spec, group, most in (
        ("builtin:safety,half=train", "bs", 700),
        ("ailuminate", "ail", 700),
        ("harmbench", "hb", 600),
        ("refusal-direction,half=train", "rd", 700),
    ):
        for row in resolve(spec, "data").rows():
            s = row.sample
            rows.append(make_prompt(f"{group}_{s.expect}", s.prompt[:most], s.harms))
    for row in resolve("hh", "data").rows():
        first = next(m.content for m in row.sample.conversation.messages if m.role == "user")
        rows.append(make_prompt("hh_unknown", first))
    distinct = {row["id"]: row for row in rows if not is_frozen(row["prompt"])}
    chosen = set(json.loads(ANSWERED_PROMPTS.read_text())[name])
    return [row for key, row in distinct.items() if key in chosen]


def list_report_prompts() -> list[Row]:
    """Returns the benign prompts to measure on."""
    twins = [r.sample for r in resolve("builtin:safety,half=report", "data").rows()]
    rows = [make_prompt("builtin", s.prompt) for s in twins if s.expect == "comply"]
    instructions = resolve("refusal-direction,half=report", "data").rows()
    others = [make_prompt("refusal-direction", row.sample.prompt) for row in instructions]
    others.sort(key=lambda row: hashlib.sha256(row["id"].encode()).digest())
    return rows + others[:REPORT_INSTRUCTIONS]


async def answer_prompts(
    model: LocalModel, rows: list[Row], out: Path, tokens: int, *, vary: bool
) -> None:
    """Appends each prompt with its answer to the file."""
    name = model.name.removeprefix("local:").rpartition("/")[2]

    async def answer(row: Row, stream: Any) -> None:
        number = int(hashlib.sha256(f"{row['id']}g".encode()).hexdigest(), 16)
        temperature = TEMPERATURES[number % 4] if vary else 0.0
        system = SYSTEM_MESSAGES[number // 4 % 5] if vary else ""
        messages = [Message("system", system)] if system else []
        sampling = Sampling(
            max_tokens=tokens, temperature=temperature, top_p=0.95, seed=number % 1000
        )
        conversation = Conversation((*messages, Message("user", row["prompt"])))
        (reply,) = await model.generate(conversation, sampling)
        text = reply.message.content if reply.message else ""
        stream.write(json.dumps({**row, "model": name, "response": text}) + "\n")
        stream.flush()

    with out.open("a", encoding="utf-8") as stream:
        await asyncio.gather(*(answer(row, stream) for row in rows))


def main() -> None:
    """Answers the prompts that the file does not have."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2", help="smollm2, or a folder")
    parser.add_argument("--half", choices=("train", "report"), default="train")
    parser.add_argument("--tokens", type=int, default=56)
    parser.add_argument("--list", help="of prompts to train on: smollm2, smollm2-long or qwen")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.half == "report":
        rows = list_report_prompts()
    else:
        name = "smollm2" if options.model == "smollm2" else "qwen"
        rows = list_training_prompts(options.list or name)
    answered = {row["id"] for row in read_lines(options.out)} if options.out.exists() else set()
    rows = [row for row in rows if row["id"] not in answered]
    random.Random(0).shuffle(rows)
    model = LocalModel.load(options.model, batch=64)
    vary = options.half == "train"
    asyncio.run(answer_prompts(model, rows, options.out, options.tokens, vary=vary))


if __name__ == "__main__":
    main()
