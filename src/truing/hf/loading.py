"""Loads a transformer, pads token rows, puts a scalar head on a language model, and picks the arithmetic.

Needs the `local` extra. Training, local models, moderation and reward models meet here and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from truing.core.errors import UserError, did_you_mean
from truing.hf.weights import Weights, find_weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@cache
def cpu_flags() -> frozenset[str]:
    """What the processor says it can do (Linux; empty elsewhere)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    line = next((row for row in text.splitlines() if row.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())


def select_device(name: str = "auto") -> torch.device:
    """CUDA, then MPS, then the CPU; or the device that was asked for, if it is there."""
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name!r} is no device of torch") from error
    if (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    ):
        raise UserError(f"device={name!r}: this machine (or this build of torch) has none")
    return device


def select_dtype(name: str = "auto", device: torch.device | None = None) -> torch.dtype:
    """bfloat16 where the hardware multiplies it (AMX or AVX-512 BF16 on a CPU; CUDA from Ampere on), else float32."""
    if name != "auto":
        if name not in DTYPES:
            raise UserError(f"dtype={name!r} is unknown{did_you_mean(name, DTYPES)}")
        return DTYPES[name]
    where = device or select_device()
    if where.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if where.type == "cpu" and cpu_flags() & {"amx_bf16", "avx512_bf16"}:
        return torch.bfloat16
    return torch.float32


def prefers_int8() -> bool:
    """Whether the CPU has 8-bit dot products but no bfloat16 ones, so that int8 (ONNX Runtime) is the faster path."""
    flags = cpu_flags()
    return bool(flags & {"avx512_vnni", "avx_vnni"}) and not flags & {"amx_bf16", "avx512_bf16"}


def limit_torch_threads() -> int:
    """The number of threads that torch uses, never more than the processors that this process may use."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if torch.get_num_threads() > allowed:
        torch.set_num_threads(allowed)
    return torch.get_num_threads()


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer and the weights that it came from."""

    model: Any
    tokenizer: Any
    weights: Weights


def load_tokenizer(path: str | Path) -> Any:
    """The fast tokenizer of a folder; a missing pad token becomes the end token (rows carry masks, so this is safe)."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path))
    except (OSError, ValueError) as error:
        raise UserError(f"local:{path}: the tokenizer cannot be read: {_line(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _load(
    name: str | Weights, auto: str, dtype: str, device: str, attention: str | None
) -> LoadedModel:
    import transformers
    from safetensors import SafetensorError
    from transformers.utils import logging

    weights = find_weights(name) if isinstance(name, str) else name
    where = select_device(device)
    logging.disable_progress_bar()
    tokenizer = load_tokenizer(weights.path)
    try:
        model = getattr(transformers, auto).from_pretrained(
            str(weights.path), dtype=select_dtype(dtype, where), attn_implementation=attention
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"local:{weights.name}: the model cannot be loaded: {_line(error)}"
        ) from error
    model.requires_grad_(False)
    return LoadedModel(model.to(where).eval(), tokenizer, weights)


def load_causal_lm(
    name: str | Weights, *, dtype: str = "auto", device: str = "auto", attention: str | None = None
) -> LoadedModel:
    """A causal language model, in evaluation mode and without gradients."""
    made = _load(name, "AutoModelForCausalLM", dtype, device, attention)
    make_lm_head_contiguous(made.model)
    return made


def make_lm_head_contiguous(model: Any) -> None:
    """Lets the language-model head read its rows in one piece.

    `logits_to_keep` hands it a slice of the hidden states, which `torch.matmul` does not fold: it multiplies a copy of the
    whole head for every row instead (on a CPU as many copies in memory as there are rows).
    """
    head = model.get_output_embeddings()
    if head is not None and not getattr(head, "_reads_in_one_piece", False):
        head.register_forward_pre_hook(_in_one_piece)
        head._reads_in_one_piece = True


def _in_one_piece(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].contiguous(), *args[1:])


def select_training_attention(length: int, device: torch.device) -> str | None:
    """The attention to train with rows of at most that many tokens: on a CPU the plain one is a fifth faster a step for
    short rows than the fused one, whose backward pass is slow there (measured: 100 tokens, bfloat16).
    """
    return "eager" if device.type == "cpu" and length <= 256 else None


def load_encoder(
    name: str | Weights, *, dtype: str = "auto", device: str = "auto", attention: str | None = None
) -> LoadedModel:
    """A text encoder without a task head."""
    return _load(name, "AutoModel", dtype, device, attention)


def context_length(model: Any) -> int:
    """The longest sequence that the model takes."""
    config = (
        model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    )
    for key in ("max_position_embeddings", "n_positions", "max_sequence_length"):
        value = getattr(config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return 2048


def eos_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """The token ids that end an answer, as transformers' own `generate` reads them, or else the tokenizer's."""
    given = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if given is None:
        given = model.config.eos_token_id
    ids = given if isinstance(given, (list, tuple)) else [given]
    known = frozenset(int(i) for i in ids if i is not None)
    return known or frozenset(i for i in (tokenizer.eos_token_id,) if i is not None)


def pad_rows(
    rows: Sequence[Sequence[int]], value: int, *, side: Literal["left", "right"] = "right"
) -> tuple[Tensor, Tensor]:
    """Token rows as one `[B, T]` tensor and its mask (1 = real token, whatever its id)."""
    width = max((len(r) for r in rows), default=0)
    ids = torch.full((len(rows), width), value, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for at, row in enumerate(rows):
        n = len(row)
        place = slice(width - n, width) if side == "left" else slice(0, n)
        ids[at, place] = torch.tensor(list(row), dtype=torch.long)
        mask[at, place] = 1
    return ids, mask


def position_ids(mask: Tensor) -> Tensor:
    """Position ids of real tokens counted from 0, right under left and right padding alike."""
    return (mask.cumsum(dim=-1) - 1).clamp(min=0)


def batch_by_length(
    lengths: Sequence[int], *, tokens: int = 4096, rows: int = 256
) -> Iterator[list[int]]:
    """Indexes in batches of similar length, longest first, with at most so many padded tokens and rows each."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batch: list[int] = []
    widest = 0
    for i in order:
        width = max(widest, lengths[i], 1)
        if batch and (width * (len(batch) + 1) > tokens or len(batch) >= rows):
            yield batch
            batch, widest = [], 0
        batch.append(i)
        widest = max(widest, lengths[i], 1)
    if batch:
        yield batch


class ScalarModel(nn.Module):
    """A decoder body with a linear head that gives one number (or `outputs` numbers) for each token.

    The number of a sequence is the one at its last real token, as reward and cost models have it (Dai et al. 2023,
    Safe RLHF, arXiv:2310.12773).
    """

    def __init__(self, body: Any, *, outputs: int = 1, head: nn.Linear | None = None) -> None:
        super().__init__()
        self.body = body
        size = body.config.get_text_config().hidden_size
        self.head = head if head is not None else nn.Linear(size, outputs, bias=False)
        if head is None:
            nn.init.normal_(self.head.weight, std=1.0 / (size + 1) ** 0.5)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """`[B, T]` values (`[B, T, outputs]` where there are several)."""
        out = self.body(
            input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False
        )
        values = self.head(out.last_hidden_state.to(self.head.weight.dtype))
        return values.squeeze(-1) if self.head.out_features == 1 else values

    @staticmethod
    def last_token_values(values: Tensor, mask: Tensor) -> Tensor:
        """The values at the last real token of each row."""
        where = torch.arange(mask.shape[1], device=mask.device)
        last = torch.where(mask.bool(), where, -1).argmax(dim=1)
        return values[torch.arange(values.shape[0], device=values.device), last]

    def save(self, path: str | Path, tokenizer: Any | None = None) -> None:
        """The body in the Hugging Face layout, the head beside it as `head.safetensors`."""
        from safetensors.torch import save_file

        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        self.body.save_pretrained(folder)
        save_file(
            {"weight": self.head.weight.detach().float().cpu().contiguous()},
            folder / "head.safetensors",
        )
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


def load_scalar_model(
    path: str | Path, *, dtype: str = "auto", device: str = "auto"
) -> tuple[ScalarModel, Any]:
    """A `ScalarModel` that `save` wrote, with its tokenizer; the head stays in float32."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weight = load_file(Path(path) / "head.safetensors")["weight"]
    except (OSError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{path}: no head.safetensors, so this is no reward or cost model: {_line(error)}"
        ) from error
    loaded = load_encoder(str(path), dtype=dtype, device=device)
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    head.weight.data.copy_(weight)
    model = ScalarModel(loaded.model, head=head.to(next(loaded.model.parameters()).device))
    return model.eval(), loaded.tokenizer
