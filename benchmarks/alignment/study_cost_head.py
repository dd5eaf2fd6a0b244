"""A cost model from frozen features: the hidden states of the base and a linear head on them.

    python benchmarks/alignment/study_cost_head.py --out STUDY --pairs 550

Reads STUDY/data/cost-pairs.jsonl (`study.py prepare`: PKU-SafeRLHF, one safe and one unsafe answer
to a prompt), and prints on held-out prompts how often the head orders a pair rightly and how often
the sign of its cost is right, beside what length alone gives. One forward pass of the base for each
answer is all that is computed; the layer is chosen by cross-validation on the training prompts. The
features are stored in STUDY/cost-features.npz as far as they are computed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit
from study_prompts import draw_order

from truing.core.lineage import hash_prompt
from truing.core.types import Conversation
from truing.hf.chat_tokens import ChatTokenizer
from truing.hf.loading import load_causal_lm
from truing.stats.intervals import wilson

LAYERS = (12, 17, 21, 24)
MAX_ANSWER_TOKENS = 96
COMPONENTS = 100
"""Principal components of a layer that the head sees: there are more dimensions than pairs."""
RIDGE = 30.0
FOLDS = 5
HELD_OUT = 4
"""One prompt in four is held out, by its hash."""


def read_pairs(path: Path, count: int) -> list[dict[str, str]]:
    """Returns the first pairs in the order of a hash, one of each prompt."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    by_prompt = {row["prompt"]: row for row in rows}
    return [by_prompt[prompt] for prompt in sorted(by_prompt, key=draw_order)][:count]


def compute_features(base: str, pairs: list[dict[str, str]], stored: Path) -> np.ndarray:
    """Returns mean states over each answer's tokens, `[pairs, 2, layers, width]`; safe one first."""
    done = np.load(stored)["features"] if stored.is_file() else None
    features = [] if done is None else list(done[: len(pairs)])
    if len(features) == len(pairs):
        return np.stack(features)
    loaded = load_causal_lm(base)
    tokenizer = ChatTokenizer(loaded.tokenizer)
    for pair in pairs[len(features) :]:
        messages = Conversation.of(pair["prompt"]).messages
        prompt_ids = tokenizer.encode_prompt(messages)
        both = []
        for name in ("chosen", "rejected"):
            answer_ids = tokenizer.encode_answer(messages, pair[name])[:MAX_ANSWER_TOKENS]
            ids = torch.tensor([[*prompt_ids, *answer_ids]])
            with torch.no_grad():
                output = loaded.model.model(input_ids=ids, output_hidden_states=True)
            states = [output.hidden_states[k][0, len(prompt_ids) :].float() for k in LAYERS]
            both.append(torch.stack([state.mean(0) for state in states]).numpy())
        features.append(np.stack(both))
        if len(features) % 50 == 0 or len(features) == len(pairs):
            np.savez(stored, features=np.stack(features))
            print(len(features), flush=True)
    return np.stack(features)


def fit_logistic(inputs: np.ndarray, labels: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """Returns the weights of a ridge-penalised logistic regression, its bias last (Newton)."""
    columns = np.c_[inputs, np.ones(len(inputs))]
    penalty = ridge * np.r_[np.ones(inputs.shape[1]), 0.0]
    weights = np.zeros(columns.shape[1])
    for _ in range(30):
        p = expit(columns @ weights)
        gradient = columns.T @ (p - labels) + penalty * weights
        hessian = (columns.T * (p * (1 - p) + 1e-6)) @ columns + np.diag(penalty + 1e-6)
        weights -= np.linalg.solve(hessian, gradient)
    return weights


class CostHead:
    """A logistic cost on the principal components of one layer: above 0 is unsafe."""

    def __init__(self, features: np.ndarray) -> None:
        answers = features.reshape(-1, features.shape[-1])
        labels = np.tile([0.0, 1.0], len(features))
        self.mean, self.scale = answers.mean(0), answers.std(0) + 1e-3
        scaled = (answers - self.mean) / self.scale
        self.directions = np.linalg.svd(scaled, full_matrices=False)[2][:COMPONENTS].T
        self.weights = fit_logistic(scaled @ self.directions, labels)

    def costs(self, features: np.ndarray) -> np.ndarray:
        """Returns the cost of each answer, `[pairs, 2]`."""
        inputs = ((features - self.mean) / self.scale) @ self.directions
        return np.asarray(inputs @ self.weights[:-1] + self.weights[-1])


def held_out_rows(pairs: list[dict[str, str]]) -> np.ndarray:
    """Returns which pairs are held out, by the hash of their prompt."""
    return np.array([int(hash_prompt(pair["prompt"]), 16) % HELD_OUT == 0 for pair in pairs])


def rate_text(correct: np.ndarray) -> str:
    """Returns "72 [66, 77] of 200"."""
    rate = wilson(int(correct.sum()), correct.size)
    bounds = f"[{100 * rate.lower:.0f}, {100 * rate.upper:.0f}]"
    return f"{100 * rate.estimate:.0f} {bounds} of {correct.size}"


def print_row(name: str, costs: np.ndarray) -> None:
    """Prints the order and sign accuracy of costs `[pairs, 2]`, the safe answer first."""
    order = costs[:, 0] < costs[:, 1]
    sign = np.c_[costs[:, 0] < 0, costs[:, 1] > 0]
    print(f"| {name} | {rate_text(order)} | {rate_text(sign)} |")


def choose_layer(features: np.ndarray, fold_of: np.ndarray) -> int:
    """Returns the index of the layer whose head orders most pairs rightly in cross-validation."""
    correct = []
    for layer in range(len(LAYERS)):
        right = 0
        for fold in range(FOLDS):
            head = CostHead(features[fold_of != fold, :, layer])
            costs = head.costs(features[fold_of == fold, :, layer])
            right += int((costs[:, 0] < costs[:, 1]).sum())
        correct.append(right)
        print(f"layer {LAYERS[layer]}: {right} of {len(features)} by cross-validation")
    return int(np.argmax(correct))


def main() -> None:
    """Fits the head and prints its accuracy on held-out prompts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default="qwen05")
    parser.add_argument("--pairs", type=int, default=550)
    arguments = parser.parse_args()
    pairs = read_pairs(arguments.out / "data" / "cost-pairs.jsonl", arguments.pairs)
    features = compute_features(
        str(arguments.out / arguments.base), pairs, arguments.out / "cost-features.npz"
    )
    hashes = np.array([int(hash_prompt(pair["prompt"]), 16) for pair in pairs], dtype=object)
    held_out = held_out_rows(pairs)
    fold_of = np.array([value // HELD_OUT % FOLDS for value in hashes])[~held_out]
    layer = choose_layer(features[~held_out], fold_of)
    head = CostHead(features[~held_out, :, layer])
    words = np.array([[len(p["chosen"].split()), len(p["rejected"].split())] for p in pairs])
    longer_is_unsafe = np.mean(words[~held_out, 0] < words[~held_out, 1]) > 0.5
    lengths = words.astype(float) * (1 if longer_is_unsafe else -1)
    print(f"{(~held_out).sum()} pairs to learn from, layer {LAYERS[layer]}")
    print("| on held-out prompts | order | sign |\n|---|---|---|")
    print_row("head on frozen features", head.costs(features[held_out, :, layer]))
    print_row("length alone", (lengths - np.median(lengths[~held_out]))[held_out])


if __name__ == "__main__":
    main()
