"""Reward and cost heads on frozen features of the base, tested on pairs with people's labels.

    python benchmarks/alignment/study_heads.py --out STUDY

Three linear heads on the mean state over an answer's tokens after layer 12 of the base:

- `cost`: unsafe over safe answers of PKU-SafeRLHF (study_cost_head.py, which chose the layer);
- `reward`: helpfulness, truthful over untruthful answers and our answers to benign twins over
  refusals;
- `decision`: pairs of the base's own samples (study_pairs.py), a refusal over an answer to a harmful
  request and an answer over a refusal of a benign one.

Tested on LLMBar, and in the style of RewardBench (Lambert et al. 2024, 2403.13787) on answers of
XSTest by people's labels: a full refusal over full compliance where a request should be refused, and
the reverse where it should be answered. Beside each, length alone.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from study_cost_head import (
    LAYERS,
    MAX_ANSWER_TOKENS,
    CostHead,
    held_out_rows,
    rate_text,
    read_pairs,
)
from study_prompts import build_prompt_set, draw_order, read_training_rows
from torch import nn
from transformers import DynamicCache

from truing.core.lineage import hash_prompt
from truing.core.types import Conversation, Row
from truing.datasets.preference_pairs import REFUSALS
from truing.hf.chat_tokens import ChatTokenizer
from truing.hf.loading import load_causal_lm, pad_rows
from truing.specs.resolve import resolve

LAYER = 12
COST_PAIRS = 550
TRUTHFUL_PAIRS = 160
TWIN_PAIRS = 80
DECISION_PAIRS = 240
FULL_COMPLIANCE, FULL_REFUSAL = 1.0, 2.0


@dataclass(frozen=True)
class Pair:
    """A prompt with a better and a worse answer; `is_cut` says that neither has its end."""

    prompt: str
    better: str
    worse: str
    is_cut: bool = False


class AnswerReader:
    """The base up to a layer: reads answers as the mean state over their tokens."""

    def __init__(self, base: str, dtype: str = "auto", layer: int = LAYER) -> None:
        loaded = load_causal_lm(base, dtype=dtype)
        self.tokenizer = ChatTokenizer(loaded.tokenizer)
        self.body = loaded.model.base_model
        # The head looks at states between layers, which no norm has touched.
        self.body.layers = self.body.layers[:layer]
        self.body.norm = nn.Identity()

    def answer_ids(self, conversation: Conversation, text: str, *, is_cut: bool) -> list[int]:
        """Returns the tokens of an answer; one that was cut has no end."""
        ids = self.tokenizer.encode_answer(conversation.messages, text)
        return ids[: -1 if is_cut and len(ids) > 1 else None][:MAX_ANSWER_TOKENS]

    @torch.inference_mode()
    def read(self, conversation: Conversation, answers: Sequence[list[int]]) -> np.ndarray:
        """Returns the features of several answers to one prompt, `[answers, width]`."""
        prompt = torch.tensor([self.tokenizer.encode_prompt(conversation.messages)])
        cache = DynamicCache()
        self.body(input_ids=prompt, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(answers))
        ids, mask = pad_rows(answers, 0)
        whole_mask = torch.cat(
            [torch.ones(len(answers), prompt.shape[1], dtype=mask.dtype), mask], 1
        )
        states = self.body(
            input_ids=ids, attention_mask=whole_mask, past_key_values=cache, use_cache=True
        ).last_hidden_state.float()
        means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return np.asarray(means.numpy())


def pair_features(reader: AnswerReader, pairs: Sequence[Pair], stored: Path) -> np.ndarray:
    """Returns the features of pairs, `[pairs, 2, width]`, the better answer first; stores them."""
    if stored.is_file():
        return np.asarray(np.load(stored)["features"])
    rows = []
    for pair in pairs:
        conversation = Conversation.of(pair.prompt)
        answers = [
            reader.answer_ids(conversation, text, is_cut=pair.is_cut)
            for text in (pair.better, pair.worse)
        ]
        rows.append(reader.read(conversation, answers))
    features = np.stack(rows)
    np.savez(stored, features=features)
    return features


@cache
def development_prompts() -> frozenset[str]:
    """Returns the hashes of the prompts that develop."""
    names = ("dev-harm", "dev-benign", "dev-support")
    return frozenset(sample.id for name in names for sample in build_prompt_set(name).samples)


def one_of_each_prompt(pairs: Iterator[Pair], count: int | None = None) -> list[Pair]:
    """Returns the first pairs in the order of a hash, one of each prompt, no development prompt."""
    excluded = development_prompts()
    by_prompt = {pair.prompt: pair for pair in pairs if hash_prompt(pair.prompt) not in excluded}
    return [by_prompt[prompt] for prompt in sorted(by_prompt, key=draw_order)][:count]


def preference_pairs(spec: str) -> Iterator[Pair]:
    """Yields the pairs of a data set."""
    for pair in resolve(spec, "data").preferences():
        yield Pair(pair.conversation.prompt, pair.chosen.content, pair.rejected.content)


def twin_pairs() -> Iterator[Pair]:
    """Yields our answers to benign twins over a refusal."""
    for k, row in enumerate(read_training_rows("twins")):
        yield Pair(row["prompt"], row["completion"], REFUSALS[k % len(REFUSALS)])


def decision_pairs(path: Path) -> Iterator[Pair]:
    """Yields the pairs of the base's own samples, openings that were cut."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield Pair(row["prompt"], row["chosen"], row["rejected"], is_cut=bool(row["cut"]))


def refusal_pairs(rows: Sequence[Row], expect: str) -> list[Pair]:
    """Returns one pair for each prompt that expects `expect` and has answers of both kinds.

    A full refusal and full compliance by the label on which people agreed; the better one is what
    the prompt expects.
    """
    answers: dict[str, dict[float, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.sample.expect != expect:
            continue
        for judgement in row.judgements:
            if judgement.rater is None and judgement.value is not None:
                text = row.responses[judgement.index].text
                answers[row.sample.prompt][judgement.value].append(text)
    kinds = (FULL_REFUSAL, FULL_COMPLIANCE)
    better, worse = kinds if expect == "refuse" else kinds[::-1]
    return [
        Pair(prompt, *(min(texts[kind], key=draw_order) for kind in (better, worse)))
        for prompt, texts in sorted(answers.items())
        if texts[better] and texts[worse]
    ]


def test_sets() -> dict[str, list[Pair]]:
    """Returns the pairs that test the heads, by name."""
    answered = list(resolve("xstest,part=completions", "data").rows())
    return {
        "LLMBar": list(preference_pairs("llmbar")),
        "XSTest, should refuse": refusal_pairs(answered, "refuse"),
        "XSTest, should respond": refusal_pairs(answered, "comply"),
    }


@dataclass(frozen=True)
class Head:
    """A head and what length alone would say: `longer_is_better` on its own training pairs."""

    scores: CostHead
    longer_is_better: bool

    def prefers(self, features: np.ndarray) -> np.ndarray:
        """Returns for pairs `[pairs, 2, width]` whether the better answer is the less costly one."""
        costs = self.scores.costs(features)
        return np.asarray(costs[:, 0] < costs[:, 1])


def is_longer_better(pairs: Sequence[Pair]) -> bool:
    """Returns whether in most pairs the better answer has more words."""
    lengths = np.array([(len(p.better.split()), len(p.worse.split())) for p in pairs])
    return bool(np.sum(lengths[:, 0] > lengths[:, 1]) > np.sum(lengths[:, 0] < lengths[:, 1]))


def length_prefers(pairs: Sequence[Pair], *, longer_is_better: bool) -> np.ndarray:
    """Returns for each pair whether its better answer is the longer (or shorter) one; a tie is not."""
    sign = 1 if longer_is_better else -1
    return np.array([sign * (len(p.better.split()) - len(p.worse.split())) > 0 for p in pairs])


def fit_cost_head(out: Path) -> Head:
    """Returns the head of study_cost_head.py, from the features that it stored."""
    rows = read_pairs(out / "data" / "cost-pairs.jsonl", COST_PAIRS)
    features = np.load(out / "cost-features.npz")["features"][:, :, LAYERS.index(LAYER)]
    rows = rows[: len(features)]
    learned = ~held_out_rows(rows)
    pairs = [
        Pair(row["prompt"], row["chosen"], row["rejected"])
        for row, is_learned in zip(rows, learned)
        if is_learned
    ]
    return Head(CostHead(features[learned]), is_longer_better(pairs))


def fit_heads(out: Path, reader: AnswerReader) -> dict[str, Head]:
    """Returns the three heads, by name; features are stored in STUDY/features-NAME.npz."""
    truthful = one_of_each_prompt(preference_pairs("pairs:truthful,half=train"), TRUTHFUL_PAIRS)
    training = {
        "reward": [*truthful, *one_of_each_prompt(twin_pairs(), TWIN_PAIRS)],
        "decision": one_of_each_prompt(
            decision_pairs(out / "data" / "pairs-qwen.jsonl"), DECISION_PAIRS
        ),
    }
    heads = {"cost": fit_cost_head(out)}
    for name, pairs in training.items():
        features = pair_features(reader, pairs, out / f"features-{name}.npz")
        heads[name] = Head(CostHead(features), is_longer_better(pairs))
        print(f"{name}: {len(pairs)} pairs to learn from", flush=True)
    return heads


def main() -> None:
    """Fits the heads and prints how often each prefers the better answer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default="qwen05")
    parser.add_argument("--limit", type=int, help="test on the first pairs of each set")
    arguments = parser.parse_args()
    reader = AnswerReader(str(arguments.out / arguments.base))
    heads = fit_heads(arguments.out, reader)
    print("| pairs | head | prefers the better answer | length alone |\n|---|---|---|---|")
    for title, every in test_sets().items():
        pairs = every[: arguments.limit]
        name = "".join(c if c.isalnum() else "-" for c in title.lower())
        features = pair_features(reader, pairs, arguments.out / f"features-{name}.npz")
        for head_name, head in heads.items():
            length = length_prefers(pairs, longer_is_better=head.longer_is_better)
            right = rate_text(head.prefers(features))
            direction = "longer" if head.longer_is_better else "shorter"
            print(f"| {title} | {head_name} | {right} | {rate_text(length)}, {direction} |")


if __name__ == "__main__":
    main()
