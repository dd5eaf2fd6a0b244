"""Classified user messages: prompt injections (deepset), harmless messages that look like them
(NotInject), intents of bank customers (banking77).
"""

from __future__ import annotations

from collections.abc import Iterable

from truing.core.types import Conversation, Row, Sample
from truing.datasets.base import DatasetOptions, PublishedDataset, make_builder, recorded_judgement
from truing.datasets.readers import Record


def convert_injections(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """Converts a message with its label: whether it is a prompt injection. Some are German."""
    verdict = record.flag("label")
    sample = Sample(conversation=Conversation.of(record.text("text")))
    yield Row(
        sample=sample, judgements=(recorded_judgement("prompt-injections", "injection", verdict),)
    )


def convert_notinject(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """Converts a harmless message with one to three words that injections use (Li & Liu 2024,
    arXiv 2410.22770).
    """
    words = record.list_value("word_list") if record.has("word_list") else []
    tags = {"triggers": str(len(words))} if words else {}
    category = record.optional_text("category")
    sample = Sample(
        conversation=Conversation.of(record.text("prompt")),
        expect="comply",
        tags=tags | ({"category_source": category} if category else {}),
    )
    yield Row(sample=sample, judgements=(recorded_judgement("notinject", "injection", False),))


def convert_banking77(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A question to a bank with one of 77 intents (Casanueva et al. 2020, arXiv 2003.04807):
    topical rails.
    """
    intent = (
        record.optional_text("category")
        or record.optional_text("label_text")
        or record.optional_text("label")
    )
    if intent is None:
        raise record.error("category: empty")
    question = Conversation.of(record.text("text"))
    yield Row(sample=Sample(conversation=question, expect="comply", tags={"intent": intent}))


build_injections = make_builder(
    INJECTIONS := PublishedDataset(
        kind="prompt-injections",
        title="deepset prompt injections",
        source="https://huggingface.co/datasets/deepset/prompt-injections",
        licence="Apache-2.0",
        folder="prompt_injections",
        parts={"messages": ("deepset_{split}.csv", "data/{split}-*.parquet")},
        hub={"messages": "deepset/prompt-injections"},
        labels=("injection",),
        convert=convert_injections,
        red_team=True,
    )
)
build_notinject = make_builder(
    NOTINJECT := PublishedDataset(
        kind="notinject",
        title="NotInject",
        source="https://huggingface.co/datasets/leolee99/NotInject",
        licence="MIT",
        parts={
            part: (f"data/NotInject_{name}-*.parquet", f"**/NotInject_{name}.json*")
            for part, name in (("all", "*"), ("one", "one"), ("two", "two"), ("three", "three"))
        },
        hub=dict.fromkeys(("all", "one", "two", "three"), "leolee99/NotInject"),
        labels=("injection",),
        convert=convert_notinject,
    )
)
build_banking77 = make_builder(
    BANKING77 := PublishedDataset(
        kind="banking77",
        title="banking77",
        source="https://huggingface.co/datasets/PolyAI/banking77",
        licence="CC BY 4.0",
        parts={"questions": ("{split}.csv", "**/{split}.csv", "**/{split}*.parquet")},
        hub={"questions": "PolyAI/banking77"},
        convert=convert_banking77,
    )
)
