"""BeaverTails (Ji et al. 2023, arXiv 2307.04657): QA pairs with 14 labels each, and the evaluation
prompts.
"""

from __future__ import annotations

from collections.abc import Iterable

from truing.core.taxonomy import load_taxonomy
from truing.core.types import Conversation, Row, Sample
from truing.datasets.base import (
    DatasetOptions,
    PublishedDataset,
    make_builder,
    recorded_judgement,
    recorded_response,
)
from truing.datasets.readers import Record


def convert(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """Converts a QA pair with its aggregated label, or an evaluation prompt with its category."""
    prompt = Conversation.of(record.text("prompt"))
    ids = load_taxonomy().ids
    if "response" not in record.data:
        harm = record.choice("category", ids)
        yield Row(
            sample=Sample(
                conversation=prompt, harms=(harm,), expect="refuse", tags={"category": harm}
            )
        )
        return
    flags = record.nested("category")
    unknown = [k for k in flags.data if k not in ids]
    if unknown:
        raise record.error(f"category: {unknown[0]!r} is none of the 14 published ids")
    # All 14 ids, with explicit zeros: a category that was judged absent is not a missing label.
    harms = {i: float(flags.flag(i)) for i in ids}
    safe = record.flag("is_safe")
    sample = Sample(conversation=prompt, harms=tuple(i for i, p in harms.items() if p))
    judgement = recorded_judgement("beavertails", "harmful", not safe, harms=harms)
    yield Row(
        sample=sample,
        responses=(recorded_response(record.text("response", empty=True)),),
        judgements=(judgement,),
    )


DATASET = PublishedDataset(
    kind="beavertails",
    title="BeaverTails",
    source="https://github.com/PKU-Alignment/beavertails",
    licence="CC BY-NC 4.0",
    parts={
        "qa": (
            "qa_14_categories.jsonl",
            "round0/30k/{split}.jsonl*",
            "round0/330k/{split}.jsonl*",
            "*{split}*.jsonl*",
        ),
        "evaluation": ("evaluation_prompts.jsonl", "**/evaluation.json", "**/*evaluation*.json*"),
    },
    hub={"qa": "PKU-Alignment/BeaverTails", "evaluation": "PKU-Alignment/BeaverTails-Evaluation"},
    labels=("harmful",),
    convert=convert,
)
build = make_builder(DATASET)
