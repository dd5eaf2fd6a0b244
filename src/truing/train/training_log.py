"""The log of a training run: `log.jsonl` with one line per step, TensorBoard, wandb, trackio.

log = TrainingLog(folder, first=step)        # drops old lines from `step` on, to be logged again
log.write(step, {"loss": 0.7, "accuracy": 0.5})
log.close()
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from truing.core.jsonl import read_records
from truing.core.private_files import create_folder, replace_file
from truing.runs.append_only_file import AppendOnlyFile, truncate_partial_line

LOG_FILE = "log.jsonl"


class TrackerRun(Protocol):
    """An open run of wandb or trackio."""

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Logs the numbers of a step."""
        ...

    def finish(self) -> None:
        """Ends the run."""
        ...


LogCallback = Callable[[dict[str, Any]], None]


def read_log(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Yields the lines of a run's log, oldest first; a line that a crash cut off is skipped."""
    return read_records(Path(folder) / LOG_FILE, dict[str, Any])


def read_last_step(folder: str | Path) -> int:
    """Returns the newest step in the log; 0 if there is none."""
    return max((int(row.get("step", 0)) for row in read_log(folder)), default=0)


class TrainingLog:
    """Writes the log of a run. Only the main process may have one.

    A killed run may have logged steps after its last checkpoint. `first` is the first step that
    will be written now: lines of this and later steps are dropped, so that each step has one line.
    `on_log` is called with every line; `tensorboard` also writes event files to `tb/`. `tracker`
    is an open run of an experiment tracker (`open_tracker`), which is closed with the log.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        first: int = 1,
        tensorboard: bool = True,
        on_log: LogCallback | None = None,
        tracker: TrackerRun | None = None,
    ) -> None:
        self._tracker = tracker
        self.folder = Path(folder)
        create_folder(self.folder)
        path = self.folder / LOG_FILE
        truncate_partial_line(path)
        earlier_rows = [row for row in read_log(self.folder) if int(row.get("step", 0)) < first]
        if path.exists():
            replace_file(path, b"".join(msgspec.json.encode(row) + b"\n" for row in earlier_rows))
        self._file = AppendOnlyFile(path)
        self._on_log = on_log
        self._started = time.monotonic()
        self._seconds_before = float(earlier_rows[-1].get("seconds", 0.0)) if earlier_rows else 0.0
        self._board = _open_tensorboard(self.folder / "tb", first) if tensorboard else None

    @property
    def seconds(self) -> float:
        """Wall time of the whole run so far, interrupted calls included."""
        return self._seconds_before + time.monotonic() - self._started

    def write(self, step: int, values: Mapping[str, float | int | str | None]) -> None:
        """Appends one line. JSON has no NaN or infinity, so those are written as text."""
        row: dict[str, Any] = {"step": step}
        row |= {key: _json_value(value) for key, value in values.items() if value is not None}
        row["seconds"] = round(self.seconds, 3)
        self._file.append(msgspec.json.encode(row) + b"\n")
        numbers = {
            key: value
            for key, value in values.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        }
        if self._board is not None:
            for key, value in numbers.items():
                self._board.add_scalar(key, value, step)
        if self._tracker is not None:
            self._tracker.log(numbers, step=step)
        if self._on_log is not None:
            self._on_log(row)

    def close(self) -> None:
        """Syncs the log to disk and closes it; may be called twice."""
        with contextlib.suppress(ValueError, OSError):
            self._file.sync()
        self._file.close()
        if self._board is not None:
            self._board.close()
            self._board = None
        if self._tracker is not None:
            self._tracker.finish()
            self._tracker = None


def _json_value(value: float | int | str) -> float | int | str:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _open_tensorboard(folder: Path, first: int) -> Any:
    """Returns a SummaryWriter, or None if TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # purge_step hides the events that a killed run wrote from this step on.
    return SummaryWriter(str(folder), purge_step=first, max_queue=100, flush_secs=30)
