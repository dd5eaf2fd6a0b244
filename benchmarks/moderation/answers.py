"""Answers for moderation:open, made from permissively licensed prompts alone: nothing that people wrote for another licence.

    python benchmarks/moderation/answers.py --out own.jsonl

SmolLM2-135M-Instruct (Apache-2.0) answers harmful prompts from a prefilled first word (so that it complies, after a fashion)
and harmless ones as it likes; refusals are put together from our own phrases; some answers are exchanged between prompts. The
Answers of so small a model taught a classifier the wrong thing (docs/log): the recipe takes the refusals alone. The
rows are `file:` rows with `harmful`, `category`, `expect` and `refused`. They stay on the machine that made them.
Sources: AILuminate demo (CC BY 4.0), JailbreakBench and HarmBench (MIT), refusal-direction (Apache-2.0), builtin:safety.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch

from truing.hf.loading import load_causal_lm
from truing.judges.refusal import refusal_probabilities
from truing.specs.resolve import resolve

STARTS = (
    "Sure, here is how",
    "Here is",
    "Sure! First,",
    "To do this,",
    "Of course.",
    "Yes,",
    "Well,",
)
OPENINGS = (
    "I'm sorry, but",
    "I can't help with that:",
    "No, I won't do that.",
    "I'm not able to help here,",
    "Sorry,",
    "I must decline:",
    "That is not something I can assist with.",
    "I cannot give you that.",
    "I understand that you are curious, but",
    "As an assistant I have to say no:",
    "I won't provide this,",
    "Unfortunately I can't do that,",
)
REASONS = (
    "it could hurt somebody.",
    "this is against the law in most places.",
    "people might be harmed by it.",
    "I don't think it would be right.",
    "that would be unsafe.",
    "I am not comfortable with this request.",
    "it goes against what I am for.",
    "it would be unfair to others.",
    "I don't want to encourage it.",
    "",
)
ENDS = (
    "If you are having a hard time, please talk to somebody you trust.",
    "I would be glad to help with something else.",
    "Is there another way in which I can support you?",
    "If somebody is in danger, call the emergency services.",
    "Let me know if you want to talk about the safe side of this subject.",
    "Consider asking a professional.",
    "There are better ways to deal with this.",
    "",
    "",
    "",
)
HARMFUL = (
    "ailuminate",
    "jailbreakbench",
    "harmbench",
    "builtin:safety,half=train",
    "refusal-direction,part=harmful",
)
HARMLESS = ("jailbreakbench", "builtin:safety,half=train", "refusal-direction")


def prompts(limit: int) -> list[dict[str, Any]]:
    """Prompts to be refused and to be answered, with their categories."""
    made = []
    for specs, wanted in ((HARMFUL, "refuse"), (HARMLESS, "comply")):
        for spec in specs:
            rows = [r.sample for r in resolve(spec, "data").rows() if r.sample.expect == wanted]
            if len(rows) > limit:
                rows = random.Random(0).sample(rows, limit)
            made += [
                {"prompt": s.prompt[:600], "expect": wanted, "harms": list(s.harms)} for s in rows
            ]
    return made


def answered(rows: list[dict[str, Any]], tokens: int, batch: int = 48) -> None:
    """Puts an answer of SmolLM2 into each row."""
    loaded = load_causal_lm("smollm2")
    model, tokenizer = loaded.model, loaded.tokenizer
    tokenizer.padding_side = "left"
    torch.manual_seed(0)
    rng = random.Random(0)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["prompt"]))
    for at in range(0, len(order), batch):
        part = [rows[i] for i in order[at : at + batch]]
        starts = [rng.choice(STARTS) if r["expect"] == "refuse" else "" for r in part]
        asked = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": r["prompt"]}],
                tokenize=False,
                add_generation_prompt=True,
            )
            + s
            for r, s in zip(part, starts)
        ]
        given = tokenizer(asked, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            made = model.generate(
                **given,
                max_new_tokens=tokens,
                do_sample=True,
                temperature=0.7,
                top_p=0.95,
                repetition_penalty=1.1,
            )
        for row, start, ids in zip(part, starts, made):
            said = tokenizer.decode(ids[given["input_ids"].shape[1] :], skip_special_tokens=True)
            row["answer"] = (start + said).strip()
        print(f"{at + len(part)} of {len(rows)}", flush=True)


def refusal(rng: random.Random) -> str:
    """One of about a thousand refusals."""
    return " ".join(x for x in (rng.choice(OPENINGS), rng.choice(REASONS), rng.choice(ENDS)) if x)


def labelled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each prompt with its answer, with a refusal, and with the answer to another prompt."""
    rng = random.Random(0)
    bad = [r for r in rows if r["expect"] == "refuse"]
    good = [r for r in rows if r["expect"] == "comply"]
    made = []

    def add(row: dict[str, Any], response: str, harmful: bool, refused: bool | None) -> None:
        more = {"category": row["harms"]} if harmful and row["harms"] else {}
        flag = {} if refused is None else {"refused": refused}
        made.append(
            {
                "prompt": row["prompt"],
                "response": response,
                "harmful": harmful,
                "expect": row["expect"],
                **more,
                **flag,
            }
        )

    for row in rows:
        if "answer" not in row:
            add(row, refusal(rng), False, True)
    bad, good = ([r for r in part if "answer" in r] for part in (bad, good))
    for row in bad:
        p = refusal_probabilities(row["answer"])
        declined = p["refused"] + p["partly"] > 0.5
        add(row, row["answer"], not declined, declined)
        add(row, refusal(rng), False, True)
        add(row, rng.choice(good)["answer"], False, None)
    for row in good:
        add(row, row["answer"], False, False)
        add(row, refusal(rng), False, True)
    return made


def main() -> None:
    """Writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=500, help="prompts of each set")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument(
        "--refusals",
        action="store_true",
        help="refusals alone: what the shipped classifier learned from",
    )
    given = parser.parse_args()
    rows = prompts(given.limit)
    if not given.refusals:
        answered(rows, given.tokens)
    with given.out.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in labelled(rows))


if __name__ == "__main__":
    main()
