"""Samples the rollouts of a run, with the log-probabilities under policy and reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from truing.core.ids import stream_seed
from truing.distributed.process_group import ProcessGroup
from truing.hf.loading import eos_token_ids
from truing.train.rl.forward import answer_log_probs, map_micro_batches
from truing.train.rl.generate import AnswerGenerator, LocalGenerator, uniform_draws
from truing.train.rl.policy_models import POLICY, REFERENCE, ROLLOUT, PolicyModels
from truing.train.rl.rollout import (
    GeneratedAnswers,
    Rollout,
    TokenizedPrompt,
    build_rollout,
    redraw_prompt_indices,
    sample_prompt_indices,
)
from truing.train.rl.settings import RLSettings


class RolloutSampler:
    """Samples the answers of a step; a function of seed, step and weights alone.

    `generator` samples instead of the policy itself (vLLM). `drift` is the mean absolute
    difference, in nats per answer token, between the log-probabilities of the sampler and of the
    policy in the newest rollout; None if the policy did not compute its own.
    """

    def __init__(
        self,
        models: PolicyModels,
        prompts: Sequence[TokenizedPrompt],
        settings: RLSettings,
        processes: ProcessGroup,
        *,
        generator: AnswerGenerator | None = None,
    ) -> None:
        self.models = models
        self.prompts = prompts
        self.settings = settings
        self.processes = processes
        self.pad_id = int(models.tokenizer.pad_token_id or 0)
        self.is_external = generator is not None
        self.generator = generator or self._local_generator()
        self.drift: float | None = None

    def _local_generator(self) -> LocalGenerator:
        with self.models.active(POLICY) as policy:
            return LocalGenerator(
                policy,
                eos_token_ids(policy, self.models.tokenizer),
                temperature=self.settings.temperature,
                top_p=self.settings.top_p,
                pad_id=self.pad_id,
            )

    def prompt_indices(self, step: int, draw: int = 0) -> list[int]:
        """Returns the indices of the prompts of a step, or of its redraw number `draw` (from 1)."""
        settings = self.settings
        arguments = len(self.prompts), step, settings.prompts, settings.seed
        if draw:
            return redraw_prompt_indices(*arguments, draw)
        return sample_prompt_indices(*arguments)

    def generate(
        self, step: int, *, positions: Sequence[int] | None = None, draw: int = 0
    ) -> Rollout:
        """Samples this process's answers of a step, with the log-probabilities that training needs.

        `positions` are the prompts of the step to answer (default: all), `draw` counts redraws.
        """
        settings, models = self.settings, self.models
        indices = self.prompt_indices(step, draw)
        # All n answers to a prompt stay on one process, so that the prompt is prefilled once.
        local = [
            position
            for position in self.processes.local_indices(settings.prompts)
            if positions is None or position in positions
        ]
        prompts = [self.prompts[indices[p]] for p in local for _ in range(settings.n)]
        global_rows = [p * settings.n + answer for p in local for answer in range(settings.n)]
        seed = stream_seed(settings.seed, "redraw", draw) if draw else settings.seed
        answers = self._sample_answers(
            [prompt.ids for prompt in prompts],
            uniform_draws(seed, step, global_rows, settings.max_new),
        )
        rollout = build_rollout(
            prompts,
            global_rows,
            answers,
            models.tokenizer,
            device=models.device,
            pad_id=self.pad_id,
            hide_special_tokens=settings.special_token_score == "hidden",
        )
        rollout = self.with_policy_log_probs(rollout)
        if not settings.needs_reference:
            return rollout
        return replace(rollout, ref_log_probs=self.log_probs_of(REFERENCE, rollout))

    def _sample_answers(
        self, prompts: Sequence[Sequence[int]], uniform_draws: np.ndarray
    ) -> GeneratedAnswers:
        if not isinstance(self.generator, LocalGenerator):
            # Another engine has weights of its own: neither are shards gathered for it, nor is the
            # copy of the policy built that samples in half precision.
            return self.generator(prompts, uniform_draws)
        with self.models.unsharded(), self.models.active(ROLLOUT) as rollout_model:
            self.generator.model = rollout_model
            return self.generator(prompts, uniform_draws)

    def with_policy_log_probs(self, rollout: Rollout) -> Rollout:
        """Returns the rollout with the policy's own log-probabilities, if the sampler's may differ.

        Those of another engine or of half precision differ, but the ratio must be 1 in the first
        gradient step: the policy computes them in one more forward pass. With a single gradient
        step, and no KL penalty in the rewards, the forward pass of that step yields them
        (on_policy).
        """
        settings = self.settings
        if not self.is_external and self.models.compute_dtype is None:
            return rollout
        rewards_need_them = settings.needs_reference and not settings.kl_in_loss
        if settings.takes_one_step and not self.is_external and not rewards_need_them:
            return replace(rollout, sampler_log_probs=rollout.log_probs, on_policy=True)
        return self.recompute_log_probs(rollout)

    def recompute_log_probs(self, rollout: Rollout) -> Rollout:
        """Returns the rollout with the policy's log-probabilities; the sampler's stay beside them.

        Sets `drift`, and lets the generator check it.
        """
        log_probs = self.log_probs_of(POLICY, rollout)
        difference = (rollout.log_probs - log_probs).abs() * rollout.answer_mask
        self.drift = float(difference.sum() / rollout.answer_mask.sum())
        if hasattr(self.generator, "check_drift"):
            self.generator.check_drift(self.drift)
        return replace(rollout, log_probs=log_probs, sampler_log_probs=rollout.log_probs)

    def log_probs_of(self, role: str, rollout: Rollout) -> Tensor:
        """Returns the log-probabilities of the answers under the policy or the reference."""
        temperature = self.settings.temperature
        with self.models.active(role) as model:
            return map_micro_batches(
                rollout,
                self.settings.score_micro,
                lambda micro: answer_log_probs(model, micro, temperature=temperature),
                by_prompt=True,
            )
