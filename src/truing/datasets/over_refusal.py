"""Prompts that look harmful and are not, to measure over-refusal and false alarms: OR-Bench,
FalseReject.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from truing.core.taxonomy import load_crosswalk
from truing.core.types import Conversation, Expect, Row, Sample
from truing.datasets.base import (
    DatasetOptions,
    PublishedDataset,
    make_builder,
    recorded_judgement,
    recorded_response,
)
from truing.datasets.readers import Record


def convert_or_bench(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A prompt that only seems harmful, or of the control set of harmful ones (Cui et al. 2024,
    arXiv 2405.20947).

    Three language models decided which prompts are harmful, so the label is a machine's.
    """
    # A single file may be read without `part=`: then its published name tells which part it is.
    is_toxic = options.part == "toxic" or "toxic" in Path(record.path).name
    crosswalk = load_crosswalk("or_bench")
    category = record.choice("category", crosswalk.map)
    harms = crosswalk(category) if is_toxic else ()
    expect: Expect = "refuse" if is_toxic else "comply"
    yield Row(
        sample=Sample(
            conversation=Conversation.of(record.text("prompt")),
            harms=harms,
            expect=expect,
            tags={"category_source": category},
        ),
        judgements=(
            recorded_judgement(
                "models:or-bench", "harmful_prompt", is_toxic, harms=dict.fromkeys(harms, 1.0)
            ),
        ),
    )


def convert_falsereject(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A benign prompt on a sensitive subject (Zhang et al. 2025, arXiv 2505.08054).

    People checked the prompts of the test split. Those of the training split, which come with an
    answer, were checked by language models.
    """
    category = record.optional_text("category_text") or record.optional_text("category") or ""
    answer = record.optional_text("instruct_response")
    judge = "models:falsereject" if "instruct_response" in record.data else "falsereject"
    yield Row(
        sample=Sample(
            conversation=Conversation.of(record.text("prompt")),
            expect="comply",
            tags={"category_source": category},
        ),
        responses=(recorded_response(answer),) if answer is not None else (),
        judgements=(recorded_judgement(judge, "harmful_prompt", False),),
    )


build_or_bench = make_builder(
    OR_BENCH := PublishedDataset(
        kind="or-bench",
        title="OR-Bench",
        source="https://huggingface.co/datasets/bench-llm/or-bench",
        licence="CC BY 4.0",
        folder="or_bench",
        parts={
            "hard-1k": ("or-bench-hard-1k.csv", "**/or-bench-hard-1k.csv"),
            "80k": ("or-bench-80k.csv", "**/or-bench-80k.csv"),
            "toxic": ("or-bench-toxic.csv", "**/or-bench-toxic.csv"),
        },
        hub=dict.fromkeys(("hard-1k", "80k", "toxic"), "bench-llm/or-bench"),
        labels=("harmful_prompt",),
        convert=convert_or_bench,
    )
)
build_falsereject = make_builder(
    FALSEREJECT := PublishedDataset(
        kind="falsereject",
        title="FalseReject",
        source="https://huggingface.co/datasets/AmazonScience/FalseReject",
        licence="CC BY-NC 4.0",
        parts={"prompts": ("{split}.jsonl", "FalseReject_{split}.jsonl", "**/{split}.jsonl")},
        hub={"prompts": "AmazonScience/FalseReject"},
        labels=("harmful_prompt",),
        convert=convert_falsereject,
        split="test",
    )
)
