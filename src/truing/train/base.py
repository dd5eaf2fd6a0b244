"""The model that a run trains: its base, adapters or all weights, the scalar head, the arithmetic."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import Struct
from torch import nn

from truing.core.errors import MissingExtra, PlanError, UserError
from truing.core.types import Lineage
from truing.hf.loading import (
    ScalarModel,
    context_length,
    load_causal_lm,
    load_encoder,
    load_scalar_model,
    select_dtype,
    select_training_attention,
)
from truing.hf.weights import Weights, find_weights
from truing.train.checkpoint import seed_all
from truing.train.objectives import Trained, freeze_copy
from truing.train.settings import Settings


class Base(Struct, frozen=True, kw_only=True):
    """What a run began with: the weights, and the lineage that their folder carries."""

    weights: Weights
    lineage: Lineage


class _Card(Struct):
    lineage: Lineage | None = None


def find_base(name: str) -> Base:
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
    return Base(weights=weights, lineage=found or own)


def arithmetic(settings: Settings, device: torch.device) -> torch.dtype:
    """float32 or bfloat16 (weights stay in float32; the forward pass runs under autocast)."""
    made = select_dtype(settings.dtype, device)
    return torch.float32 if made is torch.float16 else made


def autocast(settings: Settings, device: torch.device) -> Any:
    """The context of a forward pass."""
    dtype = arithmetic(settings, device)
    return (
        contextlib.nullcontext()
        if dtype is torch.float32
        else torch.autocast(device.type, dtype=dtype)
    )


def build(settings: Settings, base: Base, device: torch.device) -> Trained:
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
        freeze_copy(model)
        if not settings.lora and settings.kind in ("dpo", "kto", "distil")
        else None
    )
    return Trained(model, model, tokenizer, settings, device, frozen)


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


def _trainable(model: Any, settings: Settings) -> Any:
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


def load_trainable(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Takes back what `trainable_state` gave; PlanError where names or shapes differ."""
    own = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if own.keys() != state.keys() or any(own[n].shape != state[n].shape for n in own):
        raise PlanError(
            "the checkpoint holds other weights than this run trains; give another --out"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])
