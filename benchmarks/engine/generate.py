"""Tokens a second on a local model: ours against transformers' own `generate` at its best batch size.

    .venv/bin/python benchmarks/engine/generate.py [--prompts 500] [--tokens 48] [--batches 8 16 32 64] [--repeat 5]

Prompts are those of `builtin:safety` and `builtin:helpful` in turn, behind a system message, some with a passage before
the question, so that lengths are mixed; greedy, float32, the same threads. transformers gets prompts sorted by length
and left-padded, batch by batch, stops a batch when all of its rows have ended; its best batch size counts. Tokens are
counted up to the end token on both sides and must be the same. Both sides have loaded their model; load is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from typing import Any

SYSTEM = "You are a careful assistant. Answer in a few short sentences, and say so where you are not sure."
PASSAGE = (
    "Here is a note from a colleague: the workshop opens at nine, closes for an hour at noon, and needs two people at "
    "the desk; parts that come in by post are checked against the list, and what is missing is written on the board. "
)


def prompts(n: int) -> list[Any]:
    """Conversations of mixed length."""
    from truing.core.types import Conversation
    from truing.specs.resolve import resolve

    texts = [
        r.sample.prompt
        for name in ("safety", "helpful")
        for r in resolve(f"builtin:{name}", "data").rows()
    ]
    made = []
    for at in range(n):
        text = PASSAGE * (0, 0, 1, 0, 2, 0, 0, 4)[at % 8] + texts[at % len(texts)]
        made.append(Conversation.of(text if at < len(texts) else f"{text} ({at})", system=SYSTEM))
    return made


def ours(model: Any, asks: list[Any], tokens: int) -> tuple[float, list[int], list[str]]:
    """Seconds, tokens an answer, texts."""
    from truing.core.types import Sampling

    async def run() -> list[Any]:
        return list(
            await asyncio.gather(*(model.generate(a, Sampling(max_tokens=tokens)) for a in asks))
        )

    started = time.perf_counter()
    made = asyncio.run(run())
    seconds = time.perf_counter() - started
    return seconds, [a.usage.completion_tokens for (a,) in made], [a.text for (a,) in made]


def theirs(
    loaded: Any, ids: list[tuple[int, ...]], tokens: int, batch: int
) -> tuple[float, list[int], list[str]]:
    """The same of transformers."""
    import torch

    from truing.hf.loading import eos_token_ids, pad_rows

    ends = eos_token_ids(loaded.model, loaded.tokenizer)
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    counts, texts = [0] * len(ids), [""] * len(ids)
    started = time.perf_counter()
    with torch.inference_mode():
        for low in range(0, len(order), batch):
            rows = order[low : low + batch]
            block, mask = pad_rows(
                [ids[i] for i in rows], loaded.tokenizer.pad_token_id, side="left"
            )
            out = loaded.model.generate(
                input_ids=block, attention_mask=mask, max_new_tokens=tokens, do_sample=False
            )
            for i, row in zip(rows, out[:, block.shape[1] :].tolist()):
                stop = next((at for at, t in enumerate(row) if t in ends), len(row))
                counts[i], texts[i] = (
                    stop,
                    loaded.tokenizer.decode(row[:stop], skip_special_tokens=True),
                )
    return time.perf_counter() - started, counts, texts


def main() -> None:
    """Prints one line of JSON."""
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--prompts", type=int, default=500)
    parse.add_argument("--tokens", type=int, default=48)
    parse.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32, 64])
    parse.add_argument("--repeat", type=int, default=5)
    parse.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parse.parse_args()

    import torch

    from truing.hf.loading import load_causal_lm
    from truing.models.local import LocalModel

    torch.set_num_threads(given.threads)
    asks = prompts(given.prompts)
    model = LocalModel.load("smollm2", dtype="float32", device="cpu")
    loaded = load_causal_lm("smollm2", dtype="float32", device="cpu")
    ids = [model.template.prompt(a).ids for a in asks]
    ours(model, asks[:8], 4)
    theirs(loaded, ids[:8], 4, 8)
    mine: list[float] = []
    peer: dict[int, list[float]] = {b: [] for b in given.batches}
    counts: list[int] = []
    same = 0
    for _ in range(given.repeat):
        seconds, counts, texts = ours(model, asks, given.tokens)
        mine.append(sum(counts) / seconds)
        for batch in given.batches:
            seconds, other, said = theirs(loaded, ids, given.tokens, batch)
            peer[batch].append(sum(other) / seconds)
            same = sum(a == b for a, b in zip(texts, said))
            print(
                f"ours {mine[-1]:.0f}/s, batch {batch}: {peer[batch][-1]:.0f}/s, {same} equal",
                file=sys.stderr,
            )
    best = max(given.batches, key=lambda b: statistics.median(peer[b]))
    print(
        json.dumps(
            {
                "prompts": given.prompts,
                "prompt tokens": [
                    min(map(len, ids)),
                    int(statistics.median(map(len, ids))),
                    max(map(len, ids)),
                ],
                "written": sum(counts),
                "ours tokens/s": round(statistics.median(mine), 1),
                "transformers tokens/s": {
                    b: round(statistics.median(v), 1) for b, v in peer.items()
                },
                "best batch": best,
                "ratio": round(statistics.median(mine) / statistics.median(peer[best]), 2),
                "equal texts": same,
                "threads": given.threads,
                "load": [round(x, 1) for x in os.getloadavg()],
            }
        )
    )


if __name__ == "__main__":
    main()
