"""Converts a GGUF file of a Llama model to a Hugging Face folder with float32 weights."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from truing.core.errors import MissingExtra


def dequantise_gguf(source: Path, file: str, target: Path) -> None:
    """Writes the model and the tokenizer of the GGUF `file` in folder `source` to folder `target`.

    transformers marks a model that it loads from a GGUF as quantised, and then can neither cast nor
    save it. So a new model is created from the configuration, and takes over the tensors.
    """
    try:
        from tokenizers import pre_tokenizers
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtra("local", "local models") from error
    logging.disable_progress_bar()

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file, trust_remote_code=False)
    # transformers ignores `tokenizer.ggml.pre = smollm` in the file, which asks for single digits.
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
    tokenizer.save_pretrained(target)

    # The progress bar of the dequantisation has no switch.
    with contextlib.redirect_stderr(io.StringIO()):
        quantised = AutoModelForCausalLM.from_pretrained(
            source, gguf_file=file, trust_remote_code=False
        )
    fields = quantised.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        fields.pop(key, None)
    model_type = fields.pop("model_type")
    config = AutoConfig.for_model(model_type, **fields)
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model.load_state_dict(quantised.state_dict())
    # The GGUF has no generation configuration; without the ids an answer would never stop.
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.save_pretrained(target)
