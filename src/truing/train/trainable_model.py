"""The model that a run trains: base weights, LoRA adapters or all weights, head, precision."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.nn.functional as F
from msgspec import Struct
from torch import Tensor, nn

from truing.core.errors import PlanError, UserError
from truing.core.input_files import read_input_bytes
from truing.core.types import Lineage
from truing.distributed.process_group import ProcessGroup
from truing.hf.loading import (
    LoadedModel,
    ScalarModel,
    check_head_fits,
    context_length,
    has_head,
    load_causal_lm,
    load_encoder,
    load_head,
    load_scalar_model,
    make_lm_head_contiguous,
    position_ids,
    select_dtype,
    select_training_attention,
)
from truing.hf.pretrained import stored_dtype
from truing.hf.weights import Weights, find_weights
from truing.train.adapters import lora_config
from truing.train.answer_log_probs import answer_log_probs
from truing.train.batches import TokenBatch
from truing.train.checkpoint import seed_all
from truing.train.frozen_base import hold_frozen, storage_dtype
from truing.train.run_settings import BaseDtype, RunSettings
from truing.train.settings import TrainingSettings
from truing.train.sharded_model import load_for_shards, shard_and_read
from truing.train.sharding import is_sharded


@dataclass
class TrainableModel:
    """The model in training.

    `reference_model` is a frozen copy, for the kinds that compare with the base and have no
    adapters to switch off. `teacher_cache` (distil) holds the tokens that all teacher
    prompts begin with, and the keys and values that the model computed for them.
    """

    model: Any
    tokenizer: Any
    settings: TrainingSettings
    device: torch.device
    reference_model: Any = None
    teacher_cache: tuple[tuple[int, ...], Any] | None = None

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds parts of the weights alone."""
        return is_sharded(self.model)

    @property
    def pad_id(self) -> int:
        """The token id for padding. Any id would do, since masks come from lengths."""
        return int(self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0)

    @contextlib.contextmanager
    def reference(self) -> Iterator[Any]:
        """Gives the model as it was before training, without gradients."""
        with torch.no_grad():
            if self.reference_model is not None:
                yield self.reference_model
            else:
                with self.model.disable_adapter():
                    yield self.model

    def logits(self, model: Any, batch: TokenBatch) -> Tensor:
        """Returns the logits `[B, T, V]` of a batch."""
        output = model(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=position_ids(batch.mask),
            use_cache=False,
        )
        logits: Tensor = output.logits
        return logits

    def answer_logps(self, model: Any, batch: TokenBatch) -> Tensor:
        """Returns the log-probabilities of the answer tokens `[B, T-1]`, 0 elsewhere."""
        answer_columns = batch.answer_mask[:, 1:].any(0).nonzero()
        start = int(answer_columns[0]) if len(answer_columns) else 0
        answer_mask = batch.answer_mask[:, start + 1 :]
        logps = answer_log_probs(model, batch.ids, batch.mask, answer_mask)
        return F.pad(logps, (start, 0))


class BaseModel(Struct, frozen=True, kw_only=True):
    """What a run starts from: the weights, and the lineage of their folder."""

    weights: Weights
    lineage: Lineage


class _LineageCard(Struct):
    """The part of `truing.json` that is read here."""

    lineage: Lineage | None = None


def find_base_model(name: str) -> BaseModel:
    """Returns the weights by name, folder or hub id; the lineage is that of a folder of ours.

    Raises UserError if there are no such weights, or if their `truing.json` cannot be read.
    """
    weights = find_weights(name.removeprefix("local:"))
    card = Path(weights.path) / "truing.json"
    lineage: Lineage | None = None
    if card.is_file():
        try:
            lineage = msgspec.json.decode(read_input_bytes(card), type=_LineageCard).lineage
        except msgspec.DecodeError as error:
            raise UserError(f"{card}: {error}") from error
    if lineage is None:
        title = weights.title or weights.name
        lineage = Lineage(
            name=title, base=title, base_sha256=weights.sha256, licence=weights.licence
        )
    return BaseModel(weights=weights, lineage=lineage)


def training_dtype(settings: RunSettings, device: torch.device) -> torch.dtype:
    """Returns float32 or bfloat16, the dtype of the forward pass; weights stay in float32.

    A device that is best in float16 trains in float32: float16 would need loss scaling.
    """
    dtype = select_dtype(settings.dtype, device)
    return torch.float32 if dtype is torch.float16 else dtype


def autocast(
    settings: TrainingSettings, device: torch.device
) -> contextlib.AbstractContextManager[Any]:
    """Returns the autocast context of a forward pass."""
    dtype = training_dtype(settings, device)
    if dtype is torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def build_trainable_model(
    settings: TrainingSettings,
    base: BaseModel,
    device: torch.device,
    processes: ProcessGroup | None = None,
) -> TrainableModel:
    """Loads the base and makes it trainable; with `shard`, split over several processes.

    Adds LoRA adapters of rank `settings.lora` to a frozen base (0: all weights are trained, in
    float32), and a scalar head for reward and cost models. Raises PlanError if `max_length` exceeds
    the base's context.
    """
    seed_all(settings.seed)  # before the adapters and the head are initialised
    tokenizer: Any
    model: Any
    compute_dtype = training_dtype(settings, device)
    held = storage_dtype(
        settings.base_dtype, compute_dtype, lora=settings.lora, shard=settings.shard
    )
    # The teacher of distil reads a longer prompt than max_length, so the choice by length is off.
    attention = (
        select_training_attention(settings.max_length, device)
        if settings.kind != "distil"
        else None
    )
    needs_copy = not settings.lora and settings.needs_reference
    reference_model = None
    if processes is not None and settings.shard and processes.size > 1:
        loading = _ShardedLoading(settings, base.weights, processes, device, attention)
        model, tokenizer, context = loading.load_trained()
        reference_model = loading.load_reference() if needs_copy else None
    elif settings.scalar:
        model, tokenizer = _load_scalar_base(base.weights, str(device), attention, held)
        context = context_length(model.body)
        model.body = prepare_for_training(model.body, settings)
        model.head.requires_grad_(True)
    else:
        loaded = load_frozen_lm(base.weights, held, device, attention)
        tokenizer, context = loaded.tokenizer, context_length(loaded.model)
        model = prepare_for_training(loaded.model, settings)
    if settings.max_length > context:
        raise PlanError(
            f"max_length = {settings.max_length}: {base.weights.name} reads "
            f"{context} tokens at most"
        )
    disable_dropout(model)
    model.train()
    if needs_copy and reference_model is None:
        reference_model = frozen_copy(model)
    return TrainableModel(model, tokenizer, settings, device, reference_model)


@dataclass(frozen=True)
class _ShardedLoading:
    """Loads the models of a run into shards (`train.sharded_model`)."""

    settings: TrainingSettings
    weights: Weights
    processes: ProcessGroup
    device: torch.device
    attention: str | None

    def load_trained(self) -> tuple[Any, Any, int]:
        """Returns the model that is trained, its tokenizer and the length of its context.

        Adapters are small and stay whole in every process; the frozen base is sharded before they
        are added. Without adapters all weights are sharded, the head of a ScalarModel included.
        """
        settings = self.settings
        loaded = self._load()
        context = context_length(loaded.model)
        if not settings.scalar:
            make_lm_head_contiguous(loaded.model)
            if settings.lora:
                self._shard(loaded.model)
                return prepare_for_training(loaded.model, settings), loaded.tokenizer, context
            model = prepare_for_training(loaded.model, settings)
            self._shard(model)
            return model, loaded.tokenizer, context
        head = None
        if has_head(self.weights.path):
            head = load_head(self.weights.path)
            check_head_fits(head, loaded.model, self.weights.path)
            _check_one_output(head, self.weights)
        if settings.lora:
            self._shard(loaded.model)
        scalar_model = ScalarModel(loaded.model, head=head)
        scalar_model.head.to(self.device).requires_grad_(True)
        scalar_model.body = prepare_for_training(scalar_model.body, settings)
        if not settings.lora:
            self._shard(scalar_model)
        return scalar_model, loaded.tokenizer, context

    def load_reference(self) -> Any:
        """Returns the language model as it is before training, without gradients."""
        model = self._load().model
        disable_dropout(model)
        self._shard(model)
        return model

    def _load(self) -> LoadedModel:
        auto_class = "AutoModel" if self.settings.scalar else "AutoModelForCausalLM"
        return load_for_shards(self.weights, auto_class, self.attention)

    def _shard(self, model: nn.Module) -> None:
        shard_and_read(model, self.weights, self.processes, self.device)


def load_frozen_lm(
    weights: Weights, held: BaseDtype, device: torch.device, attention: str | None
) -> LoadedModel:
    """Loads a language model without gradients, its weights held in a type (`hold_frozen`)."""
    loaded = load_causal_lm(
        weights, dtype=_load_dtype(weights, held), device=str(device), attention=attention
    )
    hold_frozen(loaded.model, held)
    return loaded


def _load_dtype(weights: Weights, held: BaseDtype) -> str:
    """Returns the type to load weights in: no wider than they are stored, and without rounding."""
    is_narrow = held != "float32" and stored_dtype(Path(weights.path)) == "bfloat16"
    return "bfloat16" if is_narrow else "float32"


def frozen_copy(model: nn.Module) -> nn.Module:
    """Returns a copy without gradients, in evaluation mode."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def _load_scalar_base(
    weights: Weights, device: str, attention: str | None, held: BaseDtype
) -> tuple[ScalarModel, Any]:
    """Loads a reward or cost model with its head, or any other base with a new head."""
    dtype = _load_dtype(weights, held)
    if has_head(weights.path):
        model, tokenizer = load_scalar_model(weights.path, dtype=dtype, device=device)
        _check_one_output(model.head, weights)
        hold_frozen(model.body, held)
        return model, tokenizer
    loaded = load_encoder(weights, dtype=dtype, device=device, attention=attention)
    hold_frozen(loaded.model, held)
    return ScalarModel(loaded.model).to(device), loaded.tokenizer


def _check_one_output(head: nn.Linear, weights: Weights) -> None:
    if head.out_features != 1:
        raise PlanError(f"{weights.path}: its head has {head.out_features} outputs; one is needed")


def prepare_for_training(model: Any, settings: TrainingSettings) -> Any:
    """Enables gradient checkpointing if asked, and gradients of the adapters or of all weights."""
    if settings.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if not settings.lora:
        for name, parameter in model.named_parameters():
            # An encoder's pooler has no part in the score of a token: it would never get a
            # gradient.
            parameter.requires_grad_("pooler" not in name)
        return model
    config = lora_config(model, settings.lora, settings.lora_from)
    from peft import get_peft_model

    return get_peft_model(model, config)


def disable_dropout(model: nn.Module) -> None:
    """Sets all dropout to 0: model and reference must differ by what was learned alone."""
    module: Any  # transformers' attention layers keep their dropout in an attribute of their own
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns the parameters that training changes, by name, on the CPU."""
    return {n: p.detach().cpu() for n, p in model.named_parameters() if p.requires_grad}


def load_trainable_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads what `trainable_state` returned; raises PlanError if names or shapes differ."""
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    same_names = parameters.keys() == state.keys()
    if not same_names or any(parameters[n].shape != state[n].shape for n in parameters):
        raise PlanError(
            "the checkpoint holds other weights than this run trains; give another --out"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])
