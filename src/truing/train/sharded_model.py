"""Loads a model into shards: no process ever holds the whole of it.

    loaded = load_for_shards(weights, "AutoModelForCausalLM", device)
    shard_and_read(loaded.model, weights, processes, device)

The parameters begin on the meta device, where they take no memory. Once FSDP has split them, each
process gets memory for its parts and reads them, and only them, from the safetensors files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from truing.core.errors import RunError
from truing.distributed.process_group import ProcessGroup
from truing.hf.loading import LoadedModel, load_whole_on_cpu, load_without_weights
from truing.hf.pretrained import find_safetensors, is_optional_weight, read_tensor_shapes
from truing.hf.weights import Weights
from truing.train.sharded_checkpoint import read_tensors
from truing.train.sharding import reduce_gradients_by_sum, shard_model


def load_for_shards(weights: Weights, auto_class: str, attention: str | None) -> LoadedModel:
    """Returns a model in float32, to be sharded by `shard_and_read`, without gradients.

    Its parameters are on the meta device. Where the names in the files are not those of the model
    (transformers converts some architectures as it loads them), they are whole, on the CPU, and
    FSDP moves them to the device layer by layer.
    """
    loaded = load_without_weights(weights, auto_class, attention=attention)
    shapes = _stored_shapes(weights)
    for names, parameter in _named_tensors(loaded.model):
        key = _find_key(names, loaded.model, shapes)
        if key is None and not is_optional_weight(names[0]):
            return load_whole_on_cpu(weights, auto_class, attention=attention)
        if key is not None and shapes[key] != tuple(parameter.shape):
            raise RunError(
                f"{weights.name}: {key} is {list(shapes[key])} in the files, and "
                f"{list(parameter.shape)} by config.json"
            )
    return loaded


def shard_and_read(
    model: nn.Module, weights: Weights, processes: ProcessGroup, device: torch.device
) -> None:
    """Shards a model in place, lets gradients add up, and reads this process's parts."""
    shard_model(model, processes.size, device)
    reduce_gradients_by_sum(model)
    read_own_parts(model, weights, device)


def shard_backbone(
    model: Any, weights: Weights, processes: ProcessGroup, device: torch.device
) -> None:
    """Shards the body of a language model and reads its weights, before adapters are added to it.

    The head stays whole in every process: critics use the body without it.
    """
    head = model.get_output_embeddings()
    tied_names: list[str] = []
    if head is not None and head.weight is model.get_input_embeddings().weight:
        # A weight that is tied to sharded embeddings could not be used outside of the body.
        named = model.named_parameters(remove_duplicate=False)
        tied_names = [name for name, parameter in named if parameter is head.weight]
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    shard_model(getattr(model, model.base_model_prefix), processes.size, device)
    if head is not None and not head.weight.is_meta:
        head.to(device)
    read_own_parts(model, weights, device, same_values=tied_names)


def read_own_parts(
    model: nn.Module,
    weights: Weights,
    device: torch.device,
    *,
    same_values: Sequence[str] = (),
) -> None:
    """Gives parameters on the meta device memory, and their values from the files.

    Parameters and buffers that have values keep them. Without meta parameters nothing is done. The
    parameters `same_values` have one source under any of these names.
    """
    tensors = list(_named_tensors(model))
    if not any(parameter.is_meta for _, parameter in tensors):
        return
    with_values = {
        name: tensor.detach().clone()
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if not tensor.is_meta
    }
    empty_names = {names[0] for names, parameter in tensors if parameter.is_meta}
    shared_by = _places_of_parameters(model)
    model.to_empty(device=device)
    for module, places in shared_by:  # to_empty gives each place a parameter of its own
        for other, name in places[1:]:
            setattr(other, name, getattr(module, places[0][1]))
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name in with_values:
                tensor.copy_(with_values[name])
    _read_parameters(model, weights, empty_names, same_values)


def _read_parameters(
    model: nn.Module, weights: Weights, wanted_names: set[str], same_values: Sequence[str]
) -> None:
    shapes = _stored_shapes(weights)
    by_key: dict[str, list[Tensor]] = {}
    for names, parameter in _named_tensors(model):
        if names[0] not in wanted_names:
            continue
        shared_names = same_values if names[0] in same_values else ()
        key = _find_key([*names, *shared_names], model, shapes)
        if key is None:
            if not is_optional_weight(names[0].removeprefix("body.")):
                raise RunError(f"{weights.name}: {names[0]} is not in the files")
            with torch.no_grad():
                parameter.zero_()  # of a pooler
        else:
            by_key.setdefault(key, []).append(parameter.detach())
    # Two parameters may have one source: the head of tied embeddings that are sharded without it.
    while by_key:
        read_tensors(Path(weights.path), {key: places.pop() for key, places in by_key.items()})
        by_key = {key: places for key, places in by_key.items() if places}


def _stored_shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {
        key: shape
        for path in find_safetensors(Path(weights.path))
        if path.name != "head.safetensors"
        for key, shape in read_tensor_shapes(path).items()
    }


def _named_tensors(model: nn.Module) -> Iterator[tuple[list[str], nn.Parameter]]:
    """Yields each parameter once, with all of its names: tied weights have several."""
    names: dict[int, list[str]] = {}
    parameters: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
        parameters[id(parameter)] = parameter
    for key, parameter in parameters.items():
        yield names[key], parameter


def _places_of_parameters(model: nn.Module) -> list[tuple[nn.Module, list[tuple[nn.Module, str]]]]:
    """Returns, for each parameter that modules share, the first module and all of its places."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            places.setdefault(id(parameter), []).append((module, name))
    return [(shared[0][0], shared) for shared in places.values() if len(shared) > 1]


def _find_key(
    names: list[str], model: nn.Module, shapes: Mapping[str, tuple[int, ...]]
) -> str | None:
    """Returns the name in the files of a parameter of a model, or of a ScalarModel around one.

    Files of a language model put its body below a prefix (`model.`); those of a body alone do not.
    """
    transformer: Any = getattr(model, "body", model)
    prefix = f"{getattr(transformer, 'base_model_prefix', '')}."
    for name in names:
        inner = name if transformer is model else name.removeprefix("body.")
        for key in (inner, f"{prefix}{inner}", inner.removeprefix(prefix)):
            if key in shapes:
                return key
    return None
