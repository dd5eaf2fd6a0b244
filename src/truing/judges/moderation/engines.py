"""Inference engines: torch (bfloat16 where the CPU multiplies it, else float32), or ONNX in int8.

Rows are run in batches of similar length. The float32 engine returns the same logits whatever the
batch (to 1e-4).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from copy import copy, deepcopy
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from truing.core.errors import MissingExtra, UserError, did_you_mean
from truing.core.private_files import create_folder
from truing.hf.loading import (
    batch_by_length,
    limit_torch_threads,
    prefers_int8,
    select_device,
    select_dtype,
)
from truing.hf.weights import cache_dir
from truing.judges.moderation.fast_bert import FastBert, supports_fast_bert
from truing.judges.moderation.fast_llama import FastLlama, supports_fast_llama
from truing.judges.moderation.inputs import EncodedInput
from truing.judges.moderation.kept_states import KeptStatesEngine
from truing.judges.moderation.network import ModerationNetwork

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
ENGINES = ("auto", "torch", "onnx")
EXPORT_VERSION = 2  # part of the cache key: raised when the exported graph changes


class InferenceEngine(Protocol):
    """Computes the logits of token rows."""

    name: str

    def logits(self, rows: Sequence[EncodedInput]) -> Floats:
        """Returns `[len(rows), outputs]`, in the order of the rows."""
        ...


def pad_inputs(rows: Sequence[EncodedInput], pad_id: int) -> tuple[Ints, Ints, Ints]:
    """Returns ids, segments and mask `[B, T]` of rows, padded on the right."""
    width = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), width), pad_id, np.int64)
    segments = np.zeros((len(rows), width), np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for index, row in enumerate(rows):
        n = len(row.ids)
        ids[index, :n], segments[index, :n], mask[index, :n] = row.ids, row.segments, 1
    return ids, segments, mask


def _inference_body(body: Any, dtype: torch.dtype) -> Any:
    """Returns the fastest equivalent of a body in a dtype; the body itself is not changed."""
    if supports_fast_llama(body):
        return FastLlama(body, dtype).eval()
    same_dtype = dtype is next(body.parameters()).dtype
    converted = body if same_dtype else deepcopy(body).to(dtype)
    return FastBert(converted).eval() if supports_fast_bert(converted) else converted


class TorchEngine:
    """The network in torch. Threads may share it; they take turns.

    `tokens` is the largest number of padded tokens in a batch.
    """

    def __init__(
        self,
        network: ModerationNetwork,
        *,
        pad_id: int,
        dtype: str = "auto",
        device: str = "auto",
        tokens: int = 4096,
    ) -> None:
        self._device = select_device(device)
        torch_dtype = select_dtype(dtype, self._device)
        # A shallow copy with its own table of modules, so that the caller's network keeps its body.
        self._network = copy(network.eval().requires_grad_(False).to(self._device))
        self._network._modules = dict(network._modules)
        self._network.body = _inference_body(network.body, torch_dtype)
        self._pad_id = pad_id
        self._tokens = tokens
        self._lock = threading.Lock()
        self.name = f"torch {str(torch_dtype).removeprefix('torch.')} {self._device.type}"
        limit_torch_threads()

    def open_stream(self) -> InferenceEngine:
        """Returns an engine for the rows of one growing text.

        For a language model it runs only new tokens (`kept_states`). An encoder attends in both
        directions, so every token is run again: then it is this engine.
        """
        if not self._network.keeps_states:
            return self
        return KeptStatesEngine(self._network, self._device)

    def logits(self, rows: Sequence[EncodedInput]) -> Floats:
        """Returns `[len(rows), outputs]`, in the order of the rows."""
        logits = np.zeros((len(rows), self._network.head.out_features), np.float32)
        lengths = [len(row.ids) for row in rows]
        with self._lock, torch.inference_mode():
            for batch in batch_by_length(lengths, tokens=self._tokens):
                arrays = pad_inputs([rows[index] for index in batch], self._pad_id)
                ids, segments, mask = (torch.from_numpy(a).to(self._device) for a in arrays)
                logits[batch] = self._network(ids, segments, mask).float().cpu().numpy()
        return logits


class OnnxEngine:
    """The exported network under ONNX Runtime on the CPU, its matrix products in int8.

    Quantisation is dynamic: the ranges of activations are measured at run time.
    """

    def __init__(
        self,
        network: ModerationNetwork,
        *,
        pad_id: int,
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
        options.log_severity_level = 3  # errors only
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # a damaged file; onnxruntime has an exception class per fault
            path.unlink(missing_ok=True)
            raise UserError(
                f"{path}: cannot be loaded, and was removed; try again ({str(error)[:200]})"
            ) from error
        self._outputs = network.head.out_features
        self._pad_id = pad_id
        self._tokens = tokens
        self.name = "onnx int8 cpu"

    def logits(self, rows: Sequence[EncodedInput]) -> Floats:
        """Returns `[len(rows), outputs]`, in the order of the rows."""
        logits = np.zeros((len(rows), self._outputs), np.float32)
        for batch in batch_by_length([len(row.ids) for row in rows], tokens=self._tokens):
            ids, segments, mask = pad_inputs([rows[index] for index in batch], self._pad_id)
            feeds = {"ids": ids, "segments": segments, "mask": mask}
            logits[batch] = self._session.run(None, feeds)[0]
        return logits


def export_int8_onnx(network: ModerationNetwork, digest: str) -> Path:
    """Returns the int8 file of these weights in the cache; the first call writes it."""
    version = f"{digest} {torch.__version__} {EXPORT_VERSION}"
    key = hashlib.sha256(version.encode()).hexdigest()[:16]
    folder = cache_dir() / "moderation"
    path = folder / f"{key}.int8.onnx"
    if path.is_file():
        return path
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise MissingExtra("local", "engine=onnx") from error

    create_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        exported, quantised = Path(work) / "raw.onnx", Path(work) / "int8.onnx"
        _export_onnx(network, exported)
        model = onnx.load(str(exported))
        # The shapes that the exporter noted contradict the quantised graph and make quantising
        # fail.
        del model.graph.value_info[:]
        onnx.save(model, str(exported))
        quantize_dynamic(
            str(exported),
            str(quantised),
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
            # The Gemm is the head: small, and thresholds depend on its exact values.
            nodes_to_exclude=[n.name for n in model.graph.node if n.op_type == "Gemm"],
        )
        quantised.replace(path)  # atomic: other processes see the whole file or none
    return path


def _export_onnx(network: ModerationNetwork, path: Path) -> None:
    """Writes the float32 graph, with free batch size and width."""
    ids = torch.randint(5, 1000, (3, 24))
    segments, mask = torch.zeros_like(ids), torch.ones_like(ids)
    segments[:, 12:] = 1
    mask[2, 20:] = 0
    shape = {
        0: torch.export.Dim("rows", min=1, max=4096),
        1: torch.export.Dim("width", min=2, max=512),
    }
    with _quiet_exporter():
        torch.onnx.export(
            network.eval().float().cpu(),
            (ids, segments, mask),
            str(path),
            input_names=["ids", "segments", "mask"],
            output_names=["logits"],
            dynamic_shapes={name: dict(shape) for name in ("ids", "segments", "mask")},
            dynamo=True,
            verbose=False,
            external_data=False,
        )


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keeps torch's exporter from printing, logging and warning."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def make_engine(
    network: ModerationNetwork,
    *,
    pad_id: int,
    digest: str,
    engine: str = "auto",
    dtype: str = "auto",
    device: str = "auto",
) -> InferenceEngine:
    """Returns the engine by name.

    `auto` is ONNX on a CPU with 8-bit dot products and without bfloat16 ones, else torch. ONNX is
    for encoders: a language model always runs in torch.
    """
    if engine not in ENGINES:
        raise UserError(f"engine={engine!r} is unknown{did_you_mean(engine, ENGINES)}")
    runs_on_cpu = select_device(device).type == "cpu"
    if engine == "auto":
        is_free = dtype == "auto" and device in ("auto", "cpu")
        prefers_onnx = is_free and runs_on_cpu and prefers_int8()
        engine = "onnx" if prefers_onnx and not network.causal else "torch"
    if engine == "torch" or network.causal:
        return TorchEngine(network, pad_id=pad_id, dtype=dtype, device=device)
    if not runs_on_cpu:
        raise UserError("engine=onnx runs on the CPU only")
    return OnnxEngine(network, pad_id=pad_id, digest=digest)
