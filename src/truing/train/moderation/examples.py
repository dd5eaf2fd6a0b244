"""Data sets as training rows: what is judged, the labels that the set gives, and the prompt by which folds are made.

What a set did not judge is NaN and has no part in the loss. An answer that people called harmless has none of the
categories; a prompt with an expectation is harmful (refuse) or not (comply); an answer that complied with a prompt that
is to be refused is harmful, one that refused is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from truing.core.errors import DataError, PlanError
from truing.core.lineage import hash_prompt
from truing.core.protocols import Dataset
from truing.core.types import Judgement, Lineage, Sample
from truing.core.types import Row as DataRow
from truing.judges.moderation.inputs import EncodedInput, ModerationInput

NAN = math.nan


class ModerationExample(Struct, frozen=True, kw_only=True):
    """One row. `targets`: harmful, harmful_prompt, refused, then the categories; `pair` and `order` rank two answers."""

    source: str
    key: str
    piece: ModerationInput
    targets: tuple[float, ...]
    pair: str | None = None
    order: float = NAN
    encoded: EncodedInput | None = None

    @property
    def alone(self) -> bool:
        """Whether it is a prompt without an answer."""
        return self.piece.response is None

    @property
    def row(self) -> EncodedInput:
        """The token row; encoded before training begins."""
        assert self.encoded is not None
        return self.encoded


class ModerationTrainingSet(Struct, frozen=True, kw_only=True):
    """The rows of one data set, its passes an epoch, and what was left out."""

    spec: str
    sha256: str
    licence: str
    weight: float
    items: tuple[ModerationExample, ...]
    left_out: int = 0
    judges: tuple[Lineage, ...] = ()


def fold_of(key: str, folds: int) -> int:
    """The fold of a prompt, by its hash."""
    return int(key, 16) % folds


def tenth_of(key: str) -> int:
    """The tenth (0 to 9) in which a prompt lies; independent of its fold."""
    return (int(key, 16) // 3) % 10


def _said(found: Sequence[Judgement], question: str, index: int) -> tuple[float, dict[str, float]]:
    """The set's own final label, or the share of its raters; NaN where there is none. With the categories."""
    of = [j for j in found if j.question == question and j.index == index]
    final = next((j for j in of if j.rater is None), None)
    if final is not None and (final.verdict is not None or final.score is not None):
        value = float(final.verdict) if final.verdict is not None else float(final.score or 0.0)
        return value, final.harms
    votes = [j.verdict for j in of if j.verdict is not None]
    harms = {c: p for j in of for c, p in j.harms.items()}
    return (sum(votes) / len(votes) if votes else NAN), (
        final.harms if final is not None else harms
    )


def _categories(harms: dict[str, float], ids: Sequence[str], safe: bool, where: str) -> list[float]:
    unknown = sorted(set(harms) - set(ids))
    if unknown:
        raise DataError(f"{where}: the label {unknown[0]!r} is no category of the taxonomy")
    if safe:
        return [harms.get(i, 0.0) for i in ids]
    return [harms.get(i, NAN) for i in ids]


def _prompt_item(row: DataRow, ids: Sequence[str]) -> ModerationExample | None:
    sample = row.sample
    value, harms = _said(row.judgements, "harmful_prompt", 0)
    if math.isnan(value) and sample.expect in ("refuse", "comply"):
        value, harms = float(sample.expect == "refuse"), dict.fromkeys(sample.harms, 1.0)
    cats = _categories(harms, ids, value == 0.0, sample.source)
    if math.isnan(value) and all(map(math.isnan, cats)):
        return None
    return _item(sample, None, [NAN, value, NAN, *cats])


def _item(
    sample: Sample,
    response: str | None,
    targets: list[float],
    pair: str | None = None,
    order: float = NAN,
) -> ModerationExample:
    return ModerationExample(
        source=sample.source,
        key=hash_prompt(sample.prompt),
        piece=ModerationInput.of(sample.conversation, response),
        targets=tuple(targets),
        pair=pair,
        order=order,
    )


def _answer_items(row: DataRow, ids: Sequence[str]) -> Iterator[ModerationExample]:
    sample = row.sample
    two = len(row.responses) == 2
    for response in row.responses:
        harmful, harms = _said(row.judgements, "harmful", response.index)
        refused, _ = _said(row.judgements, "refused", response.index)
        asked, _ = _said(row.judgements, "harmful_prompt", response.index)
        preferred, _ = _said(row.judgements, "preferred", response.index)
        if math.isnan(refused) and "refused" in sample.tags:  # a column of one's own rows
            refused = float(sample.tags["refused"].lower() in ("true", "1", "yes"))
        if math.isnan(asked) and sample.expect in ("refuse", "comply"):
            asked = float(sample.expect == "refuse")
        if (
            math.isnan(harmful)
            and not math.isnan(refused)
            and sample.expect in ("refuse", "comply")
        ):
            harmful = float(sample.expect == "refuse" and refused < 0.5)
        order = harmful if math.isnan(preferred) else 1 - preferred
        if not response.text.strip() or (math.isnan(order) and math.isnan(refused)):
            continue
        cats = _categories(harms, ids, harmful == 0.0, sample.source)
        yield _item(
            sample,
            response.text,
            [harmful, asked, refused, *cats],
            sample.id if two else None,
            order,
        )


def examples_of_row(row: DataRow, ids: Sequence[str]) -> list[ModerationExample]:
    """The training rows of one row of a data set: its answers, or its prompt where it has none."""
    if row.responses:
        return list(_answer_items(row, ids))
    made = _prompt_item(row, ids)
    return [made] if made is not None else []


def read_training_set(
    data: Dataset,
    ids: Sequence[str],
    *,
    weight: float,
    tenths: tuple[int, int] = (0, 9),
    limit: int | None = None,
) -> ModerationTrainingSet:
    """The rows of a data set whose prompts lie in the tenths asked for; PlanError where nothing of it is labelled."""
    items: list[ModerationExample] = []
    left_out = 0
    for at, row in enumerate(data.rows()):
        if limit is not None and at >= limit:
            break
        found = [i for i in examples_of_row(row, ids) if tenths[0] <= tenth_of(i.key) <= tenths[1]]
        left_out += not found
        items += found
    if not items:
        raise PlanError(
            f"{data.info.spec}: no row has a label for harmful, harmful_prompt, refused or a category"
        )
    return ModerationTrainingSet(
        spec=data.info.spec,
        sha256=data.sha256(),
        licence=data.info.licence,
        weight=weight,
        items=tuple(items),
        left_out=left_out,
    )


def give_unique_names(sources: Sequence[ModerationTrainingSet]) -> list[ModerationTrainingSet]:
    """The sources with a name each: the second reading of the same set gets ` (2)` behind its name."""
    seen: dict[str, int] = {}
    made = []
    for source in sources:
        names = dict.fromkeys(i.source for i in source.items)
        for name in names:
            seen[name] = seen.get(name, 0) + 1
        new = {name: name if seen[name] == 1 else f"{name} ({seen[name]})" for name in names}
        items = tuple(msgspec.structs.replace(i, source=new[i.source]) for i in source.items)
        made.append(msgspec.structs.replace(source, items=items))
    return made
