"""The RLHF phases of `levers.py`: PPO, PPO-Lagrangian and GRPO-Lagrangian on one backbone.

The reward and cost models are those of the other levers; the tuned models answer the same prompts.
"""

from __future__ import annotations

from typing import Any

from common import SampleList
from workspace import Workspace

from truing.core.types import Sample
from truing.train.rl.reward_spec import RewardSpec, SharedScorer
from truing.train.rl.run import train_rl
from truing.train.rl.settings import RLSettings

# The least share of benign prompts: a policy that only sees harmful ones learns to refuse all.
BENIGN_SHARE = 0.3
# Chosen on training prompts alone: below the mean cost of the base there (about -0.6), so that the
# constraint binds.
THRESHOLD = -1.0
METHODS: dict[str, dict[str, Any]] = {
    "ppo": {"method": "ppo", "prompts": 16},
    "ppo-lag": {"method": "ppo-lag", "prompts": 16},
    "grpo-lag": {"method": "grpo", "prompts": 8, "n": 4},
}


def training_prompts(workspace: Workspace) -> SampleList:
    """Returns PKU prompts that are in no evaluation set, then benign ones (train half)."""
    harmful = list(dict.fromkeys(item.conversation for item in workspace.read_pku("dpo")[0].items))
    benign = list(dict.fromkeys(item.conversation for item in workspace.read_benign("dpo").items))
    harmful_count = round(len(benign) * (1 - BENIGN_SHARE) / BENIGN_SHARE)
    conversations = [*harmful[:harmful_count], *benign]
    samples = [
        Sample(conversation=conversation, id=f"r{k}")
        for k, conversation in enumerate(conversations)
    ]
    return SampleList("PKU and benign prompts", samples)


def train_with_rl(workspace: Workspace, name: str) -> None:
    """Trains one method with every seed and lets the models answer the evaluation sets."""
    size, models = workspace.size, workspace.out / "models"
    reward, cost = (SharedScorer(str(models / kind)) for kind in ("reward", "cost"))
    for seed in size.seeds:
        lever = f"{name}-{seed}" if seed else name
        settings = RLSettings(
            out=str(models / lever),
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
            **METHODS[name],
        )
        costs = [] if name == "ppo" else [cost]
        train_rl(settings, [training_prompts(workspace)], RewardSpec([reward], costs))
        workspace.answer_with_trained(lever)
