"""Guardrails configurations in NeMo's format (`config.yml`, `*.co`, `kb/`).

`loader.RailsConfig` loads one, checking it against `schema`. `models` builds the models that it
names, with the sampling defaults of `parameters`. `trust` says what of it needs the operator's
trust. `files` and `entries` are parts of the loader.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "": "loader",
        "client_settings": "ClientSettings PRIVATE_LOGS",
        "combined": "combine_configs",
        "embedding_models": (
            "DEFAULT_PROVIDER EmbeddingModel Place find_embedding_model find_embedding_names "
            "read_search_provider"
        ),
        "engines": "ENGINES TRUING_ENGINE",
        "entries": "ModelEntry PromptEntry",
        "generation_options": "OptionsError STAGE_SWITCHES find_option_faults require_options",
        "jailbreak_service": (
            "JAILBREAK_BLOCK JAILBREAK_RAIL make_jailbreak_spec read_config_block"
        ),
        "key_effects": "find_differences find_unused_keys",
        "loader": "RailsConfig iterate_stages list_rail_flow_names",
        "models": "build_model build_task_models find_engine_fault find_entry_faults",
        "parameters": "DefaultSampling",
        "schema": "ANY_KEYS find_schema_faults",
        "service_addresses": "find_service_addresses list_used_rails own_services",
        "tracing": "DEFAULT_TRACE_FILE list_trace_adapters",
        "trust": (
            "CodeUse find_code_uses find_key_fault is_inside require_trusted_code "
            "resolve_configured_spec"
        ),
        "vendor_addresses": (
            "GLINER_KEY ServiceAddress is_beta_address is_chat_address read_block read_gliner_path"
        ),
    },
)
