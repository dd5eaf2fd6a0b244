"""Checkpoints of a training run: complete or absent, with everything that the next step needs.

    identity = CheckpointIdentity(step=50, digest=..., kind="dpo", base_sha256=...)
    write_checkpoint(out, identity, {"state.pt": torch_writer(state)}, keep=2)

    path = latest_checkpoint(out)            # None, or the newest complete one
    check_identity(path, expected)           # PlanError if it belongs to another run or base
    state = load_torch_file(path, "state.pt")

A checkpoint is written as `.checkpoint-N.tmp`, synced to disk and renamed, so that a killed process
or a full disk leaves the previous one untouched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec import Struct
from safetensors import SafetensorError

from truing.core.errors import PlanError, RunError
from truing.core.private_files import create_folder, private_opener

IDENTITY_FILE = "mark.json"
FileWriter = Callable[[Path], None]

_DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# torch's zip writer reports a full disk as a RuntimeError, safetensors as its own error, with one
# of these texts and without an errno.
_DISK_FULL_TEXTS = (
    "No space left",
    "File too large",
    "quota exceeded",
    "unexpected pos",
    "file write failed",
)
WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)
"""What writing weights raises where it fails."""


class CheckpointIdentity(Struct, frozen=True, kw_only=True):
    """Which run a checkpoint belongs to (`mark.json`).

    `digest` covers settings and data, `base_sha256` the weights that the run started from.
    """

    step: int
    kind: str
    digest: str
    base_sha256: str = ""


def checkpoint_folder(out: str | Path, step: int) -> Path:
    """Returns `OUT/checkpoint-STEP`."""
    return Path(out) / f"checkpoint-{step}"


def write_checkpoint(
    out: str | Path,
    identity: CheckpointIdentity,
    files: Mapping[str, FileWriter],
    *,
    keep: int = 2,
) -> Path:
    """Writes a checkpoint and then deletes all but the newest `keep`.

    `files` maps file names to functions that write to the path that they get. Raises RunError if
    the disk is full; the previous checkpoint stays.
    """
    target = checkpoint_folder(out, identity.step)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        create_folder(temporary)
        for name, write_file in files.items():
            write_file(temporary / name)
        # The identity comes last: a folder with it is complete (see list_checkpoints).
        with open(temporary / IDENTITY_FILE, "wb", opener=private_opener) as stream:
            stream.write(msgspec.json.encode(identity))
        _sync_tree(temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        _sync_path(target.parent)  # makes the rename itself durable
    except WRITE_ERRORS as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise describe_write_error(target, error) from error
    for old in list_checkpoints(out)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


@contextlib.contextmanager
def name_write_errors(path: Path) -> Iterator[None]:
    """Context in which a failed write of files below `path` raises RunError; a full disk is named.

    For files that safetensors or numpy write; torch's own writer has errors of its own.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise describe_write_error(path, error) from error


def describe_write_error(path: Path, error: Exception) -> RunError:
    """Returns the error to raise for a failed write; a full disk is recognised and named."""
    text = str(error)
    disk_full = isinstance(error, OSError) and error.errno in _DISK_FULL_ERRNOS
    disk_full = disk_full or any(part in text for part in _DISK_FULL_TEXTS)
    reason = "the disk is full" if disk_full else _first_line(error)
    return RunError(
        f"{path}: {reason}; the previous checkpoint is complete, "
        "and the same command resumes from it"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _sync_path(path)
    _sync_path(folder)


def _sync_path(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def list_checkpoints(out: str | Path) -> list[Path]:
    """Returns the complete checkpoints of a run, oldest first."""
    by_step: list[tuple[int, Path]] = []
    for path in Path(out).glob("checkpoint-*"):
        step = path.name.removeprefix("checkpoint-")
        if step.isdigit() and (path / IDENTITY_FILE).is_file():
            by_step.append((int(step), path))
    return [path for _, path in sorted(by_step)]


def latest_checkpoint(out: str | Path) -> Path | None:
    """Returns the newest complete checkpoint, or None."""
    checkpoints = list_checkpoints(out)
    return checkpoints[-1] if checkpoints else None


def read_identity(path: Path) -> CheckpointIdentity:
    """Returns the identity of a checkpoint; raises RunError if it cannot be read."""
    try:
        return msgspec.json.decode((path / IDENTITY_FILE).read_bytes(), type=CheckpointIdentity)
    except (OSError, msgspec.DecodeError) as error:
        raise _describe_damage(path / IDENTITY_FILE, error) from error


def check_identity(path: Path, expected: CheckpointIdentity) -> CheckpointIdentity:
    """Returns the identity of a checkpoint; raises PlanError if it is not that of `expected`'s run.

    The step of `expected` is not compared.
    """
    identity = read_identity(path)
    if identity.kind != expected.kind:
        raise PlanError(
            f"{path}: belongs to a {identity.kind} run, this one is {expected.kind}; "
            "give another --out"
        )
    if identity.base_sha256 != expected.base_sha256:
        raise PlanError(
            f"{path}: started from another base ({identity.base_sha256[:12]}..., not "
            f"{expected.base_sha256[:12]}...); give another --out"
        )
    if identity.digest != expected.digest:
        raise PlanError(
            f"{path}: belongs to a run with other settings or other data; "
            "repeat the same command, or give another --out"
        )
    return identity


def torch_writer(state: Any) -> FileWriter:
    """Returns a writer of tensors and plain values, for `write_checkpoint`."""
    return lambda path: torch.save(state, path)


def load_torch_file(path: Path, name: str) -> Any:
    """Returns what a `torch_writer` wrote, on the CPU; raises RunError if the file is damaged.

    With `weights_only` no code in the file is run.
    """
    try:
        return torch.load(path / name, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, UnpicklingError) as error:
        raise _describe_damage(path / name, error) from error


def _describe_damage(file: Path, error: Exception) -> RunError:
    return RunError(
        f"{file}: cannot be read ({_first_line(error)}); "
        "remove this checkpoint to resume from the previous one"
    )


def rng_state() -> dict[str, Any]:
    """Returns the states of the random generators of Python, numpy and torch (CPU and CUDA).

    They are plain values and tensors, because `torch.load(weights_only=True)` takes nothing else.
    """
    version, internal_state, next_gauss = random.getstate()
    algorithm, keys, position, has_gauss, cached_gauss = np.random.get_state()
    state: dict[str, Any] = {
        "python": [version, list(internal_state), next_gauss],
        "numpy": [
            str(algorithm),
            # As int64, since torch supports uint32 tensors only in part.
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached_gauss),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restores the states that `rng_state` returned."""
    version, internal_state, next_gauss = state["python"]
    random.setstate((version, tuple(internal_state), next_gauss))
    algorithm, keys, position, has_gauss, cached_gauss = state["numpy"]
    numpy_keys = keys.numpy().astype(np.uint32)
    np.random.set_state((algorithm, numpy_keys, position, has_gauss, cached_gauss))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        # The run may go on with another number of GPUs; their states then stay as seeded.
        with contextlib.suppress(RuntimeError):
            torch.cuda.set_rng_state_all(state["cuda"])


def seed_all(seed: int) -> None:
    """Seeds the generators of Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
