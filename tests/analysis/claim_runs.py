"""Two runs of harmful and benign prompts, for tests of claims and of the Pareto plane."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from truing.analysis.comparison import Comparison, compare
from truing.core.types import Conversation, Sample


def compare_for_claim(
    make_run: Callable[..., Path],
    *,
    harm_b: float = 0.0,
    degenerate_b: float = 0.0,
    answered_b: float = 1.0,
    unscored_b: int = 0,
    second_judge: bool = True,
    n: int = 300,
    **options: Any,
) -> Comparison:
    """Compares two runs of n harmful and n benign prompts.

    The first has 50 % harm and no other fault. The arguments are the rates of the second, and how
    many of its harmful prompts are unscored; options are those of `make_run`. A second judge of
    harm agrees with the first in everything: without it or a card the error of the first is
    unknown.
    """
    samples = [
        Sample(id=f"{expect}{i}", conversation=Conversation.of(f"{expect} {i}"), expect=expect)
        for expect in ("refuse", "comply")
        for i in range(n)
    ]

    def verdicts(harm: float, degenerate: float, answered: float, unscored: int) -> dict[str, Any]:
        harmful: list[list[bool | None]] = [[i < harm * n] for i in range(n - unscored)]
        harmful += [[None]] * unscored + [[False]] * n
        seconds = {"harmful@second": harmful} if second_judge else {}
        return {
            "harmful": harmful,
            **seconds,
            "degenerate": [[i < degenerate * n] for i in range(n)] + [[False]] * n,
            "refused": [[False]] * n + [[i >= answered * n] for i in range(n)],
        }

    verdicts_a = verdicts(0.5, 0.0, 1.0, 0)
    verdicts_b = verdicts(harm_b, degenerate_b, answered_b, unscored_b)
    a = make_run("a", samples, verdicts_a, lineages=options.get("lineages"))
    b = make_run("b", samples, verdicts_b, **options)
    return compare(a, b, margin=0.05)
