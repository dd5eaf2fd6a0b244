"""Builders of the attack specs.

role-play | base64 | ...          a rewrite by rule
chain:role-play+base64            several of them
paraphrase,model=(ATTACKER)       a rewrite by a model; also past-tense, language:NAME
pair,model=(ATTACKER),by=(JUDGE)  a search; also tap, crescendo
suffix                            a search on a local model
injection:important               a template of an injection in what an agent's tools return
"""

from __future__ import annotations

from truing.attacks.base import ChainedAttack, RewriteAttack
from truing.attacks.dataset import make_rewrite, make_rewrites
from truing.attacks.model_rewrites import ModelRewriteAttack
from truing.attacks.search import (
    CrescendoSearch,
    PairSearch,
    SearchBudget,
    SteeredSearch,
    TapSearch,
)
from truing.attacks.suffix import SuffixSearch
from truing.specs.resolve import Args

_SEARCHES: dict[str, type[SteeredSearch]] = {
    "pair": PairSearch,
    "tap": TapSearch,
    "crescendo": CrescendoSearch,
}


def build_rewrite(args: Args) -> RewriteAttack:
    """Builds a rewrite by rule; the kind of the spec is its name."""
    return make_rewrite(args.spec.kind, args.integer("seed", 0))


def build_chain(args: Args) -> ChainedAttack:
    """Builds `chain:role-play+base64`."""
    return ChainedAttack(*make_rewrites(args, args.integer("seed", 0)))


def build_rewriter(args: Args) -> ModelRewriteAttack:
    """Builds `paraphrase`, `past-tense` or `language:NAME` with the attacker `model=(...)`."""
    return ModelRewriteAttack(
        args.spec.kind,
        args.required("model", "model"),
        language=args.name or "Swahili",
        seed=args.integer("seed", 0),
    )


def build_search(args: Args) -> SteeredSearch:
    """Builds `pair`, `tap` or `crescendo` with attacker `model=` and steering judge `by=`."""
    defaults = SearchBudget()
    budget = SearchBudget(
        queries=args.integer("queries", defaults.queries),
        width=args.integer("width", defaults.width),
        branch=args.integer("branch", defaults.branch),
        turns=args.integer("turns", defaults.turns),
        max_tokens=args.integer("max_tokens", defaults.max_tokens),
    )
    too_small = [name for name in budget.__struct_fields__ if getattr(budget, name) < 1]
    if too_small:
        raise args.fault(f"{', '.join(too_small)}: at least 1")
    attacker, steering_judge = args.required("model", "model"), args.required("by", "judge")
    search = _SEARCHES[args.spec.kind]
    return search(attacker, steering_judge, budget=budget, seed=args.integer("seed", 0))


def build_suffix(args: Args) -> SuffixSearch:
    """Builds `suffix`, for local models."""
    return SuffixSearch(
        steps=args.integer("steps", 40),
        length=args.integer("length", 8),
        seed=args.integer("seed", 0),
    )
