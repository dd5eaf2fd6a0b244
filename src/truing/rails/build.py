"""Builds the runtime of a configuration: the part of the library that it uses, its references checked."""

from __future__ import annotations

from truing.core.errors import PlanError
from truing.core.protocols import Model
from truing.rails.config.loader import RailsConfig
from truing.rails.library.references import library_of, wiring_faults
from truing.rails.runtime.app import Parts, Runtime
from truing.rails.runtime.prompts import Prompts


def build_runtime(config: RailsConfig, model: Model, parts: Parts | None = None) -> Runtime:
    """Returns the runtime of a configuration in front of `model`.

    Raises PlanError, with all places, for rails without a flow and library rails without their prompt. Imports the
    folder's `actions.py` and `config.py`: they are trusted code.
    """
    library = library_of(config)
    flows = [*config.flows, *library.flows]
    faults = [f"{place}: {what}" for place, what in wiring_faults(config, flows, Prompts(config))]
    if faults:
        raise PlanError(*faults)
    return Runtime(config, model, library, parts)
