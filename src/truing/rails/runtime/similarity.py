"""What a runtime finds by similarity: the examples of prompts, and the knowledge base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from truing.rails.colang.compiler import Program
from truing.rails.config.embedding_models import (
    DEFAULT_PROVIDER,
    Place,
    find_embedding_names,
    read_search_provider,
)
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.embeddings import EmbeddingCache, TextEncoder, choose_encoder
from truing.rails.runtime.example_index import CreateIndex, DialogExamples
from truing.rails.runtime.knowledge_base import KnowledgeBase
from truing.rails.runtime.search_providers import SearchProviders


@dataclass(slots=True)
class Similarity:
    """The indexes of a configuration; `kb` is None without documents."""

    config: RailsConfig
    embeddings: EmbeddingCache
    kb_embeddings: EmbeddingCache
    examples: DialogExamples
    kb: KnowledgeBase | None

    def use_encoder(self, engine: str, make_encoder: Callable[[str], TextEncoder]) -> None:
        """Encodes with a registered class where the configuration names its engine."""
        places: tuple[tuple[Place, EmbeddingCache], ...] = (
            ("core", self.embeddings),
            ("knowledge_base", self.kb_embeddings),
        )
        for place, cache in places:
            name, model = find_embedding_names(self.config, place)
            if name == engine:
                cache.replace_encoder(make_encoder(model))


def build_similarity(
    config: RailsConfig,
    program: Program,
    encoder: TextEncoder | None,
    providers: SearchProviders,
) -> Similarity:
    """Returns the indexes of a configuration; `encoder` takes the place of the configured ones."""
    embeddings = EmbeddingCache(encoder or choose_encoder(config))
    kb_embeddings = embeddings
    if encoder is None and config.docs:
        kb_embeddings = EmbeddingCache(choose_encoder(config, "knowledge_base"))

    def make_index(place: Place) -> CreateIndex | None:
        name, parameters = read_search_provider(config, place)
        if name == DEFAULT_PROVIDER:
            return None

        def create() -> Any:
            return providers.create(name, parameters)

        return create

    examples = DialogExamples(
        config.user_messages,
        config.bot_messages,
        [flow for flow in program.flows.values() if not flow.system],
        embeddings,
        make_index("core"),
        config.embeddings_threshold,
    )
    kb = None
    if config.docs:
        kb = KnowledgeBase(config.docs, kb_embeddings, make_index("knowledge_base"))
    return Similarity(config, embeddings, kb_embeddings, examples, kb)
