"""Who does the arithmetic: torch (bfloat16 where the CPU multiplies it, else float32), or ONNX Runtime in int8.

Rows go through in batches of similar length. The float32 engine gives the same results whatever the batch (to 1e-4).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from copy import copy, deepcopy
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from truing.core.errors import MissingExtra, UserError, did_you_mean
from truing.hf.loading import (
    batch_by_length,
    limit_torch_threads,
    prefers_int8,
    select_device,
    select_dtype,
)
from truing.hf.weights import cache_dir
from truing.judges.moderation import fast_llama
from truing.judges.moderation.fast_bert import FastBert, supports_fast_bert
from truing.judges.moderation.inputs import EncodedInput
from truing.judges.moderation.network import ModerationNetwork

Floats = npt.NDArray[np.float32]
ENGINES = ("auto", "torch", "onnx")


class InferenceEngine(Protocol):
    """Logits of token rows."""

    name: str

    def logits(self, rows: Sequence[EncodedInput]) -> Floats:
        """`[len(rows), outputs]` float32, in the order given."""
        ...


def _tensors(rows: Sequence[EncodedInput], pad: int) -> tuple[Any, Any, Any]:
    width = max(len(r.ids) for r in rows)
    ids = np.full((len(rows), width), pad, np.int64)
    segments, mask = np.zeros((2, len(rows), width), np.int64)
    for at, row in enumerate(rows):
        n = len(row.ids)
        ids[at, :n], segments[at, :n], mask[at, :n] = row.ids, row.segments, 1
    return ids, segments, mask


def _lean(body: Any, kind: torch.dtype) -> Any:
    """The body for inference in `kind`; the caller's is left as it is."""
    if fast_llama.supports_fast_llama(body):
        return fast_llama.FastLlama(body, kind).eval()
    made = body if kind is next(body.parameters()).dtype else deepcopy(body).to(kind)
    return FastBert(made).eval() if supports_fast_bert(made) else made


class TorchEngine:
    """The network in torch; safe to share between threads, which take turns."""

    def __init__(
        self,
        network: ModerationNetwork,
        *,
        pad: int,
        dtype: str = "auto",
        device: str = "auto",
        tokens: int = 4096,
    ) -> None:
        where = select_device(device)
        kind = select_dtype(dtype, where)
        self._network = copy(network.eval().requires_grad_(False).to(where))
        self._network._modules = dict(network._modules)  # the caller's network keeps its own body
        self._network.body = _lean(network.body, kind)
        self._where = where
        self._pad = pad
        self._tokens = tokens
        self._lock = threading.Lock()
        self.name = f"torch {str(kind).removeprefix('torch.')} {where.type}"
        limit_torch_threads()

    def logits(self, rows: Sequence[EncodedInput]) -> Floats:
        """Batches of similar length, at most `tokens` tokens each."""
        outputs = self._network.head.out_features
        made = np.zeros((len(rows), outputs), np.float32)
        with self._lock, torch.inference_mode():
            for batch in batch_by_length([len(r.ids) for r in rows], tokens=self._tokens):
                ids, segments, mask = (
                    torch.from_numpy(a).to(self._where)
                    for a in _tensors([rows[i] for i in batch], self._pad)
                )
                made[batch] = self._network(ids, segments, mask).float().cpu().numpy()
        return made


class OnnxEngine:
    """The network exported once, its matrix products in int8 (dynamic ranges), under ONNX Runtime on the CPU."""

    def __init__(
        self,
        network: ModerationNetwork,
        *,
        pad: int,
        digest: str,
        tokens: int = 4096,
        threads: int | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtra("local", "engine=onnx") from error
        path = export_int8_onnx(network, digest)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or limit_torch_threads()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except (
            Exception
        ) as error:  # a damaged cache file: onnxruntime has an exception class for each fault
            path.unlink(missing_ok=True)
            raise UserError(
                f"{path}: cannot be loaded, and was removed; try again ({str(error)[:200]})"
            ) from error
        self._pad = pad
        self._tokens = tokens
        self.name = "onnx int8 cpu"

    def logits(self, rows: Sequence[EncodedInput]) -> Floats:
        """As `TorchEngine.logits`."""
        parts: list[tuple[list[int], Floats]] = []
        for batch in batch_by_length([len(r.ids) for r in rows], tokens=self._tokens):
            ids, segments, mask = _tensors([rows[i] for i in batch], self._pad)
            out = self._session.run(None, {"ids": ids, "segments": segments, "mask": mask})[0]
            parts.append((batch, out))
        made = np.zeros((len(rows), parts[0][1].shape[1] if parts else 0), np.float32)
        for batch, out in parts:
            made[batch] = out
        return made


def export_int8_onnx(network: ModerationNetwork, digest: str) -> Path:
    """The int8 file for these weights in the cache; made at the first call, whole or not at all."""
    key = hashlib.sha256(f"{digest} {torch.__version__} 2".encode()).hexdigest()[:16]
    folder = cache_dir() / "moderation"
    path = folder / f"{key}.int8.onnx"
    if path.is_file():
        return path
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise MissingExtra("local", "engine=onnx") from error
    import tempfile

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        raw, made = Path(work) / "raw.onnx", Path(work) / "int8.onnx"
        _export(network, raw)
        graph = onnx.load(str(raw))
        del graph.graph.value_info[
            :
        ]  # shapes that the exporter wrote down keep the quantiser from working
        onnx.save(graph, str(raw))
        quantize_dynamic(
            str(raw),
            str(made),
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=[n.name for n in graph.graph.node if n.op_type == "Gemm"],
        )
        made.replace(path)
    return path


def _export(network: ModerationNetwork, path: Path) -> None:
    import contextlib
    import io
    import logging
    import warnings

    net = network.eval().float().cpu()
    ids = torch.randint(5, 1000, (3, 24))
    segments, mask = torch.zeros_like(ids), torch.ones_like(ids)
    segments[:, 12:] = 1
    mask[2, 20:] = 0
    free = {
        0: torch.export.Dim("rows", min=1, max=4096),
        1: torch.export.Dim("width", min=2, max=512),
    }
    shapes = {k: dict(free) for k in ("ids", "segments", "mask")}
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                net,
                (ids, segments, mask),
                str(path),
                input_names=["ids", "segments", "mask"],
                output_names=["logits"],
                dynamic_shapes=shapes,
                dynamo=True,
                verbose=False,
                external_data=False,
            )
    finally:
        quiet.setLevel(level)


def make_engine(
    network: ModerationNetwork,
    *,
    pad: int,
    digest: str,
    engine: str = "auto",
    dtype: str = "auto",
    device: str = "auto",
) -> InferenceEngine:
    """The engine asked for; `auto` is ONNX int8 on CPUs with 8-bit products and no bfloat16, else torch.

    ONNX is for encoders: a language model runs in torch whatever was asked for.
    """
    if engine not in ENGINES:
        raise UserError(f"engine={engine!r} is unknown{did_you_mean(engine, ENGINES)}")
    if network.causal:
        return TorchEngine(network, pad=pad, dtype=dtype, device=device)
    if engine == "onnx" or (
        engine == "auto" and dtype == "auto" and device in ("auto", "cpu") and prefers_int8()
    ):
        if select_device(device).type == "cpu":
            return OnnxEngine(network, pad=pad, digest=digest)
        if engine == "onnx":
            raise UserError("engine=onnx runs on the CPU alone")
    return TorchEngine(network, pad=pad, dtype=dtype, device=device)
