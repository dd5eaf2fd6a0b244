"""The training loop: micro-batches, gradient accumulation, log, checkpoints, resuming.

A step's loss is that of its whole batch, however the batch is cut into micro-batches and spread
over processes. Which rows a step reads is a function of seed and step, so a checkpoint holds no
data state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice, pairwise
from typing import Any

import torch

from truing.core.errors import PlanError, UserError
from truing.distributed.process_group import ProcessGroup
from truing.train import checkpoint as ck
from truing.train.batches import EncodedExample
from truing.train.data_mix import EncodedMix, iterate_step_rows
from truing.train.objectives import METRIC_NAMES, OBJECTIVES, batch_weight
from truing.train.optimizer import build_adamw, clip_gradients, learning_rate, set_learning_rate
from truing.train.run_manifest import MANIFEST_FILE, RunManifest, write_manifest
from truing.train.sharded_checkpoint import (
    TrainedPart,
    is_sharded_checkpoint,
    load_whole_optimizer_state,
    read_sharded_tensors,
    write_sharded_checkpoint,
)
from truing.train.sharding import shard_like
from truing.train.step_loop import LoopResult, SliceLimit, run_steps
from truing.train.tracker import open_tracker
from truing.train.trainable_model import (
    TrainableModel,
    autocast,
    load_trainable_state,
    trainable_state,
)
from truing.train.training_log import LogCallback, TrainingLog

STATE_FILE = "state.pt"
MODEL_PART = "model"
"""The name of the model in a sharded checkpoint."""


class NonFiniteLossError(UserError):
    """The loss or a gradient is not finite; the message names rows and the last good checkpoint."""


def split_micro_batches(
    rows: Sequence[EncodedExample], size: int, *, min_size: int = 1
) -> list[Sequence[EncodedExample]]:
    """Splits rows into near-equal micro-batches of at most `size` rows.

    Where there are enough rows, each has at least `min_size` (which then goes before `size`).
    """
    count = max(1, math.ceil(len(rows) / size))
    count = max(1, min(count, len(rows) // min_size))
    edges = [round(k * len(rows) / count) for k in range(count + 1)]
    return [rows[start:end] for start, end in pairwise(edges) if end > start]


class _StepTotals:
    """Loss and metrics of a step, summed over micro-batches and then over processes."""

    def __init__(self) -> None:
        self.loss = 0.0
        self._sums = dict.fromkeys(METRIC_NAMES, 0.0)
        self._rows = dict.fromkeys(METRIC_NAMES, 0)

    def add(self, weighted_loss: float, metrics: dict[str, float], rows: int) -> None:
        """Adds a micro-batch: its loss times its weight, and its metrics (means over rows)."""
        self.loss += weighted_loss
        for name, value in metrics.items():
            self._sums[name] += value * rows
            self._rows[name] += rows

    def reduce(self, processes: ProcessGroup) -> tuple[float, dict[str, float]]:
        """Returns the loss of the step and the mean of each metric, over all processes."""
        totals = torch.tensor(
            [self.loss, *self._sums.values(), *self._rows.values()], dtype=torch.float64
        )
        loss, *values = processes.all_reduce(totals).tolist()
        sums, rows = values[: len(METRIC_NAMES)], values[len(METRIC_NAMES) :]
        return loss, {name: s / n for name, s, n in zip(METRIC_NAMES, sums, rows) if n}


class TrainingLoop:
    """Trains a model from the newest checkpoint (or from the base) to the last step."""

    def __init__(
        self,
        processes: ProcessGroup,
        trainable: TrainableModel,
        mix: EncodedMix,
        manifest: RunManifest,
        on_log: LogCallback | None,
    ) -> None:
        self.processes, self.trainable, self.mix = processes, trainable, mix
        self.manifest, self.settings, self.on_log = manifest, manifest.settings, on_log
        if trainable.is_sharded and self.settings.batch % processes.size:
            raise PlanError(
                f"--shard: a batch of {self.settings.batch} does not divide evenly among "
                f"{processes.size} processes"
            )
        processes.check_equal(p for p in trainable.model.parameters() if p.requires_grad)
        self.optimizer = build_adamw(
            trainable.model.named_parameters(),
            lr=self.settings.lr,
            weight_decay=self.settings.weight_decay,
        )
        self.step = self._resume()
        self._saved_step = self.step
        schedule = iterate_step_rows(mix.sources, self.settings, manifest.steps)
        # The first steps were done before the run was resumed.
        self._schedule = islice(schedule, self.step, None)

    # -- checkpoints

    def _trained_part(self) -> TrainedPart:
        named = self.trainable.model.named_parameters()
        return TrainedPart({n: p for n, p in named if p.requires_grad}, self.optimizer)

    def _resume(self) -> int:
        """Loads the newest checkpoint, if there is one, and returns its step (else 0)."""
        path = ck.latest_checkpoint(self.settings.folder)
        if path is None:
            return 0
        identity = ck.check_identity(path, self.manifest.identity(0))
        state = ck.load_torch_file(path, STATE_FILE)
        trained = self._trained_part()
        if is_sharded_checkpoint(path):
            read_sharded_tensors(path, {MODEL_PART: trained}, state["optimizer_scalars"])
        else:
            weights = {
                name: shard_like(value, trained.parameters.get(name))
                for name, value in state["weights"].items()
            }
            load_trainable_state(self.trainable.model, weights)
            load_whole_optimizer_state(trained, state["optimizer"])
        ck.set_rng_state(state["rng"])
        return identity.step

    def save_checkpoint(self) -> None:
        """Writes a checkpoint of the last step that was done. All processes must call."""
        # Step 0 is saved as well: a run that stops in its first step names checkpoint-0 as good.
        if self._saved_step != self.step or not self.step:
            folder, keep = self.settings.folder, self.settings.keep
            identity = self.manifest.identity(self.step)
            if self.trainable.is_sharded:
                parts = {MODEL_PART: self._trained_part()}
                state = {"rng": ck.rng_state()}
                write_sharded_checkpoint(folder, identity, parts, state, self.processes, keep=keep)
            elif self.processes.is_main:
                weights = trainable_state(self.trainable.model)
                optimizer_state = self.optimizer.state_dict()
                state = {"weights": weights, "optimizer": optimizer_state, "rng": ck.rng_state()}
                files = {STATE_FILE: ck.torch_writer(state)}
                ck.write_checkpoint(folder, identity, files, keep=keep)
            self._saved_step = self.step
        self.processes.barrier()

    # -- steps

    @property
    def is_finished(self) -> bool:
        """Whether the last step is done."""
        return self.step >= self.manifest.steps

    def run(self, limit: SliceLimit | None = None) -> LoopResult:
        """Takes the remaining steps, or those of a slice."""
        log = self._open_log(self.step + 1) if self.processes.is_main else None
        return run_steps(self, log, save_every=self.settings.save_every, limit=limit)

    def take_step(self) -> dict[str, Any]:
        """Takes one optimiser step and returns the values to log."""
        rows = self.mix.step_rows(next(self._schedule))
        values = self._training_step(self.step + 1, rows)
        self.step += 1
        return values

    def _open_log(self, first_step: int) -> TrainingLog:
        folder = self.settings.folder
        write_manifest(folder / MANIFEST_FILE, self.manifest)
        return TrainingLog(
            folder,
            first=first_step,
            tensorboard=self.settings.tensorboard,
            on_log=self.on_log,
            tracker=open_tracker(self.settings),
        )

    def _training_step(self, step: int, rows: Sequence[EncodedExample]) -> dict[str, Any]:
        """Takes one optimiser step over a whole batch and returns the values to log."""
        settings, processes = self.settings, self.processes
        lr = learning_rate(
            step,
            self.manifest.steps,
            lr=settings.lr,
            warmup=settings.warmup,
            schedule=settings.schedule,
        )
        set_learning_rate(self.optimizer, lr)

        step_weight = batch_weight(settings, rows)
        # Every n-th row, since rows are sorted by length: all processes get a similar load.
        local_rows = rows[processes.rank :: processes.size]
        min_size = 2 if settings.kind == "kto" else 1
        micro_batches = split_micro_batches(local_rows, settings.micro, min_size=min_size)
        totals = _StepTotals()
        for micro_batch in micro_batches:
            # FSDP exchanges gradients in each backward pass: to wait for the last one of a step it
            # would hold those of the whole model in every process.
            self._backward(micro_batch, step_weight, totals)
        loss, metrics = totals.reduce(processes)

        parameters = list(self.trainable.model.parameters())
        processes.all_reduce_gradients(parameters)
        grad_norm = clip_gradients(parameters, settings.clip_norm)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            self._stop_on_non_finite(step, local_rows)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {
            "steps": self.manifest.steps,
            "loss": loss,
            "lr": lr,
            "grad_norm": grad_norm,
            "rows": len(rows),
            **metrics,
        }

    def _backward(
        self, micro_batch: Sequence[EncodedExample], step_weight: float, totals: _StepTotals
    ) -> None:
        """Adds the gradients of a micro-batch."""
        settings = self.settings
        with autocast(settings, self.trainable.device):
            loss, metrics = OBJECTIVES[settings.kind](self.trainable, micro_batch)
        share = batch_weight(settings, micro_batch) / step_weight
        # The shares of a step sum to 1 over all processes, whose gradients are added up.
        (loss * share).backward()
        totals.add(float(loss.detach()) * share, metrics, len(micro_batch))

    def _stop_on_non_finite(self, step: int, rows: Sequence[EncodedExample]) -> None:
        """Saves the state before the bad step, then raises NonFiniteLossError."""
        self.optimizer.zero_grad(set_to_none=True)
        objective = OBJECTIVES[self.settings.kind]
        bad_names: list[str] = []
        for row in rows:
            with torch.no_grad(), autocast(self.settings, self.trainable.device):
                loss, _ = objective(self.trainable, [row])
            if not bool(torch.isfinite(loss)):
                bad_names.append(row.item.name)
        self.save_checkpoint()
        named = ", ".join((bad_names or [row.item.name for row in rows])[:8])
        faulty_part = f"the loss of {named}" if bad_names else f"a gradient of the batch {named}"
        path = ck.checkpoint_folder(self.settings.folder, self.step)
        raise NonFiniteLossError(
            f"step {step}: {faulty_part} is not finite. The weights are those of step {self.step} "
            f"({path}); lower --lr, or leave these rows out"
        )
