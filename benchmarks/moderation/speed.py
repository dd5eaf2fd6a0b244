"""Speed of the shipped moderation classifier, against plain transformers on the same bases.

    python benchmarks/moderation/speed.py [--judge moderation:research] [--rows 1024]
                                          [--repeat 5] [--threads 2]

The peer is transformers' sequence classification on the same base (on both bases of a blend, the
language model cut to the same number of layers) in float32 with eager attention, batches of 32 in
order of arrival, padded to the longest: the obvious code. Ours runs all of its steps:
normalisation, tokens, n-grams, network, thresholds. Texts are random common words with lengths like
those of real pairs (mean about 100 tokens). All engines take turns in one process; figures are
medians of the repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from truing.hf.loading import cpu_flags
from truing.hf.weights import find_weights
from truing.judges.moderation.causal_layers import truncate_layers
from truing.judges.moderation.inputs import ModerationInput
from truing.judges.moderation.scorer import ModerationScorer, find_classifier_folder
from truing.judges.moderation.settings import read_settings

WORDS = (
    "the of and to in is you that it he was for on are as with his they at be this have from "
    "or one had by word but not what all were we when your can said there use an each which "
    "she do how their if will up other about out many then them these so some her would make "
    "like him into time has look two more write go see number no way could people my than "
    "first water been"
)


def random_pairs(n: int, seed: int = 0) -> list[ModerationInput]:
    """Returns questions and answers of random words; lengths are log-normal, as in BeaverTails."""
    rng = random.Random(seed)

    def text(mean: float) -> str:
        return " ".join(
            rng.choices(WORDS.split(), k=max(3, min(400, int(rng.lognormvariate(0, 0.6) * mean))))
        )

    return [ModerationInput((text(14),), text(68)) for _ in range(n)]


def load_peers(judge: str) -> Callable[[list[ModerationInput]], Any]:
    """Returns a function that runs every base of a judge, one after another."""
    folder = find_classifier_folder(judge)
    settings = read_settings(folder)
    parts = [read_settings(folder / m) for m in settings.members] or [settings]
    runs = [load_peer(s.base, s.layers) for s in parts]
    return lambda rows: [run(rows) for run in runs]


def load_peer(base: str, layers: int) -> Callable[[list[ModerationInput]], Any]:
    """Returns the classification of plain transformers: float32, eager, batches of 32."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    path = str(find_weights(base).path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(
        path, num_labels=17, attn_implementation="eager"
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    if layers:
        truncate_layers(model.model, layers)
    model.eval().float()

    @torch.inference_mode()
    def run(rows: list[ModerationInput]) -> Any:
        probabilities = []
        for start in range(0, len(rows), 32):
            part = rows[start : start + 32]
            inputs = tokenizer(
                [p.turns[0] for p in part],
                [p.response for p in part],
                padding=True,
                truncation=True,
                max_length=192,
                return_tensors="pt",
            )
            probabilities.append(torch.sigmoid(model(**inputs).logits))
        return torch.cat(probabilities)

    return run


def time_call(work: Callable[[], Any]) -> float:
    """Returns the seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def one_thread_latency(judge: str, options: dict[str, str], repeat: int) -> float:
    """Returns the median milliseconds of one pair of about 100 tokens on one thread."""
    torch.set_num_threads(1)
    scorer = ModerationScorer(find_classifier_folder(judge), **options)
    row = next(
        p
        for p in random_pairs(400, 7)
        if len(scorer.members[0].encode([p])[0].ids) in range(98, 103)
    )
    times = sorted(time_call(lambda: scorer.score([row])) for _ in range(repeat))
    return 1000 * statistics.median(times)


def main() -> None:
    """Prints one JSON line for each engine, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", default="default")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = random_pairs(arguments.rows)
    engines: dict[str, dict[str, str]] = {
        "ours, chosen for this machine": {},
        "ours, torch float32": {"engine": "torch", "dtype": "float32"},
        "ours, torch bfloat16": {"engine": "torch", "dtype": "bfloat16"},
        "ours, onnx int8": {"engine": "onnx"},
    }
    name = arguments.judge.removeprefix("moderation:")
    scorers = {k: ModerationScorer(find_classifier_folder(name), **v) for k, v in engines.items()}
    tokens = sum(len(r.ids) for r in scorers["ours, torch float32"].members[0].encode(rows)) / len(
        rows
    )
    run_peers = load_peers(name)
    works: dict[str, Callable[[], Any]] = {
        "transformers float32 eager, batch 32": lambda: run_peers(rows)
    }
    works |= {k: (lambda s=s: s.score(rows)) for k, s in scorers.items()}
    times: dict[str, list[float]] = {k: [] for k in works}
    for turn in range(arguments.repeat + 1):
        for key, work in works.items():
            seconds = time_call(work)
            if turn > 0:  # the first turn warms up
                times[key].append(seconds)
    flags = sorted(cpu_flags() & {"amx_bf16", "avx512_bf16", "avx512_vnni", "avx_vnni"})
    print(
        json.dumps(
            {
                "machine": platform.machine(),
                "cpu": flags,
                "threads": arguments.threads,
                "torch": torch.__version__,
                "rows": len(rows),
                "tokens_a_row": round(tokens, 1),
                "load": os.getloadavg()[0],
            }
        )
    )
    base = statistics.median(times["transformers float32 eager, batch 32"])
    for key, seconds_of_turns in times.items():
        median = statistics.median(seconds_of_turns)
        print(
            json.dumps(
                {
                    "what": key,
                    "engine": " + ".join(m.engine.name for m in scorers[key].members)
                    if key in scorers
                    else "torch float32 cpu",
                    "pairs_per_second": round(len(rows) / median, 1),
                    "ratio": round(base / median, 2),
                }
            )
        )
    del scorers, works
    for key, options in engines.items():
        print(
            json.dumps(
                {"what": key, "p50_ms_one_core": round(one_thread_latency(name, options, 50), 2)}
            )
        )


if __name__ == "__main__":
    main()
