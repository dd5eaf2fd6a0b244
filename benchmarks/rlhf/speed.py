"""CPU seconds per answer of whole iterations and peak memory, against TRL.

    python benchmarks/rlhf/speed.py --trl-ppo VENV112/bin/python --trl VENV116/bin/python

TRL 1.12.0 for PPO (later versions have none), 1.16.0 for the others. Both sides: the same Llama
with random weights, float32, whole models (no adapters), the same threads, prompts of one length,
answers of one length, one pass of gradient steps over each batch. RL samples, scores and updates;
its answers never end (the end token's row of the head is pushed down). sft and dpo read the same
token ids on both sides. Each side runs in a process of its own, the sides in turns. Time is
processor time of one thread, which other jobs of the machine change least; the figure is the median
iteration after the first, the ratio that of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, int]] = {
    "small": {
        "hidden": 192,
        "layers": 4,
        "vocab": 8192,
        "prompt": 32,
        "answer": 32,
        "batch": 8,
        "group": 4,
    },
    "large": {
        "hidden": 576,
        "layers": 8,
        "vocab": 49152,
        "prompt": 64,
        "answer": 32,
        "batch": 8,
        "group": 4,
    },
}
STEPS = 4


def save_models(folder: Path, shape: dict[str, int]) -> None:
    """Saves the policy and the reward model that both sides load."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        LlamaForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    # No word begins with a special token: tokenizers split those off first.
    words = {"<pad>": 0, "<end>": 1} | {f"w{k}": k for k in range(2, shape["vocab"])}
    raw = Tokenizer(models.WordLevel(words, unk_token="w2"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<end>", padding_side="left"
    )
    # Nothing but the words, so that both sides train on the same token ids.
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    config = LlamaConfig(
        vocab_size=shape["vocab"],
        hidden_size=shape["hidden"],
        intermediate_size=shape["hidden"] * 8 // 3,
        eos_token_id=1,
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["hidden"] // 64,
        max_position_embeddings=256,
        pad_token_id=0,
        num_key_value_heads=shape["hidden"] // 64,
        bos_token_id=None,
        num_labels=1,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    policy = LlamaForCausalLM(config)
    # Answers never end or pad: the hidden state has a constant part (the norm's weights), on which
    # all rows of the head but the first two put a positive weight.
    with torch.no_grad():
        policy.model.norm.weight.fill_(1.0)
        policy.lm_head.weight[:2] = 0.0
        policy.lm_head.weight[2:] += 0.1
    torch.manual_seed(1)
    for name, model in (("policy", policy), ("reward", LlamaForSequenceClassification(config))):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def random_prompts(shape: dict[str, int], count: int) -> list[list[int]]:
    """Random ids, all of one length."""
    import random

    rng = random.Random(0)
    return [
        [rng.randrange(2, shape["vocab"]) for _ in range(shape["prompt"])] for _ in range(count)
    ]


def random_words(shape: dict[str, int], count: int, seed: int) -> list[str]:
    """Random answers, all of one length."""
    import random

    rng = random.Random(seed)
    return [
        " ".join(f"w{rng.randrange(2, shape['vocab'])}" for _ in range(shape["answer"]))
        for _ in range(count)
    ]


def supervised_rows(method: str, shape: dict[str, int]) -> list[dict[str, str]]:
    """Prompts with an answer (sft) or with a chosen and a rejected one (dpo)."""
    count = shape["batch"] * (STEPS + 2)
    rows = [{"prompt": " ".join(f"w{t}" for t in ids)} for ids in random_prompts(shape, count)]
    columns = ("completion",) if method == "sft" else ("chosen", "rejected")
    for seed, column in enumerate(columns):
        for row, words in zip(rows, random_words(shape, count, seed)):
            row[column] = " " + words
    return rows


class LastStep(Exception):
    """Ends a run after the steps that are timed: no side writes a model."""


def measure_truing_supervised(method: str, folder: Path, shape: dict[str, int]) -> list[float]:
    """Returns the times of steps of truing's supervised training: from one log line to the next."""
    from truing.core.types import Conversation
    from truing.train.examples import TrainingExample, TrainingSet
    from truing.train.settings import TrainingSettings
    from truing.train.supervised import train_supervised

    examples = [
        TrainingExample(
            name=str(k),
            conversation=Conversation.of(row["prompt"]),
            answers=tuple(row[c].strip() for c in row if c != "prompt"),
        )
        for k, row in enumerate(supervised_rows(method, shape))
    ]
    stamps: list[float] = []

    def stamp(_: Any) -> None:
        stamps.append(time.process_time())
        if len(stamps) > STEPS:
            raise LastStep

    with tempfile.TemporaryDirectory() as out:
        settings = TrainingSettings(
            kind=method,  # type: ignore[arg-type]
            out=out,
            base=str(folder / "policy"),
            steps=STEPS + 2,
            batch=shape["batch"],
            micro=shape["batch"],
            lr=1e-6,
            lora=0,
            dtype="float32",
            device="cpu",
            max_length=256,
            save_every=1000,
            tensorboard=False,
        )
        sources = TrainingSet(spec="words", sha256="0" * 64, items=tuple(examples))
        try:
            train_supervised(settings, [sources], on_log=stamp)
        except LastStep:
            return [b - a for a, b in pairwise(stamps)]
    raise SystemExit("the run ended too early")


def measure_truing(method: str, folder: Path, shape: dict[str, int]) -> list[float]:
    """Returns the times of iterations of truing."""
    if method in ("sft", "dpo"):
        return measure_truing_supervised(method, folder, shape)
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from truing.core.types import Conversation, Sample
    from truing.hf.loading import ScalarModel
    from truing.train.rl.forward import trim_padding
    from truing.train.rl.policy_models import SeparateModels
    from truing.train.rl.reward_signals import FunctionSignal, RewardSignals
    from truing.train.rl.rollout import TokenizedPrompt
    from truing.train.rl.settings import RLSettings
    from truing.train.rl.trainer import RLTrainer

    model = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    models = SeparateModels(model, tokenizer, ("reward_critic",) if method == "ppo" else ())
    model.generation_config.eos_token_id = 1

    if method == "ppo":
        judge = AutoModelForSequenceClassification.from_pretrained(
            folder / "reward", dtype=torch.float32
        ).eval()
        scorer = ScalarModel(judge.model, head=judge.score)

        def reward(rollout: Any) -> Any:
            with torch.no_grad():
                trimmed = trim_padding(rollout)
                return scorer.last_token_values(
                    scorer(trimmed.input_ids, trimmed.attention_mask), trimmed.attention_mask
                )
    else:

        def reward(rollout: Any) -> Any:
            return (rollout.answer_ids % 7 == 0).double().mean(-1)

    n = 1 if method == "ppo" else shape["group"]
    tokenized_prompts = [
        TokenizedPrompt(Sample(conversation=Conversation.of("x"), id=str(k)), tuple(p))
        for k, p in enumerate(random_prompts(shape, shape["batch"]))
    ]
    with tempfile.TemporaryDirectory() as out:
        settings = RLSettings(
            method=method,
            out=out,
            steps=STEPS + 1,
            prompts=shape["batch"] // n,
            n=n,
            epochs=1,
            micro=shape["batch"],  # type: ignore[arg-type]
            score_micro=shape["batch"],
            max_new=shape["answer"],
            lora=0,
            lr=1e-6,
            kl=0.05,
            whiten=method == "ppo",
            save_every=1000,
            tensorboard=False,
        )
        trainer = RLTrainer(
            models, tokenized_prompts, RewardSignals([FunctionSignal("r", reward)]), settings
        )
        times = []
        for _ in range(STEPS + 1):
            started = time.process_time()
            row = trainer.train_step()
            trainer.step += 1
            times.append(time.process_time() - started)
            assert row["length"] == shape["answer"], row["length"]
    return times[1:]


def measure_trl(method: str, folder: Path, shape: dict[str, int]) -> list[float]:
    """Returns the times of iterations of TRL: from one optimiser step to the next."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
    )

    from datasets import Dataset

    tokenizer = AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")
    stamps: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            stamps.append(time.process_time())

    rows = random_prompts(shape, shape["batch"] * (STEPS + 2))
    common: dict[str, Any] = {
        "output_dir": str(folder / "trl"),
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "learning_rate": 1e-6,
        "gradient_accumulation_steps": 1,
        "save_strategy": "no",
        "logging_steps": 1000,
        "gradient_checkpointing": False,
    }
    model = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    if method == "ppo":
        from trl.experimental.ppo import PPOConfig, PPOTrainer

        def scalar() -> Any:
            return AutoModelForSequenceClassification.from_pretrained(
                folder / "reward", num_labels=1, dtype=torch.float32
            )

        reference = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
        config = PPOConfig(
            **common,
            per_device_train_batch_size=shape["batch"],
            num_mini_batches=1,
            num_ppo_epochs=1,
            total_episodes=shape["batch"] * (STEPS + 2),
            response_length=shape["answer"],
            num_sample_generations=0,
            local_rollout_forward_batch_size=shape["batch"],
            kl_coef=0.05,
            temperature=1.0,
        )
        trainer = PPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=model,
            ref_model=reference,
            reward_model=scalar(),
            value_model=scalar(),
            train_dataset=Dataset.from_dict({"input_ids": rows}),
            eval_dataset=Dataset.from_dict({"input_ids": rows[:2]}),
            callbacks=[Clock()],
        )
    elif method in ("sft", "dpo"):
        import trl

        trainer = getattr(trl, f"{method.upper()}Trainer")(
            model=model,
            args=getattr(trl, f"{method.upper()}Config")(
                **common,
                per_device_train_batch_size=shape["batch"],
                max_length=256,
                max_steps=STEPS + 1,
            ),
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(supervised_rows(method, shape)),
            callbacks=[Clock()],
        )
    else:
        import trl

        def reward(completion_ids: Any, **_: Any) -> list[float]:
            return [sum(t % 7 == 0 for t in ids) / len(ids) for ids in completion_ids]

        name = method.upper()
        config = getattr(trl, f"{name}Config")(
            **common,
            per_device_train_batch_size=shape["batch"],
            num_generations=shape["group"],
            max_completion_length=shape["answer"],
            beta=0.05,
            temperature=1.0,
            max_steps=STEPS + 1,
            num_iterations=1,
            steps_per_generation=1,
        )
        words = [{"prompt": " ".join(f"w{t}" for t in r)} for r in rows]
        trainer = getattr(trl, f"{name}Trainer")(
            model=model,
            reward_funcs=reward,
            args=config,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(words),
            callbacks=[Clock()],
        )
    trainer.train()
    return [b - a for a, b in pairwise(stamps)][:STEPS]


def measure_side(side: str, method: str, folder: str, shape: str, threads: int) -> None:
    """Runs a side in this process; prints times and peak memory as JSON."""
    import torch

    torch.set_num_threads(threads)
    times = (measure_truing if side == "ours" else measure_trl)(method, Path(folder), SHAPES[shape])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("FIGURES " + json.dumps({"times": times, "mb": peak}))


def main() -> None:
    """Runs the sides in turns and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trl-ppo", help="python of a venv with trl 1.12.0")
    parser.add_argument("--trl", help="python of a venv with trl 1.16.0")
    parser.add_argument("--shapes", nargs="+", default=["small"])
    parser.add_argument("--methods", nargs="+", default=["sft", "dpo", "ppo", "rloo", "grpo"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", nargs=5)
    arguments = parser.parse_args()
    if arguments.one:
        measure_side(*arguments.one[:4], int(arguments.one[4]))
        return
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads, load "
        f"{os.getloadavg()[0]:.1f}"
    )
    print(
        "| method | model | ours: CPU s per answer | TRL: CPU s per answer | ratio | ours: MB | TRL: MB "
        "|\n|---|---|---|---|---|---|---|"
    )
    for shape in arguments.shapes:
        with tempfile.TemporaryDirectory() as folder:
            save_models(Path(folder), SHAPES[shape])
            for method in arguments.methods:
                peer = arguments.trl_ppo if method == "ppo" else arguments.trl
                results: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": []}
                for _ in range(arguments.rounds):
                    for side, python in (("ours", sys.executable), ("trl", peer)):
                        command = [
                            python,
                            "-W",
                            "ignore",
                            __file__,
                            "--one",
                            side,
                            method,
                            folder,
                            shape,
                            str(arguments.threads),
                        ]
                        done = subprocess.run(command, capture_output=True, text=True, check=False)
                        line = next(
                            (x for x in done.stdout.splitlines() if x.startswith("FIGURES ")), None
                        )
                        if line is None:
                            raise SystemExit(f"{side} {method}: {done.stderr[-2000:]}")
                        results[side].append(json.loads(line[8:]))
                speed = {
                    s: statistics.median(statistics.median(r["times"]) for r in g)
                    / SHAPES[shape]["batch"]
                    for s, g in results.items()
                }
                peak = {s: statistics.median(r["mb"] for r in g) for s, g in results.items()}
                print(
                    f"| {method} | {shape} | {speed['ours']:.4f} | {speed['trl']:.4f} | "
                    f"{speed['trl'] / speed['ours']:.2f} | "
                    f"{peak['ours']:.0f} | {peak['trl']:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
