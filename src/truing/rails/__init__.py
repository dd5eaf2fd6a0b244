"""Guardrails in NeMo Guardrails' format (Colang 1.0): read, checked, and run before a model.

`guarded.GuardedModel` is a model behind the rails of a folder; `actions.action` marks the actions
of an `actions.py`; `static.check` checks a configuration without running it; `dialogue_tests` runs
its own tests.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "actions": "ActionResult action",
        "config.client_settings": "ClientSettings PRIVATE_LOGS",
        "config.combined": "combine_configs",
        "config.generation_options": "OptionsError",
        "config.loader": "RailsConfig",
        "config.models": "build_model",
        "config.trust": "require_trusted_code",
        "dialogue_tests": (
            "DialogueOutcome DialogueRunner DialogueTest find_dialogue_files parse_dialogues "
            "read_dialogues"
        ),
        "guarded": "GuardedModel blocked_answer guard_model",
        "library.catalog": "RAIL_TITLES",
        "runtime": "decision_record",
        "runtime.app": "RuntimeParts",
        "runtime.call_ids": "CallIds",
        "runtime.chat_messages": "ChatMessage messages_of_conversation",
        "runtime.conversation_check": "CheckResult NoStageError",
        "runtime.generation_log": "TurnRecord build_generation_log select_output_data",
        "runtime.llm_client": "LlmCallRecord",
        "runtime.output_gate": "BLOCKED_MESSAGE",
        "runtime.prompt_filters": "render_colang",
        "runtime.turn_result": "TurnResult",
        "static.check": "RailsCheckReport check_rails_config",
        "static.diagram": "render_svg render_tree",
    },
)
