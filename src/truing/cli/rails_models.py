"""The main model that a rails configuration names under `models:`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from truing.core.errors import PlanError
from truing.core.protocols import Model

if TYPE_CHECKING:
    from truing.rails.config.loader import RailsConfig


def load_main_model(
    configuration: str | Path | RailsConfig,
    *,
    trust_code: bool = False,
    key_variables: Sequence[str] = (),
) -> Model:
    """Returns the model of type main of a configuration (or of the one in a folder).

    Raises PlanError if it names none, one of an engine that truing does not know, or one that needs
    trust (`trust_code`, `key_variables`).
    """
    from truing.rails.config.loader import RailsConfig
    from truing.rails.config.models import build_model

    if isinstance(configuration, RailsConfig):
        config = configuration
    else:
        config = RailsConfig.load(configuration, trust_code=trust_code, key_variables=key_variables)
    entry = next((m for m in config.models if m.type == "main"), None)
    if entry is None:
        place = config.locate("key", "models")
        raise PlanError(
            f"{place}: no model of type main; add one under models:, or give --model SPEC"
        )
    return build_model(entry, config)
