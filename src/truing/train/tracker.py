"""Experiment trackers: wandb and trackio, with the account and settings of the tracker.

The numbers of the log and the settings of the run are sent, and no text of any row. Where they are
sent follows from the tracker's own configuration (WANDB_MODE=offline, WANDB_PROJECT, TRACKIO_DIR,
...).
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

from truing.core.errors import MissingExtra
from truing.core.lineage import digest

if TYPE_CHECKING:
    from truing.train.run_settings import RunSettings
    from truing.train.training_log import TrackerRun

_PROJECT = "truing"


def open_tracker(settings: RunSettings) -> TrackerRun | None:
    """Returns the tracker's run for a folder, new or resumed; None if `track` is "none".

    Raises MissingExtra if the tracker is not installed.
    """
    if settings.track == "none":
        return None
    if importlib.util.find_spec(settings.track) is None:
        raise MissingExtra(settings.track, f"track = {settings.track!r}")
    config = settings.result_settings()
    name = settings.folder.name
    # A function of folder and settings, so that a resumed run continues the same tracker run.
    run_id = digest(str(settings.folder.absolute()), settings.digest())
    if settings.track == "wandb":
        import wandb

        project = os.environ.get("WANDB_PROJECT", _PROJECT)
        run: Any = wandb.init(project=project, id=run_id, name=name, config=config, resume="allow")
        return _WandbRun(run)
    import trackio

    run = trackio.init(project=_PROJECT, name=f"{name}-{run_id[:8]}", config=config, resume="allow")
    return _TrackioRun(trackio)


class _WandbRun:
    """Logs to wandb with the step as a metric of its own.

    wandb drops values of steps below its own counter, and a resumed run repeats steps.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        run.define_metric("step")
        run.define_metric("*", step_metric="step")

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Logs the numbers of a step."""
        self._run.log({**metrics, "step": step})

    def finish(self) -> None:
        """Ends the run."""
        self._run.finish()


class _TrackioRun:
    """Logs to the run that `trackio.init` has opened; trackio keeps it in its module."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Logs the numbers of a step."""
        self._module.log(metrics, step=step)

    def finish(self) -> None:
        """Ends the run."""
        self._module.finish()
