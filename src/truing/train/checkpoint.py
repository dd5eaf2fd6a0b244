"""Checkpoints of a training run: folders that appear whole or not at all, with everything the next step depends on.

    write(out, Mark(step=50, digest=..., kind="dpo", base_sha256=...), {"state.pt": torch_part(state)}, keep=2)
    found = latest(out)                      # None, or the newest whole one
    mark = check(found, mark_of_this_run)    # PlanError where it is of another run or base
    state = load_part(found, "state.pt")

A checkpoint is written as `.checkpoint-N.tmp`, synced and renamed, so a kill or a full disk leaves the one before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec import Struct

from truing.core.errors import PlanError, RunError

IDENTITY_FILE = "mark.json"
FileWriter = Callable[[Path], None]


class CheckpointIdentity(Struct, frozen=True, kw_only=True):
    """Which run a checkpoint belongs to: `digest` over settings and data, `base_sha256` over the weights it began with."""

    step: int
    kind: str
    digest: str
    base_sha256: str = ""


def checkpoint_folder(out: str | Path, step: int) -> Path:
    """`OUT/checkpoint-N`."""
    return Path(out) / f"checkpoint-{step}"


def write_checkpoint(
    out: str | Path, mark: CheckpointIdentity, parts: Mapping[str, FileWriter], *, keep: int = 2
) -> Path:
    """Writes a checkpoint of named files (each part gets the path to write), then drops all but the newest `keep`.

    RunError where the disk is full; the checkpoint before it stays.
    """
    target = checkpoint_folder(out, mark.step)
    work = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        for name, part in parts.items():
            part(work / name)
        (work / IDENTITY_FILE).write_bytes(msgspec.json.encode(mark))
        _sync(work)
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
        _sync_one(target.parent)
    except (
        OSError,
        RuntimeError,
    ) as error:  # torch raises RuntimeError where its zip writer meets a full disk
        shutil.rmtree(work, ignore_errors=True)
        raise describe_write_error(target, error) from error
    for old in list_checkpoints(out)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def describe_write_error(path: Path, error: OSError | RuntimeError) -> RunError:
    """The error of a write that failed: a full disk is named as such."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    text = str(error)
    full = (
        full or "No space left" in text or "unexpected pos" in text or "file write failed" in text
    )
    word = "the disk is full" if full else (text.strip().splitlines() or [type(error).__name__])[0]
    return RunError(
        f"{path}: {word}; the checkpoint before it is whole, and the same command goes on from there"
    )


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _sync_one(path)
    _sync_one(folder)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def list_checkpoints(out: str | Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    made: list[tuple[int, Path]] = []
    for path in Path(out).glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if number.isdigit() and (path / IDENTITY_FILE).is_file():
            made.append((int(number), path))
    return [path for _, path in sorted(made)]


def latest_checkpoint(out: str | Path) -> Path | None:
    """The newest whole checkpoint, or none."""
    found = list_checkpoints(out)
    return found[-1] if found else None


def read_identity(path: Path) -> CheckpointIdentity:
    """Which run a checkpoint belongs to."""
    try:
        return msgspec.json.decode((path / IDENTITY_FILE).read_bytes(), type=CheckpointIdentity)
    except (OSError, msgspec.DecodeError) as error:
        raise RunError(f"{path / IDENTITY_FILE}: {error}") from error


def check_identity(path: Path, wanted: CheckpointIdentity) -> CheckpointIdentity:
    """The mark of a checkpoint, if it is of the run that `wanted` describes (its step does not count)."""
    found = read_identity(path)
    if found.kind != wanted.kind:
        raise PlanError(
            f"{path}: is of a {found.kind} run, not of {wanted.kind}; give another --out"
        )
    if found.base_sha256 != wanted.base_sha256:
        raise PlanError(
            f"{path}: began with another base ({found.base_sha256[:12]}..., not "
            f"{wanted.base_sha256[:12]}...); give another --out"
        )
    if found.digest != wanted.digest:
        raise PlanError(
            f"{path}: is of a run with other settings or other data; give the same command, or another --out"
        )
    return found


def torch_writer(state: Any) -> FileWriter:
    """A part that holds tensors and plain values."""
    return lambda path: torch.save(state, path)


def load_torch_file(path: Path, name: str) -> Any:
    """What `torch_part` wrote, on the CPU; no code in the file is run."""
    try:
        return torch.load(path / name, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, UnpicklingError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        where = path / name
        raise RunError(
            f"{where}: cannot be read ({line}); remove this checkpoint to go on from the one before"
        ) from error


def rng_state() -> dict[str, Any]:
    """The state of the generators of Python, numpy and torch (CPU and CUDA), as plain values and tensors."""
    version, internal, gauss = random.getstate()
    kind, keys, pos, has, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(pos),
            int(has),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Goes on from `rng_state`; CUDA's states are left alone where their number differs."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, pos, has, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), pos, has, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        with contextlib.suppress(RuntimeError):
            torch.cuda.set_rng_state_all(state["cuda"])


def seed_all(seed: int) -> None:
    """Seeds Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
