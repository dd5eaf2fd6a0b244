"""Automated red teaming: generic, mild attacks from the literature, each with its paper.

`rewrites` and `model_rewrites` change a prompt once, `search` and `suffix` search for a wording,
`dataset` attacks a whole data set, and `generate` writes new prompts. An attack turns a sample into
another whose `parent` is the original, so that both can be compared. No attack runs on prompts
about minors.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "generate": "Diversity GeneratedPrompts generate_prompts measure_diversity",
    },
)
