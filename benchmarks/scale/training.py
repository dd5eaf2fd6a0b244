"""Tables of docs/explanation/training-scale.md, and the compute model against this machine.

    python benchmarks/scale/training.py             the tables
    python benchmarks/scale/training.py --measure   seconds of a step here against the prediction

`--measure` takes the speed of a matrix product of the same sizes on this device, predicts a step
of a small model from it, and times the step. The ratio is the share of that speed which a step
reaches: `flops` of a `Cluster` is the product of both.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

import msgspec

from truing.train.scale_model import (
    Cluster,
    ModelSize,
    PredictedStep,
    RolloutSize,
    predict_rl,
    predict_supervised,
)

# Qwen2.5-1.5B, Llama-3.1-8B and 70B: all weights, those outside of the layers, layers, and the
# weights of adapters of rank 16 on all linear layers.
MODELS = {
    "1.5": ModelSize(
        parameters=1.54e9, root=0.234e9, layers=28, adapters=18.5e6, key_values=2 * 28 * 256
    ),
    "8": ModelSize(
        parameters=8.03e9, root=1.05e9, layers=32, adapters=42e6, key_values=2 * 32 * 1024
    ),
    "70": ModelSize(
        parameters=70.6e9, root=2.1e9, layers=80, adapters=207e6, key_values=2 * 80 * 1024
    ),
}
GPUS = (1, 2, 4, 8, 16, 32, 64)
HEADER = "| 10⁹ weights | GPUs | all | all, `--shard` | adapters | adapters, `--shard` |"
TOKENS = 64 * 4096
ROLLOUT = RolloutSize(answers=512, prompt_tokens=256, answer_tokens=512)


def variants(size: ModelSize) -> Iterator[tuple[ModelSize, bool]]:
    """Yields (size, sharded) in the order of the columns."""
    for adapters in (0.0, size.adapters):
        for shard in (False, True):
            yield msgspec.structs.replace(size, adapters=adapters), shard


def gibibytes(step: PredictedStep) -> str:
    return f"{(step.state_bytes + step.gathered_bytes) / 2**30:.0f} GiB"


def supervised_cell(size: ModelSize, shard: bool, gpus: int) -> str:
    step = predict_supervised(
        size,
        Cluster(gpus=gpus),
        tokens=TOKENS,
        micro_batches=max(1, 64 // (4 * gpus)),
        shard=shard,
        checkpointing=True,
    )
    return f"{gibibytes(step)}, {TOKENS / step.seconds:,.0f}"


def rl_cell(size: ModelSize, shard: bool, gpus: int) -> str:
    step = predict_rl(
        size,
        Cluster(gpus=gpus),
        ROLLOUT,
        micro_batches=max(1, 512 // (8 * gpus)),
        critics=2,
        shard=shard,
    )
    return f"{gibibytes(step)}, {step.seconds:.1f} s ({step.sampling_seconds:.1f})"


def render_table(kind: str) -> str:
    """Returns a table of the page in Markdown: kind is supervised or rl."""
    cell = supervised_cell if kind == "supervised" else rl_cell
    lines = [HEADER, "|---|---|---|---|---|---|"]
    for name, size in MODELS.items():
        for gpus in GPUS:
            cells = [cell(variant, shard, gpus) for variant, shard in variants(size)]
            lines.append(" | ".join([f"| {name}", str(gpus), *cells]) + " |")
    return "\n".join(lines)


def measure(rounds: int = 5) -> dict[str, float]:
    """Times a step of a small model and the matrix products that it consists of, in turns."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    hidden, inner, rows, length = 512, 1408, 4, 256
    config = AutoConfig.for_model(
        "llama",
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=6,
        num_attention_heads=8,
        vocab_size=4096,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()
    parameters = (
        sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()
    )
    ids = torch.randint(0, 4096, (rows, length))
    left, right = torch.randn(rows * length, hidden), torch.randn(hidden, inner)
    step_seconds, products = [], []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        model(input_ids=ids, labels=ids).loss.backward()
        model.zero_grad(set_to_none=True)
        step_seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        for _ in range(20):
            left @ right
        products.append(20 * 2 * rows * length * hidden * inner / (time.perf_counter() - started))
    seconds = sorted(step_seconds[1:])[rounds // 2]
    speed = sorted(products[1:])[rounds // 2]
    predicted = 6 * parameters * rows * length / speed
    return {
        "matrix_gflops": round(speed / 1e9, 1),
        "seconds": round(seconds, 3),
        "predicted_seconds": round(predicted, 3),
        "share_of_matrix_speed": round(predicted / seconds, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure:
        print(json.dumps(measure()))
        return
    for kind in ("supervised", "rl"):
        print(f"\n{kind}\n\n{render_table(kind)}")


if __name__ == "__main__":
    main()
