"""How often does the company of a prompt change an answer? Greedy, by batch size and order, in float32 and bfloat16.

    .venv/bin/python benchmarks/engine/flips.py [--prompts 64] [--tokens 48] [--batches 1 4 16 64]

The answers of a first run (batch 1, each prompt alone) against those of runs at other batch sizes and in reversed
order: the share of answers that differ anywhere, and the share of tokens at which a difference begins (a first
difference over all tokens up to it). In float32 both are 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from typing import Any


def answers(model: Any, asks: list[Any], tokens: int) -> list[list[str]]:
    """The tokens of each answer."""
    from truing.core.types import Sampling

    sampling = Sampling(max_tokens=tokens, logprobs=0)

    async def run() -> list[Any]:
        return list(await asyncio.gather(*(model.generate(a, sampling) for a in asks)))

    return [[t.token for t in a.logprobs or ()] for (a,) in asyncio.run(run())]


def differences(first: list[list[str]], second: list[list[str]]) -> tuple[int, int]:
    """Answers that differ, and tokens up to a first difference."""
    changed, seen = 0, 0
    for a, b in zip(first, second):
        at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), None)
        changed += at is not None
        seen += len(a) if at is None else at + 1
    return changed, seen


def main() -> None:
    """Prints a line of JSON for each arithmetic and batch size."""
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--prompts", type=int, default=64)
    parse.add_argument("--tokens", type=int, default=48)
    parse.add_argument("--batches", type=int, nargs="+", default=[4, 16, 64])
    parse.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parse.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parse.parse_args()

    import torch

    from truing.models.local import LocalModel
    from truing.specs.resolve import resolve

    torch.set_num_threads(given.threads)
    rows = [r.sample.conversation for r in resolve("builtin:safety", "data").rows()]
    step = max(1, len(rows) // given.prompts)
    asks = rows[::step][: given.prompts]
    for dtype in given.dtypes:
        alone = answers(
            LocalModel.load("smollm2", dtype=dtype, device="cpu", batch=1), asks, given.tokens
        )
        for batch in given.batches:
            model = LocalModel.load("smollm2", dtype=dtype, device="cpu", batch=batch)
            for order in (1, -1):
                made = answers(model, asks[::order], given.tokens)[::order]
                changed, seen = differences(alone, made)
                print(
                    json.dumps(
                        {
                            "dtype": dtype,
                            "batch": batch,
                            "order": order,
                            "answers": len(asks),
                            "changed": changed,
                            "share": round(changed / len(asks), 4),
                            "per token": round(changed / seen, 6),
                            "tokens": seen,
                        }
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
