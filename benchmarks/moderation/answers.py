"""Writes training answers for moderation:default, from permissively licensed prompts alone.

    python benchmarks/moderation/answers.py --out own.jsonl

SmolLM2-135M-Instruct (Apache-2.0) answers harmful prompts from a prefilled opening (so that it
complies) and harmless ones freely; refusals are composed from our own phrases; some answers are
exchanged between prompts. A classifier trained on the answers of so small a model got worse
(docs/log), so the recipe takes the refusals alone. The rows are `file:` rows with `harmful`,
`category`, `expect` and `refused`; do not publish them. Sources: AILuminate demo (CC BY 4.0),
JailbreakBench and HarmBench (MIT), refusal-direction (Apache-2.0), builtin:safety.
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


def read_prompts(limit: int) -> list[dict[str, Any]]:
    """Returns prompts to refuse and to answer, with categories, at most `limit` of each set."""
    prompts = []
    for specs, expect in ((HARMFUL, "refuse"), (HARMLESS, "comply")):
        for spec in specs:
            rows = [r.sample for r in resolve(spec, "data").rows() if r.sample.expect == expect]
            if len(rows) > limit:
                rows = random.Random(0).sample(rows, limit)
            prompts += [
                {"prompt": s.prompt[:600], "expect": expect, "harms": list(s.harms)} for s in rows
            ]
    return prompts


def add_answers(rows: list[dict[str, Any]], tokens: int, batch: int = 48) -> None:
    """Adds an answer of SmolLM2 to each row, sampled at temperature 0.7."""
    loaded = load_causal_lm("smollm2")
    model, tokenizer = loaded.model, loaded.tokenizer
    tokenizer.padding_side = "left"
    torch.manual_seed(0)
    rng = random.Random(0)
    # Prompts of similar length together, so that little is padded.
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["prompt"]))
    for start in range(0, len(order), batch):
        part = [rows[i] for i in order[start : start + batch]]
        openings = [rng.choice(STARTS) if r["expect"] == "refuse" else "" for r in part]
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": r["prompt"]}],
                tokenize=False,
                add_generation_prompt=True,
            )
            + opening
            for r, opening in zip(part, openings)
        ]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            outputs = model.generate(
                **inputs,
                max_new_tokens=tokens,
                do_sample=True,
                temperature=0.7,
                top_p=0.95,
                repetition_penalty=1.1,
            )
        for row, opening, ids in zip(part, openings, outputs):
            text = tokenizer.decode(ids[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            row["answer"] = (opening + text).strip()
        print(f"{start + len(part)} of {len(rows)}", flush=True)


def compose_refusal(rng: random.Random) -> str:
    """Returns one of about a thousand refusals."""
    parts = (rng.choice(OPENINGS), rng.choice(REASONS), rng.choice(ENDS))
    return " ".join(part for part in parts if part)


def label_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns each prompt with its answer, with a refusal, and with another prompt's answer."""
    rng = random.Random(0)
    to_refuse = [r for r in rows if r["expect"] == "refuse"]
    to_answer = [r for r in rows if r["expect"] == "comply"]
    labelled = []

    def add(row: dict[str, Any], response: str, harmful: bool, refused: bool | None) -> None:
        category = {"category": row["harms"]} if harmful and row["harms"] else {}
        refusal_label = {} if refused is None else {"refused": refused}
        labelled.append(
            {
                "prompt": row["prompt"],
                "response": response,
                "harmful": harmful,
                "expect": row["expect"],
                **category,
                **refusal_label,
            }
        )

    for row in rows:
        if "answer" not in row:
            add(row, compose_refusal(rng), False, True)
    to_refuse, to_answer = ([r for r in part if "answer" in r] for part in (to_refuse, to_answer))
    for row in to_refuse:
        p = refusal_probabilities(row["answer"])
        declined = p["refused"] + p["partly"] > 0.5
        add(row, row["answer"], not declined, declined)
        add(row, compose_refusal(rng), False, True)
        add(row, rng.choice(to_answer)["answer"], False, None)
    for row in to_answer:
        add(row, row["answer"], False, False)
        add(row, compose_refusal(rng), False, True)
    return labelled


def main() -> None:
    """Writes the rows as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=500, help="prompts of each set")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument(
        "--refusals",
        action="store_true",
        help="refusals alone, which the shipped classifier was trained on",
    )
    arguments = parser.parse_args()
    rows = read_prompts(arguments.limit)
    if not arguments.refusals:
        add_answers(rows, arguments.tokens)
    with arguments.out.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in label_rows(rows))


if __name__ == "__main__":
    main()
