"""The log of a training run: `log.jsonl` (one line a step, crash-safe, the same after a resume) and TensorBoard beside it.

log = Log(folder, first=step)        # drops lines from a step that is to be done again
log.write(step, {"loss": 0.7, "accuracy": 0.5})
log.close()
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from truing.core.jsonl import read_records
from truing.runs.folder import AppendOnlyFile, replace_file, truncate_partial_line

LOG_FILE = "log.jsonl"
StepCallback = Callable[[dict[str, Any]], None]


def read_log(folder: str | Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's log, oldest first; a line that a crash cut off is left out."""
    return read_records(Path(folder) / LOG_FILE, dict[str, Any])


def read_last_step(folder: str | Path) -> int:
    """The newest step in the log; 0 where there is none."""
    return max((int(row.get("step", 0)) for row in read_log(folder)), default=0)


class TrainingLog:
    """Writes a run's log. `write` must be called by one process alone (the main one).

    `first` is the first step that will be written: lines of it and of later steps (which a killed run wrote after its
    last checkpoint) are dropped, so that every step stands there once. `tell` hears every line; `tensorboard` also
    writes event files under `tb/`.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        first: int = 1,
        tensorboard: bool = True,
        tell: StepCallback | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / LOG_FILE
        truncate_partial_line(path)
        kept = [row for row in read_log(self.folder) if int(row.get("step", 0)) < first]
        if path.exists():
            replace_file(path, b"".join(msgspec.json.encode(row) + b"\n" for row in kept))
        self._journal = AppendOnlyFile(path)
        self._tell = tell
        self._started = time.monotonic()
        self._before = float(kept[-1].get("seconds", 0.0)) if kept else 0.0
        self._board = _board(self.folder / "tb", first) if tensorboard else None

    @property
    def seconds(self) -> float:
        """Wall time of the whole run, earlier calls included."""
        return self._before + time.monotonic() - self._started

    def write(self, step: int, values: Mapping[str, float | int | str | None]) -> None:
        """Appends one line; numbers that are not finite are written as text, since JSON knows none."""
        row: dict[str, Any] = {"step": step}
        row |= {k: _plain(v) for k, v in values.items() if v is not None}
        row["seconds"] = round(self.seconds, 3)
        self._journal.append(msgspec.json.encode(row) + b"\n")
        if self._board is not None:
            for key, value in values.items():
                if isinstance(value, (int, float)) and math.isfinite(value):
                    self._board.add_scalar(key, value, step)
        if self._tell is not None:
            self._tell(row)

    def close(self) -> None:
        """Waits for the disk and closes; may be called twice."""
        with contextlib.suppress(ValueError, OSError):
            self._journal.sync()
        self._journal.close()
        if self._board is not None:
            self._board.close()
            self._board = None


def _plain(value: float | int | str) -> float | int | str:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _board(folder: Path, first: int) -> Any:
    """TensorBoard's writer, where the package is installed; steps from `first` on hide older ones of a killed run."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first, max_queue=100, flush_secs=30)
