"""The gradient steps over one rollout: λ first, then the policy, then the critics (safe-rlhf).

Every loss is a sum over answers (or tokens) of all processes divided by their number in the
gradient step, so that neither micro-batches nor the number of processes change the gradient.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from truing.core.errors import RunError
from truing.core.ids import stream_seed
from truing.distributed.process_group import Lockstep, ProcessGroup, as_float64
from truing.train import losses as L
from truing.train.optimizer import build_adamw, clip_gradients, set_learning_rate
from truing.train.rl.advantages import AdvantageBatch, Advantages
from truing.train.rl.constraint_set import ConstraintSet
from truing.train.rl.forward import answer_log_probs, answer_values, micro_batches, trim_padding
from truing.train.rl.policy_loss import averages_over_tokens, policy_loss, ratio_statistics
from truing.train.rl.policy_models import POLICY, PolicyModels
from truing.train.rl.rollout import Rollout
from truing.train.rl.settings import RLSettings

# Returns (input_ids, attention_mask, labels), `[b, T]` each, of the k-th pre-training batch.
PretrainingBatches = Callable[[int], tuple[Tensor, Tensor, Tensor]]

_IGNORED_LABEL = -100


@dataclass
class UpdateMetrics:
    """Metrics of the gradient steps over one rollout, for the log."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    gradient_steps: int = 0
    stopped_early: bool = False

    def add(self, name: str, value: float) -> None:
        """Adds the value of one gradient step."""
        self.values[name].append(value)

    def means(self) -> dict[str, float]:
        """Returns the mean of each metric over the gradient steps."""
        return {name: sum(values) / len(values) for name, values in self.values.items()}


@dataclass(frozen=True)
class Minibatch:
    """The local part of one gradient step.

    `rows` are the local rows that count; `answers` and `tokens` are their numbers over all
    processes, by which every loss is divided.
    """

    rollout: Rollout
    rows: list[int]
    answers: int
    tokens: float

    def fraction(self, micro: Rollout, *, by_token: bool) -> float:
        """Returns which part of the minibatch of all processes a micro-batch is.

        A loss is a mean over its micro-batch; weighted by this fraction, the losses of all
        micro-batches add up to the mean over the minibatch.
        """
        if by_token:
            return float(micro.answer_mask.sum()) / self.tokens
        return len(micro.texts) / self.answers


class PolicyUpdater:
    """Optimisers of policy and critics, and the gradient steps.

    `pretraining_batches` returns the text of the ptx loss (InstructGPT) for each gradient step.
    """

    def __init__(
        self,
        models: PolicyModels,
        settings: RLSettings,
        processes: ProcessGroup,
        *,
        pretraining_batches: PretrainingBatches | None = None,
    ) -> None:
        self.models = models
        self.settings = settings
        self.processes = processes
        self.pretraining_batches = pretraining_batches
        self.optimizers: dict[str, Any] = {
            role: self._new_optimizer(role) for role in (POLICY, *models.critics)
        }
        self.gradient_steps = 0
        sharded = settings.shard and processes.size > 1
        self.lockstep = Lockstep(processes if sharded else None)

    def _new_optimizer(self, role: str) -> Any:
        # PEFT sets requires_grad only on the active adapter, and AdamW takes only such weights.
        with self.models.active(role):
            return build_adamw(
                self.models.named_parameters(role),
                lr=self._full_learning_rate(role),
                weight_decay=self.settings.weight_decay,
            )

    def _full_learning_rate(self, role: str) -> float:
        if role == POLICY:
            return self.settings.policy_learning_rate
        return self.settings.critic_learning_rate

    def set_learning_rates(self, factor: float) -> None:
        """Sets the learning rates to `factor` times their full values (the schedule)."""
        for role, optimizer in self.optimizers.items():
            set_learning_rate(optimizer, factor * self._full_learning_rate(role))

    def shuffled_minibatches(self, count: int, step: int, epoch: int) -> Iterator[list[int]]:
        """Yields the global rows of each gradient step; a function of seed, step and epoch alone.

        All processes compute the same minibatches, and each uses its own rows of them.
        """
        rows, size = list(range(count)), self.settings.minibatch_size
        if size < count:
            random.Random(stream_seed(self.settings.seed, "minibatch", step, epoch)).shuffle(rows)
        for begin in range(0, count, size):
            yield rows[begin : begin + size]

    def update(
        self,
        rollout: Rollout,
        advantages: AdvantageBatch,
        *,
        learned: Tensor,
        step: int,
        kl_coefficient: float,
        constraints: ConstraintSet,
    ) -> UpdateMetrics:
        """Takes all gradient steps over a rollout.

        `learned` `[N]` says which answers of all processes count. Stops early if the KL divergence
        from the policy that sampled exceeds `kl_step_limit`.
        """
        metrics = UpdateMetrics()
        local_row_of_global = {
            global_row: row for row, global_row in enumerate(rollout.global_rows)
        }
        for epoch in range(self.settings.epochs):
            for global_rows in self.shuffled_minibatches(len(learned), step, epoch):
                rows = [
                    local_row_of_global[g]
                    for g in global_rows
                    if g in local_row_of_global and bool(learned[g])
                ]
                answers = int(learned[torch.tensor(global_rows)].sum())
                if not answers:
                    continue
                # λ before the policy, at each gradient step: the order of safe-rlhf's trainer.
                multipliers = constraints.step()
                local_tokens = as_float64(rollout.answer_lengths[rows].sum())
                tokens = float(self.processes.all_reduce(local_tokens))
                minibatch = Minibatch(rollout, rows, answers, tokens)
                kl = self._policy_step(minibatch, advantages, multipliers, kl_coefficient, metrics)
                for critic, targets in advantages.critics.items():
                    self._critic_step(critic, minibatch, targets, metrics)
                metrics.gradient_steps += 1
                self.gradient_steps += 1
                # The KL is that over all processes, so they all stop at the same step.
                if self.settings.kl_step_limit and kl > self.settings.kl_step_limit:
                    metrics.stopped_early = True
                    return metrics
        return metrics

    def _policy_step(
        self,
        minibatch: Minibatch,
        advantages: AdvantageBatch,
        multipliers: Mapping[str, float],
        kl_coefficient: float,
        metrics: UpdateMetrics,
    ) -> float:
        """Takes one gradient step on the policy.

        Returns the KL of the policy before this step from the one that sampled (k3 estimator, nats
        per answer token; Schulman 2020).
        """
        settings = self.settings
        by_token = averages_over_tokens(settings)
        loss_sum = 0.0
        # Sums over the tokens of all processes: clipped, KL, and where another engine or precision
        # sampled, the importance weights, which of them were cut, and the drift.
        sums = torch.zeros(5, dtype=torch.float64)
        with self.models.active(POLICY) as policy:
            for rows, micro, repeat_weight in self._micro_batches(minibatch, by_prompt=True):
                new_log_probs = answer_log_probs(policy, micro, temperature=settings.temperature)
                micro_advantages = advantages.select(rows, micro.answer_mask.shape[1])
                loss = policy_loss(
                    settings, new_log_probs, micro, micro_advantages, multipliers, kl_coefficient
                )
                # Gradients accumulate over the micro-batches; one optimiser step per minibatch.
                loss = loss * (repeat_weight * minibatch.fraction(micro, by_token=by_token))
                loss.backward()

                loss_sum += float(loss.detach())
                statistics = ratio_statistics(settings, new_log_probs.detach(), micro)
                sums += repeat_weight * statistics / minibatch.tokens
            if self.pretraining_batches is not None and settings.ptx:
                ptx_loss = self._pretraining_backward(policy, self.pretraining_batches)
                metrics.add("ptx_loss", ptx_loss)
        loss_sum, clip_fraction, kl, weight, cut, drift = self._sum_over_processes(
            loss_sum, *sums.tolist()
        )
        metrics.add("actor_loss", loss_sum)
        metrics.add("clip_fraction", clip_fraction)
        metrics.add("kl_step", kl)
        if minibatch.rollout.sampler_log_probs is not None:
            metrics.add("importance_mean", weight)
            metrics.add("importance_cut", cut)
        if minibatch.rollout.on_policy:
            metrics.add("drift", drift)
        metrics.add("grad_norm", self._optimizer_step(POLICY))
        return kl

    def _critic_step(
        self, critic: str, minibatch: Minibatch, targets: Advantages, metrics: UpdateMetrics
    ) -> None:
        """Takes one gradient step on a critic: the clipped value loss of PPO."""
        settings = self.settings
        if targets.values is None or targets.returns is None:
            raise ValueError(f"{critic} has no values to learn from")
        loss_sum = 0.0
        with self.models.active(critic) as critic_model:
            for rows, micro, repeat_weight in self._micro_batches(minibatch):
                width = micro.answer_mask.shape[1]
                loss = L.critic_loss(
                    answer_values(critic_model, micro),
                    targets.values[rows, :width],
                    targets.returns[rows, :width],
                    micro.answer_mask,
                    clip=settings.clip_value,
                    reduction=settings.reduction,
                )
                by_token = settings.reduction == "token"
                loss = loss * (repeat_weight * minibatch.fraction(micro, by_token=by_token))
                loss.backward()
                loss_sum += float(loss.detach())
        metrics.add(f"{critic}_loss", self._sum_over_processes(loss_sum)[0])
        self._optimizer_step(critic)

    def _micro_batches(
        self, minibatch: Minibatch, *, by_prompt: bool = False
    ) -> Iterator[tuple[list[int], Rollout, float]]:
        """Yields (rows, micro-batch, 1.0, or 0.0 for a repeated row) of the minibatch.

        A process with fewer micro-batches than another repeats its first row with loss weight 0, so
        that all processes make the same number of forward and backward passes over sharded weights.
        """
        rollout = minibatch.rollout
        # The mean of bnpo depends on which answers are in a micro-batch.
        by_prompt = by_prompt and self.settings.loss != "bnpo"
        batches = micro_batches(rollout, minibatch.rows, self.settings.micro, by_prompt=by_prompt)
        for batch in self.lockstep.iterate(batches):
            if batch is None:
                yield [0], trim_padding(rollout.select_rows([0])), 0.0
            else:
                yield (*batch, 1.0)

    def _pretraining_backward(self, policy: Any, batches: PretrainingBatches) -> float:
        """Adds the gradient of the ptx loss of InstructGPT (Ouyang et al. 2022, equation 2).

        Returns the language-model loss without the coefficient, over all processes.
        """
        input_ids, attention_mask, labels = batches(self.gradient_steps)
        local = list(self.processes.local_indices(input_ids.shape[0]))
        # Labels are shifted by one in the loss, so the first column is never a target.
        local_targets = as_float64((labels[local][:, 1:] != _IGNORED_LABEL).sum())
        targets = max(float(self.processes.all_reduce(local_targets)), 1.0)
        loss_sum = 0.0
        for begin in self.lockstep.iterate(range(0, len(local), self.settings.micro)):
            rows = local[:1] if begin is None else local[begin : begin + self.settings.micro]
            micro_batch_labels = labels[rows].to(self.models.device)
            logits = policy(
                input_ids=input_ids[rows].to(self.models.device),
                attention_mask=attention_mask[rows].to(self.models.device),
                use_cache=False,
            ).logits
            micro_targets = float((micro_batch_labels[:, 1:] != _IGNORED_LABEL).sum())
            fraction = 0.0 if begin is None else micro_targets / targets
            loss = L.ptx_loss(logits, micro_batch_labels, coefficient=self.settings.ptx) * fraction
            loss.backward()
            loss_sum += float(loss.detach()) / self.settings.ptx
        return self._sum_over_processes(loss_sum)[0]

    def _sum_over_processes(self, *values: float) -> list[float]:
        if self.processes.size == 1:
            return list(values)
        local = torch.tensor(values, dtype=torch.float64, device=self.models.device)
        return list(self.processes.all_reduce(local).tolist())

    def _optimizer_step(self, role: str) -> float:
        """Sums and clips the gradients and takes the optimiser step; returns the gradient norm.

        Raises RunError, before any weight changes, if a gradient is not finite.
        """
        parameters = [parameter for _, parameter in self.models.named_parameters(role)]
        self.processes.all_reduce_gradients(parameters)
        norm = clip_gradients(parameters, self.settings.clip_norm)
        if not math.isfinite(norm):
            raise RunError(
                f"the gradient of {role} is not finite; resume from the last checkpoint with a "
                f"lower --lr"
            )
        optimizer = self.optimizers[role]
        optimizer.step()
        # None frees the gradients' memory before the next role's step.
        optimizer.zero_grad(set_to_none=True)
        return norm
