"""Which model a configuration encodes texts with: truing's own, or one behind an endpoint.

NeMo Guardrails reads it from the entry of the type ``embeddings`` under ``models:``, and from
``embedding_search_provider: parameters:`` under ``core:`` (examples) and ``knowledge_base:``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from truing.rails.config.engines import (
    API_KEY_VARIABLES,
    CHAT_ONLY_ENGINES,
    ENGINES,
    find_address,
)
from truing.rails.config.entries import ModelEntry
from truing.rails.config.loader import RailsConfig

# Names of NeMo's default embedding model; truing's encoder has the same weights.
SAME_EMBEDDING_MODELS = frozenset({"all-minilm-l6-v2", "sentence-transformers/all-minilm-l6-v2"})
DEFAULT_PROVIDER = "default"

_DEFAULT_ENTRY = ModelEntry(type="embeddings", engine="FastEmbed", model="all-MiniLM-L6-v2")
Place = Literal["core", "knowledge_base"]


class EmbeddingModel(Struct, frozen=True):
    """A model behind an OpenAI-compatible ``/embeddings``; `variable` is that of its key."""

    model: str
    url: str
    variable: str | None = None
    vendor_variable: str = "OPENAI_API_KEY"


def read_search_provider(config: RailsConfig, place: Place) -> tuple[str, Mapping[str, Any]]:
    """Returns the name and the parameters of a search provider."""
    block = (config.raw.get(place) or {}).get("embedding_search_provider") or {}
    return str(block.get("name") or DEFAULT_PROVIDER), block.get("parameters") or {}


def find_embedding_names(config: RailsConfig, place: Place) -> tuple[str, str]:
    """Returns the engine and the model that encode the texts of a place."""
    _, parameters = read_search_provider(config, place)
    entry = next((entry for entry in config.models if entry.type == "embeddings"), _DEFAULT_ENTRY)
    engine = parameters.get("embedding_engine") or entry.engine
    return str(engine), str(parameters.get("embedding_model") or entry.model)


def find_embedding_model(config: RailsConfig, place: Place) -> EmbeddingModel | None:
    """Returns the model behind an endpoint that encodes the texts of a place.

    None where the model is NeMo's default, or its engine has no endpoint that truing can ask.
    """
    name, parameters = read_search_provider(config, place)
    if name != DEFAULT_PROVIDER:
        return None
    model_entry = next(
        (model_entry for model_entry in config.models if model_entry.type == "embeddings"),
        _DEFAULT_ENTRY,
    )
    engine, model = find_embedding_names(config, place)
    is_entry = engine == model_entry.engine
    settings = parameters.get("embedding_parameters") or (
        model_entry.parameters if is_entry else {}
    )
    if (
        engine not in ENGINES
        or engine in CHAT_ONLY_ENGINES
        or model.lower() in SAME_EMBEDDING_MODELS
    ):
        return None
    address = find_address(engine, settings)
    if not address:
        return None
    return EmbeddingModel(
        model,
        f"{address.rstrip('/')}/embeddings",
        model_entry.api_key_env_var if is_entry else None,
        API_KEY_VARIABLES.get(engine, "OPENAI_API_KEY"),
    )
