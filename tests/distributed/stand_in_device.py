"""A device that stands in for a GPU, with a process group that has no CPU backend.

`install()` registers the device `standin` in this process (torch's PrivateUse1 key). Its tensors
are computed on the CPU, but an operation or a collective that mixes them with tensors of the CPU
fails, as it does on CUDA with NCCL. It cannot be undone: call it in a process of the test's own.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map, tree_map_only

DEVICE = "standin"
_aten = torch.ops.aten
# CUDA takes indices of the CPU too, and copies between devices.
_CROSS_DEVICE = {
    _aten.copy_.default,
    _aten._to_copy.default,
    _aten.index.Tensor,
    _aten.index_put_.default,
    _aten.index_put.default,
    _aten._index_put_impl_.default,
}


class StandInTensor(torch.Tensor):
    """A tensor of the device; `inner` is the tensor of the CPU that holds its numbers."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> StandInTensor:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(DEVICE, 0),
            requires_grad=False,
        )
        tensor.inner = inner
        return tensor

    def __init__(self, inner: torch.Tensor) -> None:
        super().__init__()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run_on_cpu(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"StandInTensor({self.inner!r})"


def _run_on_cpu(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    def unwrap(tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, StandInTensor):
            return tensor.inner
        if tensor.dim() and func not in _CROSS_DEVICE:
            raise RuntimeError(f"{func}: expected all tensors on {DEVICE}:0, but found one on cpu")
        return tensor

    device = kwargs.get("device")
    to_cpu = device is not None and torch.device(device).type == "cpu"
    inner_args = tree_map_only(torch.Tensor, unwrap, args)
    inner_kwargs = tree_map_only(torch.Tensor, unwrap, kwargs)
    if device is not None:
        inner_kwargs["device"] = torch.device("cpu")
    result = func(*inner_args, **inner_kwargs)
    written = [
        value
        for argument, value in zip(func._schema.arguments, args)
        if argument.alias_info is not None and argument.alias_info.is_write
    ] + [
        kwargs[argument.name]
        for argument in func._schema.arguments
        if argument.name in kwargs
        and argument.alias_info is not None
        and argument.alias_info.is_write
    ]
    if written and isinstance(result, torch.Tensor):
        return written[0]

    def wrap(value: Any) -> Any:
        is_plain = isinstance(value, torch.Tensor) and not isinstance(value, StandInTensor)
        return StandInTensor(value) if is_plain and not to_cpu else value

    return tree_map(wrap, result)


class StandInGroup(dist.ProcessGroup):
    """A process group that exchanges tensors of the device alone, over gloo."""

    def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)
        self._gloo = dist.ProcessGroupGloo(store, rank, size, timeout)

    def getBackendName(self) -> str:
        return DEVICE

    def allreduce(self, tensors: Any, options: Any = None) -> Any:
        return self._gloo.allreduce(
            [_inner(t) for t in tensors], options or dist.AllreduceOptions()
        )

    def broadcast(self, tensors: Any, options: Any = None) -> Any:
        return self._gloo.broadcast(
            [_inner(t) for t in tensors], options or dist.BroadcastOptions()
        )

    def barrier(self, opts: Any = None) -> Any:
        return self._gloo.barrier()


def _inner(tensor: torch.Tensor) -> torch.Tensor:
    if not isinstance(tensor, StandInTensor):
        # NCCL's words.
        raise RuntimeError(f"No backend type associated with device type {tensor.device.type}")
    return tensor.inner


class _DeviceModule:
    """What torch asks of the module of a device."""

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def _index_tensors(index: Any) -> Any:
    """Returns an index with its lists as tensors, which torch would make on the device."""
    if isinstance(index, tuple):
        return tuple(_index_tensors(part) for part in index)
    return torch.tensor(index) if isinstance(index, list) else index


class _PythonData(TorchFunctionMode):
    """Python data to the device and back: torch's own way has no hook for devices in Python."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if func is torch.Tensor.tolist and isinstance(args[0], StandInTensor):
            return args[0].inner.tolist()
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            args = (args[0], _index_tensors(args[1]), *args[2:])
        if func not in (torch.tensor, torch.as_tensor) or device is None:
            return func(*args, **kwargs)
        del kwargs["device"]
        return func(*args, **kwargs).to(device)


def install() -> None:
    """Registers the device and its process group, `dist.init_process_group("standin")`."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(DEVICE, _DeviceModule())
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda func, *args, **kwargs: _run_on_cpu(func, args, kwargs), "PrivateUse1")
    install.library = library  # type: ignore[attr-defined] - registrations end with the object
    _PythonData().__enter__()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    dist.Backend.register_backend(
        DEVICE,
        lambda store, rank, size, timeout: StandInGroup(store, rank, size, timeout),
        devices=[DEVICE],
    )
