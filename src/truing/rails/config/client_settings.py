"""What a configuration lets clients do: roles that are trusted, options that a request may set.

    truing:
      trusted_roles: [system]                 # their texts do not pass the input rails
      join_turns: true                        # read the texts of a role joined over the answers
      client_options:
        rails: false                          # may a request switch stages off?
        llm_params: {max_tokens: 512}         # the parameters that it may set, each up to a bound
        context: [relevant_chunks, user_name] # the variables that it may set

Without these keys no role is trusted and no option of a client has an effect.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from msgspec import Struct

from truing.core.errors import did_you_mean

# `developer` is OpenAI's newer name of `system`. What the user writes cannot be trusted.
TRUSTABLE_ROLES = ("system", "assistant", "tool", "context", "tool_definitions")
LLM_PARAMS = ("max_tokens", "temperature", "top_p")
LOG_OPTIONS = ("activated_rails", "llm_calls", "internal_events", "colang_history")
_BLOCK = "truing"
_ANSWERED_OPTIONS = ("rails", "llm_params", "log")
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
        )

    def accept_options(self, options: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Returns the options of a request that have an effect.

        Raises ValueError, with the key that would allow it, for any other.
        """
        if not options:
            return None
        for name in options:
            if name not in _ANSWERED_OPTIONS:
                raise ValueError(f"guardrails.options.{name}: not supported")
        _check_switches(options.get("log"), "guardrails.options.log", LOG_OPTIONS)
        if options.get("rails") is not None and not self.rails:
            raise ValueError(
                "guardrails.options.rails: this configuration does not let clients choose the "
                "rails (client_options.rails of the block truing)"
            )
        if not isinstance(options.get("rails"), list):
            _check_switches(options.get("rails"), "guardrails.options.rails")
        parameters = options.get("llm_params")
        if parameters is not None:
            _check_parameters(parameters, self.llm_params)
        return dict(options)

    def accept_context(self, context: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Returns the context variables of a request; raises ValueError for one not allowed."""
        for name in context or ():
            if name not in self.context:
                raise ValueError(
                    f"guardrails.context.{name}: this configuration does not let clients set it "
                    "(client_options.context of the block truing)"
                )
        return dict(context) if context else None


def _check_switches(switches: Any, place: str, known: Collection[str] = ()) -> None:
    """Raises ValueError unless it is an object of true and false (or null).

    The options become a variable of the conversation, which a prompt may show: no text of a client
    stands in them.
    """
    if switches is None:
        return
    if not isinstance(switches, Mapping):
        raise ValueError(f"{place}: expected an object")
    for name, value in switches.items():
        if known and name not in known:
            raise ValueError(f"{place}: there are {', '.join(known)}, and no other")
        if not isinstance(value, bool):
            raise ValueError(f"{place}: each is true or false")


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
    for name in options.get("context") or ():
        if not name.isidentifier() or name in RESERVED_VARIABLES:
            yield f"{_BLOCK}.client_options.context", f"clients cannot set the variable {name!r}"
