"""Two families of base models, so that judges that steer a model and judges that measure it are
independent.

Judges that choose answers, train a policy or teach rails are of the steering family; judges that
measure the result are of the measuring family. Within a study no measuring judge shares a base
model, a teacher or a labelled prompt with a steering one or with the target, and none is built on
the target's own weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from truing.analysis.lineage_relations import relate_judges, training_prompts
from truing.core.errors import LineageError
from truing.core.lineage import ancestors, find_judge_conflict
from truing.core.types import Lineage
from truing.runs.folder import JudgeRecord

Family = Literal["steering", "measuring"]

FAMILIES: dict[str, Family] = {
    "qwen": "steering",
    "minilm": "measuring",
    "mpnet": "measuring",
    # May measure only where SmolLM2 is not the target itself: `find_dependences` refuses a base
    # model that judge and target share.
    "smollm2": "measuring",
}
"""Part of a base model's name, in lower case -> the family of what is built on it."""


def families_of(lineage: Lineage) -> frozenset[Family]:
    """Returns the families of the base models of a model or judge and of all its ancestors."""
    bases = (origin.base.lower() for origin in (lineage, *ancestors(lineage)))
    return frozenset(family for base in bases for name, family in FAMILIES.items() if name in base)


def find_dependences(
    measuring: Lineage, target: Lineage, steering: Iterable[Lineage] = ()
) -> tuple[str, ...]:
    """Returns the reasons why a judge may not measure a study; empty if it may.

    `target` is the lineage of the model before any method is applied to it, `steering` those of the
    judges that the methods use.
    """
    name = measuring.name
    reasons = []
    if families_of(measuring) != {"measuring"}:
        families = ", ".join(sorted(families_of(measuring))) or "none"
        reasons.append(f"{name} is of the family {families}, not of measuring alone")
    conflict = find_judge_conflict(measuring, target)
    if conflict is not None:
        reasons.append(conflict)
    reasons += _shared_bases(measuring, target)
    shared = len(training_prompts(measuring) & training_prompts(target))
    if shared:
        reasons.append(f"{name} and {target.name} share {shared} training prompts")
    for judge in steering:
        reasons += _pair_reasons(measuring, judge)
    return tuple(reasons)


def require_independence(
    measuring: Lineage, target: Lineage, steering: Iterable[Lineage] = ()
) -> None:
    """Raises LineageError with all reasons of `find_dependences`, if there are any."""
    reasons = find_dependences(measuring, target, steering)
    if reasons:
        raise LineageError(*reasons)


def _pair_reasons(measuring: Lineage, steering: Lineage) -> list[str]:
    """Returns the reasons why the measuring judge depends on one steering judge."""
    relation = relate_judges(_record(measuring), _record(steering))
    reasons = [relation.text] if relation is not None and relation.consequence == "strike" else []
    reasons += _shared_bases(measuring, steering)
    if "measuring" in families_of(steering):
        reasons.append(f"{steering.name} steers, but its base is of the measuring family")
    return reasons


def _shared_bases(first: Lineage, second: Lineage) -> list[str]:
    names = sorted(_base_names(first) & _base_names(second))
    # Equal hashes are the same weights under another name.
    if not names and _base_hashes(first) & _base_hashes(second):
        names = [first.base]
    return [f"{first.name} and {second.name} share the base model {name}" for name in names]


def _record(lineage: Lineage) -> JudgeRecord:
    """Returns the record that `relate_judges` compares; it reads the lineage alone."""
    return JudgeRecord(name=lineage.name, question="", file="", lineage=lineage)


def _base_names(lineage: Lineage) -> frozenset[str]:
    """Returns the names of the base models, in lower case; a blend has several ("a + b")."""
    origins = (lineage, *ancestors(lineage))
    parts = (part.strip().lower() for origin in origins for part in origin.base.split(" + "))
    return frozenset(filter(None, parts))


def _base_hashes(lineage: Lineage) -> frozenset[str]:
    origins = (lineage, *ancestors(lineage))
    return frozenset(origin.base_sha256 for origin in origins if origin.base_sha256)
