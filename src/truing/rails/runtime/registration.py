"""What NeMo calls the app: the methods that `init(app)` of a config.py may call."""

from __future__ import annotations

from typing import Any, Self

from truing.core.errors import PlanError
from truing.rails.runtime.action_registry import ActionRegistry
from truing.rails.runtime.action_runner import ActionRunner
from truing.rails.runtime.prompts import PromptManager
from truing.rails.runtime.search_providers import SearchProviders
from truing.rails.runtime.similarity import Similarity


class Registration:
    """The registering methods of a runtime."""

    actions: ActionRegistry
    prompts: PromptManager
    search_providers: SearchProviders
    embedding_providers: dict[str, Any]
    similarity: Similarity | None
    _action_runner: ActionRunner

    def register_action(self, call: Any, name: str | None = None) -> Self:
        """Adds an action."""
        self.actions.register(call, name)
        return self

    def register_action_param(self, name: str, value: Any) -> Self:
        """Adds a value that actions get if they have a parameter of that name."""
        self._action_runner.extra_arguments[name] = value
        return self

    def register_prompt_context(self, name: str, value: Any) -> Self:
        """Adds a variable to all prompts."""
        self.prompts.extra_context[name] = value
        return self

    def register_embedding_search_provider(self, name: str, provider: Any) -> Self:
        """Adds a class that searches, where the configuration names it (`search_providers`)."""
        self.search_providers.classes[name] = provider
        return self

    def register_embedding_provider(self, provider: Any, name: str | None = None) -> Self:
        """Encodes with a class where the configuration names its engine.

        Raises PlanError for a class that has no name.
        """
        engine = name or getattr(provider, "engine_name", "")
        if not (isinstance(engine, str) and engine):
            raise PlanError(
                f"register_embedding_provider: {getattr(provider, '__name__', provider)!r} has no "
                "engine_name: give one, or pass name="
            )
        self.embedding_providers[engine] = provider
        if self.similarity is not None:  # None while config.py runs: it is not built yet
            self.similarity.use_encoder(engine, provider)
        return self

    def register_filter(self, call: Any, name: str | None = None) -> Self:
        """Raises PlanError: the templates of all configurations share their filters."""
        raise PlanError(
            f"register_filter({name or getattr(call, '__name__', call)!r}): filters of templates "
            "are not extended; register_prompt_context gives prompts a value or a function"
        )

    def register_output_parser(self, parse: Any, name: str) -> Self:
        """Adds a parser that prompts can name."""
        self.prompts.parsers[name] = parse
        return self
