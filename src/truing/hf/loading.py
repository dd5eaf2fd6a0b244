"""Loads transformers models, pads and batches token rows, and selects device and dtype.

Needs the extra `local`. Used by training, local models, and the moderation and reward judges.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from truing.core.errors import UserError, did_you_mean
from truing.core.private_files import create_folder
from truing.hf import pretrained
from truing.hf.weights import Weights, find_weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_DEFAULT_CONTEXT_LENGTH = 2048
_EAGER_ATTENTION_MAX_TOKENS = 256


# -- device, dtype and threads


@cache
def cpu_flags() -> frozenset[str]:
    """Returns the feature flags of the CPU (Linux; empty on other systems)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    line = next((row for row in text.splitlines() if row.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())


def select_device(name: str = "auto") -> torch.device:
    """Returns the device of that name; with `auto` CUDA, else MPS, else the CPU.

    `cuda` is the GPU of this process where a launcher started several (its LOCAL_RANK). Raises
    UserError if this machine does not have the device.
    """
    if name == "auto":
        if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
            name = "cpu"  # `accelerate launch --cpu`
        elif torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name!r} is no device of torch") from error
    missing_cuda = device.type == "cuda" and not torch.cuda.is_available()
    missing_mps = device.type == "mps" and not torch.backends.mps.is_available()
    if missing_cuda or missing_mps:
        raise UserError(f"device={name!r}: this machine (or this build of torch) has none")
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", _local_gpu(int(os.environ["LOCAL_RANK"])))
    return device


def _local_gpu(local_rank: int) -> int:
    """Returns the number of the GPU of a process; raises UserError if there is none for it."""
    count = torch.cuda.device_count()
    if count == 1:
        # Some launchers (Slurm) let each process see its own GPU alone. Where it is the only GPU of
        # several processes, they find out as they join (distributed.process_group).
        return 0
    if local_rank >= count:
        raise UserError(
            f"process {local_rank} of this machine has no GPU of its own: there are {count}; "
            f"start {count} processes"
        )
    return local_rank


def select_dtype(name: str = "auto", device: torch.device | None = None) -> torch.dtype:
    """Returns the dtype of that name; with `auto` bfloat16 if the hardware multiplies it.

    That is AMX or AVX-512 BF16 on a CPU, Ampere or later with CUDA (older GPUs: float16).
    """
    if name != "auto":
        if name not in DTYPES:
            raise UserError(f"dtype={name!r} is unknown{did_you_mean(name, DTYPES)}")
        return DTYPES[name]
    device = device or select_device()
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu" and cpu_flags() & {"amx_bf16", "avx512_bf16"}:
        return torch.bfloat16
    return torch.float32


def prefers_int8() -> bool:
    """Whether int8 (ONNX Runtime) is faster than torch on this CPU.

    True if it has 8-bit dot products but no bfloat16 ones.
    """
    flags = cpu_flags()
    return bool(flags & {"avx512_vnni", "avx_vnni"}) and not flags & {"amx_bf16", "avx512_bf16"}


def limit_torch_threads() -> int:
    """Limits torch's threads to the CPUs that this process may use; returns their number.

    In a container torch otherwise starts a thread for each CPU of the host.
    """
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    if torch.get_num_threads() > available:
        torch.set_num_threads(available)
    return torch.get_num_threads()


def select_training_attention(length: int, device: torch.device) -> str | None:
    """Returns the attention implementation for training rows of at most `length` tokens.

    On a CPU the backward pass of the fused kernel is slow: for short rows a step with eager
    attention takes a fifth less time (measured with 100 tokens in bfloat16). None is transformers'
    default.
    """
    use_eager = device.type == "cpu" and length <= _EAGER_ATTENTION_MAX_TOKENS
    return "eager" if use_eager else None


# -- loading


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer and the weights that it was loaded from."""

    model: Any
    tokenizer: Any
    weights: Weights


def load_tokenizer(path: str | Path) -> Any:
    """Loads the fast tokenizer of a folder; a missing pad token becomes the end token.

    All batches have masks, so the id of the padding never matters.
    """
    tokenizer = pretrained.load_tokenizer(Path(path), str(path))
    # GPT and Llama tokenizers have none, and padding would raise an error.
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def load_causal_lm(
    name: str | Weights, *, dtype: str = "auto", device: str = "auto", attention: str | None = None
) -> LoadedModel:
    """Loads a causal language model, in evaluation mode and without gradients."""
    loaded = _load_model(name, "AutoModelForCausalLM", dtype, device, attention)
    make_lm_head_contiguous(loaded.model)
    return loaded


def load_encoder(
    name: str | Weights, *, dtype: str = "auto", device: str = "auto", attention: str | None = None
) -> LoadedModel:
    """Loads a model without a task head, in evaluation mode and without gradients."""
    return _load_model(name, "AutoModel", dtype, device, attention)


def load_without_weights(
    weights: Weights, auto_class: str, *, attention: str | None = None
) -> LoadedModel:
    """Returns a model in float32 with its parameters on the meta device, without gradients.

    `auto_class` is a class of transformers: AutoModelForCausalLM or AutoModel.
    """
    tokenizer = load_tokenizer(weights.path)
    model = pretrained.build_empty_model(
        auto_class,
        Path(weights.path),
        weights.name,
        dtype=torch.float32,
        attn_implementation=attention,
    )
    pretrained.check_tokenizer_fits(model, tokenizer, weights.name)
    model.requires_grad_(False)
    return LoadedModel(model.eval(), tokenizer, weights)


def load_whole_on_cpu(
    weights: Weights, auto_class: str, *, attention: str | None = None
) -> LoadedModel:
    """Loads a model of a class of transformers in float32 into the memory of the CPU."""
    return _load_model(weights, auto_class, "float32", "cpu", attention)


def _load_model(
    name: str | Weights, auto_class: str, dtype: str, device_name: str, attention: str | None
) -> LoadedModel:
    weights = find_weights(name) if isinstance(name, str) else name
    device = select_device(device_name)
    tokenizer = load_tokenizer(weights.path)
    model = pretrained.load_model(
        auto_class,
        weights.path,
        weights.name,
        dtype=select_dtype(dtype, device),
        attn_implementation=attention,
    )
    pretrained.check_tokenizer_fits(model, tokenizer, weights.name)
    # Training switches gradients on for the parameters that it trains.
    model.requires_grad_(False)
    return LoadedModel(model.to(device).eval(), tokenizer, weights)


def make_lm_head_contiguous(model: Any) -> None:
    """Makes the language-model head copy its input to contiguous memory.

    `logits_to_keep` passes the head a slice of the hidden states. `torch.matmul` does not fold such
    a slice into one product: it multiplies each row with a copy of the whole head, and on a CPU
    there are as many copies in memory as rows.
    """
    head = model.get_output_embeddings()
    if head is not None and not getattr(head, "_input_is_contiguous", False):
        head.register_forward_pre_hook(_contiguous_input)
        head._input_is_contiguous = True


def _contiguous_input(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].contiguous(), *args[1:])


def truncate_layers(body: Any, layers: int) -> Any:
    """Drops all but the first `layers` layers in place (0: none is dropped); returns the body."""
    if layers and layers < len(body.layers):
        body.layers = nn.ModuleList(body.layers[:layers])
        body.config.num_hidden_layers = layers
        if getattr(body.config, "layer_types", None):
            body.config.layer_types = body.config.layer_types[:layers]
    return body


def cache_argument(module: Any) -> str:
    """Returns the name of the cache argument of a decoder or of one of its layers; versions of
    transformers differ (`past_key_values` is removed in 5.40).
    """
    parameters = inspect.signature(type(module).forward).parameters
    return "cache" if "cache" in parameters else "past_key_values"


def context_length(model: Any) -> int:
    """Returns the longest sequence that the model takes, in tokens."""
    config = model.config
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    for key in ("max_position_embeddings", "n_positions", "max_sequence_length"):
        value = getattr(config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return _DEFAULT_CONTEXT_LENGTH


def eos_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Returns the ids that end an answer: those that transformers' `generate` uses.

    If the model's configuration has none, the tokenizer's end token.
    """
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if configured is None:
        configured = model.config.eos_token_id
    ids = configured if isinstance(configured, (list, tuple)) else [configured]
    ends = frozenset(int(i) for i in ids if i is not None)
    return ends or frozenset(i for i in (tokenizer.eos_token_id,) if i is not None)


# -- batches


def pad_rows(
    rows: Sequence[Sequence[int]], value: int, *, side: Literal["left", "right"] = "right"
) -> tuple[Tensor, Tensor]:
    """Returns token rows as one `[B, T]` tensor, padded with `value`, and its mask.

    The mask is 1 for each real token, also one whose id equals the padding's.
    """
    width = max((len(r) for r in rows), default=0)
    ids = torch.full((len(rows), width), value, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        length = len(row)
        columns = slice(width - length, width) if side == "left" else slice(0, length)
        ids[index, columns] = torch.tensor(list(row), dtype=torch.long)
        mask[index, columns] = 1
    return ids, mask


def position_ids(mask: Tensor) -> Tensor:
    """Returns position ids that count the real tokens from 0, for left and right padding."""
    return (mask.cumsum(dim=-1) - 1).clamp(min=0)


def batch_by_length(
    lengths: Sequence[int], *, tokens: int = 4096, rows: int = 256
) -> Iterator[list[int]]:
    """Yields batches of row indexes, rows of similar length together, longest first.

    A batch has at most `tokens` tokens, padding included, and at most `rows` rows; a row that is
    longer than `tokens` is a batch of its own.
    """
    # Longest first: a batch that does not fit into memory fails at once.
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batch: list[int] = []
    width = 0
    for index in order:
        new_width = max(width, lengths[index], 1)
        if batch and (new_width * (len(batch) + 1) > tokens or len(batch) >= rows):
            yield batch
            batch, width = [], 0
        batch.append(index)
        width = max(width, lengths[index], 1)
    if batch:
        yield batch


# -- reward and cost models


class ScalarModel(nn.Module):
    """A decoder with a linear head that computes a value (or `outputs` values) for each token.

    The score of a sequence is the value at its last real token, as in reward and cost models (Dai
    et al. 2023, Safe RLHF, arXiv:2310.12773).
    """

    def __init__(self, body: Any, *, outputs: int = 1, head: nn.Linear | None = None) -> None:
        super().__init__()
        self.body = body
        hidden_size = body.config.get_text_config().hidden_size
        self.head = head if head is not None else nn.Linear(hidden_size, outputs, bias=False)
        if head is None:
            # Small initial scores: std 1/sqrt(d + 1) (Stiennon et al. 2020, arXiv:2009.01325).
            nn.init.normal_(self.head.weight, std=1.0 / (hidden_size + 1) ** 0.5)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Returns `[B, T]` values, `[B, T, outputs]` if there are several."""
        output = self.body(
            input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False
        )
        # The body may run in bfloat16; scores that are compared need the head's float32.
        values: Tensor = self.head(output.last_hidden_state.to(self.head.weight.dtype))
        return values.squeeze(-1) if self.head.out_features == 1 else values

    @staticmethod
    def last_token_values(values: Tensor, mask: Tensor) -> Tensor:
        """Returns the values at the last real token of each row: `[B]` or `[B, outputs]`."""
        # Not `mask.sum() - 1`: with left padding the last real token is the last column.
        columns = torch.arange(mask.shape[1], device=mask.device)
        last = torch.where(mask.bool(), columns, -1).argmax(dim=1)
        return values[torch.arange(values.shape[0], device=values.device), last]

    def save(self, path: str | Path, tokenizer: Any | None = None) -> None:
        """Saves the body in the Hugging Face layout and the head as `head.safetensors`."""
        from safetensors.torch import save_file

        folder = Path(path)
        create_folder(folder)
        self.body.save_pretrained(folder)
        weight = self.head.weight.detach().float().cpu().contiguous()
        save_file({"weight": weight}, folder / "head.safetensors")
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


def load_scalar_model(
    path: str | Path, *, dtype: str = "auto", device: str = "auto"
) -> tuple[ScalarModel, Any]:
    """Loads a `ScalarModel` that `save` wrote, and its tokenizer; the head stays in float32."""
    head = load_head(path)
    loaded = load_encoder(str(path), dtype=dtype, device=device)
    check_head_fits(head, loaded.model, path)
    model = ScalarModel(loaded.model, head=head.to(next(loaded.model.parameters()).device))
    return model.eval(), loaded.tokenizer


def has_head(path: str | Path) -> bool:
    """Whether a model folder has the head of a `ScalarModel`."""
    return (Path(path) / "head.safetensors").is_file()


def load_head(path: str | Path) -> nn.Linear:
    """Loads the head of a folder that `ScalarModel.save` wrote, in float32, on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weight = load_file(Path(path) / "head.safetensors")["weight"]
    except (OSError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{path}: no head.safetensors, so this is no reward or cost model: "
            f"{pretrained.first_line(error)}"
        ) from error
    if weight.ndim != 2:
        raise UserError(
            f"{path}: head.safetensors has the shape {tuple(weight.shape)}, and a head has two "
            "dimensions: outputs and hidden features"
        )
    # The number of outputs is not stored, the shape of the weight tells it.
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    head.weight.data.copy_(weight)
    return head


def check_head_fits(head: nn.Linear, body: Any, path: str | Path) -> None:
    """Raises UserError if the head is not one of hidden states of the body's size."""
    hidden_size = body.config.get_text_config().hidden_size
    if head.in_features != hidden_size:
        raise UserError(
            f"{path}: head.safetensors has the shape {tuple(head.weight.shape)}, and the model "
            f"{hidden_size} hidden features"
        )
