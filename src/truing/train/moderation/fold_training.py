"""Trains the network of one fold: on every row that is not of the fold.

The order of rows, the dropped prompts and the learning rate are functions of seed, fold and step
alone, so that a killed run resumes to the same next step.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from torch import nn

from truing.core.errors import PlanError, UserError
from truing.hf.loading import load_encoder, select_dtype, truncate_layers
from truing.hf.weights import Weights
from truing.judges.moderation.causal_layers import supports_layerwise_forward
from truing.judges.moderation.engines import TorchEngine, pad_inputs
from truing.judges.moderation.inputs import EncodedInput
from truing.judges.moderation.network import ModerationNetwork
from truing.judges.moderation.network_files import build_network
from truing.train import checkpoint as ck
from truing.train.adapters import lora_config
from truing.train.moderation.batching import make_batches, sample_epoch_units
from truing.train.moderation.examples import ModerationExample
from truing.train.moderation.finished_run import StartingPoint
from truing.train.moderation.frozen_layer_cache import FrozenLayerCache
from truing.train.moderation.loss import (
    LossWeights,
    moderation_loss,
    positive_weights,
    sets_with_categories,
)
from truing.train.moderation.settings import ModerationTrainingSettings, fold_name
from truing.train.optimizer import clip_gradients, learning_rate
from truing.train.step_loop import SliceLimit, run_steps
from truing.train.trainable_model import load_trainable_state, trainable_state
from truing.train.training_log import TrainingLog

if TYPE_CHECKING:
    from accelerate import Accelerator

STATE_FILE = "state.pt"
PROMPT_AS_RESPONSE_SHARE = 0.3  # of the prompts without an answer
MIN_LR_SHARE = 0.01  # of the highest learning rate, at the end of the schedule


@dataclass(frozen=True)
class FoldTrainingContext:
    """What the training of a fold needs.

    `items` are the rows to learn from, `passes` the passes over each set in an epoch, `identity`
    that of the run's checkpoints, `start` the run that training starts from, if not from the base.
    """

    settings: ModerationTrainingSettings
    base: Weights
    items: Sequence[ModerationExample]
    passes: dict[str, float]
    categories: int
    pad_id: int
    log: TrainingLog
    identity: ck.CheckpointIdentity
    accelerator: Accelerator
    start: StartingPoint | None = None


# -- the network


def build_trainable_network(
    settings: ModerationTrainingSettings, base: Weights, categories: int
) -> ModerationNetwork:
    """Returns a float32 network in which adapters, or all but the embeddings, are trainable."""
    loaded = load_encoder(base, dtype="float32", device="cpu")
    body = truncate_layers(loaded.model, settings.layers)
    network = build_network(body, categories)
    for module in body.modules():
        if isinstance(module, nn.Dropout):
            module.p = settings.dropout
    _disable_attention_dropout(body)
    if settings.lora:
        network.body = _add_adapters(body, settings)
        if settings.frozen:
            network.freeze(settings.frozen)
    else:
        body.requires_grad_(True)
        # Embeddings never change: a delta of them would be larger than that of all layers.
        body.get_input_embeddings().requires_grad_(False)
        for name, parameter in body.named_parameters():
            if any(part in name for part in ("embeddings.", "embed_tokens", "wte.")):
                parameter.requires_grad_(False)
    network.mix.requires_grad_(True)
    network.head.requires_grad_(True)
    return network


def _disable_attention_dropout(body: Any) -> None:
    """Sets the dropout of attention weights to 0: with it the fused kernels cannot be used."""
    for key in ("attention_probs_dropout_prob", "attention_dropout"):
        if hasattr(body.config, key):
            setattr(body.config, key, 0.0)
    for module in body.modules():
        is_attention = type(module).__name__.endswith("SelfAttention")
        if is_attention and isinstance(getattr(module, "dropout", None), nn.Dropout):
            module.dropout.p = 0.0
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0


def _add_adapters(body: Any, settings: ModerationTrainingSettings) -> Any:
    """Returns the body with LoRA adapters in all linear layers above the frozen ones."""
    if settings.frozen and (
        not supports_layerwise_forward(body) or settings.frozen >= len(body.layers)
    ):
        raise PlanError(
            f"frozen = {settings.frozen}: needs a language model of the Llama kind "
            "with more layers than that"
        )
    # No dropout: on a CPU drawing its random numbers takes a third of a step.
    config = lora_config(body, settings.lora, settings.frozen)
    from peft import get_peft_model

    return get_peft_model(body, config)


def merge_adapters(network: ModerationNetwork) -> ModerationNetwork:
    """Merges the adapters, if there are any, into the body; returns the network."""
    if hasattr(network.body, "merge_and_unload"):
        network.body = network.body.merge_and_unload()
    return network


def _build_optimizer(
    network: ModerationNetwork, settings: ModerationTrainingSettings
) -> torch.optim.AdamW:
    """AdamW with lower rates for lower layers (Howard & Ruder 2018, ULMFiT, arXiv:1801.06146)."""
    by_layer: dict[int, list[nn.Parameter]] = {}
    for name, parameter in network.body.named_parameters():
        if parameter.requires_grad:
            numbers = [int(part) for part in name.split(".") if part.isdigit()]
            by_layer.setdefault(numbers[0] if numbers else 0, []).append(parameter)
    top = max(by_layer, default=0)
    groups: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": settings.lr * settings.layer_decay ** (top - layer),
            "weight_decay": 0.01,
        }
        for layer, parameters in by_layer.items()
    ]
    head = list(network.head.parameters())
    groups.append({"params": head, "lr": settings.head_lr, "weight_decay": 0.01})
    # The mix is a handful of logits of softmax weights: they must move far to matter.
    groups.append({"params": [network.mix], "lr": 10 * settings.head_lr, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


# -- rows


def drop_prompt(row: EncodedInput) -> EncodedInput:
    """Returns the row of the same answer without its prompt: `[CLS] [SEP] response [SEP]`."""
    start = row.segments.index(1)
    ids = (row.ids[0], row.ids[start - 1], *row.ids[start:])
    return EncodedInput(ids, (0, 0, *row.segments[start:]))


def prompt_as_response(row: EncodedInput) -> EncodedInput:
    """Returns the row of a prompt in the place of a response, like a text of unknown role."""
    ids = (row.ids[0], row.ids[-1], *row.ids[1:])
    return EncodedInput(ids, (0, 0, *[1] * (len(row.ids) - 1)))


def augment_example(
    item: ModerationExample, settings: ModerationTrainingSettings, rng: random.Random
) -> tuple[EncodedInput, tuple[float, ...]]:
    """Returns row and targets as they are learned this time.

    Sometimes an answer loses its prompt, and a prompt is read as a text of unknown role, whose
    question is `harmful` instead of `harmful_prompt`.
    """
    row = item.row
    if item.is_prompt:
        if rng.random() < PROMPT_AS_RESPONSE_SHARE:
            return prompt_as_response(row), (item.targets[1], math.nan, *item.targets[2:])
    elif 1 in row.segments and rng.random() < settings.prompt_dropout:
        return drop_prompt(row), item.targets
    return row, item.targets


def plan_batches(context: FoldTrainingContext, fold: int) -> list[list[int]]:
    """Returns the batches of a fold's training in order, a function of seed and fold."""
    settings = context.settings
    rng = random.Random(f"{settings.seed}/{fold}")
    passes = {source: weight * settings.epochs for source, weight in context.passes.items()}
    units = sample_epoch_units(context.items, passes, rng)
    return make_batches(context.items, units, settings.batch_tokens, rng)


# -- the loop


class FoldTrainer:
    """Trains the network of a fold, from a checkpoint of it (`resume`) or from the base.

    `first_step` is the number of steps that the run did before this fold: log and checkpoints count
    the steps of all folds together.
    """

    def __init__(
        self,
        context: FoldTrainingContext,
        fold: int,
        *,
        first_step: int,
        resume: Path | None = None,
    ) -> None:
        self.context, self.settings, self.fold = context, context.settings, fold
        self.accelerator, self.first_step = context.accelerator, first_step
        ck.seed_all(self.settings.seed + fold)
        self.network = build_trainable_network(self.settings, context.base, context.categories)
        if context.start is not None and resume is None:
            context.start.load_network(self.network, fold_name(fold, self.settings.folds))
        self.batches = self._local_batches()
        optimizer = _build_optimizer(self.network, self.settings)
        self.steps_done = 0
        self.highest_rates = [group["lr"] for group in optimizer.param_groups]
        if resume is not None:
            state = ck.load_torch_file(resume, STATE_FILE)
            load_trainable_state(self.network, state["model"])
            optimizer.load_state_dict(state["optimizer"])
            ck.set_rng_state(state["rng"])
            self.steps_done = int(state["done"])
            # The optimiser's state holds the rates of the step, not the highest ones.
            self.highest_rates = state["rates"]
        self.model, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        self.loss_weights = self._loss_weights()
        self.frozen_layers = None
        if self.settings.frozen:
            self.frozen_layers = FrozenLayerCache(
                self.settings.frozen, dtype=self.settings.dtype, device=self.accelerator.device
            )

    def _local_batches(self) -> list[list[int]]:
        """Returns the batches of this process; every process gets the same number."""
        batches = plan_batches(self.context, self.fold)
        processes = self.accelerator.num_processes
        per_process = max(1, len(batches) // processes)
        return batches[self.accelerator.process_index :: processes][:per_process]

    def _loss_weights(self) -> LossWeights:
        items = self.context.items
        listing_sets = sets_with_categories(items)
        listed = [item for item in items if item.source in listing_sets]
        positive = positive_weights(listed, self.context.categories)
        return LossWeights(
            positive, listing_sets, self.settings.pair_weight, self.settings.category_weight
        )

    @property
    def step(self) -> int:
        """The steps of this fold that are done."""
        return self.steps_done

    @property
    def is_finished(self) -> bool:
        """Whether the last step of this fold is done."""
        return self.steps_done >= len(self.batches)

    def run(self, limit: SliceLimit | None = None) -> ModerationNetwork | None:
        """Takes the remaining steps, or those of a slice.

        Returns the network with its adapters merged; None if the slice ended before the fold.
        """
        self.model.train()
        log = self.context.log if self.accelerator.is_main_process else None
        save_every, first_step = self.settings.save_every, self.first_step
        result = run_steps(self, log, save_every=save_every, limit=limit, first_step=first_step)
        if not result.finished:
            return None
        return merge_adapters(self.accelerator.unwrap_model(self.model))

    def take_step(self) -> dict[str, Any]:
        """Takes one step and returns the values to log."""
        # Of a schedule with a top of 1.0: each parameter group has its own highest rate.
        steps = len(self.batches)
        share = learning_rate(self.steps_done + 1, steps, lr=1.0, warmup=self.settings.warmup)
        for group, rate in zip(self.optimizer.param_groups, self.highest_rates):
            group["lr"] = rate * max(share, MIN_LR_SHARE)
        items = [self.context.items[index] for index in self.batches[self.steps_done]]
        loss = self._training_step(items)
        self.steps_done += 1
        head_group = self.optimizer.param_groups[-2]
        return {
            "loss": loss,
            "fold": self.fold,
            "lr": head_group["lr"],
            "steps": self.first_step + steps,
        }

    def _training_step(self, examples: Sequence[ModerationExample]) -> float:
        step_name = f"{self.fold}/{self.steps_done}"
        rng = random.Random(f"{self.settings.seed}/{step_name}")
        augmented = [augment_example(item, self.settings, rng) for item in examples]
        rows = [row for row, _ in augmented]
        device = self.accelerator.device
        targets = torch.tensor([target for _, target in augmented], device=device)
        arrays = pad_inputs(rows, self.context.pad_id)
        ids, segments, mask = (torch.from_numpy(array).to(device) for array in arrays)

        lower = None
        if self.frozen_layers is not None:
            lower = self.frozen_layers(self.accelerator.unwrap_model(self.model).body, rows, ids)
        with self._autocast():
            logits = self.model(ids, segments, mask, lower)
        loss = moderation_loss(logits, targets, examples, self.loss_weights)
        loss_value = float(loss.detach())
        if not math.isfinite(loss_value):
            raise UserError(
                f"step {step_name} (fold/step): the loss is not finite; "
                "the newest checkpoint is good"
            )
        self.accelerator.backward(loss)
        clip_gradients(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss_value

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        device = self.accelerator.device
        if select_dtype(self.settings.dtype, device) is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    def save_checkpoint(self) -> None:
        """Writes a checkpoint of the last step; only the main process writes."""
        if not self.accelerator.is_main_process:
            return
        # accelerate wraps the optimiser; the checkpoint holds the state of torch's.
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        state = {
            "model": trainable_state(self.network),
            "optimizer": optimizer.state_dict(),
            "rng": ck.rng_state(),
            "done": self.steps_done,
            "fold": self.fold,
            "rates": self.highest_rates,
        }
        identity = msgspec.structs.replace(
            self.context.identity, step=self.first_step + self.steps_done
        )
        ck.write_checkpoint(
            self.settings.folder, identity, {STATE_FILE: ck.torch_writer(state)}, keep=1
        )


def compute_logits(
    network: ModerationNetwork,
    rows: Sequence[EncodedInput],
    pad_id: int,
    settings: ModerationTrainingSettings,
) -> np.ndarray:
    """Returns the logits of a trained network, float64 `[len(rows), outputs]`."""
    engine = TorchEngine(network, pad_id=pad_id, dtype=settings.dtype, device=settings.device)
    logits = np.asarray(engine.logits(rows), dtype=np.float64)
    network.float().cpu()  # the engine moved it to its device
    return logits
