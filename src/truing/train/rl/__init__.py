"""Reinforcement learning from feedback, with a safety constraint: PPO, PPO-Lagrangian, reward shaping, RLOO, GRPO.

    trainer = Trainer(crew, prompts, Signals(rewards=[...], costs=[...]), settings)
    trainer.run()

The losses are those of `truing.train.losses`; this room draws answers, has them scored, keeps λ, and takes the steps.
"""
