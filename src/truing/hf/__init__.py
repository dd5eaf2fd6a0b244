"""Hugging Face models on this machine; needs the extra `local`.

`weights` finds and verifies model files, `loading` loads models (causal LMs, encoders, scalar
heads), `chat_tokens` turns conversations into token ids, `sentence_encoder` embeds texts.
"""
