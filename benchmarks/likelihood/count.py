"""How many tokens must be read, and logits made, for a task: one pass for each choice against a tree. No model runs.

    TRUING_DATA=... .venv/bin/python benchmarks/likelihood/count.py

Only the tokenizer of `smollm2` is needed. The first column is what lm-evaluation-harness reads (and for each of those
tokens it makes and normalises logits over the whole vocabulary), the others are ours.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import tasks  # noqa: E402


def count(rows: list[dict[str, Any]], engine: Any) -> dict[str, int]:
    """Requests, tokens by one pass each, tokens by the tree, positions with logits."""
    from truing.models.local.likelihood import ScoreQuery
    from truing.models.local.prefix_tree import CloseHead, PrefixTree

    encoded = engine._encode(
        [ScoreQuery(r["query"], tuple(f" {c}" for c in r["choices"])) for r in rows]
    )
    tree = PrefixTree(
        [e.read for e in encoded], [e.start for e in encoded], [e.targets for e in encoded]
    )
    return {
        "requests": len(encoded),
        "one pass each": sum(len(e.read) for e in encoded),
        "tree": sum(len(p.ids) for p in tree.parts() if not isinstance(p, CloseHead)),
        "logits": sum(len(e.targets) for e in encoded),
    }


def main() -> None:
    """Prints a table: the two tasks, then growth with choices and with the primer."""
    from truing.hf.loading import load_tokenizer
    from truing.hf.weights import find_weights
    from truing.models.local.likelihood import LikelihoodScorer, PassBudget

    engine: Any = LikelihoodScorer.__new__(LikelihoodScorer)
    tokenizer = load_tokenizer(find_weights("smollm2").path)
    engine.forward = type("Reader", (), {"tokenizer": tokenizer, "window": 8192})
    engine.budget = PassBudget()
    data = Path(os.environ["TRUING_DATA"])
    made: dict[str, list[dict[str, Any]]] = {
        "BBQ, 300 questions, zero-shot": tasks.bbq(data, 300),
        "TruthfulQA, 150 questions, primer": tasks.truthfulqa(data, 150),
    }
    for choices in (2, 4, 8):
        rows = [r for r in tasks.truthfulqa(data, 100) if len(r["choices"]) >= choices]  # type: ignore[arg-type]
        for primed in (False, True):
            made[
                f"{len(rows)} questions, {choices} choices, {'primer' if primed else 'zero-shot'}"
            ] = [
                {
                    "query": r["query"] if primed else str(r["query"])[len(tasks.PRIMER) :],
                    "choices": r["choices"][:choices],
                }  # type: ignore[index]
                for r in rows
            ]
    print(
        "| task | requests | tokens, one pass each | tokens, tree | times fewer | positions with logits |"
    )
    print("|---|---|---|---|---|---|")
    for name, rows in made.items():
        c = count(rows, engine)
        ratio = c["one pass each"] / c["tree"]
        print(
            f"| {name} | {c['requests']:,} | {c['one pass each']:,} | {c['tree']:,} | {ratio:.1f} | {c['logits']:,} |"
        )


if __name__ == "__main__":
    main()
