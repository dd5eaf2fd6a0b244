"""What judges, models and prompts of a run have in common, and what follows from it.

One table for all readers: rates, claims, gates, cards and reports. Shared training prompts or
labels, and ancestry, *strike*: figures from that pair prove nothing. A shared base model or data
set *warns*: related judges tend to make the same mistakes, so a second, unrelated one is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

from msgspec import Struct

from truing.core.lineage import ancestors, find_judge_conflict
from truing.core.measurement_set import count_frozen_by_source, frozen_hashes, load_measurement_set
from truing.core.types import Lineage
from truing.runs.folder import JudgeRecord, Manifest

Consequence = Literal["strike", "warn"]


class LineageRelation(Struct, frozen=True, kw_only=True):
    """One thing that two parts of a run share.

    Attributes:
        kind: ``judge and prompts``, ``model and prompts``, ``judge and model``, ``judge and
            judge``, ``judge and measurement set`` or ``model and measurement set``.
        judge: name of the judge; empty for ``model and ...``.
        other: what it is related to: ``prompts``, the model's name, another judge's, or the
            published sets of the frozen measurement set.
        n: number of shared prompts; 0 for other relations.
        text: the relation in words.
    """

    kind: str
    judge: str
    other: str
    consequence: Consequence
    text: str
    n: int = 0


def training_prompts(lineage: Lineage) -> frozenset[str]:
    """Returns the hashes of all prompts that something, or a judge behind it, was trained on."""
    return frozenset(lineage.prompts).union(*(judge.prompts for judge in ancestors(lineage)))


def needs_prompt_hashes(manifest: Manifest) -> bool:
    """Returns whether a run's judges or model name training prompts to compare with."""
    lineages = [manifest.lineage, *(record.lineage for record in manifest.judges)]
    return any(training_prompts(lineage) for lineage in lineages)


def known_prompts(manifest: Manifest) -> frozenset[str]:
    """Returns the prompt hashes that a judge or the model was trained on, or that are frozen: those
    of a run's prompts that `find_relations` looks for.
    """
    frozen = (source.hashes for source in load_measurement_set().sources.values())
    judged = (training_prompts(record.lineage) for record in _judges(manifest))
    return frozenset().union(training_prompts(manifest.lineage), *judged, *frozen)


def find_relations(
    manifest: Manifest, prompt_hashes: Collection[str]
) -> tuple[LineageRelation, ...]:
    """Returns all relations of a run; `prompt_hashes` are those of its prompts."""
    model = manifest.lineage
    model_name = model.name or manifest.model
    # What chose or trained the model comes first: it is the reason that is quoted.
    relations = [r for record in _judges(manifest) for r in _with_model(record, model, model_name)]
    n_model = len(training_prompts(model) & set(prompt_hashes))
    if n_model:
        relations.append(
            LineageRelation(
                kind="model and prompts",
                judge="",
                other=model_name,
                consequence="strike",
                n=n_model,
                text=f"{model_name} was trained on {n_model} prompts of this run",
            )
        )
    for record in _judges(manifest):
        relations += _with_prompts(record, prompt_hashes)
    relations += _with_measurement_set("", model_name, model, prompt_hashes)
    for record in _judges(manifest):
        relations += _with_measurement_set(record.name, record.name, record.lineage, prompt_hashes)
    relations += _between_judges(list(_judges(manifest)))
    return tuple(relations)


def _judges(manifest: Manifest) -> Iterable[JudgeRecord]:
    return {r.name: r for r in manifest.judges if not r.name.startswith("human:")}.values()


def _with_prompts(record: JudgeRecord, prompt_hashes: Collection[str]) -> list[LineageRelation]:
    n = len(training_prompts(record.lineage) & set(prompt_hashes))
    if not n:
        return []
    return [
        LineageRelation(
            kind="judge and prompts",
            judge=record.name,
            other="prompts",
            consequence="strike",
            n=n,
            text=f"{record.name} was trained on {n} prompts of this run",
        )
    ]


def _with_measurement_set(
    judge: str, name: str, lineage: Lineage, prompt_hashes: Collection[str]
) -> list[LineageRelation]:
    """Returns that a judge or model (`judge` is empty) learned frozen prompts, if it did.

    It strikes where the run measures on a published set of which frozen prompts were learned: the
    rest of that set holds their twins and rewordings.
    """
    learned = count_frozen_by_source(training_prompts(lineage))
    if not learned:
        return []
    measured = learned.keys() & count_frozen_by_source(prompt_hashes).keys()
    counts = ", ".join(f"{source} {count}" for source, count in learned.items())
    return [
        LineageRelation(
            kind=f"{'judge' if judge else 'model'} and measurement set",
            judge=judge,
            other=", ".join(learned),
            consequence="strike" if measured else "warn",
            n=len(frozen_hashes() & training_prompts(lineage)),
            text=f"{name} was trained on prompts of the frozen measurement set ({counts})",
        )
    ]


def _with_model(record: JudgeRecord, model: Lineage, model_name: str) -> list[LineageRelation]:
    conflict = record.struck or find_judge_conflict(record.lineage, model)
    if conflict is None:
        shared = len(training_prompts(record.lineage) & set(model.prompts))
        if shared:
            conflict = f"{record.name} shares {shared} training prompts with {model_name}"
    if conflict is not None:
        text, consequence = conflict, "strike"
    else:
        text, consequence = _shared_origin(record.name, record.lineage, model_name, model), "warn"
    if not text:
        return []
    return [
        LineageRelation(
            kind="judge and model",
            judge=record.name,
            other=model_name,
            consequence="strike" if consequence == "strike" else "warn",
            text=text,
        )
    ]


def _between_judges(records: list[JudgeRecord]) -> list[LineageRelation]:
    relations = []
    for i, first in enumerate(records):
        for second in records[i + 1 :]:
            if first.question != second.question:
                continue
            relation = relate_judges(first, second)
            if relation is not None:
                relations.append(relation)
    return relations


def relate_judges(first: JudgeRecord, second: JudgeRecord) -> LineageRelation | None:
    """Returns what two judges share, or None: only then does one confirm the other."""
    a, b = first.lineage, second.lineage
    hashes_a = {x.hash for x in (a, *ancestors(a)) if x.hash}
    hashes_b = {x.hash for x in (b, *ancestors(b)) if x.hash}
    shared = len(training_prompts(a) & training_prompts(b))
    consequence: Consequence = "strike"
    if hashes_a & hashes_b:
        text = f"{first.name} and {second.name} have a judge in common behind them"
    elif shared:
        text = f"{first.name} and {second.name} share {shared} training prompts"
    else:
        text, consequence = _shared_origin(first.name, a, second.name, b), "warn"
    if not text:
        return None
    return LineageRelation(
        kind="judge and judge",
        judge=first.name,
        other=second.name,
        consequence=consequence,
        n=shared,
        text=text,
    )


def _shared_origin(name: str, a: Lineage, other: str, b: Lineage) -> str:
    """Returns in words which base model or data set two lineages share; empty if none."""
    bases = sorted(_bases(a) & _bases(b))
    if bases or (a.base_sha256 and a.base_sha256 == b.base_sha256):
        return f"{name} and {other} share the base model {', '.join(bases) or a.base}"
    data = sorted(set(a.data) & set(b.data))
    return f"{name} and {other} learned from {', '.join(data)}" if data else ""


def _bases(lineage: Lineage) -> set[str]:
    """Returns the base models of something and of the judges behind it; a blend has several."""
    bases = [lineage.base, *(judge.base for judge in ancestors(lineage))]
    return {part.strip() for base in bases for part in base.split(" + ") if part.strip()}


def strike_reason(relations: Iterable[LineageRelation], judge: str) -> str | None:
    """Returns why a judge's figures on a run do not count, or None if they do."""
    for relation in relations:
        concerns_judge = relation.judge == judge and relation.kind != "judge and judge"
        if relation.consequence == "strike" and (concerns_judge or not relation.judge):
            return relation.text
    return None


def warnings_about(relations: Iterable[LineageRelation], judge: str) -> tuple[str, ...]:
    """Returns the relations that do not strike a judge, in words."""
    return tuple(
        relation.text
        for relation in relations
        if relation.consequence == "warn"
        and relation.kind != "judge and judge"
        and relation.judge == judge
    )
