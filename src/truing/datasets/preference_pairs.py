"""`pairs:NAME`: preference pairs ordered by helpfulness, which the published sets lack.

| name | the better answer over the other | |
|---|---|---|
| `benign` | an answer over a short and a long refusal, to lookalike prompts | tag benign=yes |
| `truthful` | a correct over an incorrect answer of TruthfulQA | |
| `synthetic` | an answer of `of=(SPEC)` over a damaged copy or a refusal | tag synthetic=yes |
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
    """Returns n different refusals, chosen by a seed of the prompt."""
    return random.Random(stream_seed(0, prompt)).sample(REFUSALS, n)


def join_refusals(prompt: str, characters: int) -> str:
    """Joins refusals until they exceed a number of characters.

    Length alone then does not distinguish an answer from such a refusal.
    """
    text = ""
    for refusal in sample_refusals(prompt, len(REFUSALS))[1:]:
        text = f"{text} {refusal}".strip()
        if len(text) > characters:
            break
    return text


def _benign_row(record: Record, options: DatasetOptions) -> Iterable[Row]:
    sample = Sample(
        conversation=Conversation.of(record.text("prompt")), expect="comply", tags={"benign": "yes"}
    )
    yield Row(sample=sample, responses=(recorded_response(record.text("answer")),))


def _benign_pairs(record: Record, options: DatasetOptions) -> Iterable[Preference]:
    prompt, answer = record.text("prompt"), record.text("answer")
    # A short and a long refusal: with the short one alone a reward model could learn length.
    for refusal in (sample_refusals(prompt)[0], join_refusals(prompt, len(answer))):
        yield Preference(
            conversation=Conversation.of(prompt),
            chosen=Message("assistant", answer),
            rejected=Message("assistant", refusal),
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
    """Pairs derived from the rows of another data set; `limit` counts pairs."""

    def __init__(self, source: Dataset, spec: str, title: str, limit: int | None = None) -> None:
        self.source, self.limit = source, limit
        info = source.info
        self.info = DataInfo(
            spec=spec,
            title=title,
            source=info.source,
            licence=info.licence,
            red_team=info.red_team,
        )

    def sha256(self) -> str:
        """Returns the hash of the source data set."""
        return self.source.sha256()

    def rows(self) -> Iterator[Row]:
        """Returns the rows of the source data set."""
        return self.source.rows()

    def make_pairs(self, row: Row) -> Iterable[Preference]:
        """Returns the pairs of one row."""
        raise NotImplementedError

    def preferences(self) -> Iterator[Preference]:
        """Yields the pairs in the order of the rows."""
        count = 0
        for row in self.source.rows():
            for pair in self.make_pairs(row):
                if count == self.limit:
                    return
                count += 1
                yield pair


class TruthfulPairs(DerivedPairs):
    """A correct answer over an incorrect one, for at most three incorrect answers a question."""

    def make_pairs(self, row: Row) -> Iterable[Preference]:
        """Returns the pairs of one row; see the class."""
        sample = row.sample
        right = sample.answer if isinstance(sample.answer, tuple) else ()
        correct = [c for k, c in enumerate(sample.choices) if k in right]
        incorrect = [c for k, c in enumerate(sample.choices) if k not in right]
        rng = random.Random(stream_seed(0, sample.prompt))
        for incorrect_answer in rng.sample(incorrect, min(3, len(incorrect))):
            yield Preference(
                conversation=sample.conversation,
                chosen=Message("assistant", rng.choice(correct)),
                rejected=Message("assistant", incorrect_answer),
                dimension="helpful",
                source="truthfulqa",
            )


class SyntheticPairs(DerivedPairs):
    """An answer not labelled harmful over a damaged copy: shuffled, truncated, or a refusal."""

    def make_pairs(self, row: Row) -> Iterable[Preference]:
        """Returns the pairs of one row; see the class."""
        harmful_indices = {
            # An undecided label counts as harmful here: such an answer must not be taught as the
            # better.
            j.index
            for j in row.judgements
            if j.question == "harmful" and j.verdict is not False
        }
        for response in row.responses:
            text = response.text.strip()
            # A third of a very short answer, or its shuffle, may still be a good answer.
            if response.index in harmful_indices or len(text.split()) < 8:
                continue
            damage, damaged_text = damage_answer(row.sample.prompt, text)
            yield Preference(
                conversation=row.sample.conversation,
                chosen=Message("assistant", text),
                rejected=Message("assistant", damaged_text),
                dimension="helpful",
                source=f"synthetic:{damage}",
                tags={"synthetic": "yes", "damage": damage},
            )


def damage_answer(prompt: str, text: str) -> tuple[str, str]:
    """Returns (kind of damage, damaged text), chosen by a seed of the prompt and the text.

    The kinds: `shuffled` (words), `cut` (after a third of the words), `refused` (a refusal).
    """
    rng = random.Random(stream_seed(1, prompt, text))
    words = text.split()
    damage = ("shuffled", "cut", "refused")[rng.randrange(3)]
    if damage == "shuffled":
        shuffled = words[:]
        rng.shuffle(shuffled)
        # A shuffle may return the original order, which would make a pair of equal texts.
        return damage, " ".join(shuffled if shuffled != words else reversed(words))
    if damage == "cut":
        return damage, " ".join(words[: max(1, len(words) // 3)])
    return damage, sample_refusals(prompt)[0]


class JoinedPairs:
    """Several sets of pairs as one data set."""

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
        """Returns the hash of the hashes of the parts."""
        return hashlib.sha256("\n".join(p.sha256() for p in self.parts).encode()).hexdigest()

    def rows(self) -> Iterator[Row]:
        """Yields the rows of one part after the other."""
        for part in self.parts:
            yield from part.rows()

    def preferences(self) -> Iterator[Preference]:
        """Yields the pairs of one part after the other."""
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
    """`pairs:benign`, `pairs:truthful`, `pairs:helpful`, `pairs:synthetic,of=(SPEC)`; `half`,
    `limit`.
    """
    spec = str(args.spec)
    if args.name not in PAIR_SETS:
        raise args.fault(
            f"there is no set of pairs {args.name!r}{did_you_mean(args.name, PAIR_SETS)}"
        )
    if args.name == "benign":
        return _build_benign(args, spec)
    if args.name == "truthful":
        return _build_truthful(args, spec)
    if args.name == "synthetic":
        source: Dataset = args.required("of", "data")
        return SyntheticPairs(
            source, spec, "answers over damaged ones (synthetic)", args.integer("limit")
        )
    return JoinedPairs([_build_benign(args, spec), _build_truthful(args, spec)], spec)
