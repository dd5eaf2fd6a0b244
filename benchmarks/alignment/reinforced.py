"""The RLHF phases of `levers.py`: the reward and cost models of the other levers steer PPO, PPO-Lagrangian and
GRPO-Lagrangian on one backbone; the tuned models then go through the same runs.
"""

from __future__ import annotations

from typing import Any

from levers import Listed

from truing.core.types import Sample
from truing.train.rl.reward_spec import RewardSpec, SharedScorer
from truing.train.rl.run import train_rl
from truing.train.rl.settings import RLSettings

BENIGN = 0.3  # at least this share of the prompts: a policy that only sees harm learns to refuse everything
# Chosen on training prompts alone: below the mean cost of the base there (about -0.6), so that the constraint binds.
THRESHOLD = -1.0
METHODS: dict[str, dict[str, Any]] = {
    "ppo": {"method": "ppo", "prompts": 16},
    "ppo-lag": {"method": "ppo-lag", "prompts": 16},
    "grpo-lag": {"method": "grpo", "prompts": 8, "n": 4},
}


def prompts(bench: Any) -> Listed:
    """PKU prompts that measure nothing here, and benign look-alikes (train half), mixed in a fixed order."""
    harmful = dict.fromkeys(i.conversation for i in bench.pku("dpo")[0].items)
    benign = dict.fromkeys(i.conversation for i in bench.benign("dpo").items)
    few, every = list(benign), list(harmful)
    keep = min(len(every), round(len(few) * (1 - BENIGN) / BENIGN))
    samples = [Sample(conversation=c, id=f"r{k}") for k, c in enumerate((*every[:keep], *few))]
    return Listed("PKU and benign prompts", samples)


def reinforce(bench: Any, name: str) -> None:
    """One method, every seed."""
    size, given = bench.size, METHODS[name]
    reward, cost = (SharedScorer(str(bench.out / "models" / k)) for k in ("reward", "cost"))
    for seed in size.seeds:
        lever = f"{name}-{seed}" if seed else name
        settings = RLSettings(
            out=str(bench.out / "models" / lever),
            seed=seed,
            steps=size.rl_steps,
            max_new=size.max_tokens,
            max_prompt=96,
            micro=16,
            lr=size.rl_lr,
            kl=size.rl_kl,
            threshold=THRESHOLD,
            window=64,
            lambda_lr=0.1,
            whiten=True,
            save_every=10,
            keep=1,
            tensorboard=False,
            **given,
        )
        costs = [] if name == "ppo" else [cost]
        train_rl(settings, [prompts(bench)], RewardSpec([reward], costs))
        bench.local(lever)
