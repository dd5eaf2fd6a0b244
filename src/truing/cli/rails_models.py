"""The main model that a rails configuration names, for the doors."""

from __future__ import annotations

from pathlib import Path

from truing.core.errors import PlanError
from truing.core.protocols import Model
from truing.rails.config.loader import RailsConfig
from truing.rails.config.models import build_model


def main_model(path: str | Path | RailsConfig) -> Model:
    """The main model of a configuration folder; PlanError where it names none, or an engine that truing does not know."""
    config = path if isinstance(path, RailsConfig) else RailsConfig.load(path)
    entry = next((m for m in config.models if m.type == "main"), None)
    if entry is None:
        place = config.locate("key", "models")
        raise PlanError(
            f"{place}: no model of type main is named; add one under models:, or give --model SPEC"
        )
    return build_model(entry, config)
