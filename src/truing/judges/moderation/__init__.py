"""Moderation classifiers as judges: is an answer harmful, which categories, is it a refusal.

`moderation:default` and `moderation:fast` ship with the package, `moderation:research` in a
distribution of its own; `moderation:DIR` loads a folder that `truing train moderation` wrote.
`ModerationJudge` is the judge, `scorer.ModerationScorer` the classifier behind it.
"""

from __future__ import annotations

from truing.core.errors import MissingExtra
from truing.judges.moderation.judge import ModerationJudge, build_judge
from truing.specs.resolve import Args

_EXTRA_PACKAGES = ("torch", "transformers", "safetensors", "tokenizers")


def build(args: Args) -> ModerationJudge:
    """Builds the judge of a `moderation:` spec; raises MissingExtra without the `local` extra."""
    try:
        return build_judge(args)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in _EXTRA_PACKAGES:
            raise MissingExtra("local", "moderation classifiers") from error
        raise
