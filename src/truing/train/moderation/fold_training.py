"""One fold: fine-tunes the encoder (or the adapters of a language model) on every row that is not of the fold.

The order of rows, the dropped prompts and the learning rate are functions of seed, fold and step alone, so that a run
that was killed goes on to the same next step.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from truing.core.errors import MissingExtra, PlanError, RunError, UserError
from truing.hf.loading import load_encoder, select_dtype
from truing.hf.weights import Weights
from truing.judges.moderation.causal_layers import supports_layerwise_forward, truncate_layers
from truing.judges.moderation.engines import TorchEngine
from truing.judges.moderation.inputs import EncodedInput
from truing.judges.moderation.network import ModerationNetwork
from truing.judges.moderation.network_files import build_network
from truing.train import checkpoint as ck
from truing.train.checkpoint import seed_all
from truing.train.moderation.batching import make_batches, sample_epoch_units
from truing.train.moderation.examples import ModerationExample
from truing.train.moderation.frozen_layer_cache import FrozenLayerCache
from truing.train.moderation.loss import (
    LossWeights,
    moderation_loss,
    positive_weights,
    sets_with_categories,
)
from truing.train.moderation.settings import ModerationTrainingSettings
from truing.train.optimizer import clip_gradients, learning_rate
from truing.train.trainable_model import load_trainable_state, trainable_state
from truing.train.training_log import TrainingLog

STATE_FILE = "state.pt"


@dataclass(frozen=True)
class FoldTrainingContext:
    """What a fold's training needs: settings, base, rows, passes of each set, where it logs, and the run's mark."""

    settings: ModerationTrainingSettings
    base: Weights
    items: Sequence[ModerationExample]
    passes: dict[str, float]
    categories: int
    log: TrainingLog
    mark: ck.CheckpointIdentity
    here: Any


def build_trainable_network(
    settings: ModerationTrainingSettings, base: Weights, categories: int
) -> ModerationNetwork:
    """A network around the base in float32: all of the body but its embeddings is trained, or its adapters alone."""
    body = truncate_layers(load_encoder(base, dtype="float32", device="cpu").model, settings.layers)
    network = build_network(body, categories)
    for module in body.modules():
        if isinstance(module, nn.Dropout):
            module.p = settings.dropout
    _plain_attention(body)
    if settings.lora:
        network.body = _adapters(body, settings)
        if settings.frozen:
            network.freeze(settings.frozen)
    else:
        body.requires_grad_(True)
        body.get_input_embeddings().requires_grad_(False)
        for name, parameter in body.named_parameters():
            if "embeddings." in name or "embed_tokens" in name or "wte." in name:
                parameter.requires_grad_(False)
    network.mix.requires_grad_(True)
    network.head.requires_grad_(True)
    return network


def _plain_attention(body: Any) -> None:
    """No dropout of attention weights: it would keep the fast kernels from working, and helps little."""
    for key in ("attention_probs_dropout_prob", "attention_dropout"):
        if hasattr(body.config, key):
            setattr(body.config, key, 0.0)
    for module in body.modules():
        if type(module).__name__.endswith("SelfAttention") and isinstance(
            getattr(module, "dropout", None), nn.Dropout
        ):
            module.dropout.p = 0.0
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0


def _adapters(body: Any, settings: ModerationTrainingSettings) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtra("train", "adapters (package peft)") from error
    upper: dict[str, Any] = {}
    if settings.frozen:
        if not supports_layerwise_forward(body) or settings.frozen >= len(body.layers):
            raise PlanError(
                f"frozen = {settings.frozen}: only for language models of the Llama kind with more layers than that"
            )
        upper = {
            "layers_to_transform": list(range(settings.frozen, len(body.layers))),
            "layers_pattern": "layers",
        }
    names = (
        sorted({n.rpartition(".")[2] for n, m in body.named_modules() if isinstance(m, nn.Linear)})
        if upper
        else "all-linear"
    )
    # no dropout: on a CPU drawing its random numbers takes a third of a step
    config = LoraConfig(
        r=settings.lora,
        lora_alpha=2 * settings.lora,
        lora_dropout=0.0,
        target_modules=names,
        **upper,
    )
    return get_peft_model(body, config)


def merge_adapters(network: ModerationNetwork) -> ModerationNetwork:
    """The network with its adapters, if it has any, merged into the body."""
    if hasattr(network.body, "merge_and_unload"):
        network.body = network.body.merge_and_unload()
    return network


def _optimizer(
    network: ModerationNetwork, settings: ModerationTrainingSettings
) -> torch.optim.AdamW:
    """Lower layers learn more slowly (Howard & Ruder 2018, ULMFiT, arXiv:1801.06146), the head faster."""
    layers: dict[int, list[nn.Parameter]] = {}
    for name, parameter in network.body.named_parameters():
        if parameter.requires_grad:
            numbers = [int(p) for p in name.split(".") if p.isdigit()]
            layers.setdefault(numbers[0] if numbers else 0, []).append(parameter)
    top = max(layers, default=0)
    groups: list[dict[str, Any]] = [
        {"params": p, "lr": settings.lr * settings.layer_decay ** (top - n), "weight_decay": 0.01}
        for n, p in layers.items()
    ]
    groups.append(
        {"params": list(network.head.parameters()), "lr": settings.head_lr, "weight_decay": 0.01}
    )
    groups.append({"params": [network.mix], "lr": 10 * settings.head_lr, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def drop_prompt(row: EncodedInput) -> EncodedInput:
    """The same answer with the prompt left out."""
    at = row.segments.index(1)
    return EncodedInput((row.ids[0], row.ids[at - 1], *row.ids[at:]), (0, 0, *row.segments[at:]))


def prompt_as_response(row: EncodedInput) -> EncodedInput:
    """A prompt in the place of the answer: what a text of unknown role looks like."""
    return EncodedInput((row.ids[0], row.ids[-1], *row.ids[1:]), (0, 0, *[1] * (len(row.ids) - 1)))


def augment_example(
    item: ModerationExample, settings: ModerationTrainingSettings, rng: random.Random
) -> tuple[EncodedInput, tuple[float, ...]]:
    """A row as it is learned this time: now and then the answer without its prompt, or the prompt as a text alone."""
    row = item.row
    if item.alone:
        if rng.random() < 0.3:
            return prompt_as_response(row), (item.targets[1], float("nan"), *item.targets[2:])
    elif 1 in row.segments and rng.random() < settings.prompt_dropout:
        return drop_prompt(row), item.targets
    return row, item.targets


def pad_inputs(
    rows: Sequence[EncodedInput], pad: int, device: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, segments and mask `[B, T]`."""
    width = max(len(r.ids) for r in rows)
    made = np.zeros((3, len(rows), width), np.int64)
    made[0] = pad
    for at, row in enumerate(rows):
        n = len(row.ids)
        made[0, at, :n], made[1, at, :n], made[2, at, :n] = row.ids, row.segments, 1
    ids, segments, mask = (torch.from_numpy(part).to(device) for part in made)
    return ids, segments, mask


def plan_batches(job: FoldTrainingContext, fold: int) -> list[list[int]]:
    """The batches of a fold's training, in order."""
    rng = random.Random(f"{job.settings.seed}/{fold}")
    passes = {source: weight * job.settings.epochs for source, weight in job.passes.items()}
    return make_batches(
        job.items, sample_epoch_units(job.items, passes, rng), job.settings.batch_tokens, rng
    )


def train_fold(
    job: FoldTrainingContext, fold: int, pad: int, *, first: int, resume: Any = None
) -> ModerationNetwork:
    """Trains on `job.items` (the rows without the fold's own); steps are counted from `first` in log and checkpoints."""
    settings, here = job.settings, job.here
    seed_all(settings.seed + fold)
    network = build_trainable_network(settings, job.base, job.categories)
    order = plan_batches(job, fold)
    order = order[here.process_index :: here.num_processes][
        : max(1, len(order) // here.num_processes)
    ]
    optimizer = _optimizer(network, settings)
    start = 0
    if resume is not None:
        state = ck.load_torch_file(resume, STATE_FILE)
        load_trainable_state(network, state["model"])
        optimizer.load_state_dict(state["optimizer"])
        ck.set_rng_state(state["rng"])
        start = int(state["done"])
    rates = [g["lr"] for g in optimizer.param_groups] if resume is None else state["rates"]
    lists = sets_with_categories(job.items)
    positive = positive_weights([i for i in job.items if i.source in lists], job.categories)
    balance = LossWeights(positive, lists, settings.pair_weight, settings.category_weight)
    model, optimizer = here.prepare(network, optimizer)
    model.train()
    lower = (
        FrozenLayerCache(settings.frozen, dtype=settings.dtype, device=here.device)
        if settings.frozen
        else None
    )
    for at in range(start, len(order)):
        share = learning_rate(at + 1, len(order), lr=1.0, warmup=settings.warmup)
        for group, full in zip(optimizer.param_groups, rates):
            group["lr"] = full * max(share, 0.01)
        loss = _step(
            job,
            model,
            optimizer,
            [job.items[i] for i in order[at]],
            (pad, balance, lower),
            f"{fold}/{at}",
        )
        _keep(job, network, optimizer, rates, (fold, at + 1, len(order), first), loss)
    return merge_adapters(here.unwrap_model(model))


def _step(
    job: FoldTrainingContext,
    model: Any,
    optimizer: Any,
    items: Sequence[ModerationExample],
    what: tuple[int, LossWeights, FrozenLayerCache | None],
    name: str,
) -> float:
    pad, balance, lower = what
    rng = random.Random(f"{job.settings.seed}/{name}")
    drawn = [augment_example(item, job.settings, rng) for item in items]
    ids, segments, mask = pad_inputs([row for row, _ in drawn], pad, job.here.device)
    targets = torch.tensor([t for _, t in drawn], device=job.here.device)
    dtype = select_dtype(job.settings.dtype, job.here.device)
    half = (
        contextlib.nullcontext()
        if dtype is torch.float32
        else torch.autocast(job.here.device.type, dtype=torch.bfloat16)
    )
    below = (
        lower(job.here.unwrap_model(model).body, [row for row, _ in drawn], ids)
        if lower is not None
        else None
    )
    with half:
        logits = model(ids, segments, mask, below)
    loss = moderation_loss(logits, targets, items, balance)
    value = float(loss.detach())
    if value != value or value in (float("inf"), float("-inf")):
        raise UserError(f"step {name}: the loss is not finite; the newest checkpoint is good")
    job.here.backward(loss)
    clip_gradients(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return value


def _keep(
    job: FoldTrainingContext,
    network: ModerationNetwork,
    optimizer: Any,
    rates: list[float],
    place: tuple[int, int, int, int],
    loss: float,
) -> None:
    """Logs the step; every so often, a checkpoint. `place`: the fold, its steps done, its steps, the steps before it."""
    fold, done, steps, first = place
    if not job.here.is_main_process:
        return
    step = first + done
    job.log.write(
        step,
        {
            "loss": loss,
            "fold": fold,
            "lr": optimizer.param_groups[-2]["lr"],
            "steps": first + steps,
        },
    )
    if done % job.settings.save_every == 0 and done < steps:
        inner = getattr(optimizer, "optimizer", optimizer)
        state = {
            "model": trainable_state(network),
            "optimizer": inner.state_dict(),
            "rng": ck.rng_state(),
            "done": done,
            "fold": fold,
            "rates": rates,
        }
        try:
            ck.write_checkpoint(
                job.settings.folder,
                _at(job.mark, step),
                {STATE_FILE: ck.torch_writer(state)},
                keep=1,
            )
        except RunError:
            job.log.close()
            raise


def _at(mark: ck.CheckpointIdentity, step: int) -> ck.CheckpointIdentity:
    return ck.CheckpointIdentity(
        step=step, kind=mark.kind, digest=mark.digest, base_sha256=mark.base_sha256
    )


def compute_logits(
    network: ModerationNetwork,
    rows: Sequence[EncodedInput],
    pad: int,
    settings: ModerationTrainingSettings,
) -> np.ndarray:
    """Logits of token rows by a trained network, float64 `[n, outputs]`."""
    engine = TorchEngine(network, pad=pad, dtype=settings.dtype, device=settings.device)
    made = np.asarray(engine.logits(rows), dtype=np.float64)
    network.float().cpu()
    return made
