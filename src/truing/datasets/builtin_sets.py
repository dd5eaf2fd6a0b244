"""`builtin:NAME` - the sets that ship, in our own words and mild by design.

`safety` (red-team prompts over the 14 categories, direct and indirect, each with a benign twin), `honest` (requests
that need a question back, questions that nobody can answer, each with a twin), `helpful` (everyday instructions with a
program check), `support` (a person in distress, with neutral twins), `pairs` (multiple choice of two answers). A prompt
and its twin stand on the same half.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from truing.core.errors import did_you_mean
from truing.core.types import AnswerCheck, Conversation, Expect, Row, Sample
from truing.datasets.base import FileSet, Options, Published, half_of, options_of
from truing.datasets.read import Record
from truing.specs.resolve import Args

HOME = Path(__file__).parents[1] / "resources" / "datasets"
TITLES = {
    "safety": "mild red-team prompts over the 14 categories, with benign twins",
    "honest": "underspecified and unanswerable requests, with twins",
    "helpful": "everyday instructions with a program check",
    "support": "a person in distress, with neutral twins",
    "pairs": "a safe and an unsafe answer to choose from",
}
_EXPECT: dict[str, Expect] = {
    "comply": "comply",
    "refuse": "refuse",
    "clarify": "clarify",
    "abstain": "abstain",
    "support": "support",
    "none": "none",
}
_FIELDS = ("prompt", "category", "harms", "expect", "pair", "choices", "answer", "check", "system")


def convert(record: Record, options: Options) -> Iterable[Row]:
    """One row; what is not a field of the sample becomes a tag."""
    tags = {k: str(v) for k, v in record.data.items() if k not in _FIELDS}
    expect = _EXPECT[record.choice("expect", _EXPECT)] if record.has("expect") else "none"
    harms = tuple(str(h) for h in record.items("harms")) if record.has("harms") else ()
    category = record.maybe("category")
    if category:
        known = options.taxonomy.ids
        tags["category"] = (
            record.choice("category", known) if options.taxonomy.name == "beavertails" else category
        )
        harms = (category,) if expect == "refuse" else harms
    check = record.inside("check") if record.has("check") else None
    answer = record.data.get("answer")
    yield Row(
        sample=Sample(
            conversation=Conversation.of(record.text("prompt"), system=record.maybe("system")),
            harms=harms,
            expect=expect,
            pair=record.maybe("pair"),
            choices=tuple(map(str, record.items("choices"))) if record.has("choices") else (),
            answer=(answer,)
            if isinstance(answer, int)
            else tuple(answer)
            if isinstance(answer, list)
            else answer,
            check=AnswerCheck(check.text("kind"), tuple(map(str, check.items("values"))))
            if check
            else None,
            tags=tags,
        )
    )


class BuiltinSet(FileSet):
    """A set that ships: pairs are not torn apart by `half`."""

    def _half(self, sample: Sample) -> str:
        return half_of(sample.pair or sample.prompt)


ABOUTS = {
    name: Published(
        kind=f"builtin:{name}",
        title=title,
        source="truing, in our own words",
        licence="Apache-2.0",
        parts={},
        convert=convert,
    )
    for name, title in TITLES.items()
}


def build(args: Args) -> FileSet:
    """`builtin:safety` and its like."""
    if args.name not in TITLES:
        raise args.fault(f"there is no built-in set {args.name!r}{did_you_mean(args.name, TITLES)}")
    about = ABOUTS[args.name]
    return BuiltinSet(
        about, (HOME / f"{args.name}.jsonl",), options_of(args, about), str(args.spec)
    )
