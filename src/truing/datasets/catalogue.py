"""All data sets that truing reads, as `truing data list` shows them."""

from __future__ import annotations

from pathlib import Path

from truing.datasets import (
    aegis,
    agent_tasks,
    agentdojo,
    agentharm,
    beavertails,
    behaviours,
    bipia,
    builtin_sets,
    comparisons,
    dialogues,
    diasafety,
    do_not_answer,
    file,
    injecagent,
    moderation_sets,
    multi_rater,
    multiple_choice,
    over_refusal,
    pku,
    user_messages,
    xstest,
)
from truing.datasets.base import PublishedDataset

CATALOGUE: tuple[PublishedDataset, ...] = (
    file.DATASET,
    *builtin_sets.BUILTIN_DATASETS.values(),
    agent_tasks.BUILTIN_AGENTS,
    agent_tasks.AGENTS_FILE,
    agentdojo.DATASET,
    agentharm.DATASET,
    injecagent.DATASET,
    bipia.DATASET,
    beavertails.DATASET,
    pku.DATASET,
    dialogues.HH_DATASET,
    dialogues.ATTEMPTS_DATASET,
    dialogues.BAD_DATASET,
    moderation_sets.REAL_TOXICITY,
    do_not_answer.DATASET,
    xstest.DATASET,
    over_refusal.OR_BENCH,
    over_refusal.FALSEREJECT,
    behaviours.HARMBENCH,
    behaviours.JAILBREAKBENCH,
    behaviours.AILUMINATE,
    behaviours.SIMPLE_SAFETY_TESTS,
    behaviours.STRONGREJECT,
    behaviours.REFUSAL_DIRECTION,
    diasafety.DATASET,
    moderation_sets.OPENAI_MODERATION,
    moderation_sets.TOXIC_CHAT,
    moderation_sets.WILDGUARD,
    aegis.DATASET,
    multi_rater.DICES,
    multi_rater.CONVABUSE,
    moderation_sets.TOXIGEN,
    moderation_sets.HATECHECK,
    multiple_choice.TRUTHFULQA,
    multiple_choice.BBQ,
    multiple_choice.MODEL_WRITTEN,
    multiple_choice.SAFETYBENCH,
    multiple_choice.SAFETEXT,
    comparisons.LLMBAR,
    comparisons.RM_BENCH,
    comparisons.REWARDBENCH_2,
    user_messages.INJECTIONS,
    user_messages.NOTINJECT,
    user_messages.BANKING77,
)


def find_available_parts(about: PublishedDataset, root: Path) -> tuple[str, ...]:
    """Returns the parts of a set whose files are in its folder below `root` (TRUING_DATA)."""
    if about.kind.startswith("builtin:"):
        return ("built in",)
    folder = root / (about.folder or about.kind)
    return tuple(
        part
        for part, patterns in about.parts.items()
        if any(next(folder.glob(p.format(split=about.split)), None) for p in patterns)
    )
