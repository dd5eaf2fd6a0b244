"""DiaSafety (Sun et al. 2022, arXiv 2110.08466): answers that are unsafe in their context, five
categories.

The category tells which kind of context the pair was collected for; a safe answer has one too, and
no harm.
"""

from __future__ import annotations

from collections.abc import Iterable

from truing.core.taxonomy import load_crosswalk
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
    """Converts a context with its answer; both are plain text in this release."""
    crosswalk = load_crosswalk("diasafety")
    category = record.choice("category", crosswalk.map)
    unsafe = record.choice("label", ("Safe", "Unsafe")) == "Unsafe"
    harms = crosswalk(category) if unsafe else ()
    sample = Sample(
        conversation=Conversation.of(record.text("context", empty=True)),
        harms=harms,
        tags={"category": category},
    )
    judgement = recorded_judgement(
        "diasafety", "harmful", unsafe, harms=dict.fromkeys(crosswalk(category), float(unsafe))
    )
    yield Row(
        sample=sample,
        responses=(recorded_response(record.text("response", empty=True)),),
        judgements=(judgement,),
    )


DATASET = PublishedDataset(
    kind="diasafety",
    title="DiaSafety",
    source="https://github.com/thu-coai/DiaSafety",
    licence="Apache-2.0",
    parts={"dialogues": ("{split}.json", "**/{split}.json", "**/*{split}*.json")},
    labels=("harmful",),
    convert=convert,
)
build = make_builder(DATASET)
