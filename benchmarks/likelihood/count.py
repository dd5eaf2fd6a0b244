"""Counts the tokens and logits that a task needs: a pass per choice, against a prefix tree.

    TRUING_DATA=... .venv/bin/python benchmarks/likelihood/count.py

No model runs; only the tokenizer of `smollm2` is needed. lm-evaluation-harness makes one pass per
choice (and computes and normalises logits over the whole vocabulary for each token of it); truing
reads shared prefixes once and computes logits where a choice is scored.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import tasks  # noqa: E402


def count(rows: list[dict[str, Any]], engine: Any) -> dict[str, int]:
    """Returns the numbers of requests, of tokens by either way, and of positions with logits."""
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
    """Prints a table: the two tasks, then growth with the choices and with the primer."""
    from truing.hf.loading import load_tokenizer
    from truing.hf.weights import find_weights
    from truing.models.local.likelihood import LikelihoodScorer, PassBudget

    # Without a model: only the encoding of the engine is used.
    engine: Any = LikelihoodScorer.__new__(LikelihoodScorer)
    tokenizer = load_tokenizer(find_weights("smollm2").path)
    engine.forward = type("Reader", (), {"tokenizer": tokenizer, "window": 8192})
    engine.budget = PassBudget()
    data = Path(os.environ["TRUING_DATA"])
    rows_by_task: dict[str, list[dict[str, Any]]] = {
        "BBQ, 300 questions, zero-shot": tasks.bbq(data, 300),
        "TruthfulQA, 150 questions, primer": tasks.truthfulqa(data, 150),
    }
    for choices in (2, 4, 8):
        rows = [r for r in tasks.truthfulqa(data, 100) if len(r["choices"]) >= choices]  # type: ignore[arg-type]
        for primed in (False, True):
            style = "primer" if primed else "zero-shot"
            rows_by_task[f"{len(rows)} questions, {choices} choices, {style}"] = [
                {
                    "query": r["query"] if primed else str(r["query"])[len(tasks.PRIMER) :],
                    "choices": r["choices"][:choices],
                }  # type: ignore[index]
                for r in rows
            ]
    print(
        "| task | requests | tokens, one pass each | tokens, tree | times fewer "
        "| positions with logits |"
    )
    print("|---|---|---|---|---|---|")
    for name, rows in rows_by_task.items():
        counts = count(rows, engine)
        passes, tree = counts["one pass each"], counts["tree"]
        print(
            f"| {name} | {counts['requests']:,} | {passes:,} | {tree:,} | {passes / tree:.1f} "
            f"| {counts['logits']:,} |"
        )


if __name__ == "__main__":
    main()
