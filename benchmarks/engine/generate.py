"""Tokens a second on a local model: ours against transformers, static batches and continuous
batching.

    .venv/bin/python benchmarks/engine/generate.py [--prompts 500] [--tokens 48] [--batches 8 16 32 64] [--repeat 5]

Prompts are those of `builtin:safety` and `builtin:helpful` in turn, behind a system message, some
with a passage before the question, so that lengths are mixed; greedy, float32, the same threads.
The static peer (`generate`) gets prompts sorted by length and left-padded and stops a batch when
all of its rows have ended; its best batch size counts. The continuous peer (`generate_batch`) gets
all prompts at once, with a paged cache of `--cache-tokens` tokens. Tokens are counted up to the end
token on all sides. Models are loaded before the clock starts; the machine's load is printed.
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

SYSTEM = (
    "You are a careful assistant. Answer in a few short sentences, "
    "and say so where you are not sure."
)
PASSAGE = (
    "Here is a note from a colleague: the workshop opens at nine, closes for an hour at noon, and "
    "needs two people at the counter; parts that come in by post are checked against the list, and "
    "what is missing is written on the board. "
)
PASSAGE_COUNTS = (0, 0, 1, 0, 2, 0, 0, 4)  # passages before the question, in turn: mixed lengths

Outcome = tuple[float, list[int], list[str]]  # seconds, tokens of each answer, texts


def make_conversations(count: int) -> list[Any]:
    """Returns conversations of mixed length."""
    from truing.core.types import Conversation
    from truing.specs.resolve import resolve

    questions = [
        row.sample.prompt
        for name in ("safety", "helpful")
        for row in resolve(f"builtin:{name}", "data").rows()
    ]
    conversations = []
    for i in range(count):
        text = PASSAGE * PASSAGE_COUNTS[i % 8] + questions[i % len(questions)]
        if i >= len(questions):
            text = f"{text} ({i})"  # no two prompts are equal: ours answers equal ones once
        conversations.append(Conversation.of(text, system=SYSTEM))
    return conversations


def run_ours(model: Any, conversations: list[Any], max_tokens: int) -> Outcome:
    """Answers all conversations through `models/local`."""
    from truing.core.types import Sampling

    async def answer_all() -> list[Any]:
        sampling = Sampling(max_tokens=max_tokens)
        calls = (model.generate(conversation, sampling) for conversation in conversations)
        return list(await asyncio.gather(*calls))

    started = time.perf_counter()
    answers = asyncio.run(answer_all())
    seconds = time.perf_counter() - started
    counts = [answer.usage.completion_tokens for (answer,) in answers]
    return seconds, counts, [answer.text for (answer,) in answers]


def decode_up_to_end(loaded: Any, tokens: list[int]) -> tuple[int, str]:
    """Returns the number of tokens before the end token, and their text."""
    from truing.hf.loading import eos_token_ids

    end_tokens = eos_token_ids(loaded.model, loaded.tokenizer)
    length = next((i for i, token in enumerate(tokens) if token in end_tokens), len(tokens))
    return length, loaded.tokenizer.decode(tokens[:length], skip_special_tokens=True)


def run_static(
    loaded: Any, prompt_ids: list[tuple[int, ...]], max_tokens: int, batch: int
) -> Outcome:
    """Answers all prompts through transformers' `generate`, batch by batch."""
    import torch

    from truing.hf.loading import pad_rows

    longest_first = sorted(range(len(prompt_ids)), key=lambda i: -len(prompt_ids[i]))
    counts, texts = [0] * len(prompt_ids), [""] * len(prompt_ids)
    pad_id = loaded.tokenizer.pad_token_id
    started = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(longest_first), batch):
            rows = longest_first[start : start + batch]
            ids, mask = pad_rows([prompt_ids[i] for i in rows], pad_id, side="left")
            output = loaded.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=max_tokens, do_sample=False
            )
            for i, tokens in zip(rows, output[:, ids.shape[1] :].tolist()):
                counts[i], texts[i] = decode_up_to_end(loaded, tokens)
    return time.perf_counter() - started, counts, texts


def run_continuous(
    loaded: Any, prompt_ids: list[tuple[int, ...]], max_tokens: int, cache_tokens: int
) -> Outcome:
    """Answers all prompts through transformers' continuous batching (`generate_batch`)."""
    import torch
    from transformers import ContinuousBatchingConfig, GenerationConfig

    page = 32  # tokens of a page of the cache
    generation = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=loaded.model.generation_config.eos_token_id,
        pad_token_id=loaded.tokenizer.pad_token_id,
    )
    batching = ContinuousBatchingConfig(page_size=page, num_blocks=cache_tokens // page)
    started = time.perf_counter()
    with torch.inference_mode():
        outputs = loaded.model.generate_batch(
            [list(ids) for ids in prompt_ids],
            generation_config=generation,
            continuous_batching_config=batching,
            progress_bar=False,
        )
    seconds = time.perf_counter() - started
    # Request ids end in the position of the prompt; finished requests come in any order.
    by_position = {int(name.rsplit("_", 1)[-1]): out for name, out in outputs.items()}
    answers = [
        decode_up_to_end(loaded, by_position[i].generated_tokens) for i in range(len(prompt_ids))
    ]
    return seconds, [length for length, _ in answers], [text for _, text in answers]


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--batches", type=int, nargs="*", default=[8, 16, 32, 64])
    parser.add_argument("--cache-tokens", type=int, default=32768)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()

    import torch

    from truing.hf.loading import load_causal_lm
    from truing.models.local import LocalModel

    torch.set_num_threads(options.threads)
    conversations = make_conversations(options.prompts)
    model = LocalModel.load("smollm2", dtype="float32", device="cpu")
    loaded = load_causal_lm("smollm2", dtype="float32", device="cpu")
    prompt_ids = [model.template.prompt(conversation).ids for conversation in conversations]

    peers: dict[str, Any] = {
        f"generate, batch {batch}": lambda ids, tokens, batch=batch: run_static(
            loaded, ids, tokens, batch
        )
        for batch in options.batches
    }
    # Last: it changes the model's attention implementation for paged caches.
    peers["continuous batching"] = lambda ids, tokens: run_continuous(
        loaded, ids, tokens, options.cache_tokens
    )
    run_ours(model, conversations[:8], 4)  # warm up both sides
    run_static(loaded, prompt_ids[:8], 4, 8)

    our_speeds: list[float] = []
    peer_speeds: dict[str, list[float]] = {name: [] for name in peers}
    equal_texts: dict[str, int] = {}
    our_counts: list[int] = []
    for _ in range(options.repeat):
        seconds, our_counts, our_texts = run_ours(model, conversations, options.tokens)
        our_speeds.append(sum(our_counts) / seconds)
        for name, run_peer in peers.items():
            seconds, counts, texts = run_peer(prompt_ids, options.tokens)
            peer_speeds[name].append(sum(counts) / seconds)
            equal_texts[name] = sum(a == b for a, b in zip(our_texts, texts))
            print(
                f"ours {our_speeds[-1]:.0f}/s, {name}: {peer_speeds[name][-1]:.0f}/s, "
                f"{equal_texts[name]} equal",
                file=sys.stderr,
            )
    ours = statistics.median(our_speeds)
    medians = {name: statistics.median(speeds) for name, speeds in peer_speeds.items()}
    lengths = sorted(map(len, prompt_ids))
    print(
        json.dumps(
            {
                "prompts": options.prompts,
                "prompt tokens": [lengths[0], int(statistics.median(lengths)), lengths[-1]],
                "written": sum(our_counts),
                "ours tokens/s": round(ours, 1),
                "transformers tokens/s": {name: round(m, 1) for name, m in medians.items()},
                "ratio": {name: round(ours / m, 2) for name, m in medians.items()},
                "equal texts": equal_texts,
                "threads": options.threads,
                "load": [round(x, 1) for x in os.getloadavg()],
            }
        )
    )


if __name__ == "__main__":
    main()
