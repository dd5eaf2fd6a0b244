"""Runs a function in several processes that form a process group over gloo, within seconds.

    assert run_in_processes(add_ranks, 2, 10) == [11, 11]

The processes are forked from a server that has imported torch, transformers and PEFT once.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_PRELOADED = ["torch", "torch.distributed.fsdp", "transformers", "accelerate", "peft"]


def run_in_processes(
    function: Callable[..., Any],
    size: int,
    *arguments: Any,
    timeout: float = 240,
    backend: str = "gloo",
) -> list[Any]:
    """Returns what `function(*arguments)` returned in each process, in the order of the ranks.

    The function belongs to a module that the processes can import. The backend `standin` is that of
    the stand-in device. Fails with the traceback of a process that raised, or after `timeout`
    seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        ends = [context.Pipe(duplex=False) for _ in range(size)]
        processes = [
            context.Process(
                target=_run, args=(function, arguments, rank, size, store, sender, backend)
            )
            for rank, (_, sender) in enumerate(ends)
        ]
        try:
            for process in processes:
                process.start()
            for _, sender in ends:
                sender.close()
            results = [_receive(receiver, rank, timeout) for rank, (receiver, _) in enumerate(ends)]
        finally:
            for process in processes:
                process.join(10)
                if process.is_alive():
                    process.kill()
                    process.join()
    failures = [text for is_failure, text in results if is_failure]
    assert not failures, "\n".join(failures)
    return [value for _, value in results]


def _receive(receiver: Connection, rank: int, timeout: float) -> tuple[bool, Any]:
    if not receiver.poll(timeout):
        return True, f"process {rank} did not end within {timeout:g} s"
    try:
        result: tuple[bool, Any] = pickle.loads(receiver.recv_bytes())
    except EOFError:
        return True, f"process {rank} ended without a result"
    return result


def _run(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    rank: int,
    size: int,
    store: str,
    sender: Connection,
    backend: str,
) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    try:
        if backend == "standin":
            from tests.distributed import stand_in_device

            stand_in_device.install()
        if size > 1:
            url = f"file://{store}"
            dist.init_process_group(backend, init_method=url, rank=rank, world_size=size)
        # Not send: torch would pass tensors by memory that ends with the process.
        sender.send_bytes(pickle.dumps((False, function(*arguments))))
        if dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()
    except BaseException:
        sender.send_bytes(pickle.dumps((True, f"process {rank}: {traceback.format_exc()}")))
        os._exit(1)  # another process may wait in a collective for ever
