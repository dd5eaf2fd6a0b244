"""User messages sorted by what they are: prompt injections (deepset) and bank customers' intents (banking77)."""

from __future__ import annotations

from collections.abc import Iterable

from truing.core.types import Conversation, Row, Sample
from truing.datasets.base import Options, Published, builder, label
from truing.datasets.read import Record


def injections(record: Record, options: Options) -> Iterable[Row]:
    """A message, 1 if it tries to override the system's instructions; German ones are among them."""
    verdict = record.flag("label")
    sample = Sample(conversation=Conversation.of(record.text("text")))
    yield Row(sample=sample, judgements=(label("prompt-injections", "injection", verdict),))


def banking77(record: Record, options: Options) -> Iterable[Row]:
    """A question to a bank with one of 77 intents (Casanueva et al. 2020, arXiv 2003.04807): topical rails."""
    intent = record.maybe("category") or record.maybe("label_text") or record.maybe("label")
    if intent is None:
        raise record.fault("category: empty")
    question = Conversation.of(record.text("text"))
    yield Row(sample=Sample(conversation=question, expect="comply", tags={"intent": intent}))


build_injections = builder(
    INJECTIONS := Published(
        kind="prompt-injections",
        title="deepset prompt injections",
        source="https://huggingface.co/datasets/deepset/prompt-injections",
        licence="Apache-2.0",
        folder="prompt_injections",
        parts={"messages": ("deepset_{split}.csv", "data/{split}-*.parquet")},
        hub={"messages": "deepset/prompt-injections"},
        labels=("injection",),
        convert=injections,
        red_team=True,
    )
)
build_banking77 = builder(
    BANKING77 := Published(
        kind="banking77",
        title="banking77",
        source="https://huggingface.co/datasets/PolyAI/banking77",
        licence="CC BY 4.0",
        parts={"questions": ("{split}.csv", "**/{split}.csv", "**/{split}*.parquet")},
        hub={"questions": "PolyAI/banking77"},
        convert=banking77,
    )
)
