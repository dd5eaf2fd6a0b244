"""Warnings about settings by which a configuration exempts texts from its rails."""

from __future__ import annotations

from collections.abc import Iterator

from truing.rails.colang.compiler import Program
from truing.rails.config.client_settings import ClientSettings
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.speculation import can_speculate
from truing.rails.static.findings import Finding

_BLOCK = "truing"


def find_given_up_checks(config: RailsConfig, program: Program) -> Iterator[Finding]:
    """Yields a warning for each setting that lets a text reach the model or a client unchecked."""
    settings = ClientSettings.of(config.truing)
    if settings.trusted_roles:
        roles = ", ".join(sorted(settings.trusted_roles))
        yield _finding(
            config,
            "trusted_roles",
            f"texts of these roles do not pass the input rails: {roles}; whoever can send a "
            "request can claim them",
        )
    if not settings.joins_turns and config.rails.input.flows:
        yield _finding(
            config,
            "join_turns",
            "a text that is split over several answered turns is read in its pieces only",
        )
    if settings.rails:
        message = "every request may switch rails off, all of them included"
        yield _finding(config, "client_options.rails", message)
    if settings.context:
        names = ", ".join(sorted(settings.context))
        yield _finding(config, "client_options.context", f"requests may set {names}")
    nemo_input = (config.raw.get("rails") or {}).get("input") or {}
    is_asked = config.truing.get("speculative") or nemo_input.get("speculative_generation")
    if is_asked and can_speculate(program, config.rails.input.flows):
        yield _finding(
            config, "speculative", "the model sees a message while the input rails still read it"
        )


def _finding(config: RailsConfig, key: str, message: str) -> Finding:
    place = config.locate("key", f"{_BLOCK}.{key}")
    return Finding(place=place, kind="given_up", level="warning", what=message)
