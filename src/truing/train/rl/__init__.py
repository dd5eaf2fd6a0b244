"""Reinforcement learning from feedback under a safety constraint.

PPO, PPO-Lagrangian, reward shaping, RLOO and GRPO share one loop (`trainer.RLTrainer`): sample
answers, score them, update the Lagrange multiplier λ, take gradient steps. `run.train_rl` runs it
from data sets and judges to a model folder. The losses are those of `truing.train.losses`.
"""
