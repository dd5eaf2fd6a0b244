"""Peak memory of a PPO-Lagrangian step: separate models against adapters on one backbone.

Six models: policy, reference, reward and cost model, two critics.

python benchmarks/rlhf/memory.py                      a random Llama of 53 M parameters, float32
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import task
from transformers import LlamaConfig, LlamaForCausalLM

from truing.hf.loading import ScalarModel
from truing.train.rl.policy_models import CRITICS_BY_METHOD, SeparateModels, SharedBackboneModels
from truing.train.rl.reward_signals import FunctionSignal, RewardSignals
from truing.train.rl.settings import RLSettings
from truing.train.rl.trainer import RLTrainer


def random_llama(hidden: int, layers: int) -> Any:
    """Returns a random Llama with a vocabulary of 16,384."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16384,
            hidden_size=hidden,
            intermediate_size=hidden * 8 // 3,
            num_hidden_layers=layers,
            num_attention_heads=8,
            num_key_value_heads=8,
            eos_token_id=1,
            pad_token_id=0,
            max_position_embeddings=64,
        )
    ).eval()


def measure_step(kind: str, hidden: int, layers: int) -> None:
    """Takes one step in this process; prints the parameters of a model and the peak memory."""
    torch.set_num_threads(1)
    base = random_llama(hidden, layers)
    size = sum(p.numel() for p in base.parameters())
    models: Any
    if kind == "shared":
        models = SharedBackboneModels(base, task.tokenizer(), CRITICS_BY_METHOD["ppo-lag"], rank=16)
        for name in ("reward", "cost"):
            models.peft.add_adapter(name, models.peft.peft_config["actor"])
            models.heads[name] = torch.nn.Linear(hidden, 1, bias=False).requires_grad_(False)
        scorers = {"reward": None, "cost": None}
    else:
        models = SeparateModels(base, task.tokenizer(), CRITICS_BY_METHOD["ppo-lag"])
        scorers = {k: ScalarModel(random_llama(hidden, layers).model) for k in ("reward", "cost")}

    def score(name: str) -> Any:
        def function(rollout: Any) -> Any:
            with torch.no_grad():
                if scorers[name] is not None:
                    return ScalarModel.last_token_values(
                        scorers[name](rollout.input_ids, rollout.attention_mask),
                        rollout.attention_mask,
                    )
                with models.active(name) as scorer:
                    return ScalarModel.last_token_values(
                        scorer(rollout.input_ids, rollout.attention_mask), rollout.attention_mask
                    )

        return FunctionSignal(name, function)

    with tempfile.TemporaryDirectory() as out:
        settings = RLSettings(
            method="ppo-lag",
            out=out,
            prompts=4,
            max_new=16,
            micro=4,
            lora=16 if kind == "shared" else 0,
            tensorboard=False,
        )
        trainer = RLTrainer(
            models, task.prompts(), RewardSignals([score("reward")], [score("cost")]), settings
        )
        trainer.train_step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("FIGURES " + json.dumps({"parameters": size, "mb": peak}))


def main() -> None:
    """Measures both kinds, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--one")
    arguments = parser.parse_args()
    if arguments.one:
        measure_step(arguments.one, arguments.hidden, arguments.layers)
        return
    peak = {}
    for kind in ("separate", "shared"):
        command = [
            sys.executable,
            "-W",
            "ignore",
            __file__,
            "--one",
            kind,
            "--hidden",
            str(arguments.hidden),
            "--layers",
            str(arguments.layers),
        ]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        result = json.loads(next(x for x in out.splitlines() if x.startswith("FIGURES "))[8:])
        peak[kind] = result["mb"]
        print(
            f"{kind}: {result['parameters'] / 1e6:.0f} M parameters per model, peak {result['mb']:.0f} MB",
            flush=True,
        )
    print(f"shared takes {peak['shared'] / peak['separate']:.2f} of the memory of separate copies")


if __name__ == "__main__":
    main()
