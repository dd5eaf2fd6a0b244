"""Builds the runtime of a configuration with the part of the library that it uses."""

from __future__ import annotations

from truing.core.errors import PlanError
from truing.core.protocols import Model
from truing.rails.config.loader import RailsConfig
from truing.rails.config.trust import require_trusted_code
from truing.rails.library.guard_models import find_guard_faults
from truing.rails.library.references import (
    find_missing_references,
    find_parser_faults,
    find_pattern_faults,
    library_for_config,
)
from truing.rails.runtime.app import Runtime, RuntimeParts
from truing.rails.runtime.prompt_filters import PARSERS
from truing.rails.runtime.prompts import PromptManager


def build_runtime(config: RailsConfig, model: Model, parts: RuntimeParts | None = None) -> Runtime:
    """Returns the runtime of a configuration in front of `model`.

    Raises PlanError, with all places, for rails without a flow, for library rails without their
    prompt, and for prompts with an unknown `output_parser`. Imports the folder's `actions.py` and
    `config.py`, which are trusted code.
    """
    require_trusted_code(config)
    library = library_for_config(config)
    flows = [*config.flows, *library.flows]
    missing = find_missing_references(config, flows, PromptManager(config))
    passed_models = parts.models if parts is not None else ()
    wrong_guards = find_guard_faults(config, passed_models)
    faults = [
        f"{place}: {fault}"
        for place, fault in (*missing, *find_pattern_faults(config), *wrong_guards)
    ]
    if faults:
        raise PlanError(*faults)
    runtime = Runtime(config, model, library, parts)
    # After the folder's config.py, which may register parsers of its own.
    known = runtime.prompts.parsers
    own = [name for name in known if known[name] is not PARSERS.get(name)]
    faults = [
        f"{place}: {fault}" for place, fault in find_parser_faults(config, known, own_parsers=own)
    ]
    if faults:
        raise PlanError(*faults)
    return runtime
