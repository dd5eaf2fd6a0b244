"""Aegis 2.0, also published as Nemotron Content Safety V2 (Ghosh et al. 2025, NAACL): prompts
labelled by people, answers labelled by people or by three language models.
"""

from __future__ import annotations

from collections.abc import Iterable

from truing.core.taxonomy import load_crosswalk
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

_LABELS = ("safe", "unsafe")
# Published source of an answer's label, if not a person -> the name of the recorded judge: a jury
# of three models, and refusals that a model wrote, which are safe by construction.
_MACHINE_SOURCES = {
    "llm_jury": "llm-jury:aegis-2",
    "refusal_data_augmentation": "construction:aegis-2",
}


def convert(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A prompt, with its answer where there is one, and the labels of both."""
    harms = _read_harms(record)
    answer = record.data.get("response")
    # An empty text counts as an answer only if it has a label.
    has_answer = isinstance(answer, str) and (bool(answer) or record.has("response_label"))
    unsafe_prompt = record.choice("prompt_label", _LABELS) == "unsafe"
    judgements = [_label("aegis-2", "harmful_prompt", unsafe_prompt, harms)]
    if has_answer and record.has("response_label"):
        source = record.optional_text("response_label_source") or "human"
        unsafe_answer = record.choice("response_label", _LABELS) == "unsafe"
        judge = "aegis-2"
        if source != "human":
            judge = _MACHINE_SOURCES[record.choice("response_label_source", _MACHINE_SOURCES)]
        judgements.append(_label(judge, "harmful", unsafe_answer, harms))
    expect: Expect = "refuse" if unsafe_prompt else "comply"
    yield Row(
        sample=Sample(
            conversation=Conversation.of(record.text("prompt")),
            harms=harms if unsafe_prompt else (),
            expect=expect,
            tags={"id": record.optional_text("id") or ""},
        ),
        responses=(recorded_response(str(answer)),) if has_answer else (),
        judgements=tuple(judgements),
    )


def _label(judge: str, question: str, unsafe: bool, harms: tuple[str, ...]) -> Judgement:
    return recorded_judgement(
        judge, question, unsafe, harms=dict.fromkeys(harms, 1.0) if unsafe else {}
    )


def _read_harms(record: Record) -> tuple[str, ...]:
    """Returns the categories of the dialogue, the most frequently annotated first."""
    crosswalk = load_crosswalk("aegis_2")
    harms: dict[str, None] = {}
    for name in (record.optional_text("violated_categories") or "").split(","):
        label = name.strip()
        if not label:
            continue
        if label not in crosswalk.map:
            raise record.error(
                f"violated_categories: {label[:40]!r} is none of the published categories"
            )
        harms.update(dict.fromkeys(crosswalk(label)))
    return tuple(harms)


class Aegis2Dataset(FileDataset):
    """Leaves out, and counts in `skipped`, the rows whose text is not published with the set."""

    def convert(self, record: Record) -> list[Row]:
        """Returns the row of a record; none for a redacted one."""
        if record.data.get("prompt") == "REDACTED":
            self.skipped += 1
            return []
        return super().convert(record)


DATASET = PublishedDataset(
    kind="aegis-2",
    title="Aegis 2.0 (Nemotron Content Safety V2)",
    source="https://huggingface.co/datasets/nvidia/Aegis-AI-Content-Safety-Dataset-2.0",
    licence="CC BY 4.0",
    folder="aegis_2",
    parts={
        "dialogues": ("{split}.json", "{split}.jsonl", "**/{split}.json"),
        "refusals": ("refusals_{split}.json", "**/refusals_{split}.json"),
    },
    hub=dict.fromkeys(("dialogues", "refusals"), "nvidia/Aegis-AI-Content-Safety-Dataset-2.0"),
    labels=("harmful_prompt", "harmful"),
    convert=convert,
    split="test",
)
build = make_builder(DATASET, Aegis2Dataset)
