"""Reads and writes the tensors of a classifier folder: safetensors only, every shape is checked.

A `full` folder holds the body in the Hugging Face layout (`config.json`, `model.safetensors`). A
`delta` folder holds what fine-tuning changed in a base that is known by its SHA-256. A tensor NAME
is stored as `NAME.q`, int8 rows with their scales `NAME.s`; as `NAME.a` and `NAME.b`, the factors
of a low-rank change, with scales `NAME.as` and `NAME.bs`; or, if it is small, as `NAME.d` in half
precision. Embeddings never change. `head.safetensors` holds layer mix, head and n-gram weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from truing.core.errors import UserError
from truing.hf.loading import load_encoder, load_tokenizer, truncate_layers
from truing.hf.pretrained import check_model_folder, load_config
from truing.hf.weights import find_weights
from truing.judges.moderation.network import ModerationNetwork
from truing.judges.moderation.ngrams import NgramModel
from truing.judges.moderation.settings import MODERATION_QUESTIONS, ClassifierSettings

CAUSAL_MODEL_TYPES = frozenset(
    {
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma2",
        "gemma3_text",
        "gpt2",
        "gpt_neox",
        "phi3",
        "opt",
    }
)
# Whole change: d as it is, q in int8 with scales s. In two factors: a and b in int8, scales as, bs.
_DELTA_SUFFIXES = ("q", "s", "d", "a", "as", "b", "bs")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file; raises UserError if it is missing or damaged."""
    try:
        return dict(load_file(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing, so this is no moderation folder") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: no readable safetensors file: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# -- the change of a base


def _quantise_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    scale = matrix.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127.0
    return torch.round(matrix / scale).to(torch.int8), scale.squeeze(1).half()


def _restore_rows(values: Tensor, scale: Tensor) -> Tensor:
    return values.float() * scale.float().unsqueeze(1)


def encode_delta(
    base: dict[str, Tensor], tuned: dict[str, Tensor], *, rank: int | None = None
) -> dict[str, Tensor]:
    """Returns the quantised change of each tensor that changed.

    `rank` keeps only the largest singular directions of each matrix.
    """
    delta: dict[str, Tensor] = {}
    for name, before in base.items():
        change = tuned[name].float() - before.float()
        if not change.any():
            continue
        if change.ndim != 2:
            delta[f"{name}.d"] = change.half()
        elif rank is None or rank >= min(change.shape) // 2:  # two factors would not be smaller
            delta[f"{name}.q"], delta[f"{name}.s"] = _quantise_rows(change)
        else:
            u, s, vh = torch.linalg.svd(change, full_matrices=False)
            # The singular values are split evenly, so that both factors have the same range.
            root = s[:rank].sqrt()
            left = (u[:, :rank] * root).T.contiguous()
            right = vh[:rank] * root.unsqueeze(1)
            delta[f"{name}.a"], delta[f"{name}.as"] = _quantise_rows(left)
            delta[f"{name}.b"], delta[f"{name}.bs"] = _quantise_rows(right)
    return {name: tensor.contiguous() for name, tensor in delta.items()}


def apply_delta(
    state: dict[str, Tensor], delta: dict[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Returns the tuned tensors.

    Raises UserError for a change of an unknown tensor, of another shape, or with NaN or infinity.
    """
    tuned = dict(state)
    done: set[str] = set()
    for key in delta:
        name, _, suffix = key.rpartition(".")
        if name not in state or suffix not in _DELTA_SUFFIXES:
            raise UserError(f"{path}: {key}: the base has no such tensor")
        if name in done:  # seen with another suffix
            continue
        done.add(name)
        try:
            change = _decode_change(delta, name)
        except (KeyError, RuntimeError) as error:
            raise UserError(f"{path}: {name}: an incomplete change ({error})") from error
        if change.shape != state[name].shape:
            raise UserError(
                f"{path}: {name}: shape {tuple(change.shape)}, "
                f"the base has {tuple(state[name].shape)}"
            )
        if not bool(torch.isfinite(change).all()):
            raise UserError(f"{path}: {name}: holds values that are not finite")
        tuned[name] = state[name].float() + change
    return tuned


def _decode_change(delta: dict[str, Tensor], name: str) -> Tensor:
    if f"{name}.d" in delta:
        return delta[f"{name}.d"].float()
    if f"{name}.q" in delta:
        return _restore_rows(delta[f"{name}.q"], delta[f"{name}.s"])
    left = _restore_rows(delta[f"{name}.a"], delta[f"{name}.as"])
    right = _restore_rows(delta[f"{name}.b"], delta[f"{name}.bs"])
    return left.T @ right


# -- the body


def build_network(body: Any, categories: int) -> ModerationNetwork:
    """Returns the network around a body, without the body's pooler, which it does not use."""
    if hasattr(body, "pooler"):
        body.pooler = None
    causal = body.config.model_type in CAUSAL_MODEL_TYPES
    return ModerationNetwork(body, categories, causal=causal)


def read_network(folder: Path, settings: ClassifierSettings) -> tuple[ModerationNetwork, Any]:
    """Returns the network, in float32 on the CPU, and its tokenizer.

    Raises UserError if the files of the folder do not fit together.
    """
    if settings.form == "delta":
        body, tokenizer = _read_delta_body(folder, settings)
    else:
        body, tokenizer = _read_full_body(folder), load_tokenizer(folder)
    return build_network(body, len(settings.categories)), tokenizer


def _read_delta_body(folder: Path, settings: ClassifierSettings) -> tuple[Any, Any]:
    weights = find_weights(settings.base)
    if weights.sha256 != settings.base_sha256:
        raise UserError(
            f"{folder}: was trained from {settings.base} with SHA-256 "
            f"{settings.base_sha256[:12]}..., but the {settings.base} here has "
            f"{weights.sha256[:12]}..."
        )
    loaded = load_encoder(weights, dtype="float32", device="cpu")
    body = truncate_layers(loaded.model, settings.layers)
    path = folder / "delta.safetensors"
    body.load_state_dict(apply_delta(body.state_dict(), read_safetensors(path), path))
    return body, loaded.tokenizer


def _read_full_body(folder: Path) -> Any:
    """Builds the body that config.json describes and fills it."""
    from transformers import AutoModel

    check_model_folder(folder, str(folder))
    config = load_config(folder, str(folder))
    try:
        config._attn_implementation = "sdpa"
        body = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except Exception as error:  # a broken configuration leads to errors of any type
        raise UserError(f"{folder / 'config.json'}: {_first_line(error)}") from error
    path = folder / "model.safetensors"
    _load_checked(body, read_safetensors(path), path)
    return body


def _load_checked(module: Any, tensors: dict[str, Tensor], path: Path) -> None:
    """Loads tensors that must be exactly those of the module (its pooler may be missing)."""
    expected = module.state_dict()
    unknown = sorted(set(tensors) - set(expected))
    missing = sorted(k for k in set(expected) - set(tensors) if not k.startswith("pooler."))
    if unknown or missing:
        reason = f"unknown tensor {unknown[0]}" if unknown else f"tensor {missing[0]} is missing"
        raise UserError(f"{path}: not of the architecture that config.json names: {reason}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{path}: {name}: shape {tuple(tensor.shape)}, "
                f"expected {tuple(expected[name].shape)}"
            )
    converted = {name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}
    module.load_state_dict(converted, strict=False)


def write_body(
    network: ModerationNetwork,
    tokenizer: Any,
    folder: Path,
    base: dict[str, Tensor] | None,
    rank: int | None,
) -> None:
    """Writes the whole body with its tokenizer, or, given the base's tensors, only the change."""
    if base is None:
        network.body.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return
    tuned = {name: t.detach().cpu() for name, t in network.body.state_dict().items()}
    delta = encode_delta({name: base[name] for name in tuned}, tuned, rank=rank)
    save_file(delta, folder / "delta.safetensors")


# -- the head


def _head_tensors(network: ModerationNetwork) -> dict[str, Tensor]:
    return {"mix": network.mix, "weight": network.head.weight, "bias": network.head.bias}


def read_head(
    network: ModerationNetwork, folder: Path, settings: ClassifierSettings
) -> NgramModel | None:
    """Fills mix and head from `head.safetensors`; returns the n-gram model if there is one."""
    path = folder / "head.safetensors"
    tensors = read_safetensors(path)
    for name, parameter in _head_tensors(network).items():
        if name not in tensors or tensors[name].shape != parameter.shape:
            raise UserError(
                f"{path}: {name}: missing, or not of the shape {tuple(parameter.shape)}"
            )
        with torch.no_grad():
            parameter.copy_(tensors[name].float())
    if "ngram.weight" not in tensors:
        return None
    outputs = len(MODERATION_QUESTIONS) + len(settings.categories)
    try:
        weight, scale, idf = (tensors[f"ngram.{name}"] for name in ("weight", "scale", "idf"))
        if weight.dtype != torch.int8 or weight.shape[-1] != outputs:
            raise ValueError(
                f"weights of type {weight.dtype} and shape {tuple(weight.shape)} "
                f"for {outputs} outputs"
            )
        return NgramModel(weight.numpy(), scale.float().numpy(), idf.float().numpy())
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: ngram: {error}") from error


def write_head(network: ModerationNetwork, folder: Path, ngrams: dict[str, Tensor]) -> None:
    """Writes `head.safetensors`: mix, head, and the n-gram tensors if there are any.

    `ngrams` has the keys `weight` (int8), `scale` and `idf`, or is empty.
    """
    tensors = {
        name: tensor.detach().float().cpu().contiguous()
        for name, tensor in _head_tensors(network).items()
    }
    tensors |= {f"ngram.{name}": tensor.contiguous() for name, tensor in ngrams.items()}
    save_file(tensors, folder / "head.safetensors")
