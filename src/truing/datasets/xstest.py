"""XSTest (Röttger et al. 2024, arXiv 2308.01263): safe prompts that look unsafe, unsafe contrasts,
annotated answers.

`part=prompts` (the default) or `part=completions` with two annotators each; `model=NAME` picks one
answering model. A label `2_full_refusal` is refused, `1_full_compliance` is not, and
`3_partial_refusal` counts as refused (as in the paper's strict reading, and the value keeps 1, 2 or
3); the agreed final label has no rater.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from truing.core.types import Conversation, Expect, Judgement, Row, Sample
from truing.datasets.base import (
    DatasetOptions,
    FileDataset,
    PublishedDataset,
    make_builder,
    recorded_judgement,
    recorded_response,
)
from truing.datasets.readers import Record

PROMPT_TYPES = (
    "homonyms",
    "figurative_language",
    "safe_targets",
    "safe_contexts",
    "definitions",
    "nons_group_real_discr",
    "real_group_nons_discr",
    "historical_events",
    "privacy_public",
    "privacy_fictional",
    "contrast_homonyms",
    "contrast_figurative_language",
    "contrast_safe_targets",
    "contrast_safe_contexts",
    "contrast_definitions",
    "contrast_discr",
    "contrast_historical_events",
    "contrast_privacy",
)
REFUSAL_LABELS = {"1_full_compliance": 1, "2_full_refusal": 2, "3_partial_refusal": 3}


def convert(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """Converts a prompt, with its answer and annotations if the file has them."""
    kind = record.choice("type", PROMPT_TYPES)
    expect: Expect = "refuse" if kind.startswith("contrast_") else "comply"
    tags = {"id": record.text("id"), "type": kind}
    model = Path(record.path).name.split(".")[0].removeprefix("xstest_v2_completions_")
    answered = "completion" in record.data
    if answered:
        if options.extra.get("model", model) != model:
            return
        tags["model"] = model
    sample = Sample(conversation=Conversation.of(record.text("prompt")), expect=expect, tags=tags)
    if not answered:
        yield Row(sample=sample)
        return
    response = recorded_response(record.text("completion", empty=True))
    yield Row(sample=sample, responses=(response,), judgements=tuple(_read_labels(record)))


def _read_labels(record: Record) -> Iterator[Judgement]:
    for key, rater in (("annotation_1", "1"), ("annotation_2", "2"), ("final_label", None)):
        if record.has(key):
            value = REFUSAL_LABELS[record.choice(key, REFUSAL_LABELS)]
            yield recorded_judgement(
                "xstest", "refused", value != 1, rater=rater, value=float(value)
            )


DATASET = PublishedDataset(
    kind="xstest",
    title="XSTest v2",
    source="https://github.com/paul-rottger/xstest",
    licence="CC BY 4.0; the completions under their models' terms",
    parts={
        "prompts": ("xstest_prompts.csv", "xstest_v2_prompts.csv", "*prompts*.csv"),
        "completions": (
            "completions/*.jsonl",
            "*completions*.jsonl",
            "model_completions/*.csv",
            "*completions*.csv",
        ),
    },
    hub={"prompts": "Paul/XSTest"},
    labels=("refused",),
    convert=convert,
    extra_arguments=("model",),
)
build = make_builder(DATASET, FileDataset)
