"""Attack specs: `role-play`, `base64`, ... (rewrites; chained with `chain:a+b`), `paraphrase`, `pair`, `suffix`, ..."""

from __future__ import annotations

from truing.attacks.attacked import rewrite
from truing.attacks.base import Chain, Rewrite
from truing.attacks.rewriter import Rewriter
from truing.attacks.rewrites import REWRITES
from truing.attacks.search import Budget, Crescendo, Pair, Steered, Tap
from truing.attacks.suffix import Suffix
from truing.core.errors import nearest
from truing.specs.resolve import Args

_SEARCHES: dict[str, type[Steered]] = {"pair": Pair, "tap": Tap, "crescendo": Crescendo}


def build_rewrite(args: Args) -> Rewrite:
    """A rewrite by rule; its kind is its name."""
    return rewrite(args.spec.kind, args.integer("seed", 0))


def build_chain(args: Args) -> Chain:
    """`chain:role-play+base64`."""
    names = args.name.split("+")
    for name in names:
        if name not in REWRITES:
            raise args.fault(f"there is no rewrite {name!r}{nearest(name, REWRITES)}")
    seed = args.integer("seed", 0)
    return Chain(*(rewrite(name, seed) for name in names))


def build_rewriter(args: Args) -> Rewriter:
    """`paraphrase`, `past-tense`, `language:NAME`, each with model=(...): the attacker."""
    language = args.name or "Swahili"
    return Rewriter(
        args.spec.kind,
        args.required("model", "model"),
        language=language,
        seed=args.integer("seed", 0),
    )


def build_search(args: Args) -> Steered:
    """`pair`, `tap`, `crescendo`, with model=(...) the attacker and by=(...) the judge that steers."""
    base = Budget()
    budget = Budget(
        queries=args.integer("queries", base.queries),
        width=args.integer("width", base.width),
        branch=args.integer("branch", base.branch),
        turns=args.integer("turns", base.turns),
        max_tokens=args.integer("max_tokens", base.max_tokens),
    )
    faults = [
        k for k in ("queries", "width", "branch", "turns", "max_tokens") if getattr(budget, k) < 1
    ]
    if faults:
        raise args.fault(f"{', '.join(faults)}: at least 1")
    attacker, steer = args.required("model", "model"), args.required("by", "judge")
    return _SEARCHES[args.spec.kind](attacker, steer, budget=budget, seed=args.integer("seed", 0))


def build_suffix(args: Args) -> Suffix:
    """`suffix`, on local models."""
    return Suffix(
        steps=args.integer("steps", 40),
        length=args.integer("length", 8),
        seed=args.integer("seed", 0),
    )
