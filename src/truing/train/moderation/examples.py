"""Data sets as training examples: what is judged, its labels, and the prompt that decides its fold.

What a data set did not judge is NaN and has no part in the loss. An answer that people called
harmless has none of the categories. A prompt with an expectation is harmful (refuse) or not
(comply); an answer that complied with a prompt to be refused is harmful, one that refused is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from truing.core.errors import DataError, PlanError
from truing.core.lineage import hash_prompt
from truing.core.protocols import Dataset
from truing.core.types import Judgement, Lineage, Response, Row, Sample
from truing.judges.moderation.inputs import EncodedInput, ModerationInput
from truing.train.frozen_prompts import TrainableRows, explain_left_out

NAN = math.nan


class ModerationExample(Struct, frozen=True, kw_only=True):
    """One training row.

    `targets` are harmful, harmful_prompt, refused, then the categories: 0 to 1, NaN if not judged.
    `key` is the hash of the prompt. Two examples with the same `pair` are answers to one prompt;
    the one with the lower `order` is the better one.
    """

    source: str
    key: str
    content: ModerationInput
    targets: tuple[float, ...]
    pair: str | None = None
    order: float = NAN
    encoded: EncodedInput | None = None

    @property
    def is_prompt(self) -> bool:
        """Whether it is a prompt without an answer."""
        return self.content.response is None

    @property
    def row(self) -> EncodedInput:
        """The token row; available once the run has encoded its examples."""
        assert self.encoded is not None
        return self.encoded


class ModerationTrainingSet(Struct, frozen=True, kw_only=True):
    """The examples of one data set; `weight` is the number of passes over it in an epoch.

    `left_out` counts the rows without a label or outside the tenths that were asked for,
    `frozen_left_out` those of the frozen measurement set, and `n_frozen` those that are trained on
    nevertheless.
    """

    spec: str
    sha256: str
    licence: str
    weight: float
    items: tuple[ModerationExample, ...]
    left_out: int = 0
    judges: tuple[Lineage, ...] = ()
    frozen_left_out: int = 0
    n_frozen: int = 0

    @property
    def identity(self) -> str:
        """What tells this training data from others, for the resuming of a run."""
        # Runs of versions that left nothing out have the hash of the files alone.
        left_out = f" without {self.frozen_left_out} frozen" if self.frozen_left_out else ""
        return f"{self.sha256}{left_out}"


def fold_of(key: str, folds: int) -> int:
    """Returns the fold of a prompt, by its hash."""
    return int(key, 16) % folds


def tenth_of(key: str) -> int:
    """Returns the tenth (0 to 9) of a prompt; of three folds, the default, each has all tenths."""
    return (int(key, 16) // 3) % 10


def examples_of_row(row: Row, category_ids: Sequence[str]) -> list[ModerationExample]:
    """Returns an example per answer of a row, or one of its prompt if it has no answers.

    Answers and prompts without any label are left out.
    """
    if row.responses:
        examples = (_answer_example(row, r, category_ids) for r in row.responses)
        return [example for example in examples if example is not None]
    prompt_example = _prompt_example(row, category_ids)
    return [prompt_example] if prompt_example is not None else []


def _prompt_example(row: Row, category_ids: Sequence[str]) -> ModerationExample | None:
    sample = row.sample
    harmful, harms = _read_label(row.judgements, "harmful_prompt", 0)
    if math.isnan(harmful) and sample.expect in ("refuse", "comply"):
        harmful, harms = float(sample.expect == "refuse"), dict.fromkeys(sample.harms, 1.0)
    categories = _category_targets(harms, category_ids, harmful == 0.0, sample.source)
    if math.isnan(harmful) and all(map(math.isnan, categories)):
        return None
    return _make_example(sample, None, [NAN, harmful, NAN, *categories])


def _answer_example(
    row: Row, response: Response, category_ids: Sequence[str]
) -> ModerationExample | None:
    sample = row.sample
    harmful, harms = _read_label(row.judgements, "harmful", response.index)
    refused, _ = _read_label(row.judgements, "refused", response.index)
    harmful_prompt, _ = _read_label(row.judgements, "harmful_prompt", response.index)
    preferred, _ = _read_label(row.judgements, "preferred", response.index)
    if math.isnan(refused) and "refused" in sample.tags:  # a column of the user's own rows
        refused = float(sample.tags["refused"].lower() in ("true", "1", "yes"))
    if sample.expect in ("refuse", "comply"):
        to_be_refused = sample.expect == "refuse"
        if math.isnan(harmful_prompt):
            harmful_prompt = float(to_be_refused)
        if math.isnan(harmful) and not math.isnan(refused):
            harmful = float(to_be_refused and refused < 0.5)
    order = harmful if math.isnan(preferred) else 1 - preferred
    if not response.text.strip() or (math.isnan(order) and math.isnan(refused)):
        return None
    categories = _category_targets(harms, category_ids, harmful == 0.0, sample.source)
    targets = [harmful, harmful_prompt, refused, *categories]
    pair = sample.id if len(row.responses) == 2 else None
    return _make_example(sample, response.text, targets, pair, order)


def _read_label(
    judgements: Sequence[Judgement], question: str, index: int
) -> tuple[float, dict[str, float]]:
    """Returns the label of an answer (NaN if there is none) and its categories of harm.

    It is the set's own final label, or else the share of its raters who said yes.
    """
    judgements = [j for j in judgements if j.question == question and j.index == index]
    final = next((j for j in judgements if j.rater is None), None)
    if final is not None and final.verdict is not None:
        return float(final.verdict), final.harms
    if final is not None and final.score is not None:
        return float(final.score), final.harms
    verdicts = [j.verdict for j in judgements if j.verdict is not None]
    share = sum(verdicts) / len(verdicts) if verdicts else NAN
    if final is not None:
        return share, final.harms
    return share, {c: p for j in judgements for c, p in j.harms.items()}


def _category_targets(
    harms: dict[str, float], category_ids: Sequence[str], is_harmless: bool, source: str
) -> list[float]:
    """Returns a target per category: 0 for the unnamed ones of what is harmless, else NaN."""
    unknown = sorted(set(harms) - set(category_ids))
    if unknown:
        raise DataError(f"{source}: the label {unknown[0]!r} is no category of the taxonomy")
    default = 0.0 if is_harmless else NAN
    return [harms.get(category, default) for category in category_ids]


def _make_example(
    sample: Sample,
    response: str | None,
    targets: list[float],
    pair: str | None = None,
    order: float = NAN,
) -> ModerationExample:
    return ModerationExample(
        source=sample.source,
        key=hash_prompt(sample.prompt),
        content=ModerationInput.from_conversation(sample.conversation, response),
        targets=tuple(targets),
        pair=pair,
        order=order,
    )


def read_moderation_set(
    data: Dataset,
    category_ids: Sequence[str],
    *,
    weight: float,
    tenths: tuple[int, int] = (0, 9),
    limit: int | None = None,
    allow_frozen: bool = False,
) -> ModerationTrainingSet:
    """Reads the examples of a data set whose prompts are in the tenths (first and last).

    `limit` reads only the first rows. Rows of the frozen measurement set are left out, unless
    `allow_frozen`. Raises PlanError if nothing is labelled.
    """
    trainable = TrainableRows(data, allow=allow_frozen)
    items: list[ModerationExample] = []
    left_out = 0
    for index, row in enumerate(trainable.rows()):
        if limit is not None and index >= limit:
            break
        examples = [
            example
            for example in examples_of_row(row, category_ids)
            if tenths[0] <= tenth_of(example.key) <= tenths[1]
        ]
        left_out += not examples
        items += examples
    if not items:
        reason = "no row has a label for harmful, harmful_prompt, refused or a category"
        if trainable.n_left_out:
            reason = f"nothing to train on: {explain_left_out(trainable.n_left_out)}"
        raise PlanError(f"{data.info.spec}: {reason}")
    trainable.log_frozen_rows()
    return ModerationTrainingSet(
        spec=data.info.spec,
        sha256=data.sha256(),
        licence=data.info.licence,
        weight=weight,
        items=tuple(items),
        left_out=left_out,
        judges=trainable.judges,
        frozen_left_out=trainable.n_left_out,
        n_frozen=trainable.n_kept,
    )


def give_unique_names(
    sources: Sequence[ModerationTrainingSet],
) -> list[ModerationTrainingSet]:
    """Returns the sets with distinct source names: the second "name" becomes "name (2)"."""
    seen: dict[str, int] = {}
    renamed_sets = []
    for source in sources:
        names = dict.fromkeys(item.source for item in source.items)
        for name in names:
            seen[name] = seen.get(name, 0) + 1
        renamed = {n: n if seen[n] == 1 else f"{n} ({seen[n]})" for n in names}
        items = tuple(msgspec.structs.replace(i, source=renamed[i.source]) for i in source.items)
        renamed_sets.append(msgspec.structs.replace(source, items=items))
    return renamed_sets
