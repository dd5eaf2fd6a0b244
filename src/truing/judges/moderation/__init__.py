"""Content moderation: trained classifiers for harm and its categories, two of which ship."""

from __future__ import annotations

from truing.core.errors import MissingExtra
from truing.judges.moderation.judge import ModerationJudge
from truing.judges.moderation.judge import build_judge as _build
from truing.specs.resolve import Args


def build(args: Args) -> ModerationJudge:
    """The builder behind `moderation:`; needs the `local` extra."""
    try:
        return _build(args)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in (
            "torch",
            "transformers",
            "safetensors",
            "tokenizers",
        ):
            raise MissingExtra("local", "moderation classifiers") from error
        raise
