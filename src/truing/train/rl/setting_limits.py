"""The least values of the settings of an RL run."""

from __future__ import annotations

MINIMUM: dict[str, float] = {
    "steps": 1,
    "prompts": 1,
    "n": 1,
    "epochs": 1,
    "minibatch": 0,
    "micro": 1,
    "score_micro": 1,
    "max_new": 1,
    "max_prompt": 1,
    "lora": 0,
    "delay": 0,
    "save_every": 1,
    "keep": 1,
    "sample_every": 0,
    "ptx_batch": 1,
    "warmup": 0,
    "ptx": 0,
    "kl": 0,
    "kl_target": 0,
    "overlong_buffer": 0,
    "importance_cap": 0,
    "dynamic_sampling": 0,
    "nu": 0,
    "temperature": 1e-6,
    "clip": 1e-6,
    "lr": 0,
    "critic_lr": 0,
}
