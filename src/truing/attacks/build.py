"""Attack specs: `role-play`, `base64`, ... (rewrites; chained with `chain:a+b`), `paraphrase`, `pair`, `suffix`, ..."""

from __future__ import annotations

from truing.attacks.base import ChainedAttack, RewriteAttack
from truing.attacks.dataset import make_rewrite
from truing.attacks.model_rewrites import ModelRewriteAttack
from truing.attacks.rewrites import REWRITES
from truing.attacks.search import (
    CrescendoSearch,
    PairSearch,
    SearchBudget,
    SteeredSearch,
    TapSearch,
)
from truing.attacks.suffix import SuffixSearch
from truing.core.errors import did_you_mean
from truing.specs.resolve import Args

_SEARCHES: dict[str, type[SteeredSearch]] = {
    "pair": PairSearch,
    "tap": TapSearch,
    "crescendo": CrescendoSearch,
}


def build_rewrite(args: Args) -> RewriteAttack:
    """A rewrite by rule; its kind is its name."""
    return make_rewrite(args.spec.kind, args.integer("seed", 0))


def build_chain(args: Args) -> ChainedAttack:
    """`chain:role-play+base64`."""
    names = args.name.split("+")
    for name in names:
        if name not in REWRITES:
            raise args.fault(f"there is no rewrite {name!r}{did_you_mean(name, REWRITES)}")
    seed = args.integer("seed", 0)
    return ChainedAttack(*(make_rewrite(name, seed) for name in names))


def build_rewriter(args: Args) -> ModelRewriteAttack:
    """`paraphrase`, `past-tense`, `language:NAME`, each with model=(...): the attacker."""
    language = args.name or "Swahili"
    return ModelRewriteAttack(
        args.spec.kind,
        args.required("model", "model"),
        language=language,
        seed=args.integer("seed", 0),
    )


def build_search(args: Args) -> SteeredSearch:
    """`pair`, `tap`, `crescendo`, with model=(...) the attacker and by=(...) the judge that steers."""
    base = SearchBudget()
    budget = SearchBudget(
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


def build_suffix(args: Args) -> SuffixSearch:
    """`suffix`, on local models."""
    return SuffixSearch(
        steps=args.integer("steps", 40),
        length=args.integer("length", 8),
        seed=args.integer("seed", 0),
    )
