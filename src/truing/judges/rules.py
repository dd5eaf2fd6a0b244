"""`rules:NAME`: the judges that are programs, without a model."""

from __future__ import annotations

from collections.abc import Callable

from truing.core.errors import did_you_mean
from truing.core.protocols import Judge
from truing.judges.checks import CHECKS
from truing.judges.degenerate import DegenerateRule
from truing.judges.refusal import RefusalRule
from truing.specs.resolve import Args


def build(args: Args) -> Judge:
    """Returns the judge of a `rules:` spec."""
    builders: dict[str, Callable[[], Judge]] = {
        "refusal": RefusalRule,
        "degenerate": lambda: DegenerateRule(cut=args.flag("cut", True)),
        **CHECKS,
    }
    if args.name not in builders:
        raise args.fault(f"there is no rule {args.name!r}{did_you_mean(args.name, builders)}")
    return builders[args.name]()
