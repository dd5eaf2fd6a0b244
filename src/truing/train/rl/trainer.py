"""The training loop: sample answers, score them, update λ, take gradient steps, log, checkpoint.

trainer = RLTrainer(models, prompts, RewardSignals([reward], [cost]), settings)
trainer.run()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from truing.core.errors import PlanError
from truing.core.lineage import digest, hash_prompts
from truing.core.types import Lineage, Sample
from truing.distributed.process_group import ProcessGroup
from truing.hf.chat_tokens import ChatTokenizer
from truing.hf.loading import eos_token_ids
from truing.train import checkpoint
from truing.train.optimizer import learning_rate
from truing.train.rl.advantages import AdvantageBatch, ScoreNormalizers, compute_advantages
from truing.train.rl.answer_scores import AnswerScorer
from truing.train.rl.constraint import KLController
from truing.train.rl.constraint_set import ConstraintSet
from truing.train.rl.current_policy import CurrentPolicy, policy_lineage
from truing.train.rl.diagnosis import RunDiagnosis
from truing.train.rl.dynamic_sampling import ScoredRollout, flat_groups
from truing.train.rl.forward import answer_values, map_micro_batches
from truing.train.rl.generate import AnswerGenerator
from truing.train.rl.policy_models import POLICY, PolicyModels
from truing.train.rl.reward_signals import GlobalScores, RewardSignals, RolloutScores
from truing.train.rl.rollout import Rollout, TokenizedPrompt
from truing.train.rl.rollout_sampler import RolloutSampler
from truing.train.rl.settings import RLSettings
from truing.train.rl.step_metrics import StepMetrics, compute_step_metrics, explained_variance
from truing.train.rl.update import PolicyUpdater, PretrainingBatches, UpdateMetrics
from truing.train.sharded_checkpoint import (
    TrainedPart,
    is_sharded_checkpoint,
    load_whole_optimizer_state,
    read_sharded_tensors,
    write_sharded_checkpoint,
)
from truing.train.step_loop import LoopResult, SliceLimit, run_steps
from truing.train.tracker import open_tracker
from truing.train.training_log import LogCallback, TrainingLog


@dataclass
class TrainerOptions:
    """Optional parts of a run.

    `generator` samples instead of the policy itself (vLLM). `on_log` is called with each line of
    the log. `measure(step, trainer)` is called every `sample_every` steps by the main process and
    returns metrics for the log. `base_sha256` and `data_digest` identify the run in checkpoints.
    """

    generator: AnswerGenerator | None = None
    pretraining_batches: PretrainingBatches | None = None
    on_log: LogCallback | None = None
    measure: Callable[[int, RLTrainer], dict[str, float]] | None = None
    base_sha256: str = ""
    data_digest: str = ""


def run_identity(
    settings: RLSettings,
    signals: RewardSignals,
    *,
    step: int,
    base_sha256: str,
    data_digest: str,
) -> checkpoint.CheckpointIdentity:
    """Returns the identity of a run's checkpoint at a step."""
    signal_names = [
        f"{weighted.signal.name}×{weighted.weight}:{weighted.signal.lineage.hash}"
        for weighted in signals.all_signals
    ]
    return checkpoint.CheckpointIdentity(
        step=step,
        kind=settings.method,
        base_sha256=base_sha256,
        digest=digest(settings.digest(), data_digest, *signal_names),
    )


class RLTrainer:
    """One RL run; `run` resumes from the newest checkpoint in `settings.out`."""

    def __init__(
        self,
        models: PolicyModels,
        prompts: Sequence[TokenizedPrompt],
        signals: RewardSignals,
        settings: RLSettings,
        options: TrainerOptions | None = None,
    ) -> None:
        self.settings = settings.validated(costs=bool(signals.costs))
        self.models = models
        self.prompts = tuple(prompts)
        self.signals = signals
        self.options = options or TrainerOptions()
        self.processes = ProcessGroup()
        self._shard_models()
        self.red_model = signals.red_model_mark(settings.red_model)
        self.sampler = RolloutSampler(
            models, self.prompts, settings, self.processes, generator=self.options.generator
        )
        self.updater = PolicyUpdater(
            models,
            settings,
            self.processes,
            pretraining_batches=self.options.pretraining_batches,
        )
        self.constraints = ConstraintSet.from_settings(settings, costs=bool(signals.costs))
        self._check_prompts()
        self.scorer = AnswerScorer(settings, signals, self.processes, models.device)
        self.kl_controller = KLController(settings)
        self.normalizers = ScoreNormalizers.from_settings(settings)
        self.diagnosis = RunDiagnosis(settings)
        self.step = 0
        self.halted = ""

    def _shard_models(self) -> None:
        """Checks the sizes against the number of processes; shards the weights if wanted."""
        settings, size = self.settings, self.processes.size
        if settings.dynamic_sampling and size > 1:
            raise PlanError("dynamic_sampling works in one process so far")
        if settings.prompts < size:
            raise PlanError(f"prompts = {settings.prompts}: fewer than the {size} processes")
        if not settings.shard or size == 1:
            return
        for name in ("prompts", *(["ptx_batch"] if settings.ptx else [])):
            if getattr(settings, name) % size:
                raise PlanError(
                    f"shard: {name} = {getattr(settings, name)} does not divide among {size} "
                    f"processes"
                )
        if self.models.lockstep.processes is None:  # else they were sharded as they were loaded
            self.models.shard(self.processes)

    def _check_prompts(self) -> None:
        """Raises PlanError if no prompt is under one of the constraints."""
        faults = [
            f"constraint {limit.name}: none of the {len(self.prompts)} prompts has "
            + " and ".join(
                f"{key} = {value}"
                for key, value in (("category", limit.category), ("expect", limit.expect))
                if value
            )
            for limit in self.settings.constraints
            if not any(limit.applies_to(prompt.sample) for prompt in self.prompts)
        ]
        if faults:
            raise PlanError(*faults)

    # -- one step

    def train_step(self) -> StepMetrics:
        """Takes one step (sample, score, update) and returns its line of the log.

        The caller increments `step`.
        """
        settings, step = self.settings, self.step
        started = time.perf_counter()
        rollout = self.generate_rollout(step)
        generated = time.perf_counter()
        first_draw = ScoredRollout(rollout, *self.score_rollout(rollout))
        # Every λ sees all answers of the first draw: a choice among them would bias the mean.
        self.constraints.observe(first_draw.scores, self._step_samples())
        drawn = self._redraw_flat_groups(first_draw)
        rollout, local_scores, scores = drawn.rollout, drawn.local_scores, drawn.scores
        scored = time.perf_counter()
        advantages = compute_advantages(
            settings,
            rollout,
            scores,
            self.critic_values(rollout),
            kl_coefficient=self.kl_controller.value,
            constraints=self.constraints,
            normalizers=self.normalizers,
            processes=self.processes,
        )
        self.updater.set_learning_rates(
            learning_rate(
                step + 1, settings.steps, lr=1.0, warmup=settings.warmup, schedule=settings.schedule
            )
        )
        update_metrics = self.updater.update(
            rollout,
            advantages,
            learned=scores.learned(settings),
            step=step,
            kl_coefficient=self.kl_controller.value,
            constraints=self.constraints,
        )
        learned = time.perf_counter()

        metrics = self._collect_metrics(rollout, local_scores, scores, advantages, update_metrics)
        if settings.uses_groups and settings.baseline == "group":
            flat = flat_groups(settings, scores)
            metrics["flat_groups"] = len(flat) / settings.prompts
        if settings.dynamic_sampling:
            metrics["redrawn_groups"] = drawn.redrawn / settings.prompts
        metrics["seconds_generate"] = round(generated - started, 4)
        metrics["seconds_score"] = round(scored - generated, 4)
        metrics["seconds_learn"] = round(learned - scored, 4)
        self._adapt_kl(metrics)
        return metrics

    def _collect_metrics(
        self,
        rollout: Rollout,
        local_scores: RolloutScores,
        scores: GlobalScores,
        advantages: AdvantageBatch,
        update_metrics: UpdateMetrics,
    ) -> StepMetrics:
        metrics = compute_step_metrics(self.settings, rollout, local_scores, scores, self.processes)
        update_means = update_metrics.means()
        metrics |= update_means
        metrics["loss"] = update_means.get("actor_loss", 0.0)
        metrics["kl_coefficient"] = self.kl_controller.value
        for critic, targets in advantages.critics.items():
            explained = explained_variance(targets, rollout, self.processes)
            metrics[f"{critic}_explained"] = explained
        metrics |= self.constraints.log_metrics(scores)
        if self.sampler.drift is not None:
            metrics["drift"] = self.sampler.drift
        if update_metrics.stopped_early:
            metrics["stopped_after"] = update_metrics.gradient_steps
        return metrics

    def generate_rollout(
        self, step: int, *, positions: Sequence[int] | None = None, draw: int = 0
    ) -> Rollout:
        """Samples this process's answers of a step, with the log-probabilities that it needs.

        `positions` are the prompts of the step to answer (default: all), `draw` counts redraws.
        """
        return self.sampler.generate(step, positions=positions, draw=draw)

    def score_rollout(
        self, rollout: Rollout, *, draw: int = 0
    ) -> tuple[RolloutScores, GlobalScores]:
        """Returns the scores of this process's answers, and those of all processes.

        Raises RunError if too many answers are unscored.
        """
        return self.scorer.score(rollout, self._step_samples(draw), step=self.step + 1)

    def _step_samples(self, draw: int = 0) -> list[Sample]:
        """Returns the prompt of each answer of all processes in this step."""
        indices = self.sampler.prompt_indices(self.step, draw)
        return [self.prompts[i].sample for i in indices for _ in range(self.settings.n)]

    def _redraw_flat_groups(self, scored: ScoredRollout) -> ScoredRollout:
        """Redraws the groups that teach nothing from other prompts (DAPO's dynamic sampling)."""
        for draw in range(1, self.settings.dynamic_sampling + 1):
            positions = flat_groups(self.settings, scored.scores)
            if not positions:
                break
            rollout = self.generate_rollout(self.step, positions=positions, draw=draw)
            scored = scored.with_groups(
                self.settings, positions, rollout, self.score_rollout(rollout, draw=draw)
            )
        return scored

    def critic_values(self, rollout: Rollout) -> dict[str, Tensor]:
        """Returns each critic's value before each answer token, `[B, A]`."""
        values: dict[str, Tensor] = {}
        for critic in self.models.critics:
            with self.models.active(critic) as model:
                values[critic] = map_micro_batches(
                    rollout,
                    self.settings.score_micro,
                    partial(answer_values, model),
                )
        return values

    def _adapt_kl(self, metrics: StepMetrics) -> None:
        """Adapts β to the measured KL, and halts the run where the KL is above `kl_limit`."""
        settings, kl = self.settings, metrics.get("kl_k1")
        if not isinstance(kl, float):
            return
        self.kl_controller.update(kl, settings.answers_per_step)
        if settings.kl_limit and kl > settings.kl_limit:
            self.halted = f"KL to the reference {kl:.3g} is above kl_limit = {settings.kl_limit}"

    def current_policy(self, name: str) -> CurrentPolicy:
        """Returns the policy as it is now as a `Model`, for an evaluation during training.

        Its lineage names the judges that reward it, so that none of them may measure it.
        """
        with self.models.active(POLICY) as policy:
            end_ids = eos_token_ids(policy, self.models.tokenizer)
        turns = ChatTokenizer(self.models.tokenizer, plain=self.settings.template == "plain")
        lineage = policy_lineage(
            name,
            Lineage(name=self.settings.base),
            self.signals.lineages,
            hash_prompts(prompt.sample.prompt for prompt in self.prompts),
            red_model=self.red_model,
        )
        return CurrentPolicy(self.models, turns, end_ids, lineage)

    # -- the whole run

    @property
    def is_finished(self) -> bool:
        """Whether the last step is done, or the run has halted itself."""
        return self.step >= self.settings.steps or bool(self.halted)

    def run(self, limit: SliceLimit | None = None) -> LoopResult:
        """Resumes and takes all remaining steps, or those of a slice."""
        self.resume()
        return run_steps(self, self._open_log(), save_every=self.settings.save_every, limit=limit)

    def take_step(self) -> StepMetrics:
        """Takes one step, measures the samples and checks for warnings; returns the log's line."""
        metrics = self.train_step()
        self.step += 1
        metrics |= self._measure_samples()
        warnings = self.diagnosis.check(metrics)
        if warnings:
            metrics["warning"] = " | ".join(warnings)
        if self.halted:
            metrics["halted"] = self.halted
        return metrics

    def _open_log(self) -> TrainingLog | None:
        if not self.processes.is_main:
            return None
        settings = self.settings
        return TrainingLog(
            settings.out,
            first=self.step + 1,
            tensorboard=settings.tensorboard,
            on_log=self.options.on_log,
            tracker=open_tracker(settings),
        )

    def _measure_samples(self) -> dict[str, float]:
        """Calls `measure` every `sample_every` steps; returns its metrics on the main process."""
        measure, every = self.options.measure, self.settings.sample_every
        if measure is None or not every or self.step % every:
            return {}
        metrics: dict[str, float] = {}
        # All processes enter, because gathering sharded weights is a collective.
        with self.models.unsharded():
            if self.processes.is_main:
                metrics = measure(self.step, self)
        self.processes.barrier()
        return metrics

    # -- checkpoints

    def _checkpoint_mark(self) -> checkpoint.CheckpointIdentity:
        """Returns what identifies the run: a checkpoint of another run is refused."""
        return run_identity(
            self.settings,
            self.signals,
            step=self.step,
            base_sha256=self.options.base_sha256,
            data_digest=self.options.data_digest,
        )

    def training_state(self) -> dict[str, Any]:
        """Returns everything besides weights and optimisers that the next step depends on."""
        return {
            "taken": self.updater.gradient_steps,
            "constraint": self.constraints.state_dict(),
            "scorer": self.scorer.state_dict(),
            "kl": self.kl_controller.value,
            "normalisers": self.normalizers.state_dict(),
            "watch": self.diagnosis.state_dict(),
            "halted": self.halted,
            "rng": checkpoint.rng_state(),
        }

    def save_checkpoint(self) -> None:
        """Writes a checkpoint; all processes must call it."""
        out, keep, mark = self.settings.out, self.settings.keep, self._checkpoint_mark()
        state = self.training_state()
        if self.models.lockstep.processes is not None:
            write_sharded_checkpoint(
                out, mark, self._trained_parts(), state, self.processes, keep=keep
            )
            return
        if self.processes.is_main:
            optimizers = self.updater.optimizers.items()
            state["optimizers"] = {role: optimizer.state_dict() for role, optimizer in optimizers}
            states: dict[str, Any] = {
                role: self.models.state_dict(role) for role in self.updater.optimizers
            }
            states["state"] = state
            files = {f"{name}.pt": checkpoint.torch_writer(part) for name, part in states.items()}
            checkpoint.write_checkpoint(out, mark, files, keep=keep)
        self.processes.barrier()

    def _trained_parts(self) -> dict[str, TrainedPart]:
        """Returns the trained roles by the names of `PolicyModels.active`."""
        return {
            role: TrainedPart(dict(self.models.named_parameters(role)), optimizer)
            for role, optimizer in self.updater.optimizers.items()
        }

    def resume(self) -> bool:
        """Restores the newest checkpoint; returns False if there is none.

        Raises PlanError if it is of another run.
        """
        folder = checkpoint.latest_checkpoint(self.settings.out)
        if folder is None:
            return False
        self.step = checkpoint.check_identity(folder, self._checkpoint_mark()).step
        state = checkpoint.load_torch_file(folder, "state.pt")
        parts = self._trained_parts()
        if is_sharded_checkpoint(folder):
            read_sharded_tensors(folder, parts, state["optimizer_scalars"])
        else:
            for role, part in parts.items():
                self.models.load_state_dict(role, checkpoint.load_torch_file(folder, f"{role}.pt"))
                load_whole_optimizer_state(part, state["optimizers"][role])
        if state["constraint"] is not None:
            self.constraints.load_state_dict(state["constraint"])
        if "scorer" in state:  # checkpoints of versions without an answer contract lack it
            self.scorer.load_state_dict(state["scorer"])
        self.updater.gradient_steps = state["taken"]
        self.kl_controller.value = state["kl"]
        self.halted = state["halted"]
        self.normalizers.load_state_dict(state["normalisers"])
        self.diagnosis.load_state_dict(state["watch"])
        # Last, so that nothing above draws from the restored generators.
        checkpoint.set_rng_state(state["rng"])
        return True
