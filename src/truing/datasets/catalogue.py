"""Every data set that truing reads, in one list: what `truing data list` shows."""

from __future__ import annotations

from pathlib import Path

from truing.datasets import (
    beavertails,
    behaviours,
    builtin_sets,
    choices,
    comparisons,
    dialogues,
    diasafety,
    do_not_answer,
    file,
    moderation_sets,
    pku,
    raters,
    topics,
    xstest,
)
from truing.datasets.base import Published

CATALOGUE: tuple[Published, ...] = (
    file.ABOUT,
    *builtin_sets.ABOUTS.values(),
    beavertails.ABOUT,
    pku.ABOUT,
    dialogues.HH_ABOUT,
    dialogues.ATTEMPTS_ABOUT,
    dialogues.BAD_ABOUT,
    moderation_sets.REAL_TOXICITY,
    do_not_answer.ABOUT,
    xstest.ABOUT,
    behaviours.HARMBENCH,
    behaviours.JAILBREAKBENCH,
    behaviours.AILUMINATE,
    behaviours.SIMPLE_SAFETY_TESTS,
    behaviours.STRONGREJECT,
    behaviours.REFUSAL_DIRECTION,
    diasafety.ABOUT,
    moderation_sets.OPENAI_MODERATION,
    moderation_sets.TOXIC_CHAT,
    moderation_sets.WILDGUARD,
    raters.DICES,
    raters.CONVABUSE,
    moderation_sets.TOXIGEN,
    moderation_sets.HATECHECK,
    choices.TRUTHFULQA,
    choices.BBQ,
    choices.MODEL_WRITTEN,
    choices.SAFETYBENCH,
    choices.SAFETEXT,
    comparisons.LLMBAR,
    comparisons.RM_BENCH,
    topics.INJECTIONS,
    topics.BANKING77,
)


def found_in(about: Published, root: Path) -> tuple[str, ...]:
    """The parts of a set whose files stand in its folder under a root such as TRUING_DATA."""
    if about.kind.startswith("builtin:"):
        return ("built in",)
    folder = root / (about.folder or about.kind)
    return tuple(
        part
        for part, patterns in about.parts.items()
        if any(next(folder.glob(p.format(split=about.split)), None) for p in patterns)
    )
