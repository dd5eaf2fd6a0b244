"""Two processes each read their own parts of a model, which together are the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.distributed.processes import run_in_processes
from tests.models.local.conftest import write

from truing.core.errors import RunError
from truing.distributed.process_group import ProcessGroup
from truing.hf.loading import ScalarModel, load_whole_on_cpu
from truing.hf.weights import find_weights
from truing.train.sharded_model import load_for_shards, shard_and_read, shard_backbone

CPU = torch.device("cpu")
IDS = torch.arange(12).reshape(2, 6)


def whole(parameter: Any) -> Any:
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter


def count_local(model: Any) -> int:
    """Returns the number of weights in the memory of this process."""
    return sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in model.parameters())


def read_parts(folder: str, auto_class: str) -> dict[str, Any]:
    """Shards a model over the processes of the group, and compares it with the whole one."""
    weights = find_weights(folder)
    model = load_for_shards(weights, auto_class, None).model
    began_empty = all(parameter.is_meta for parameter in model.parameters())
    expected = load_whole_on_cpu(weights, auto_class).model
    shard_and_read(model, weights, ProcessGroup(), CPU)
    held = count_local(model)  # FSDP keeps what the outermost module gathered for the backward pass
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    outputs = [network(input_ids=IDS)[0] for network in (model, expected)]
    return {
        "began_empty": began_empty,
        "equal": all(
            torch.equal(whole(parameters[name]), parameter)
            for name, parameter in expected.named_parameters()
        ),
        "same_names": parameters.keys() == dict(expected.named_parameters()).keys(),
        "buffers": all(
            torch.equal(buffers[name], value) for name, value in expected.named_buffers()
        ),
        "share": held / count_local(expected),
        "difference": float((outputs[0] - outputs[1]).abs().max()),
    }


@pytest.mark.parametrize("tied", [False, True])
def test_each_process_reads_its_own_parts(tied: bool, tmp_path: Path) -> None:
    folder = write(tmp_path, "llama", tie_word_embeddings=tied)
    # Stored in bfloat16, as models are published, and trained in float32.
    file = folder / "model.safetensors"
    save_file({key: value.bfloat16() for key, value in load_file(file).items()}, file)
    for result in run_in_processes(read_parts, 2, str(folder), "AutoModelForCausalLM"):
        assert result["began_empty"] and result["equal"]
        assert result["same_names"] and result["buffers"]
        assert result["share"] < 0.51 and result["difference"] < 1e-5


def compare_special_cases(base: str, renamed: str) -> list[Any]:
    """Returns what the cases below give: a body alone, names of another kind, a backbone."""
    body = read_parts(base, "AutoModel")
    converted = read_parts(renamed, "AutoModelForCausalLM")
    weights = find_weights(base)
    backbone = load_for_shards(weights, "AutoModelForCausalLM", None).model
    shard_backbone(backbone, weights, ProcessGroup(), CPU)
    expected = load_whole_on_cpu(weights, "AutoModelForCausalLM").model
    held = count_local(backbone)
    hidden = [ScalarModel(m.model)(IDS, torch.ones_like(IDS)).shape for m in (backbone, expected)]
    outputs = [network(input_ids=IDS).logits for network in (backbone, expected)]
    same = bool(((outputs[0] - outputs[1]).abs() < 1e-5).all())
    head = expected.get_output_embeddings().weight.numel()
    share = (held - head) / count_local(expected)
    return [body, converted, same, hidden[0] == hidden[1], share]


def test_bodies_backbones_and_files_with_other_names(tmp_path: Path) -> None:
    base = write(tmp_path / "base", "llama", tie_word_embeddings=True)
    # Its experts are stored one by one, and transformers joins them as it loads.
    renamed = write(tmp_path / "renamed", "mixtral", num_local_experts=4, num_experts_per_tok=2)
    first, second = run_in_processes(compare_special_cases, 2, str(base), str(renamed))
    for body, converted, same_logits, same_shape, share in (first, second):
        assert body["began_empty"] and body["equal"] and body["share"] < 0.51
        assert not converted["began_empty"] and converted["equal"] and converted["share"] < 0.51
        assert same_logits and same_shape and share < 0.51


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, "llama")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = torch.ones(7)
    save_file(tensors, file)
    with pytest.raises(RunError, match=r"model\.norm\.weight is \[7\] in the files, and \[64\]"):
        load_for_shards(find_weights(str(folder)), "AutoModelForCausalLM", None)
