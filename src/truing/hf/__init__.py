"""Hugging Face models on this machine; needs the extra `local`.

`weights` finds and verifies model files, `loading` loads models (causal LMs, encoders, scalar
heads), `chat_tokens` turns conversations into token ids, `sentence_encoder` embeds texts.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "answer_states": "AnswerStateEncoder AnswerTokens States shared_answer_encoder",
        "chat_tokens": "AnswerTooLong ChatTokenizer truncate_prompt",
        "loading": (
            "DTYPES LoadedModel ScalarModel batch_by_length cache_argument check_head_fits "
            "context_length "
            "eos_token_ids has_head limit_torch_threads load_causal_lm load_encoder load_head "
            "load_scalar_model load_tokenizer load_whole_on_cpu load_without_weights "
            "make_lm_head_contiguous pad_rows position_ids prefers_int8 select_device "
            "select_dtype select_training_attention truncate_layers"
        ),
        "named_weights": "NAMED_SOURCES",
        "packed_linear": "pack_linear_layers",
        "pretrained": (
            "check_model_folder check_tokenizer_fits find_safetensors first_line "
            "is_optional_weight load_config load_model read_tensor_shapes silence_transformers "
            "stored_dtype"
        ),
        "sentence_encoder": "shared_encoder shared_fused_encoder",
        "weights": (
            "Weights cache_dir find_cached_weights find_weights sha256_file sha256_folder "
            "verify_weights"
        ),
    },
)
