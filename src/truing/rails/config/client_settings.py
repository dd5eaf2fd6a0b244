"""What a configuration lets clients do: roles that are trusted, options that a request may set.

    truing:
      trusted_roles: [system]                 # their texts do not pass the input rails
      join_turns: true                        # read the texts of a role joined over the answers
      client_options:
        rails: false                          # may a request switch stages off?
        llm_params: {max_tokens: 512}         # the parameters that it may set, each up to a bound
        context: [relevant_chunks, user_name] # the variables that it may set
        output_vars: [intent]                 # the variables that it may read
        log: [llm_calls]                      # the parts of the log with prompts that it may read

Without these keys no role is trusted and no option of a client has an effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from truing.core.errors import did_you_mean
from truing.rails.config.generation_options import find_option_faults

# `developer` is OpenAI's newer name of `system`. What the user writes cannot be trusted.
TRUSTABLE_ROLES = ("system", "assistant", "tool", "context", "tool_definitions")
LLM_PARAMS = ("max_tokens", "temperature", "top_p")
_BLOCK = "truing"
_ANSWERED_OPTIONS = ("rails", "llm_params", "log", "output_vars")
# Parts of the log that hold prompts, or texts that rails may have withheld.
PRIVATE_LOGS = ("llm_calls", "internal_events", "colang_history")
# Variables by which the flows of the stages work: a client that set one could steer them.
RESERVED_VARIABLES = frozenset(
    [
        "asked_before_tools",
        "bot_message",
        "bot_thinking",
        "config",
        "event",
        "generation_options",
        "i",
        "input_flows",
        "last_bot_message",
        "last_user_message",
        "output_flows",
        "rail_alternative",
        "rail_reason",
        "rail_support",
        "relevant_chunks_sep",
        "retrieval_flows",
        "retrieved_for",
        "skip_output_rails",
        "tool_call_id",
        "tool_calls",
        "tool_input_enabled",
        "tool_input_flows",
        "tool_message",
        "tool_messages",
        "tool_name",
        "tool_output_flows",
        "triggered_input_rail",
        "triggered_output_rail",
        "triggered_retrieval_rail",
        "triggered_tool_input_rail",
        "triggered_tool_output_rail",
        "user_message",
    ]
)


class ClientSettings(Struct, frozen=True):
    """The trust that a configuration gives to clients; `llm_params` maps names to upper bounds.

    `joins_turns`: the input rails also read the texts of a role joined over what lies between them.
    """

    trusted_roles: frozenset[str] = frozenset()
    joins_turns: bool = True
    rails: bool = False
    llm_params: dict[str, float] = {}
    context: frozenset[str] = frozenset()
    output_vars: frozenset[str] = frozenset()
    log: frozenset[str] = frozenset()

    @classmethod
    def of(cls, truing: Mapping[str, Any]) -> ClientSettings:
        """Returns the settings in a configuration's checked `truing` block."""
        options = truing.get("client_options") or {}
        return cls(
            trusted_roles=frozenset(truing.get("trusted_roles") or ()),
            joins_turns=truing.get("join_turns") is not False,
            rails=bool(options.get("rails")),
            llm_params=dict(options.get("llm_params") or {}),
            context=frozenset(options.get("context") or ()),
            output_vars=frozenset(options.get("output_vars") or ()),
            log=frozenset(options.get("log") or ()),
        )

    def intersect(self, other: ClientSettings) -> ClientSettings:
        """Returns what both configurations let clients do."""
        return ClientSettings(
            trusted_roles=self.trusted_roles & other.trusted_roles,
            joins_turns=self.joins_turns or other.joins_turns,
            rails=self.rails and other.rails,
            llm_params={
                name: min(bound, other.llm_params[name])
                for name, bound in self.llm_params.items()
                if name in other.llm_params
            },
            context=self.context & other.context,
            output_vars=self.output_vars & other.output_vars,
            log=self.log & other.log,
        )

    def to_truing(self) -> dict[str, Any]:
        """Returns the settings as keys of a `truing` block."""
        return {
            "trusted_roles": sorted(self.trusted_roles),
            "join_turns": self.joins_turns,
            "client_options": {
                "rails": self.rails,
                "llm_params": dict(self.llm_params),
                "context": sorted(self.context),
                "output_vars": sorted(self.output_vars),
                "log": sorted(self.log),
            },
        }

    def accept_options(self, options: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Returns the options of a request that have an effect.

        Raises ValueError, with the key that would allow it, for any other.
        """
        if not options:
            return None
        for name, what in find_option_faults(options):
            raise ValueError(f"guardrails.options.{name}: {what}")
        for name in options:
            if name not in _ANSWERED_OPTIONS:
                raise ValueError(f"guardrails.options.{name}: not supported")
        for name, is_on in (options.get("log") or {}).items():
            if is_on and name in PRIVATE_LOGS and name not in self.log:
                raise ValueError(
                    f"guardrails.options.log.{name}: this configuration does not let clients read "
                    "it (client_options.log of the block truing)"
                )
        self._check_output_vars(options.get("output_vars"))
        if options.get("rails") is not None and not self.rails:
            raise ValueError(
                "guardrails.options.rails: this configuration does not let clients choose the "
                "rails (client_options.rails of the block truing)"
            )
        parameters = options.get("llm_params")
        if parameters is not None:
            _check_parameters(parameters, self.llm_params)
        accepted = dict(options)
        if accepted.get("output_vars") is True:
            accepted["output_vars"] = sorted(self.output_vars)
        return accepted

    def _check_output_vars(self, names: Any) -> None:
        if names is True and not self.output_vars:
            raise ValueError(
                "guardrails.options.output_vars: this configuration lets clients read no variable "
                "(client_options.output_vars of the block truing)"
            )
        for name in names if isinstance(names, list) else ():
            if name not in self.output_vars:
                raise ValueError(
                    f"guardrails.options.output_vars: this configuration does not let clients read "
                    f"{name[:100]} (client_options.output_vars of the block truing)"
                )

    def accept_context(self, context: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Returns the context variables of a request; raises ValueError for one not allowed."""
        for name in context or ():
            if name not in self.context:
                raise ValueError(
                    f"guardrails.context.{name}: this configuration does not let clients set it "
                    "(client_options.context of the block truing)"
                )
        return dict(context) if context else None


def _check_parameters(parameters: Any, bounds: Mapping[str, float]) -> None:
    if not isinstance(parameters, Mapping):
        raise ValueError("guardrails.options.llm_params: expected an object")
    for name, value in parameters.items():
        place = f"guardrails.options.llm_params.{name}"
        if name not in bounds:
            raise ValueError(
                f"{place}: this configuration does not let clients set it "
                "(client_options.llm_params of the block truing)"
            )
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= bounds[name]:
            raise ValueError(f"{place}: expected a number from 0 to {bounds[name]:g}")
        if name == "max_tokens" and (value != int(value) or value < 1):
            raise ValueError(f"{place}: expected a whole number from 1 on")


def find_client_setting_faults(truing: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (key, fault) for the wrong values of a `truing` block whose types are right."""
    for role in truing.get("trusted_roles") or ():
        if role not in TRUSTABLE_ROLES:
            hint = did_you_mean(str(role), TRUSTABLE_ROLES)
            yield (
                f"{_BLOCK}.trusted_roles",
                f"{role!r} cannot be trusted; there are {', '.join(TRUSTABLE_ROLES)}{hint}",
            )
    options = truing.get("client_options") or {}
    for name, bound in (options.get("llm_params") or {}).items():
        key = f"{_BLOCK}.client_options.llm_params.{name}"
        if name not in LLM_PARAMS:
            yield key, f"{name!r} is none of {', '.join(LLM_PARAMS)}"
        elif isinstance(bound, bool) or not isinstance(bound, (int, float)) or bound <= 0:
            yield key, f"expected the largest value that clients may set, got {bound!r}"
    for name in options.get("log") or ():
        if name not in PRIVATE_LOGS:
            yield f"{_BLOCK}.client_options.log", f"{name!r} is none of {', '.join(PRIVATE_LOGS)}"
    for name in options.get("context") or ():
        if not name.isidentifier() or name in RESERVED_VARIABLES:
            yield f"{_BLOCK}.client_options.context", f"clients cannot set the variable {name!r}"
