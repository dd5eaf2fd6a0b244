"""Predicts the memory of a training step from the configuration of a model, without its weights.

    plan = plan_memory(settings, weights, torch.device("cpu"))
    plan.total / 2**30

The model is built of fake tensors, which have shapes and types but no memory, and a forward pass
over the longest possible micro-batch is traced: the tensors that it saves for the backward pass are
counted, for any architecture. The rest is arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor, nn

from truing.core.errors import PlanError
from truing.hf.loading import DTYPES, ScalarModel, position_ids, select_training_attention
from truing.hf.pretrained import stored_dtype
from truing.hf.weights import Weights
from truing.train.adapters import lora_config
from truing.train.answer_log_probs import CHUNK_ELEMENTS
from truing.train.frozen_base import FrozenLinear, storage_dtype
from truing.train.rl.policy_models import critic_roles
from truing.train.rl.settings import RLSettings
from truing.train.run_settings import BaseDtype
from truing.train.settings import TrainingSettings
from truing.train.trainable_model import training_dtype

# Python with torch, transformers, peft and accelerate: resident memory before a model is loaded,
# measured (see docs/training.md). On a GPU it is the memory of the CUDA context.
RUNTIME_BYTES = {"cpu": 750 << 20, "cuda": 600 << 20, "mps": 750 << 20}
# The usual number of reward and cost models on the backbone: one each. They are frozen adapters, so
# they take their weights alone, without gradients and moments.
_SCORING_ADAPTERS = 2


class MemoryPlan(Struct, frozen=True, kw_only=True):
    """The predicted memory of a run in bytes.

    `runtime` is Python with its libraries, `weights` all weights that stay in memory (base,
    adapters, reference, copy for sampling), `optimizer` gradients and moments, `activations` the
    tensors that a micro-batch saves for its backward pass, `temporary` the tensors that exist
    during a pass only, `sampling` the key-value cache and logits of an RL rollout, `loading` the
    peak before the first step.
    """

    runtime: int
    weights: int
    optimizer: int
    activations: int
    temporary: int
    sampling: int = 0
    loading: int = 0

    @property
    def step(self) -> int:
        """The peak of a step."""
        # Sampling and learning follow each other.
        phase = max(self.activations + self.temporary, self.sampling)
        return self.runtime + self.weights + self.optimizer + phase

    @property
    def total(self) -> int:
        """The peak of the run."""
        return max(self.step, self.runtime + self.loading)


def plan_memory(
    settings: TrainingSettings | RLSettings,
    weights: Weights,
    device: torch.device,
    *,
    costs: bool = True,
) -> MemoryPlan:
    """Returns the predicted memory of a run on one device (with --shard: without its effect).

    `costs` says whether an RL run has a cost without a name, beside those of its constraints.
    Raises PlanError if the base is no language model that can be traced.
    """
    compute_dtype = training_dtype(settings, device)
    held_dtype = storage_dtype(
        settings.base_dtype, compute_dtype, lora=settings.lora, shard=settings.shard
    )
    try:
        trace = _trace(settings, weights, held_dtype, compute_dtype, device)
    except (RuntimeError, ValueError, AttributeError, NotImplementedError) as error:
        raise PlanError(f"{weights.name}: its memory cannot be predicted: {error}") from error
    loaded = "bfloat16" if held_dtype != "float32" and _is_stored_narrow(weights) else "float32"
    files = Path(weights.path).glob("*.safetensors")
    stored_bytes = sum(path.stat().st_size for path in files)
    loading = stored_bytes + trace.parameters * DTYPES[loaded].itemsize
    if isinstance(settings, RLSettings):
        critics = len(critic_roles(settings, costs=costs))
        return _plan_rl(settings, trace, compute_dtype, loading, device, critics)
    return _plan_supervised(settings, trace, compute_dtype, loading, device)


def _is_stored_narrow(weights: Weights) -> bool:
    return stored_dtype(Path(weights.path)) == "bfloat16"


# -- the trace of a forward pass


@dataclass(frozen=True)
class _Trace:
    """What a model of fake tensors tells about memory.

    Attributes:
        weight_bytes: the base in its storage type.
        parameters: elements of the base.
        trained: trained elements of one role (policy or critic).
        saved_bytes: tensors that a forward pass over `rows` x `length` tokens saves for the
            backward pass.
        layers, hidden, vocabulary: sizes of the model.
        key_values: elements of keys and values per token, over all layers.
        rows, length: the largest micro-batch, in rows and tokens per row.
    """

    weight_bytes: int
    parameters: int
    trained: int
    saved_bytes: int
    layers: int
    hidden: int
    vocabulary: int
    key_values: int
    rows: int
    length: int


def _trace(
    settings: TrainingSettings | RLSettings,
    weights: Weights,
    held_dtype: BaseDtype,
    compute_dtype: torch.dtype,
    device: torch.device,
) -> _Trace:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(weights.path), trust_remote_code=False)
    is_scalar = settings.scalar
    attention = select_training_attention(settings.max_length, device)
    auto_class: Any = AutoModel if is_scalar else AutoModelForCausalLM
    pairs = isinstance(settings, TrainingSettings) and settings.kind in ("dpo", "reward", "cost")
    rows = settings.micro * (2 if pairs else 1)
    length = settings.max_length
    fake_tensors = FakeTensorMode(allow_non_fake_inputs=True)
    with fake_tensors:
        model = auto_class.from_config(
            config, dtype=torch.float32, attn_implementation=attention, trust_remote_code=False
        )
        model.requires_grad_(not settings.lora)
        parameters = sum(p.numel() for p in _distinct(model))
        _hold_fake(model, held_dtype, narrow=_is_stored_narrow(weights))
        weight_bytes = sum(p.numel() * p.element_size() for p in _distinct(model))
    # The adapters are real tensors, which are small: peft converts them in place, and fake tensors
    # cannot be converted in place.
    network = _add_adapters(model, settings) if settings.lora else model
    with fake_tensors:
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        if is_scalar:
            network = ScalarModel(network)
        saved_bytes = _count_saved_bytes(
            lambda: _forward(network, rows, length, is_scalar), network, compute_dtype
        )
        if not is_scalar:  # hidden states of answers and their gradient, in float32
            saved_bytes += 2 * 4 * rows * length * config.get_text_config().hidden_size
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return _Trace(
        weight_bytes=weight_bytes,
        parameters=parameters,
        trained=trained,
        saved_bytes=saved_bytes,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=text.vocab_size,
        key_values=2 * text.num_hidden_layers * heads * head_size,
        rows=rows,
        length=length,
    )


def _distinct(model: nn.Module) -> Iterator[Tensor]:
    """Yields each parameter once, also where two layers share it."""
    yield from {id(p): p for p in model.parameters()}.values()


def _hold_fake(model: Any, held_dtype: BaseDtype, *, narrow: bool) -> None:
    """Converts a model of fake tensors as `hold_frozen` converts a real one.

    `hold_frozen` compares values to see whether bfloat16 changes them; fake tensors have none, so
    `narrow` says that the weights are stored in bfloat16 on disk.
    """
    if held_dtype == "float32":
        return
    embeddings = model.get_input_embeddings()
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if get_head is not None else None
    if narrow:
        shared = nn.Parameter(embeddings.weight.to(torch.bfloat16), requires_grad=False)
        is_tied = head is not None and head.weight is embeddings.weight
        embeddings.weight = shared
        embeddings.register_forward_hook(lambda module, args, output: output.float())
        if head is not None:
            frozen = FrozenLinear.from_linear(head, "bfloat16")
            if is_tied:
                frozen.weight = shared
            model.set_output_embeddings(frozen)
            head = frozen
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child is not head:
                setattr(parent, name, FrozenLinear.from_linear(child, held_dtype))


def _add_adapters(model: Any, settings: TrainingSettings | RLSettings) -> Any:
    config = lora_config(model, settings.lora, settings.lora_from)
    from peft import get_peft_model

    return get_peft_model(model, config)


def _forward(network: Any, rows: int, length: int, is_scalar: bool) -> None:
    ids = torch.zeros(rows, length, dtype=torch.long)
    mask = torch.ones_like(ids)
    if is_scalar:
        network(ids, mask)
        return
    # What log-probabilities keep is added by arithmetic: `answer_log_probs` selects tokens by a
    # mask, and a fake mask has no values.
    network(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position_ids(mask),
        use_cache=False,
        logits_to_keep=1,
    )


def _count_saved_bytes(
    forward: Callable[[], Any], network: nn.Module, compute_dtype: torch.dtype
) -> int:
    """Returns the bytes that a forward pass saves for its backward pass, without the weights."""
    storages: dict[int, Any] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage  # a reference, so that its address is not used again
        return tensor

    autocast: Any = nullcontext()
    if compute_dtype is not torch.float32:
        autocast = torch.autocast("cpu", dtype=compute_dtype)
    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor), autocast:
        forward()
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    return sum(storage.nbytes() for key, storage in storages.items() if key not in weights)


# -- arithmetic


def _optimizer_bytes(trained: int) -> int:
    return trained * 3 * 4  # gradient and two moments of AdamW, in float32


def _activations(settings: TrainingSettings | RLSettings, trace: _Trace) -> tuple[int, int]:
    """Returns the bytes that a micro-batch saves, and those of one layer during a pass."""
    layer = trace.saved_bytes // max(1, trace.layers)
    if settings.checkpointing:  # the input of each layer, in float32, and one recomputed layer
        inputs = trace.layers * trace.rows * trace.length * trace.hidden * 4
        return inputs + layer, layer
    return trace.saved_bytes, layer


def _logit_bytes(trace: _Trace, tokens: int, compute_dtype: torch.dtype) -> int:
    """Returns the memory of a chunk of logits: product, float32 copy, softmax, its gradient."""
    elements = min(CHUNK_ELEMENTS, tokens * trace.vocabulary)
    return elements * (2 * compute_dtype.itemsize + 2 * 4)


def _plan_supervised(
    settings: TrainingSettings,
    trace: _Trace,
    compute_dtype: torch.dtype,
    loading: int,
    device: torch.device,
) -> MemoryPlan:
    activations, layer = _activations(settings, trace)
    temporary = layer
    if settings.kind == "distil":
        # Logits of student and teacher at the answers, their softmax, and the gradient.
        temporary += 5 * 4 * trace.rows * trace.length * trace.vocabulary
    elif not settings.scalar:
        temporary += _logit_bytes(trace, trace.rows * trace.length, compute_dtype)
    has_copy = not settings.lora and settings.needs_reference
    adapters = trace.trained * 4 if settings.lora else 0
    return MemoryPlan(
        runtime=RUNTIME_BYTES[device.type],
        weights=trace.weight_bytes * (2 if has_copy else 1) + adapters,
        optimizer=_optimizer_bytes(trace.trained),
        activations=activations,
        temporary=temporary,
        loading=loading,
    )


def _plan_rl(
    settings: RLSettings,
    trace: _Trace,
    compute_dtype: torch.dtype,
    loading: int,
    device: torch.device,
    critics: int,
) -> MemoryPlan:
    roles = 1 + critics
    activations, layer = _activations(settings, trace)
    if settings.lora:
        weights = trace.weight_bytes + (roles + _SCORING_ADAPTERS) * trace.trained * 4
        if compute_dtype is not torch.float32:
            # The copy that samples, its adapters merged (`rollout_model`).
            weights += trace.parameters * compute_dtype.itemsize
    else:
        weights = (roles + 1) * trace.weight_bytes  # policy and critics, and the reference
    answers = settings.answers_per_step
    cached = answers * settings.max_length * trace.key_values * compute_dtype.itemsize
    tokens = settings.micro * settings.max_new
    return MemoryPlan(
        runtime=RUNTIME_BYTES[device.type],
        weights=weights,
        optimizer=_optimizer_bytes(roles * trace.trained),
        activations=activations,
        temporary=layer + _logit_bytes(trace, tokens, compute_dtype),
        sampling=2 * cached + 3 * 4 * answers * trace.vocabulary,
        loading=loading,
    )
