"""Runs a configuration: conversation state, Colang interpreter, actions, LLM calls, streaming.

`app.Runtime` is built once per configuration and runs turns; `turn_context.TurnContext` is what
actions see of one turn.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "": "decision_record dialog_actions parallel_rails",
        "action_registry": "ActionRegistry",
        "answer_readings": "current_readings",
        "app": "RailsError Runtime RuntimeParts",
        "call_ids": "CallIds",
        "chat_messages": (
            "ChatMessage ModelPrompt content_text image_addresses messages_of_conversation"
        ),
        "client_texts": "name_results",
        "conversation_check": "CheckResult NoStageError",
        "event_types": "BotIntent STOP_INTENT StartUtterance",
        "generation_log": "TurnRecord build_generation_log select_output_data",
        "llm_client": "LlmCallRecord LlmError LlmReply",
        "output_gate": "BLOCKED_MESSAGE",
        "prompt_filters": "PARSERS TEXT_PARSERS extract_bot_message render_colang strip_quotes",
        "prompts": "PromptManager",
        "rail_library": "RailLibrary",
        "speculation": "can_speculate",
        "stream_buffer": "StreamBuffer",
        "stream_guard": "StreamGuard TurnSettings stream_mode",
        "templates": "PromptError dollar_to_jinja evaluate_template template_variables",
        "turn_answer": "answer_from_result blocked_answer",
        "turn_context": "EVIDENCE_CHARACTERS TurnContext",
        "turn_result": "TurnResult",
        "user_patterns": "load_user_pattern",
        "verdict_parsers": "allows is_objection read_safe_unsafe read_yes_no",
    },
)
