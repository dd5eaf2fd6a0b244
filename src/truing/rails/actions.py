"""Actions, which flows `execute`: the decorator, and the results that they may return.

An action is a function (or a class with a method `run`) with the decorator `@action`. Its
parameters named context, events, config, llm, llms, llm_task_manager or kb, and those registered by
`register_action_param`, are filled in. An `ActionResult` also changes the context or adds events. A
folder's ``actions.py`` is trusted code: it runs with the rights of this process. Files that import
from ``nemoguardrails`` work unchanged with ``truing: {library: {nemo_alias: true}}``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

T = TypeVar("T")


def action(
    is_system_action: bool = False, name: str | None = None, execute_async: bool = False
) -> Callable[[T], T]:
    """Marks a function or class as an action. System actions do not show in prompts."""

    def mark(target: T) -> T:
        meta = {
            "name": name or getattr(target, "__name__", ""),
            "is_system_action": is_system_action,
            "execute_async": execute_async,
        }
        # A bound method takes no attributes; its function does.
        marked: Any = getattr(target, "__func__", target)
        marked.action_meta = meta
        return target

    return mark


@dataclass
class ActionResult:
    """The result of an action beside a plain value: events to add, variables to set.

    The events of a configuration's own actions are dictionaries in NeMo's format.
    """

    return_value: Any = None
    events: list[Any] | None = None
    context_updates: dict[str, Any] | None = field(default_factory=dict)


@dataclass(frozen=True)
class RailOutcome:
    """A rail's verdict: allow, block or transform.

    `transforms` maps the rewritten variables (user_message, bot_message, relevant_chunks) to their
    texts.
    """

    decision: Literal["allow", "block", "transform"] = "allow"
    reason: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    transforms: dict[str, str] = field(default_factory=dict)

    @property
    def is_blocked(self) -> bool:
        """Whether the turn must stop."""
        return self.decision == "block"

    @property
    def is_transform(self) -> bool:
        """Whether a text is rewritten."""
        return self.decision == "transform"

    @property
    def transform_text(self) -> dict[str, str]:
        """The rewritten texts by variable."""
        return self.transforms

    @classmethod
    def allow(
        cls, *, reason: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> RailOutcome:
        """Returns the verdict that lets the turn go on."""
        return cls("allow", reason, dict(metadata or {}))

    @classmethod
    def block(
        cls, *, reason: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> RailOutcome:
        """Returns the verdict that stops the turn."""
        return cls("block", reason, dict(metadata or {}))

    @classmethod
    def transform(
        cls,
        rewrites: Iterable[tuple[str, str]],
        *,
        reason: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> RailOutcome:
        """Returns the verdict that rewrites texts; `rewrites` are (variable, text)."""
        # NeMo's variables are members of an enum.
        texts = {str(getattr(target, "value", target)): text for target, text in rewrites}
        return cls("transform", reason, dict(metadata or {}), texts)
