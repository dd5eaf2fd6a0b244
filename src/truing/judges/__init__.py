"""Judges: programs (`rules:`, `keywords:`), prompted and guard models, moderation classifiers,
reward and cost models.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "confidence": "measure_calibration stated_confidence",
        "guard_catalog": "PLAIN_FORMATS",
        "guard_formats": "FORMATS",
        "moderation.causal_layers": "layer_states supports_layerwise_forward",
        "moderation.engines": "TorchEngine pad_inputs",
        "moderation.inputs": "EncodedInput ModerationInput build_input_encoder",
        "moderation.network": "ModerationNetwork",
        "moderation.network_files": "build_network read_safetensors write_body write_head",
        "moderation.ngrams": "ngram_buckets quantise_columns",
        "moderation.scorer": "hash_classifier_folder",
        "moderation.settings": (
            "BlendWeights ClassifierSettings ClassifierThresholds MODERATION_QUESTIONS "
            "read_settings write_json"
        ),
        "moderation.text_cleaning": "clean_text",
        "probe": "ARGUMENTS PROBE_FILE Probes QuestionProbe",
        "python": "PythonJudge",
        "refusal": "classify_refusal",
        "shipped_classifiers": "find_version_file thresholds_of_version",
        "text_readings": "alternative_readings",
        "transcript": "text_or_transcript",
        "verdicts": "text_of_message",
    },
)
