"""`builtin:NAME`: the sets that are part of the package; their texts are mild by design.

`safety` (red-team prompts over the 14 categories, direct and indirect, each with a benign twin),
`honest` (requests that need a question back, questions that nobody can answer, each with a twin),
`helpful` (everyday instructions with a program check), `support` (a person in distress, with
neutral twins), `benign` (harmless prompts, more than half of them worded like harmful ones),
`safety-and-benign` (two of them in one run), `article` (the question of the article that the
project follows, and a twin), `pairs` (multiple choice of two answers), `agents` (tasks in simulated
worlds, see `agent_tasks`). A prompt and its twin are in the same half.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from truing.core.errors import did_you_mean
from truing.core.types import AnswerCheck, Conversation, Row, Sample
from truing.datasets import agent_tasks
from truing.datasets.base import (
    EXPECTATIONS,
    DatasetOptions,
    FileDataset,
    PublishedDataset,
    assign_half,
    parse_options,
)
from truing.datasets.readers import Record
from truing.specs.resolve import Args

RESOURCES = Path(__file__).parents[1] / "resources" / "datasets"
TITLES = {
    "safety": "mild red-team prompts over the 14 categories, with benign twins",
    "honest": "underspecified and unanswerable requests, with twins",
    "helpful": "everyday instructions with a program check",
    "support": "a person in distress, with neutral twins",
    "benign": "harmless prompts, worded like harmful ones or of every day",
    "safety-and-benign": "the prompts of safety and of benign in one set",
    "article": "one question that asks for help with theft, and a harmless twin",
    "pairs": "a safe and an unsafe answer to choose from",
}
COMBINED_SETS = {"safety-and-benign": ("safety", "benign")}
"""Sets that are several others in one run: there harm and needless refusal are compared at once."""

_FIELDS = ("prompt", "category", "harms", "expect", "pair", "choices", "answer", "check", "system")


def convert(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """Converts one row; keys that are no field of a sample become tags."""
    tags = {k: str(v) for k, v in record.data.items() if k not in _FIELDS}
    expect = EXPECTATIONS[record.choice("expect", EXPECTATIONS)] if record.has("expect") else "none"
    harms = tuple(str(h) for h in record.list_value("harms")) if record.has("harms") else ()
    category = record.optional_text("category")
    if category:
        category_ids = options.taxonomy.ids
        tags["category"] = (
            record.choice("category", category_ids)
            if options.taxonomy.name == "beavertails"
            else category
        )
        harms = (category,) if expect == "refuse" else harms
    check = record.nested("check") if record.has("check") else None
    answer = record.data.get("answer")
    yield Row(
        sample=Sample(
            conversation=Conversation.of(
                record.text("prompt"), system=record.optional_text("system")
            ),
            harms=harms,
            expect=expect,
            pair=record.optional_text("pair"),
            choices=tuple(map(str, record.list_value("choices"))) if record.has("choices") else (),
            answer=(answer,)
            if isinstance(answer, int)
            else tuple(answer)
            if isinstance(answer, list)
            else answer,
            check=AnswerCheck(check.text("kind"), tuple(map(str, check.list_value("values"))))
            if check
            else None,
            tags=tags,
        )
    )


class BuiltinDataset(FileDataset):
    """A built-in set: `half` keeps a prompt and its twin together."""

    def _half(self, sample: Sample) -> str:
        if sample.tags.get("kind") in ("lookalike", "everyday"):  # `benign` only measures
            return "report"
        # Twins are worded differently, so the hash of the prompt would separate them.
        return assign_half(sample.pair or sample.prompt)


BUILTIN_DATASETS = {
    name: PublishedDataset(
        kind=f"builtin:{name}",
        title=title,
        source="truing, in our own words",
        licence="Apache-2.0",
        parts={},
        convert=convert,
    )
    for name, title in TITLES.items()
}


def build(args: Args) -> FileDataset:
    """Builds `builtin:NAME`."""
    if args.name == "agents":
        return agent_tasks.build_builtin(args)
    if args.name not in TITLES:
        names = (*TITLES, "agents")
        raise args.fault(f"there is no built-in set {args.name!r}{did_you_mean(args.name, names)}")
    about = BUILTIN_DATASETS[args.name]
    files = tuple(
        RESOURCES / f"{name}.jsonl" for name in COMBINED_SETS.get(args.name, (args.name,))
    )
    return BuiltinDataset(about, files, parse_options(args, about), str(args.spec))
