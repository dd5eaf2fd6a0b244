"""Reads and writes the tensors of a moderation folder: safetensors only, every shape checked before it is used.

`full` folders hold the body in the Hugging Face layout (`config.json`, `model.safetensors`). `delta` folders hold what
fine-tuning changed in a base that truing knows by SHA-256: `NAME.q` int8 rows with `NAME.s` their scales, or the two
factors `NAME.a`, `NAME.b` of a low-rank change (int8, scales `NAME.as`, `NAME.bs`), or `NAME.d` in half precision for
what is small. Embeddings never change. `head.safetensors` holds the layer mix, the head and the n-gram weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from truing.core.errors import UserError
from truing.hf.loading import load_encoder, load_tokenizer
from truing.hf.weights import find_weights
from truing.judges.moderation.causal_layers import truncate_layers
from truing.judges.moderation.network import QUESTION_OUTPUTS, ModerationNetwork
from truing.judges.moderation.ngrams import NgramModel
from truing.judges.moderation.settings import ClassifierSettings

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


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file; UserError with path and reason where it is missing, truncated or something else."""
    try:
        return dict(load_file(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing, so this is no moderation folder") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: no readable safetensors file: {line}") from error


def _quantise(matrix: Tensor) -> tuple[Tensor, Tensor]:
    scale = matrix.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127.0
    return torch.round(matrix / scale).to(torch.int8), scale.squeeze(1).half()


def _restore(values: Tensor, scale: Tensor) -> Tensor:
    return values.float() * scale.float().unsqueeze(1)


def encode_delta(
    base: dict[str, Tensor], tuned: dict[str, Tensor], *, rank: int | None = None
) -> dict[str, Tensor]:
    """What changed, quantised; `rank` keeps the largest singular directions of each matrix, none keeps the whole."""
    made: dict[str, Tensor] = {}
    for name, before in base.items():
        change = tuned[name].float() - before.float()
        if not change.any():
            continue
        if change.ndim != 2:
            made[f"{name}.d"] = change.half()
        elif rank is None or rank >= min(change.shape) // 2:
            made[f"{name}.q"], made[f"{name}.s"] = _quantise(change)
        else:
            u, s, v = torch.linalg.svd(change, full_matrices=False)
            root = s[:rank].sqrt()
            made[f"{name}.a"], made[f"{name}.as"] = _quantise((u[:, :rank] * root).T.contiguous())
            made[f"{name}.b"], made[f"{name}.bs"] = _quantise(v[:rank] * root.unsqueeze(1))
    return {name: tensor.contiguous() for name, tensor in made.items()}


def apply_delta(
    state: dict[str, Tensor], delta: dict[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """The tuned tensors; UserError for a change of something that the base has not, or of another shape."""
    made = dict(state)
    seen: set[str] = set()
    for key in delta:
        name, _, part = key.rpartition(".")
        if name not in state or part not in ("q", "s", "d", "a", "as", "b", "bs"):
            raise UserError(f"{path}: {key}: the base has no such tensor")
        if name in seen:
            continue
        seen.add(name)
        try:
            change = _change(delta, name)
        except (KeyError, RuntimeError) as error:
            raise UserError(f"{path}: {name}: an incomplete change ({error})") from error
        if change.shape != state[name].shape:
            raise UserError(
                f"{path}: {name}: shape {tuple(change.shape)}, the base has {tuple(state[name].shape)}"
            )
        if not bool(torch.isfinite(change).all()):
            raise UserError(f"{path}: {name}: holds values that are no numbers")
        made[name] = state[name].float() + change
    return made


def _change(delta: dict[str, Tensor], name: str) -> Tensor:
    if f"{name}.d" in delta:
        return delta[f"{name}.d"].float()
    if f"{name}.q" in delta:
        return _restore(delta[f"{name}.q"], delta[f"{name}.s"])
    left = _restore(delta[f"{name}.a"], delta[f"{name}.as"])
    return left.T @ _restore(delta[f"{name}.b"], delta[f"{name}.bs"])


def _fresh(folder: Path) -> Any:
    """The body of a full folder, its tensors checked one by one."""
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(str(folder))
        config._attn_implementation = "sdpa"
        body = AutoModel.from_config(config, dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / 'config.json'}: {(str(error).splitlines() or ['unreadable'])[0]}"
        ) from error
    _fill(body, read_safetensors(folder / "model.safetensors"), folder / "model.safetensors")
    return body


def _fill(module: Any, tensors: dict[str, Tensor], path: Path) -> None:
    wanted = module.state_dict()
    unknown = sorted(set(tensors) - set(wanted))
    missing = sorted(k for k in set(wanted) - set(tensors) if not k.startswith("pooler."))
    if unknown or missing:
        what = f"unknown tensor {unknown[0]}" if unknown else f"tensor {missing[0]} is missing"
        raise UserError(f"{path}: not of the architecture that config.json names: {what}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise UserError(
                f"{path}: {name}: shape {tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}"
            )
    module.load_state_dict({k: v.to(wanted[k].dtype) for k, v in tensors.items()}, strict=False)


def build_network(body: Any, categories: int) -> ModerationNetwork:
    """The network around a body, without the pooler that it does not use."""
    if hasattr(body, "pooler"):
        body.pooler = None
    return ModerationNetwork(body, categories, causal=body.config.model_type in CAUSAL_MODEL_TYPES)


def read_network(folder: Path, settings: ClassifierSettings) -> tuple[ModerationNetwork, Any]:
    """The network in float32 on the CPU, and its tokenizer; UserError for a folder that does not fit together."""
    if settings.form == "delta":
        weights = find_weights(settings.base)
        if weights.sha256 != settings.base_sha256:
            raise UserError(
                f"{folder}: made for {settings.base} {settings.base_sha256[:12]}, not {weights.sha256[:12]}"
            )
        loaded = load_encoder(weights, dtype="float32", device="cpu")
        body, tokenizer = truncate_layers(loaded.model, settings.layers), loaded.tokenizer
        delta = read_safetensors(folder / "delta.safetensors")
        body.load_state_dict(apply_delta(body.state_dict(), delta, folder / "delta.safetensors"))
    else:
        body, tokenizer = _fresh(folder), load_tokenizer(folder)
    return build_network(body, len(settings.categories)), tokenizer


def read_head(
    network: ModerationNetwork, folder: Path, settings: ClassifierSettings
) -> NgramModel | None:
    """Fills mix and head from `head.safetensors`; gives the n-gram model where there is one."""
    path = folder / "head.safetensors"
    tensors = read_safetensors(path)
    outputs = len(QUESTION_OUTPUTS) + len(settings.categories)
    wanted = {"mix": network.mix, "weight": network.head.weight, "bias": network.head.bias}
    for name, parameter in wanted.items():
        if name not in tensors or tensors[name].shape != parameter.shape:
            raise UserError(
                f"{path}: {name}: missing, or not of the shape {tuple(parameter.shape)}"
            )
        with torch.no_grad():
            parameter.copy_(tensors[name].float())
    if "ngram.weight" not in tensors:
        return None
    try:
        weight, scale, idf = (tensors[f"ngram.{k}"] for k in ("weight", "scale", "idf"))
        if weight.dtype != torch.int8 or weight.shape[-1] != outputs:
            raise ValueError(
                f"weights of type {weight.dtype} and shape {tuple(weight.shape)} for {outputs} outputs"
            )
        return NgramModel(weight.numpy(), scale.float().numpy(), idf.float().numpy())
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: ngram: {error}") from error


def write_head(network: ModerationNetwork, folder: Path, ngrams: dict[str, Tensor]) -> None:
    """`head.safetensors`: mix, head, and the n-gram tensors (`weight` int8, `scale`, `idf`) if there are any."""
    tensors = {"mix": network.mix, "weight": network.head.weight, "bias": network.head.bias}
    made = {k: v.detach().float().cpu().contiguous() for k, v in tensors.items()}
    save_file(
        {**made, **{f"ngram.{k}": v.contiguous() for k, v in ngrams.items()}},
        folder / "head.safetensors",
    )


def write_body(
    network: ModerationNetwork,
    tokenizer: Any,
    folder: Path,
    base: dict[str, Tensor] | None,
    rank: int | None,
) -> None:
    """The body whole with its tokenizer, or (with the tensors of its `base`) only what changed."""
    if base is None:
        network.body.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return
    tuned = {k: v.detach().cpu() for k, v in network.body.state_dict().items()}
    save_file(
        encode_delta({k: base[k] for k in tuned}, tuned, rank=rank), folder / "delta.safetensors"
    )
