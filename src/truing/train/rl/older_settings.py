"""Runs that an older version began are resumed with the settings of then."""

from __future__ import annotations

from typing import Any

import msgspec

from truing.train import checkpoint
from truing.train.rl.settings import RLSettings


def keep_older_settings(settings: RLSettings) -> RLSettings:
    """Returns the settings as the run in the folder was begun, if an older version began it.

    The same command, whose defaults have changed since, then resumes it.
    """
    path = settings.folder / "manifest.json"
    if checkpoint.latest_checkpoint(settings.folder) is None:
        return settings
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=dict[str, Any]).get("settings")
    except (OSError, msgspec.DecodeError):
        return settings  # the identity of the checkpoint decides
    return settings.as_begun(stored) if isinstance(stored, dict) else settings
