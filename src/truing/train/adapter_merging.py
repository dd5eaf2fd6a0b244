"""Merges a LoRA adapter of PEFT into its base: a model folder like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import Struct

from truing.core.errors import MissingExtra, PlanError, UserError
from truing.core.input_files import read_input_bytes
from truing.core.licences import join_licences
from truing.core.lineage import digest
from truing.core.private_files import create_folder, replace_file
from truing.core.types import Lineage
from truing.hf.loading import DTYPES, load_causal_lm, load_tokenizer
from truing.hf.pretrained import first_line, stored_dtype
from truing.hf.weights import sha256_folder
from truing.train.checkpoint import name_write_errors
from truing.train.frozen_base import merge_adapters
from truing.train.model_card import (
    CARD_FILE,
    README_FILE,
    TrainedModelCard,
    read_model_card,
    render_model_card,
)
from truing.train.trainable_model import BaseModel, find_base_model

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


class _AdapterConfig(Struct):
    """The part of `adapter_config.json` that is read here."""

    base_model_name_or_path: str | None = None
    peft_type: str = ""


def merge_adapter(
    adapter: str | Path, out: str | Path, *, base: str | None = None, dtype: str = "auto"
) -> Path:
    """Writes the base with the adapter merged into `out` and returns it.

    `base` replaces the base that the adapter names, `dtype` is that of the base's folder by
    default. Raises UserError if the adapter cannot be read or does not fit the base.
    """
    folder, target = Path(adapter), Path(out)
    if (target / CARD_FILE).exists():
        raise PlanError(f"{target}: holds a model already; give another --out")
    config = _read_config(folder)
    name = base or config.base_model_name_or_path
    if not name:
        raise PlanError(f"{folder}: does not name its base; give --base")
    base_model = find_base_model(name)
    type_name = stored_dtype(Path(base_model.weights.path)) if dtype == "auto" else dtype
    if type_name not in DTYPES:
        raise PlanError(f"dtype = {dtype!r}: must be auto or one of {', '.join(DTYPES)}")
    loaded = load_causal_lm(base_model.weights, dtype="float32", device="cpu")
    merged = _merge(loaded.model, folder, DTYPES[type_name])
    has_tokenizer = (folder / "tokenizer.json").is_file()
    tokenizer = load_tokenizer(folder) if has_tokenizer else loaded.tokenizer
    with name_write_errors(target):
        create_folder(target)
        merged.save_pretrained(str(target))
        tokenizer.save_pretrained(str(target))
    card = _build_card(folder, target, base_model)
    replace_file(target / README_FILE, render_model_card(card).encode())
    replace_file(target / CARD_FILE, msgspec.json.format(msgspec.json.encode(card), indent=2))
    return target


def _read_config(folder: Path) -> _AdapterConfig:
    path = folder / ADAPTER_CONFIG
    try:
        config = msgspec.json.decode(read_input_bytes(path), type=_AdapterConfig)
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{path}: no readable adapter of PEFT: {error}") from error
    if config.peft_type.upper() != "LORA":
        raise UserError(f"{path}: peft_type = {config.peft_type!r}; only LoRA can be merged")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(
            f"{folder}: no {ADAPTER_WEIGHTS}; pickles are not read, because they can run code"
        )
    return config


def _merge(model: Any, folder: Path, dtype: torch.dtype) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtra("train", "adapters (package peft)") from error
    try:
        with_adapter = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: does not fit its base: {first_line(error)}") from error
    return merge_adapters(with_adapter, "default", dtype)


def _build_card(folder: Path, target: Path, base: BaseModel) -> TrainedModelCard:
    """Returns the card: the lineage of the adapter's own run if it is ours, else what is known."""
    # Training writes the adapter into a folder of the trained model.
    trained = read_model_card(folder.parent) or read_model_card(folder)
    if trained is not None:
        lineage = trained.lineage
    else:
        lineage = Lineage(
            name=f"merged:{folder.name}",
            base=base.lineage.base or base.lineage.name,
            base_sha256=base.lineage.base_sha256,
            data=base.lineage.data,
            prompts=base.lineage.prompts,
            judges=base.lineage.judges,
            licence=join_licences(base.lineage.licence, "unverified"),
            red_model=base.lineage.red_model,
        )
    lineage = msgspec.structs.replace(lineage, hash=digest("merged", sha256_folder(target)))
    return TrainedModelCard(
        kind=trained.kind if trained is not None else "merged",
        base=base.weights.title or base.weights.name,
        base_sha256=base.weights.sha256,
        data=lineage.data,
        lineage=lineage,
        red_model=lineage.red_model,
    )
