"""How often do the other prompts of a batch change an answer? Greedy, by batch size and order.

    .venv/bin/python benchmarks/engine/flips.py [--prompts 64] [--tokens 48] [--batches 1 4 16 64]

Compares the answers of a first run (batch 1, each prompt alone) with those of runs at other batch
sizes and in reversed order: the share of answers that differ anywhere, and the share of tokens at
which a difference begins (first differences over all tokens up to them). In float32 both are 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from typing import Any


def generate_tokens(model: Any, conversations: list[Any], limit: int) -> list[list[str]]:
    """Returns the tokens of each greedy answer."""
    from truing.core.types import Sampling

    sampling = Sampling(max_tokens=limit, logprobs=0)

    async def run() -> list[Any]:
        return list(await asyncio.gather(*(model.generate(c, sampling) for c in conversations)))

    return [[t.token for t in a.logprobs or ()] for (a,) in asyncio.run(run())]


def differences(first: list[list[str]], second: list[list[str]]) -> tuple[int, int]:
    """Returns the number of answers that differ, and of tokens up to a first difference."""
    changed, compared = 0, 0
    for a, b in zip(first, second):
        position = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), None)
        changed += position is not None
        compared += len(a) if position is None else position + 1
    return changed, compared


def main() -> None:
    """Prints a line of JSON for each dtype, batch size and order."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()

    import torch

    from truing.models.local import LocalModel
    from truing.specs.resolve import resolve

    torch.set_num_threads(arguments.threads)
    rows = [r.sample.conversation for r in resolve("builtin:safety", "data").rows()]
    step = max(1, len(rows) // arguments.prompts)
    conversations = rows[::step][: arguments.prompts]
    for dtype in arguments.dtypes:
        unbatched = LocalModel.load("smollm2", dtype=dtype, device="cpu", batch=1)
        alone = generate_tokens(unbatched, conversations, arguments.tokens)
        for batch in arguments.batches:
            model = LocalModel.load("smollm2", dtype=dtype, device="cpu", batch=batch)
            for order in (1, -1):
                batched = generate_tokens(model, conversations[::order], arguments.tokens)
                changed, compared = differences(alone, batched[::order])
                print(
                    json.dumps(
                        {
                            "dtype": dtype,
                            "batch": batch,
                            "order": order,
                            "answers": len(conversations),
                            "changed": changed,
                            "share": round(changed / len(conversations), 4),
                            "per token": round(changed / compared, 6),
                            "tokens": compared,
                        }
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
