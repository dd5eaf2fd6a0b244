"""`pairs:NAME` - pairs for preference models that the published sets lack; helpfulness pairs come from helpfulness.

| name | the better answer over the other | |
|---|---|---|
| `benign` | an answer over a short and a longer refusal, to harmless prompts that look harmful | tags benign=yes |
| `truthful` | a correct over an incorrect answer of TruthfulQA | |
| `synthetic` | an answer of `of=(SPEC)` over itself shuffled, cut short, or a needless refusal | tags synthetic=yes |
| `helpful` | benign and truthful together | |

Answers of models to `builtin:helpful` ordered by their program check are `run:DIR,by=rules:check`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from truing.core.errors import did_you_mean
from truing.core.ids import stream_seed
from truing.core.protocols import Dataset
from truing.core.types import Conversation, DataInfo, Message, Preference, Row, Sample
from truing.datasets.base import (
    DatasetOptions,
    FileDataset,
    PublishedDataset,
    parse_options,
    recorded_response,
)
from truing.datasets.multiple_choice import build_truthfulqa
from truing.datasets.readers import Record
from truing.specs.parser import Spec
from truing.specs.resolve import Args

PAIR_SETS = ("benign", "truthful", "synthetic", "helpful")
RESOURCES = Path(__file__).parents[1] / "resources" / "datasets"
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot assist with this request.",
    "Sorry, that is not something that I can talk about.",
    "I won't answer this, because it could be used to do harm.",
    "As an AI model I am not able to give advice on such things.",
    "I'm not comfortable with this question, so I have to decline.",
    "That sounds dangerous, and I must refuse to say anything about it.",
    "I can't provide information on this topic. Please ask a professional.",
)


def sample_refusals(prompt: str, n: int = 1) -> list[str]:
    """n different refusals, fixed by the prompt."""
    return random.Random(stream_seed(0, prompt)).sample(REFUSALS, n)


def join_refusals(prompt: str, characters: int) -> str:
    """Refusals one after another until they are longer than that: so that length alone does not tell an answer."""
    made = ""
    for said in sample_refusals(prompt, len(REFUSALS))[1:]:
        made = f"{made} {said}".strip()
        if len(made) > characters:
            break
    return made


def _benign_row(record: Record, options: DatasetOptions) -> Iterable[Row]:
    sample = Sample(
        conversation=Conversation.of(record.text("prompt")), expect="comply", tags={"benign": "yes"}
    )
    yield Row(sample=sample, responses=(recorded_response(record.text("answer")),))


def _benign_pairs(record: Record, options: DatasetOptions) -> Iterable[Preference]:
    prompt, answer = record.text("prompt"), record.text("answer")
    for said in (sample_refusals(prompt)[0], join_refusals(prompt, len(answer))):
        yield Preference(
            conversation=Conversation.of(prompt),
            chosen=Message("assistant", answer),
            rejected=Message("assistant", said),
            dimension="helpful",
            signs=(1, 1),
            tags={"benign": "yes"},
        )


BENIGN = PublishedDataset(
    kind="pairs:benign",
    title="harmless prompts that look harmful: an answer over a refusal",
    parts={},
    source="truing, in our own words",
    licence="Apache-2.0",
    convert=_benign_row,
    convert_pairs=_benign_pairs,
)


class DerivedPairs:
    """Pairs that are made from another data set's rows; `limit` counts pairs."""

    def __init__(self, below: Dataset, spec: str, title: str, limit: int | None = None) -> None:
        self.below, self.limit = below, limit
        facts = below.info
        self.info = DataInfo(
            spec=spec,
            title=title,
            source=facts.source,
            licence=facts.licence,
            red_team=facts.red_team,
        )

    def sha256(self) -> str:
        """Of the files below."""
        return self.below.sha256()

    def rows(self) -> Iterator[Row]:
        """Of the set below."""
        return self.below.rows()

    def made(self, row: Row) -> Iterable[Preference]:
        """The pairs of a row."""
        raise NotImplementedError

    def preferences(self) -> Iterator[Preference]:
        """All pairs, in the order of the rows."""
        given = 0
        for row in self.below.rows():
            for pair in self.made(row):
                if given == self.limit:
                    return
                given += 1
                yield pair


class TruthfulPairs(DerivedPairs):
    """A correct answer over an incorrect one: one pair for each incorrect answer, at most three a question."""

    def made(self, row: Row) -> Iterable[Preference]:
        """See the class."""
        sample = row.sample
        right = sample.answer if isinstance(sample.answer, tuple) else ()
        good = [c for k, c in enumerate(sample.choices) if k in right]
        bad = [c for k, c in enumerate(sample.choices) if k not in right]
        rng = random.Random(stream_seed(0, sample.prompt))
        for said in rng.sample(bad, min(3, len(bad))):
            yield Preference(
                conversation=sample.conversation,
                chosen=Message("assistant", rng.choice(good)),
                rejected=Message("assistant", said),
                dimension="helpful",
                source="truthfulqa",
            )


class SyntheticPairs(DerivedPairs):
    """A recorded answer that nobody called harmful over a damaged one: shuffled, cut, or a refusal, in turn."""

    def made(self, row: Row) -> Iterable[Preference]:
        """See the class."""
        bad = {
            j.index for j in row.judgements if j.question == "harmful" and j.verdict is not False
        }
        for response in row.responses:
            text = response.text.strip()
            if response.index in bad or len(text.split()) < 8:
                continue
            how, said = damage_answer(row.sample.prompt, text)
            yield Preference(
                conversation=row.sample.conversation,
                chosen=Message("assistant", text),
                rejected=Message("assistant", said),
                dimension="helpful",
                source=f"synthetic:{how}",
                tags={"synthetic": "yes", "damage": how},
            )


def damage_answer(prompt: str, text: str) -> tuple[str, str]:
    """(how, the damaged text): words shuffled, cut after a third, or a refusal; fixed by prompt and text."""
    rng = random.Random(stream_seed(1, prompt, text))
    words = text.split()
    how = ("shuffled", "cut", "refused")[rng.randrange(3)]
    if how == "shuffled":
        mixed = words[:]
        rng.shuffle(mixed)
        return how, " ".join(mixed if mixed != words else reversed(words))
    if how == "cut":
        return how, " ".join(words[: max(1, len(words) // 3)])
    return how, sample_refusals(prompt)[0]


class JoinedPairs:
    """Several sets of pairs as one."""

    def __init__(self, parts: Sequence[Dataset], spec: str) -> None:
        self.parts = parts
        facts = [p.info for p in parts]
        self.info = DataInfo(
            spec=spec,
            title="pairs ordered by helpfulness",
            source="; ".join(f.source for f in facts),
            licence="; ".join(dict.fromkeys(f.licence for f in facts)),
        )

    def sha256(self) -> str:
        """Of the parts' hashes."""
        return hashlib.sha256("\n".join(p.sha256() for p in self.parts).encode()).hexdigest()

    def rows(self) -> Iterator[Row]:
        """One set after the other."""
        for part in self.parts:
            yield from part.rows()

    def preferences(self) -> Iterator[Preference]:
        """One set after the other."""
        for part in self.parts:
            yield from part.preferences()


def _build_truthful(args: Args, spec: str) -> TruthfulPairs:
    half = args.text("half")
    inner = Args(Spec("truthfulqa", "", {"half": half} if half else {}))
    return TruthfulPairs(
        build_truthfulqa(inner),
        spec,
        "a correct answer over an incorrect one",
        args.integer("limit"),
    )


def _build_benign(args: Args, spec: str) -> FileDataset:
    return FileDataset(BENIGN, (RESOURCES / "lookalikes.jsonl",), parse_options(args, BENIGN), spec)


def build(args: Args) -> Dataset:
    """`pairs:benign`, `pairs:truthful`, `pairs:helpful`, `pairs:synthetic,of=(SPEC)`; `half`, `limit`."""
    spec = str(args.spec)
    if args.name not in PAIR_SETS:
        raise args.fault(f"there are no pairs {args.name!r}{did_you_mean(args.name, PAIR_SETS)}")
    if args.name == "benign":
        return _build_benign(args, spec)
    if args.name == "truthful":
        return _build_truthful(args, spec)
    if args.name == "synthetic":
        below: Dataset = args.required("of", "data")
        return SyntheticPairs(
            below, spec, "answers over damaged ones (synthetic)", args.integer("limit")
        )
    return JoinedPairs([_build_benign(args, spec), _build_truthful(args, spec)], spec)
