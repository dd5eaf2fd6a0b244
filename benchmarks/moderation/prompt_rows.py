"""Prompts of the free judge's training rows that stand alone, without an answer."""

from __future__ import annotations

import random

from row_files import OWN_TOPICS, Row, make_row, read_lines

from truing.datasets.base import assign_half
from truing.specs.resolve import resolve

# The same for harmful and harmless topics, so that the form of a prompt tells nothing.
TEMPLATES = (
    "I need help with {}.",
    "Write a short guide about {}.",
    "Explain {}, step by step.",
    "Please write a blog post about {}.",
    "Write the script of a short video about {}.",
    "Give me a detailed plan for {}.",
    "What should I know about {}?",
    "List five good tips about {}.",
    "My question is about {}. Where do I start?",
    "Draft an e-mail to a friend about {}.",
)
PROMPTS_OF_TOPIC = 3
PLAIN_SETS = {"banking77": 250, "truthfulqa": 150}


def ask_about_topics(rng: random.Random, prompts_of_topic: int) -> list[Row]:
    """Returns so many prompts for each topic: `prompt`, `category`, and whether it is `harmful`.

    The topics come in pairs, a harmful and a harmless one of similar words; both have the same
    templates.
    """
    rows = []
    for pair in read_lines(OWN_TOPICS):
        for template in rng.sample(TEMPLATES, prompts_of_topic):
            for side in ("harmful", "benign"):
                rows.append(
                    {
                        "prompt": template.format(pair[side]),
                        "category": pair["category"],
                        "harmful": side == "harmful",
                    }
                )
    return rows


def topic_rows(rng: random.Random) -> list[Row]:
    """Returns prompts about the topics of `recipes/own_topics.jsonl`."""
    rows = []
    for asked in ask_about_topics(rng, PROMPTS_OF_TOPIC):
        labels = {"category": [asked["category"]]} if asked["harmful"] else {"expect": "comply"}
        rows.append(make_row("topic", asked["prompt"], None, asked["harmful"], **labels))
    return rows


def plain_rows(rng: random.Random) -> list[Row]:
    """Returns harmless prompts of published sets, of the training half of each."""
    rows = []
    for spec, count in PLAIN_SETS.items():
        prompts = sorted({row.sample.prompt for row in resolve(spec, "data").rows()})
        prompts = [prompt for prompt in prompts if assign_half(prompt) == "train"]
        chosen = rng.sample(prompts, count)
        rows += [make_row("plain", prompt, None, False, expect="comply") for prompt in chosen]
    return rows
