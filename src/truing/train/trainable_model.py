"""The model that a run trains: its base, adapters or all weights, the scalar head, the arithmetic."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import Struct
from torch import Tensor, nn

from truing.core.errors import MissingExtra, PlanError, UserError
from truing.core.types import Lineage
from truing.hf.loading import (
    ScalarModel,
    context_length,
    load_causal_lm,
    load_encoder,
    load_scalar_model,
    position_ids,
    select_dtype,
    select_training_attention,
)
from truing.hf.weights import Weights, find_weights
from truing.train import losses as L
from truing.train.batches import TokenBatch
from truing.train.checkpoint import seed_all
from truing.train.settings import TrainingSettings


@dataclass
class TrainableModel:
    """The model in training: `model` is called (it may be wrapped for several processes), `plain` is the bare one."""

    model: Any
    plain: Any
    tokenizer: Any
    settings: TrainingSettings
    device: Any
    frozen: Any = None  # the reference where there are no adapters to switch off
    prefix_cache: tuple[tuple[int, ...], Any] | None = None

    @property
    def fill(self) -> int:
        """The padding id; any id does, since masks come from lengths."""
        return int(self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0)

    @contextlib.contextmanager
    def reference(self) -> Iterator[Any]:
        """The model as it was before training, without gradients: adapters off, or a frozen copy."""
        with torch.no_grad():
            if self.frozen is not None:
                yield self.frozen
            else:
                with self.plain.disable_adapter():
                    yield self.plain

    def logits(self, model: Any, rows: TokenBatch) -> Tensor:
        """`[B, T, V]`."""
        out = model(
            input_ids=rows.ids,
            attention_mask=rows.mask,
            position_ids=position_ids(rows.mask),
            use_cache=False,
        )
        return out.logits

    def answer_logps(self, model: Any, rows: TokenBatch) -> Tensor:
        """Log-probabilities of the answers' tokens, 0 elsewhere; `[B, T-1]`."""
        return L.token_log_probs(self.logits(model, rows), rows.ids) * rows.answer[:, 1:]


def frozen_copy(model: Any) -> Any:
    """A frozen copy for full fine-tuning, where no adapter can be switched off."""
    return copy.deepcopy(model).eval().requires_grad_(False)


class BaseModel(Struct, frozen=True, kw_only=True):
    """What a run began with: the weights, and the lineage that their folder carries."""

    weights: Weights
    lineage: Lineage


class _Card(Struct):
    lineage: Lineage | None = None


def find_base_model(name: str) -> BaseModel:
    """The weights by name, folder or hub id, with the lineage of a folder that truing trained."""
    weights = find_weights(name.removeprefix("local:"))
    card = Path(weights.path) / "truing.json"
    found: Lineage | None = None
    if card.is_file():
        try:
            found = msgspec.json.decode(card.read_bytes(), type=_Card).lineage
        except msgspec.DecodeError as error:
            raise UserError(f"{card}: {error}") from error
    own = Lineage(
        name=weights.title or weights.name,
        base=weights.title or weights.name,
        base_sha256=weights.sha256,
        licence=weights.licence,
    )
    return BaseModel(weights=weights, lineage=found or own)


def training_dtype(settings: TrainingSettings, device: torch.device) -> torch.dtype:
    """float32 or bfloat16 (weights stay in float32; the forward pass runs under autocast)."""
    made = select_dtype(settings.dtype, device)
    return torch.float32 if made is torch.float16 else made


def autocast(settings: TrainingSettings, device: torch.device) -> Any:
    """The context of a forward pass."""
    dtype = training_dtype(settings, device)
    return (
        contextlib.nullcontext()
        if dtype is torch.float32
        else torch.autocast(device.type, dtype=dtype)
    )


def build_trainable_model(
    settings: TrainingSettings, base: BaseModel, device: torch.device
) -> TrainableModel:
    """Loads the base in float32 and makes it trainable: LoRA of that rank (0 = all weights), a head for reward and cost."""
    seed_all(settings.seed)
    name = str(device)
    tokenizer: Any
    model: Any
    if settings.scalar:
        model, tokenizer = _scalar(
            base.weights, name, select_training_attention(settings.max_length, device)
        )
        widest = context_length(model.body)
        model.body = _trainable(model.body, settings)
        model.head.requires_grad_(True)
    else:
        short = (
            select_training_attention(settings.max_length, device)
            if settings.kind != "distil"
            else None
        )
        loaded = load_causal_lm(base.weights, dtype="float32", device=name, attention=short)
        tokenizer, widest = loaded.tokenizer, context_length(loaded.model)
        model = _trainable(loaded.model, settings)
    if settings.max_length > widest:
        raise PlanError(
            f"max_length = {settings.max_length}: {base.weights.name} reads {widest} tokens at most"
        )
    _no_dropout(model)
    model.train()
    frozen = (
        frozen_copy(model)
        if not settings.lora and settings.kind in ("dpo", "kto", "distil")
        else None
    )
    return TrainableModel(model, model, tokenizer, settings, device, frozen)


def _scalar(weights: Weights, device: str, attention: str | None) -> tuple[ScalarModel, Any]:
    """A reward or cost model goes on from its head; any other causal model or encoder gets a new one."""
    if (Path(weights.path) / "head.safetensors").is_file():
        model, tokenizer = load_scalar_model(weights.path, dtype="float32", device=device)
        if model.head.out_features != 1:
            raise PlanError(
                f"{weights.path}: its head gives {model.head.out_features} numbers, not one"
            )
        return model, tokenizer
    loaded = load_encoder(weights, dtype="float32", device=device, attention=attention)
    return ScalarModel(loaded.model).to(device), loaded.tokenizer


def _trainable(model: Any, settings: TrainingSettings) -> Any:
    if settings.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if not settings.lora:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(
                "pooler" not in name
            )  # an encoder's pooler has no part in a token's score
        return model
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtra("train", "adapters (package peft)") from error
    config = LoraConfig(
        r=settings.lora, lora_alpha=2 * settings.lora, lora_dropout=0.0, target_modules="all-linear"
    )
    return get_peft_model(model, config)


def _no_dropout(model: nn.Module) -> None:
    """Training and reference must differ by what was learned alone."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def trainable_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that training changes, by name, on the CPU."""
    return {n: p.detach().cpu() for n, p in model.named_parameters() if p.requires_grad}


def load_trainable_state(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Takes back what `trainable_state` gave; PlanError where names or shapes differ."""
    own = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if own.keys() != state.keys() or any(own[n].shape != state[n].shape for n in own):
        raise PlanError(
            "the checkpoint holds other weights than this run trains; give another --out"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])
