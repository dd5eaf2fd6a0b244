"""Data sets as training rows: which answers count, which pairs are dropped and why, how the mix is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from truing.core.errors import DataError, LineageError, PlanError
from truing.core.lineage import hash_prompt
from truing.core.protocols import Dataset
from truing.core.types import Lineage, Preference, Row
from truing.train.examples import TrainingExample, TrainingSet
from truing.train.harm_check import check_training_data
from truing.train.settings import TrainingKind


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
    """The rows of a data set for a kind of training; refuses what the kind must not learn from.

    SFT takes recorded answers that nobody called harmful (`harmful` keeps those too, for a red model); sets of pairs are
    refused for it unless `chosen` says that their preferred answers are the targets. With `testing` the rows measure a
    model and train none, so that every set of pairs may be read.
    """
    if not weight > 0:
        raise PlanError(f"{data.info.spec}: weight={weight}: above 0")
    if not testing:
        check_training_data(data.info, allow_red_team=allow_red_team)
    counts: Counter[str] = Counter()
    if kind == "sft":
        items = list(_targets(data, counts, chosen=chosen, harmful=harmful))
    elif kind == "distil":
        items = list(_sampled(data, counts))
    elif kind == "kto":
        items = _unpaired(data, counts)
    else:
        items = _pairs(data, kind, counts)
    if limit is not None:
        items = items[:limit]
    if not items:
        why = (
            ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
            or "it has none of the kind"
        )
        raise DataError(f"{data.info.spec}: nothing left for {kind} after filtering: {why}")
    judges: tuple[Lineage, ...] = tuple(getattr(data, "judges", ()))
    return TrainingSet(
        spec=data.info.spec,
        sha256=data.sha256(),
        items=tuple(items),
        weight=weight,
        licence=data.info.licence,
        dropped=dict(counts),
        judges=judges,
    )


def _item(
    row: Row, at: int, answers: tuple[str, ...], sign: int | None = None, *, cut: bool = False
) -> TrainingExample:
    sample = row.sample
    signs = None if sign is None else (sign, sign)
    return TrainingExample(
        name=f"{sample.source}#{sample.id or at}",
        conversation=sample.conversation,
        answers=answers,
        signs=signs,
        harms=sample.harms,
        source=sample.source,
        cut=cut,
    )


def _targets(
    data: Dataset, counts: Counter[str], *, chosen: bool, harmful: bool
) -> Iterator[TrainingExample]:
    first = next(data.preferences(), None)
    if first is not None:
        if not chosen:
            raise PlanError(
                f"{data.info.spec}: holds preference pairs, not examples to imitate; "
                f"--chosen takes their preferred answers as targets"
            )
        for at, pair in enumerate(data.preferences()):
            sign = None if pair.signs is None else pair.signs[0]
            if sign == -1 and not harmful:
                counts["labelled harmful"] += 1
                continue
            one = _from_pair(pair, at)
            if not one.answers[0].strip():
                counts["empty"] += 1
                continue
            yield replace(
                one, answers=one.answers[:1], signs=None if sign is None else (sign, sign)
            )
        return
    if not data.info.imitate and not chosen:
        raise PlanError(
            f"{data.info.spec}: its answers are there to be compared or judged, not to be imitated; "
            f"--chosen takes them as targets all the same"
        )
    for at, row in enumerate(data.rows()):
        labels = {j.index: j.verdict for j in row.judgements if j.question == "harmful"}
        for response in row.responses:
            bad = labels.get(response.index)
            if not response.text.strip():
                counts["empty"] += 1
            elif bad and not harmful:
                counts["labelled harmful"] += 1
            else:
                cut = response.finish_reason == "length"
                yield _item(
                    row, at, (response.text,), None if bad is None else (-1 if bad else 1), cut=cut
                )
        if not row.responses:
            counts["without an answer"] += 1


def _sampled(data: Dataset, counts: Counter[str]) -> Iterator[TrainingExample]:
    for at, row in enumerate(data.rows()):
        for response in row.responses:
            if response.text.strip():
                yield _item(row, at, (response.text,), cut=response.finish_reason == "length")
            else:
                counts["empty"] += 1
        if not row.responses:
            counts["without an answer"] += 1


def _from_pair(pair: Preference, at: int) -> TrainingExample:
    return TrainingExample(
        name=f"{pair.source}#{at}",
        conversation=pair.conversation,
        answers=(pair.chosen.content, pair.rejected.content),
        signs=pair.signs,
        margin=pair.margin,
        harms=pair.harms,
        benign=pair.tags.get("benign") == "yes",
        synthetic=pair.tags.get("synthetic") == "yes",
        source=pair.source,
    )


def _pairs(data: Dataset, kind: TrainingKind, counts: Counter[str]) -> list[TrainingExample]:
    wanted = {"reward": "helpful", "cost": "safe"}.get(kind)
    seen: dict[tuple[str, str, str], int] = {}
    items: list[TrainingExample] = []
    every = list(data.preferences())
    dimensions = {p.dimension for p in every}
    for at, pair in enumerate(every):
        if wanted in dimensions and pair.dimension != wanted:
            counts[f"of the other dimension ({pair.dimension})"] += 1
            continue
        if kind == "cost" and pair.signs is None:
            counts["without safety signs"] += 1
            continue
        if kind == "cost" and pair.signs == (-1, 1):
            raise DataError(
                f"{data.info.spec}: pair {at}: the safer answer is labelled unsafe and the other one safe"
            )
        one = _from_pair(pair, at)
        key = _key(one)
        if key[1] == key[2]:
            counts["equal pairs"] += 1
        elif key in seen:
            counts["repeated"] += 1
        else:
            seen[key] = len(items)
            items.append(one)
    return _without_contradictions(items, seen, counts)


def _key(item: TrainingExample) -> tuple[str, str, str]:
    said = "\n".join(f"{m.role}: {m.content}" for m in item.conversation.messages)
    return said, item.answers[0].strip(), item.answers[1].strip()


def _without_contradictions(
    items: list[TrainingExample], seen: dict[tuple[str, str, str], int], counts: Counter[str]
) -> list[TrainingExample]:
    bad = {at for (said, a, b), at in seen.items() if (said, b, a) in seen}
    if bad:
        counts["contradictory pairs"] = len(bad)
    return [item for at, item in enumerate(items) if at not in bad]


def _unpaired(data: Dataset, counts: Counter[str]) -> list[TrainingExample]:
    items: list[TrainingExample] = []
    for one in _pairs(data, "dpo", counts):
        for at, wanted in ((0, True), (1, False)):
            sign = None if one.signs is None else (one.signs[at], one.signs[at])
            items.append(
                replace(
                    one,
                    name=f"{one.name}.{at}",
                    answers=(one.answers[at],),
                    desirable=wanted,
                    signs=sign,
                )
            )
    if items:
        return items
    for at, row in enumerate(data.rows()):
        for response in row.responses:
            good = next(
                (_good(j.question, j.verdict) for j in row.judgements if j.index == response.index),
                None,
            )
            if good is None or not response.text.strip():
                counts["without a label or answer"] += 1
                continue
            items.append(replace(_item(row, at, (response.text,)), desirable=good))
    return items


def _good(question: str, verdict: bool | None) -> bool | None:
    if verdict is None:
        return None
    return not verdict if question in ("harmful", "refused", "degenerate") else verdict


def check_no_test_overlap(
    sources: Sequence[TrainingSet], tests: Mapping[str, Sequence[TrainingExample]]
) -> None:
    """LineageError if a prompt that trains also stands in a set that is to measure the model."""
    known = {hash_prompt(i.conversation.prompt) for s in sources for i in s.items}
    for name, items in tests.items():
        shared = len({hash_prompt(i.conversation.prompt) for i in items} & known)
        if shared:
            raise LineageError(
                f"--test {name}: {shared} of its prompts are trained on; take another half (half=report)"
            )
