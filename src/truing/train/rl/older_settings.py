"""Runs that an older version began are resumed with the settings of then."""

from __future__ import annotations

from truing.train import checkpoint
from truing.train.rl.settings import RLSettings
from truing.train.run_manifest import MANIFEST_FILE, read_manifest


def keep_older_settings(settings: RLSettings) -> RLSettings:
    """Returns the settings as the run in the folder was begun, if an older version began it.

    The same command, whose defaults have changed since, then resumes it.
    """
    if checkpoint.latest_checkpoint(settings.folder) is None:
        return settings
    stored = read_manifest(settings.folder / MANIFEST_FILE).get("settings")
    return settings.as_begun(stored) if isinstance(stored, dict) else settings
