"""The scale model against two processes over gloo: bytes that are sent, weights that are held."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from tests.distributed.processes import run_in_processes
from tests.models.local.conftest import write
from torch.utils._python_dispatch import TorchDispatchMode

from truing.distributed.process_group import ProcessGroup
from truing.hf.weights import find_weights
from truing.train.optimizer import build_adamw
from truing.train.scale_model import (
    Cluster,
    ModelSize,
    RolloutSize,
    gathered_bytes,
    measure_size,
    predict_rl,
    predict_supervised,
    sent_bytes,
    state_bytes,
    training_flops,
)
from truing.train.sharded_model import load_for_shards, shard_and_read

BILLION = ModelSize(parameters=1e9, root=1e8, layers=10)
WITH_ADAPTERS = msgspec.structs.replace(BILLION, adapters=1e7)


class CountingCollectives(TorchDispatchMode):
    """Counts the bytes that a ring would send for the collectives that FSDP starts."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        whole = {"_allgather_base_": 0, "_reduce_scatter_base_": 1}.get(func._opname)
        if func.namespace == "c10d" and whole is not None:
            size = ProcessGroup().size
            self.sent += args[whole].numel() * args[whole].element_size() * (size - 1) / size
        return func(*args, **(kwargs or {}))


def train_a_step(folder: str, micro_batches: int) -> tuple[float, float]:
    """Returns the bytes that a process sent in a step with shards, and those that it holds."""
    torch.manual_seed(0)
    weights = find_weights(folder)
    model = load_for_shards(weights, "AutoModelForCausalLM", "eager").model
    model.requires_grad_(True)
    shard_and_read(model, weights, ProcessGroup(), torch.device("cpu"))
    optimizer = build_adamw(model.named_parameters(), lr=1e-3)
    ids = torch.arange(8).reshape(1, 8)
    with CountingCollectives() as counted:
        for _ in range(micro_batches):
            model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    held = 0
    for parameter in model.parameters():
        slots = [v for v in optimizer.state[parameter].values() if v.dim()]
        tensors = [parameter, parameter.grad, *slots]
        held += sum(t.to_local().numel() * t.to_local().element_size() for t in tensors)
    return counted.sent, held


def test_bytes_of_a_sharded_step(tmp_path: Path) -> None:
    folder = write(tmp_path, "llama")
    size = measure_size(find_weights(str(folder)))
    assert size.layers == 3 and 0 < size.root < size.parameters
    for sent, held in run_in_processes(train_a_step, 2, str(folder), 2):
        predicted = sent_bytes(size, processes=2, shard=True, passes=2, backward_passes=2)
        assert sent == pytest.approx(predicted, rel=0.01)
        expected = state_bytes(size, trained=1, frozen=0, processes=2, shard=True)
        assert held == pytest.approx(expected, rel=0.01)


def test_one_gpu_sends_nothing_and_shares_nothing() -> None:
    one = predict_supervised(
        BILLION, Cluster(gpus=1, flops=1e12), tokens=1000, micro_batches=1, shard=True
    )
    assert one.sent_bytes == 0 and one.state_bytes == 16e9
    assert one.seconds == one.compute_seconds == 6e9 * 1000 / 1e12


def test_frozen_weights_need_no_gradient_and_half_of_the_memory() -> None:
    assert training_flops(WITH_ADAPTERS, 10) == pytest.approx(4e10)
    assert training_flops(WITH_ADAPTERS, 10, checkpointing=True) == pytest.approx(6e10)
    whole = state_bytes(WITH_ADAPTERS, trained=3, frozen=1, processes=8, shard=False)
    assert whole == 2e9 + 3 * 16e7
    assert state_bytes(WITH_ADAPTERS, trained=3, frozen=1, processes=8, shard=True) == (
        4e9 / 8 + 3 * 16e7
    )


def test_four_models_in_shards_need_a_part_of_the_memory() -> None:
    whole, shards = (
        state_bytes(BILLION, trained=3, frozen=1, processes=8, shard=s) for s in (False, True)
    )
    assert whole == 52e9 and shards == whole / 8
    assert gathered_bytes(BILLION, shard=True) == 4 * (2 * 9e7 + 1e8)
    assert gathered_bytes(BILLION, shard=False) == 0


def test_the_exchange_of_shards_overlaps_and_that_of_gradients_does_not() -> None:
    slow = Cluster(gpus=16, gpus_per_node=8, link=1e11, network=1e9)
    assert slow.collective_bandwidth == 1e9
    assert msgspec.structs.replace(slow, gpus=8).collective_bandwidth == 1e11
    for shard in (False, True):
        step = predict_supervised(BILLION, slow, tokens=1e5, micro_batches=1, shard=shard)
        parts = (step.compute_seconds, step.exchange_seconds)
        assert step.seconds == (max(parts) if shard else sum(parts))
    # 2 (N - 1) / N of 4 bytes for each trained weight.
    sent = sent_bytes(WITH_ADAPTERS, processes=16, shard=False, passes=9, backward_passes=9)
    assert sent == pytest.approx(2 * 15 / 16 * 4e7)


def test_sampling_reads_the_weights_for_each_token() -> None:
    cluster = Cluster(gpus=2, flops=1e15, memory_bandwidth=1e12)
    few = RolloutSize(answers=16, prompt_tokens=100, answer_tokens=50)
    step = predict_rl(BILLION, cluster, few, micro_batches=1)
    assert step.sampling_seconds == pytest.approx(50 * 2e9 / 1e12)
    # With very many answers the multiplications take longer than reading.
    many = RolloutSize(answers=20_000, prompt_tokens=100, answer_tokens=50)
    step = predict_rl(BILLION, cluster, many, micro_batches=1)
    assert step.sampling_seconds == pytest.approx(50 * 2e9 * 10_000 / 1e15)
    assert step.seconds == pytest.approx(
        step.compute_seconds + step.exchange_seconds + step.sampling_seconds
    )


@pytest.mark.parametrize("size", [BILLION, WITH_ADAPTERS], ids=["all", "adapters"])
def test_each_role_sums_its_own_gradients(size: ModelSize) -> None:
    answers = RolloutSize(answers=16, prompt_tokens=100, answer_tokens=50)

    def sent(critics: int, epochs: int) -> float:
        step = predict_rl(
            size, Cluster(gpus=4), answers, micro_batches=1, critics=critics, epochs=epochs
        )
        return step.sent_bytes

    assert sent(critics=2, epochs=1) == pytest.approx(3 * sent(critics=0, epochs=1))
    assert sent(critics=1, epochs=2) == pytest.approx(4 * sent(critics=0, epochs=1))


def test_the_tables_of_the_page_are_those_of_the_formulas(root: Path) -> None:
    script = root / "benchmarks/scale/training.py"
    spec = importlib.util.spec_from_file_location("scale_training", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (root / "docs/explanation/training-scale.md").read_text()
    for kind in ("supervised", "rl"):
        assert module.render_table(kind) in page
