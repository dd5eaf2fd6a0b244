"""Reads data sets as training examples: which answers are learned, which rows are dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from truing.core.errors import DataError, LineageError, PlanError
from truing.core.judgement_scores import LOWER_IS_BETTER_QUESTIONS
from truing.core.lineage import hash_prompt
from truing.core.protocols import Dataset
from truing.core.types import Preference, Row
from truing.train.examples import TrainingExample, TrainingSet
from truing.train.frozen_prompts import FROZEN_REASON, TrainableRows
from truing.train.harm_check import check_training_data
from truing.train.settings import TrainingKind

# What a pair must be ordered by to train these kinds, where a data set has several dimensions.
_DIMENSIONS = {"reward": "helpful", "cost": "safe"}

PairKey = tuple[str, str, str]  # (dialogue, preferred answer, other answer)


def read_training_set(
    data: Dataset,
    kind: TrainingKind,
    *,
    weight: float = 1.0,
    chosen: bool = False,
    allow_red_team: bool = False,
    limit: int | None = None,
    harmful: bool = False,
    testing: bool = False,
) -> TrainingSet:
    """Reads the examples of a data set for a kind of training.

    sft learns recorded answers that nobody called harmful (`harmful` keeps those too, for a red
    model). It refuses preference pairs unless `chosen` says that their preferred answers are the
    targets. `testing` reads any set of pairs, to measure a model on it. `limit` keeps the first
    examples. Rows of the frozen measurement set are dropped, unless `testing`, or as
    `TrainableRows(data, allow=True)` is given.
    Raises PlanError for data that must not train the kind, and DataError if nothing is left.
    """
    if not weight > 0:
        raise PlanError(f"{data.info.spec}: weight = {weight}: must be above 0")
    if not testing:
        check_training_data(data.info, allow_red_team=allow_red_team)
    dropped: Counter[str] = Counter()
    trainable = data if isinstance(data, TrainableRows) else TrainableRows(data, allow=testing)
    if kind == "sft":
        examples = list(_read_targets(trainable, dropped, chosen=chosen, harmful=harmful))
    elif kind == "distil":
        examples = list(_read_sampled_answers(trainable, dropped))
    elif kind == "kto":
        examples = _read_unpaired_answers(trainable, dropped)
    else:
        examples = _read_pairs(trainable, kind, dropped)
    if trainable.n_left_out:
        dropped[FROZEN_REASON] = trainable.n_left_out
    if limit is not None:
        examples = examples[:limit]
    if not examples:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
        reasons = reasons or "it has no rows of this kind"
        raise DataError(f"{data.info.spec}: nothing left for {kind} after filtering: {reasons}")
    if not testing:
        trainable.log_frozen_rows()
    return TrainingSet(
        spec=data.info.spec,
        sha256=data.sha256(),
        items=tuple(examples),
        weight=weight,
        licence=data.info.licence,
        dropped=dict(dropped),
        judges=trainable.judges,
        n_frozen=0 if testing else trainable.n_kept,
    )


# -- answers to imitate (sft, distil)


def _read_targets(
    dataset: Dataset, dropped: Counter[str], *, chosen: bool, harmful: bool
) -> Iterator[TrainingExample]:
    if next(dataset.preferences(), None) is not None:
        if not chosen:
            raise PlanError(
                f"{dataset.info.spec}: holds preference pairs, not examples to imitate; "
                "--chosen takes their preferred answers as targets"
            )
        yield from _read_preferred_answers(dataset, dropped, harmful=harmful)
        return
    if not dataset.info.imitate and not chosen:
        raise PlanError(
            f"{dataset.info.spec}: its answers are there to be compared or judged, "
            "not to be imitated; "
            "--chosen takes them as targets nevertheless"
        )
    for index, row in enumerate(dataset.rows()):
        verdicts = {j.index: j.verdict for j in row.judgements if j.question == "harmful"}
        for response in row.responses:
            is_harmful = verdicts.get(response.index)
            if not response.text.strip():
                dropped["empty"] += 1
            elif is_harmful and not harmful:
                dropped["labelled harmful"] += 1
            else:
                sign = None if is_harmful is None else (-1 if is_harmful else 1)
                cut = response.finish_reason == "length"
                yield _example_of_row(row, index, response.text, sign, cut=cut)
        if not row.responses:
            dropped["without an answer"] += 1


def _read_preferred_answers(
    data: Dataset, dropped: Counter[str], *, harmful: bool
) -> Iterator[TrainingExample]:
    for index, pair in enumerate(data.preferences()):
        sign = None if pair.signs is None else pair.signs[0]
        if sign == -1 and not harmful:
            dropped["labelled harmful"] += 1
            continue
        example = _example_of_pair(pair, index)
        if not example.answers[0].strip():
            dropped["empty"] += 1
            continue
        yield replace(
            example, answers=example.answers[:1], signs=None if sign is None else (sign, sign)
        )


def _read_sampled_answers(data: Dataset, dropped: Counter[str]) -> Iterator[TrainingExample]:
    for index, row in enumerate(data.rows()):
        for response in row.responses:
            if response.text.strip():
                cut = response.finish_reason == "length"
                yield _example_of_row(row, index, response.text, cut=cut)
            else:
                dropped["empty"] += 1
        if not row.responses:
            dropped["without an answer"] += 1


def _example_of_row(
    row: Row, index: int, answer: str, sign: int | None = None, *, cut: bool = False
) -> TrainingExample:
    sample = row.sample
    return TrainingExample(
        name=f"{sample.source}#{sample.id or index}",
        conversation=sample.conversation,
        answers=(answer,),
        signs=None if sign is None else (sign, sign),
        harms=sample.harms,
        source=sample.source,
        cut=cut,
    )


# -- pairs (reward, cost, dpo)


def _example_of_pair(pair: Preference, index: int) -> TrainingExample:
    return TrainingExample(
        name=f"{pair.source}#{index}",
        conversation=pair.conversation,
        answers=(pair.chosen.content, pair.rejected.content),
        signs=pair.signs,
        margin=pair.margin,
        harms=pair.harms,
        benign=pair.tags.get("benign") == "yes",
        synthetic=pair.tags.get("synthetic") == "yes",
        cut=pair.tags.get("cut") == "yes",
        source=pair.source,
    )


def _read_pairs(
    dataset: Dataset, kind: TrainingKind, dropped: Counter[str]
) -> list[TrainingExample]:
    """Returns the distinct pairs; equal answers, repeated and contradictory pairs are dropped."""
    pairs = list(dataset.preferences())
    # Of a set that is ordered by one dimension alone every pair is taken, whatever the dimension.
    dimension = _DIMENSIONS.get(kind)
    filters_by_dimension = dimension in {pair.dimension for pair in pairs}
    examples: list[TrainingExample] = []
    index_by_key: dict[PairKey, int] = {}
    for index, pair in enumerate(pairs):
        if filters_by_dimension and pair.dimension != dimension:
            dropped[f"of the other dimension ({pair.dimension})"] += 1
            continue
        if kind == "cost" and pair.signs is None:
            dropped["without safety signs"] += 1
            continue
        if kind == "cost" and pair.signs == (-1, 1):
            raise DataError(
                f"{dataset.info.spec}: pair {index}: the preferred answer is labelled unsafe "
                "and the other one safe"
            )
        example = _example_of_pair(pair, index)
        key = _pair_key(example)
        if key[1] == key[2]:
            dropped["equal pairs"] += 1
        elif key in index_by_key:
            dropped["repeated"] += 1
        else:
            index_by_key[key] = len(examples)
            examples.append(example)

    contradictory = {
        index
        for (dialogue, preferred, other), index in index_by_key.items()
        if (dialogue, other, preferred) in index_by_key
    }
    if contradictory:
        dropped["contradictory pairs"] = len(contradictory)
    return [example for index, example in enumerate(examples) if index not in contradictory]


def _pair_key(example: TrainingExample) -> PairKey:
    dialogue = "\n".join(f"{m.role}: {m.content}" for m in example.conversation.messages)
    return dialogue, example.answers[0].strip(), example.answers[1].strip()


# -- single answers that are desirable or not (kto)


def _read_unpaired_answers(dataset: Dataset, dropped: Counter[str]) -> list[TrainingExample]:
    """Returns the answers of all pairs; of a set without pairs, the labelled answers."""
    examples: list[TrainingExample] = []
    for pair in _read_pairs(dataset, "dpo", dropped):
        for answer, desirable in ((0, True), (1, False)):
            sign = None if pair.signs is None else pair.signs[answer]
            examples.append(
                replace(
                    pair,
                    name=f"{pair.name}.{answer}",
                    answers=(pair.answers[answer],),
                    desirable=desirable,
                    signs=None if sign is None else (sign, sign),
                )
            )
    return examples or list(_read_labelled_answers(dataset, dropped))


def _read_labelled_answers(data: Dataset, dropped: Counter[str]) -> Iterator[TrainingExample]:
    for index, row in enumerate(data.rows()):
        for response in row.responses:
            # The first judgement of an answer decides.
            judgements = (j for j in row.judgements if j.index == response.index)
            first = next(judgements, None)
            desirable = None if first is None else _is_desirable(first.question, first.verdict)
            if desirable is None or not response.text.strip():
                dropped["without a label or answer"] += 1
                continue
            yield replace(_example_of_row(row, index, response.text), desirable=desirable)


def _is_desirable(question: str, verdict: bool | None) -> bool | None:
    if verdict is None:
        return None
    return not verdict if question in LOWER_IS_BETTER_QUESTIONS else verdict


def check_no_test_overlap(
    sources: Sequence[TrainingSet], tests: Mapping[str, Sequence[TrainingExample]]
) -> None:
    """Raises LineageError if a prompt of a test set (name -> examples) is also trained on."""
    trained = {hash_prompt(i.conversation.prompt) for s in sources for i in s.items}
    for name, items in tests.items():
        tested = {hash_prompt(i.conversation.prompt) for i in items}
        overlap = len(tested & trained)
        if overlap:
            raise LineageError(
                f"--test {name}: {overlap} of its prompts are trained on; "
                "take another half (half=report)"
            )
