"""The rails of a configuration as the hooks of other frameworks run them.

Built once, by the same runtime as `truing serve`. A hook asks at each step of a conversation
whether what is new may go on: `check` reads what the rails have not read yet in the session. What
cannot be read, and a rail that fails, is blocked; a stage without rails lets pass, as in a turn.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import Struct

from truing.core.protocols import Model
from truing.core.types import Answer, Conversation, Lineage, Message, Ruling, Sampling, Tool
from truing.rails.config.loader import RailsConfig
from truing.rails.config.models import build_model
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.conversation_check import NoStageError
from truing.rails.runtime.decision_record import decision_record
from truing.rails.runtime.output_gate import BLOCKED_MESSAGE

_LOG = logging.getLogger("truing.rails")

OnRulings = Callable[[tuple[Ruling, ...]], None]


class HookCheck(Struct, frozen=True, kw_only=True):
    """Whether a step may go on.

    `messages` are those of the conversation as the rails leave them; `reply` is what the user is
    told where the step is blocked.
    """

    allowed: bool
    messages: tuple[Message, ...] = ()
    reply: str = ""
    rulings: tuple[Ruling, ...] = ()

    @property
    def record(self) -> dict[str, Any]:
        """The decisions as callers get them: `{"allowed": ..., "rails": [...]}`."""
        return {"allowed": self.allowed, **decision_record(self.rulings)}


class UncheckedContent(ValueError):
    """Content of a message that no rail reads, such as an image: it is not passed on."""


class MissingModel:
    """Stands for the main model of a configuration that names none: every call fails.

    A hook has no model of its own to give to the rails; one that asks the main model then blocks.
    """

    name = "none"
    lineage = Lineage(name="none")

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns failures."""
        reason = "the rails of this hook ask a main model: name one under `models:`, or pass model="
        return (Answer.failed("model", reason),) * sampling.n


class HookRails:
    """The rails of a configuration (or of the folder that holds it) behind a hook.

    `model` answers the rails that ask the main model; by default the configuration's own does.
    `on_rulings` is called with the decisions of each step. `passes_messages`: the model gets the
    messages of the application as they are, without the instructions that the runtime puts before
    a chat (`passthrough: true`), unless the configuration says otherwise. The other arguments are
    those of `GuardedModel`: `judges`, `parts`, `trust_code`, `key_variables`.
    """

    def __init__(
        self,
        config: RailsConfig | str | Path,
        *,
        model: Model | None = None,
        on_rulings: OnRulings | None = None,
        passes_messages: bool = False,
        **arguments: Any,
    ) -> None:
        if not isinstance(config, RailsConfig):
            loading = {
                name: arguments.pop(name)
                for name in ("trust_code", "key_variables")
                if name in arguments
            }
            config = RailsConfig.load(config, **loading)
        if passes_messages and config.raw.get("passthrough") is None and not config.single_call:
            config = replace(config, passthrough=True)
        self.guarded = GuardedModel(config, model or _build_main_model(config), **arguments)
        self.on_rulings = on_rulings

    async def check(
        self,
        conversation: Conversation,
        *,
        tools: Sequence[Tool] = (),
        session: str = "",
        context: Mapping[str, Any] | None = None,
        ends_in_answer: bool = False,
    ) -> HookCheck:
        """Returns whether the rails let pass what they have not read yet in the session.

        Without a session nothing is remembered. `ends_in_answer`: the last message comes from a
        model; otherwise an assistant's message is what a client says.
        """
        check = await check_step(
            self.guarded,
            conversation,
            tools=tools,
            session=session,
            context=context,
            ends_in_answer=ends_in_answer,
        )
        self.record(check.rulings)
        return check

    def block(self, stage: str, reason: str) -> HookCheck:
        """Returns the decision on what no rail can read."""
        check = block_step(stage, reason)
        self.record(check.rulings)
        return check

    def record(self, rulings: tuple[Ruling, ...]) -> None:
        """Passes decisions on to `on_rulings`; what it raises is logged and changes nothing."""
        if self.on_rulings is None:
            return
        try:
            self.on_rulings(rulings)
        except Exception as error:
            _LOG.warning("on_rulings failed: %s", type(error).__name__)


async def check_step(
    guarded: GuardedModel,
    conversation: Conversation,
    *,
    tools: Sequence[Tool] = (),
    session: str = "",
    context: Mapping[str, Any] | None = None,
    ends_in_answer: bool = False,
) -> HookCheck:
    """As `HookRails.check`, for rails that are built already."""
    try:
        decision = await guarded.check(
            conversation,
            tools=tuple(tools),
            session=session_of_its_own(session),
            context=context,
            ends_in_answer=ends_in_answer,
        )
    except NoStageError:
        return HookCheck(allowed=True, messages=conversation.messages)
    rulings = guarded.rulings_for_clients(decision.rulings)
    if decision.allowed is False:
        return HookCheck(allowed=False, reply=decision.message or BLOCKED_MESSAGE, rulings=rulings)
    offset = len(decision.messages) - len(conversation.messages)  # a message of variables
    messages = tuple(message.to_message() for message in decision.messages[offset:])
    return HookCheck(allowed=True, messages=messages, rulings=rulings)


def session_of_its_own(session: str) -> str:
    """Returns the session, or, without one, a new one: users that nothing tells apart share no
    memory of the rails.
    """
    return session or f"unnamed:{secrets.token_hex(16)}"


def block_step(stage: str, reason: str) -> HookCheck:
    """Returns the decision on what no rail can read."""
    ruling = Ruling(name="runtime", stage=stage, ruling="block", reason=reason)
    return HookCheck(allowed=False, reply=BLOCKED_MESSAGE, rulings=(ruling,))


def _build_main_model(config: RailsConfig) -> Model:
    entry = next((entry for entry in config.models if entry.type == "main"), None)
    return build_model(entry, config) if entry is not None else MissingModel()
