"""Predicts memory and time of a training step on many GPUs, from a few measured numbers.

    size = ModelSize(parameters=1.5e9, root=2.3e8, layers=28, adapters=1.8e7)
    step = predict_supervised(size, Cluster(gpus=8), tokens=65_536, micro_batches=4, shard=True)
    step.seconds, step.state_bytes + step.gathered_bytes

The formulas and what they leave out: docs/explanation/training-scale.md. Bytes that processes
exchange and weights that they hold are compared with runs of two processes
(tests/train/test_scale_model.py).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from truing.hf.loading import load_without_weights
from truing.hf.weights import Weights
from truing.train.sharding import transformer_layers

_FLOAT32 = 4
_BFLOAT16 = 2
# Gradient and two moments of AdamW, in float32.
_OPTIMIZER_BYTES = 3 * _FLOAT32


class Cluster(Struct, frozen=True, kw_only=True):
    """GPUs and the links between them; the defaults are an H100 node with 400 Gb/s a GPU.

    Attributes:
        gpus: GPUs of the run, one process each.
        gpus_per_node: GPUs of a machine.
        flops: Floating-point operations a second that a training step reaches on a GPU.
        memory_bandwidth: Bytes a second that a GPU reads from its memory.
        link: Bytes a second of a collective inside a machine.
        network: Bytes a second of a collective across machines.
    """

    gpus: int
    gpus_per_node: int = 8
    flops: float = 0.4 * 989e12
    memory_bandwidth: float = 0.8 * 3.35e12
    link: float = 0.8 * 450e9
    network: float = 0.8 * 8 * 50e9

    @property
    def collective_bandwidth(self) -> float:
        """Bytes a second of a collective over all GPUs: that of the slowest link of the ring."""
        if self.gpus <= self.gpus_per_node:
            return self.link
        return min(self.link, self.network)


class ModelSize(Struct, frozen=True, kw_only=True):
    """Numbers of weights.

    Attributes:
        parameters: All weights of the base.
        root: Those outside of the layers: embeddings, the head if it has weights of its own, the
            last norm.
        layers: Layers of equal size.
        adapters: Weights of the LoRA adapters of one role; 0 if all weights are trained.
        key_values: Keys and values of a token, over all layers.
    """

    parameters: float
    root: float
    layers: int
    adapters: float = 0
    key_values: float = 0


class RolloutSize(Struct, frozen=True, kw_only=True):
    """The answers of an RL step over all GPUs, with the tokens of each and of its prompt."""

    answers: int
    prompt_tokens: int
    answer_tokens: int


class PredictedStep(Struct, frozen=True, kw_only=True):
    """A step of one GPU.

    Attributes:
        state_bytes: Weights, gradients and moments that the GPU holds all the time.
        gathered_bytes: Weights that it holds whole for a while: two layers and those outside.
        sent_bytes: What the GPU sends to the others.
        compute_seconds, sampling_seconds, exchange_seconds: The parts of the time.
        seconds: The whole. The exchange of sharded weights overlaps with computing; that of
            replicated gradients follows it.
    """

    state_bytes: float
    gathered_bytes: float
    sent_bytes: float
    compute_seconds: float
    exchange_seconds: float
    seconds: float
    sampling_seconds: float = 0.0


def measure_size(weights: Weights, *, key_values: float = 0) -> ModelSize:
    """Returns the size of a language model, from its configuration alone."""
    model: Any = load_without_weights(weights, "AutoModelForCausalLM").model
    layers = transformer_layers(model)
    parameters = sum(p.numel() for p in model.parameters())
    in_layers = sum(p.numel() for layer in layers for p in layer.parameters())
    return ModelSize(
        parameters=parameters,
        root=parameters - in_layers,
        layers=len(layers),
        key_values=key_values,
    )


def state_bytes(
    size: ModelSize, *, trained: int, frozen: int, processes: int, shard: bool
) -> float:
    """Returns the bytes of weights, gradients and moments that a process holds.

    `trained` and `frozen` count the roles: policy and critics, and the reference. With adapters all
    roles share one frozen base, and the adapters are whole in every process.
    """
    parts = processes if shard else 1
    if not size.adapters:
        per_weight = trained * (_FLOAT32 + _OPTIMIZER_BYTES) + frozen * _FLOAT32
        return size.parameters * per_weight / parts
    # FSDP shards weights of one type: a sharded base is in float32, a whole one in bfloat16.
    base = size.parameters * (_FLOAT32 if shard else _BFLOAT16) / parts
    return base + trained * size.adapters * (_FLOAT32 + _OPTIMIZER_BYTES)


def gathered_bytes(size: ModelSize, *, shard: bool) -> float:
    """Returns the bytes of weights that a process holds whole for a while.

    A layer and the next one, which is gathered ahead, and the weights outside of the layers.
    """
    if not shard:
        return 0.0
    layer = (size.parameters - size.root) / size.layers
    return _FLOAT32 * (2 * layer + size.root)


def sent_bytes(
    size: ModelSize,
    *,
    processes: int,
    shard: bool,
    passes: int,
    backward_passes: int,
    gradient_steps: int = 1,
) -> float:
    """Returns the bytes that a process sends in a step.

    `passes` are the forward passes, `backward_passes` those of them with a backward pass, and
    `gradient_steps` the updates of a role's weights, each of which sums gradients that are whole. A
    ring sends (N - 1) / N of a tensor to gather or to scatter it, twice that to sum it.
    """
    share = (processes - 1) / processes
    trained = size.adapters or size.parameters
    if not shard:
        return 2 * share * _FLOAT32 * trained * gradient_steps
    in_layers = size.parameters - size.root
    # The layers are gathered again for the backward pass; what is outside of them stays.
    gathered = passes * size.parameters + backward_passes * in_layers
    if size.adapters:
        return share * _FLOAT32 * (gathered + 2 * size.adapters * gradient_steps)
    # Each backward pass scatters its gradients; only the shards are added up.
    return share * _FLOAT32 * (gathered + backward_passes * size.parameters)


def training_flops(size: ModelSize, tokens: float, *, checkpointing: bool = False) -> float:
    """Returns the operations of forward and backward passes over tokens.

    2 for a weight and a token forward, 2 for the gradient of the activations, 2 for that of the
    weights, which frozen ones do not need; 2 more where activations are computed again.
    """
    per_weight = 2 + 2 + (0 if size.adapters else 2) + (2 if checkpointing else 0)
    return per_weight * size.parameters * tokens


def predict_supervised(
    size: ModelSize,
    cluster: Cluster,
    *,
    tokens: float,
    micro_batches: int,
    shard: bool,
    reference: bool = False,
    checkpointing: bool = False,
) -> PredictedStep:
    """Returns a step of supervised training on `tokens` tokens, over all GPUs.

    `micro_batches` are those of a process. `reference` says whether the model before training is
    read too (dpo, kto).
    """
    gpus = cluster.gpus
    flops = training_flops(size, tokens, checkpointing=checkpointing)
    flops += 2 * size.parameters * tokens * reference
    sent = sent_bytes(
        size,
        processes=gpus,
        shard=shard,
        passes=micro_batches * (2 if reference else 1),
        backward_passes=micro_batches,
    )
    frozen = 1 if reference else 0
    return _combine(
        cluster,
        shard,
        flops,
        sent,
        state=state_bytes(size, trained=1, frozen=frozen, processes=gpus, shard=shard),
        gathered=gathered_bytes(size, shard=shard),
    )


def predict_rl(
    size: ModelSize,
    cluster: Cluster,
    rollout: RolloutSize,
    *,
    micro_batches: int,
    epochs: int = 1,
    critics: int = 0,
    shard: bool = False,
) -> PredictedStep:
    """Returns a step of RL: answers are sampled, read by each role, and learned from.

    `micro_batches` are those of a process and an epoch, which ends in one update of each role.
    Sampling reads the weights once a token,
    in bfloat16, and all answers of a GPU at a time.
    """
    gpus, roles = cluster.gpus, 1 + critics
    tokens = rollout.answers * (rollout.prompt_tokens + rollout.answer_tokens)
    # Policy, reference and critics read each answer before the first gradient step.
    flops = 2 * size.parameters * tokens * (roles + 1)
    flops += roles * epochs * training_flops(size, tokens)
    scoring = micro_batches * (roles + 1)
    learning = micro_batches * epochs * roles
    sent = sent_bytes(
        size,
        processes=gpus,
        shard=shard,
        passes=scoring + learning,
        backward_passes=learning,
        gradient_steps=roles * epochs,
    )
    step = _combine(
        cluster,
        shard,
        flops,
        sent,
        state=state_bytes(size, trained=roles, frozen=1, processes=gpus, shard=shard),
        # While answers are sampled, the weights of the policy are whole in every process.
        gathered=_FLOAT32 * size.parameters if shard else 0.0,
    )
    sampling = _sampling_seconds(size, cluster, rollout)
    return msgspec.structs.replace(step, sampling_seconds=sampling, seconds=step.seconds + sampling)


def _sampling_seconds(size: ModelSize, cluster: Cluster, rollout: RolloutSize) -> float:
    """Returns the time to sample the answers of a GPU: each token reads weights and cache."""
    local = rollout.answers / cluster.gpus
    length = rollout.prompt_tokens + rollout.answer_tokens / 2  # on average
    cache = _BFLOAT16 * size.key_values * local * length
    read = (_BFLOAT16 * size.parameters + cache) / cluster.memory_bandwidth
    multiply = 2 * size.parameters * local / cluster.flops
    return rollout.answer_tokens * max(read, multiply)


def _combine(
    cluster: Cluster, shard: bool, flops: float, sent: float, *, state: float, gathered: float
) -> PredictedStep:
    compute = flops / (cluster.gpus * cluster.flops)
    exchange = sent / cluster.collective_bandwidth
    return PredictedStep(
        state_bytes=state,
        gathered_bytes=gathered,
        sent_bytes=sent,
        compute_seconds=compute,
        exchange_seconds=exchange,
        seconds=max(compute, exchange) if shard else compute + exchange,
    )
