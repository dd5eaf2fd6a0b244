"""Checkpoints of sharded weights: each process writes and reads its own parts.

    checkpoint-N/shards/*.safetensors    weights and moments of AdamW, one file a process
    checkpoint-N/state.pt                all else

No process ever holds the whole tensors. `torch.distributed.checkpoint` finds the parts again for
any other number of processes, one included. The files are safetensors, not DCP's own format: its
metadata is a pickle, which can run code when it is read.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from truing.core.errors import RunError
from truing.core.private_files import create_folder
from truing.distributed.process_group import ProcessGroup
from truing.train import checkpoint as ck
from truing.train.sharding import shard_like

SHARDS_FOLDER = "shards"
_WEIGHT = "weight"
_ADVICE = "; remove this checkpoint to resume from the previous one"


class TrainedPart(NamedTuple):
    """A trained model of a run: its trained parameters by name, and their optimiser."""

    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer


def is_sharded_checkpoint(folder: Path) -> bool:
    """Whether a checkpoint holds parts of tensors, of which each process reads its own."""
    return (folder / SHARDS_FOLDER).is_dir()


def write_sharded_checkpoint(
    out: str | Path,
    identity: ck.CheckpointIdentity,
    parts: Mapping[str, TrainedPart],
    state: Mapping[str, Any],
    processes: ProcessGroup,
    *,
    keep: int = 2,
) -> None:
    """Writes a checkpoint from all processes; all must call. `state` is that of the first process.

    Raises RunError if a process cannot write; the previous checkpoint stays.
    """
    target = ck.checkpoint_folder(out, identity.step)
    temporary = target.with_name(f".{target.name}.shards.tmp")
    if processes.is_main:
        shutil.rmtree(temporary, ignore_errors=True)
        with ck.name_write_errors(target):
            create_folder(temporary)
    processes.barrier()
    tensors: dict[str, Tensor] = {}
    for part, trained in parts.items():
        for name, parameter in trained.parameters.items():
            slots, _ = _split_slots(parameter, trained.optimizer)
            tensors[_key(part, name, _WEIGHT)] = parameter.detach()
            tensors |= {_key(part, name, slot): value for slot, value in slots.items()}
    _write_tensors(temporary, target, tensors)
    if processes.is_main:
        whole_state = {**state, "optimizer_scalars": _optimizer_scalars(parts)}
        files: dict[str, ck.FileWriter] = {
            "state.pt": ck.torch_writer(whole_state),
            SHARDS_FOLDER: partial(_move_folder, temporary),
        }
        ck.write_checkpoint(out, identity, files, keep=keep)
    processes.barrier()


def read_sharded_tensors(
    folder: Path, parts: Mapping[str, TrainedPart], scalars: Mapping[str, Any]
) -> None:
    """Reads this process's parts of weights and moments from a checkpoint, in place.

    `scalars` is `optimizer_scalars` of its `state.pt`. Raises RunError if the files are damaged or
    lack a tensor.
    """
    tensors: dict[str, Tensor] = {}
    for part, trained in parts.items():
        for name, parameter in trained.parameters.items():
            tensors[_key(part, name, _WEIGHT)] = parameter.detach()
            stored = scalars[part].get(name)
            if stored is None:  # the optimiser has taken no step for it
                continue
            slots = {slot: torch.zeros_like(parameter) for slot in stored["slots"]}
            tensors |= {_key(part, name, slot): value for slot, value in slots.items()}
            trained.optimizer.state[parameter] = {**stored["values"], **slots}
    read_tensors(folder / SHARDS_FOLDER, tensors, advice=_ADVICE)


def read_sharded_weights(folder: Path, part: str, parameters: Mapping[str, nn.Parameter]) -> None:
    """Reads this process's parts of the weights of a part alone, in place."""
    tensors = {_key(part, name, _WEIGHT): p.detach() for name, p in parameters.items()}
    read_tensors(folder / SHARDS_FOLDER, tensors, advice=_ADVICE)


def read_tensors(folder: Path, tensors: Mapping[str, Tensor], *, advice: str = "") -> None:
    """Fills tensors from the safetensors files of a folder; of a sharded one, its local part.

    Raises RunError, which ends with `advice`, if the files are damaged, or a tensor is missing or
    of another shape.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    try:
        reader = HuggingFaceStorageReader(path=str(folder))
        with _no_warning_of_one_process():
            # Without exchange between the processes: each knows its parts.
            load(dict(tensors), storage_reader=reader, no_dist=True)
    except (CheckpointException, *ck.WRITE_ERRORS, ValueError, KeyError, AssertionError) as error:
        raise RunError(f"{folder}: cannot be read ({_cause(error)}){advice}") from error


def _move_folder(source: Path, target: Path) -> None:
    source.rename(target)


def _write_tensors(folder: Path, target: Path, tensors: dict[str, Tensor]) -> None:
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    writer = HuggingFaceStorageWriter(path=str(folder), save_distributed=True)
    try:
        # Tensors that are whole in every process are written by one of them.
        with _no_warning_of_one_process():
            save(tensors, storage_writer=writer)
    except (CheckpointException, *ck.WRITE_ERRORS) as error:
        raise ck.describe_write_error(target, _cause(error)) from error


@contextmanager
def _no_warning_of_one_process() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def _cause(error: BaseException) -> Exception:
    """Returns the first error that DCP collected from the processes, or the error itself."""
    failures = getattr(error, "failures", None)
    cause = next(iter(failures.values()))[0] if failures else error
    return cause if isinstance(cause, Exception) else RuntimeError(str(cause))


def _key(part: str, name: str, slot: str) -> str:
    return f"{part}/{slot}/{name}"


def _split_slots(
    parameter: nn.Parameter, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the state of a parameter: tensors of its shape, and all else (the step count)."""
    slots: dict[str, Tensor] = {}
    unsharded: dict[str, Any] = {}
    for name, value in optimizer.state.get(parameter, {}).items():
        is_slot = isinstance(value, Tensor) and value.dim() and value.shape == parameter.shape
        if is_slot:
            slots[name] = value
        else:
            unsharded[name] = value
    return slots, unsharded


def _optimizer_scalars(parts: Mapping[str, TrainedPart]) -> dict[str, dict[str, Any]]:
    """Returns, by part and parameter, which moments are stored, and the values beside them."""
    scalars: dict[str, dict[str, Any]] = {}
    for part, trained in parts.items():
        scalars[part] = {}
        for name, parameter in trained.parameters.items():
            slots, values = _split_slots(parameter, trained.optimizer)
            if slots or values:
                scalars[part][name] = {"slots": sorted(slots), "values": values}
    return scalars


def load_whole_optimizer_state(trained: TrainedPart, state: Mapping[str, Any]) -> None:
    """Loads an optimiser state of whole tensors; sharded parameters take their parts.

    The state numbers the parameters, or names them (older sharded checkpoints).
    """
    optimizer = trained.optimizer
    names = {id(parameter): name for name, parameter in trained.parameters.items()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    by_number: dict[int, dict[str, Any]] = {}
    for number, parameter in enumerate(parameters):
        slots = state["state"].get(number, state["state"].get(names.get(id(parameter), "")))
        if slots is not None:
            by_number[number] = {
                name: shard_like(value, parameter) for name, value in slots.items()
            }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": by_number, "param_groups": groups})
