"""Types and protocols that every other package builds on; imports nothing else of the project.

`types` holds the data model (Sample, Answer, Response, Judgement, ...), `protocols` the interfaces
(Model, Judge, Dataset, Attack), `errors` the exceptions.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "": "lineage output_filter",
        "batches": "split_batches",
        "bounds": (
            "FREE_EXPANDED_BYTES MAX_DOCUMENT_BYTES MAX_EXPANSION MAX_JSON_DEPTH MAX_ROW_BYTES "
            "MAX_XZ_MEMORY"
        ),
        "csv_rows": "CsvTable NumberedLine UnreadableRest decode_lines",
        "episodes": (
            "AgentTurn CallRecord CallStatus Condition Environment Episode FixedTool "
            "INJECTION_MARK Injection InjectionPlace Scalar StateChange StopReason TaskKind Value "
            "WITHHELD_RESULT"
        ),
        "errors": (
            "BudgetExceeded DataError LineageError MissingExtra PlanError ProcessFailed "
            "RequestRejected RunError SpecError TruingError UserError did_you_mean"
        ),
        "flagged_categories": (
            "DEFAULT_CATEGORY_THRESHOLD UNCATEGORISED category_threshold category_thresholds "
            "flag_categories"
        ),
        "ids": "content_id hash_text stream_seed with_ids",
        "input_files": "describe_unreadable open_input read_input_bytes read_input_text",
        "json_text": "describe_json_error is_nested_deeper parse_json",
        "jsonl": (
            "decode_line number_lines_or_faults number_nonblank_lines read_complete_lines "
            "read_located_records read_records"
        ),
        "judgement_scores": "HARM_QUESTIONS LOWER_IS_BETTER_QUESTIONS judgement_score",
        "language_id": (
            "count_latin_letters detect_language find_foreign_part has_common_word looks_english "
            "share_of_common_words"
        ),
        "lazy": "lazy_exports",
        "licences": (
            "UNSTATED_LICENCES collect_licences describe_restriction find_unfree join_licences"
        ),
        "lineage": (
            "ancestors digest find_judge_conflict find_shared_prompts hash_prompt hash_prompts "
            "normalise_prompt"
        ),
        "linear_regex": "LinearRegex NotLinear SearchMode",
        "measurement_set": (
            "count_frozen_by_source frozen_hashes has_frozen_prompt is_frozen load_measurement_set"
        ),
        "messages": "decode_tool_calls describe_value is_text_part read_part_text",
        "model_parts": "iterate_parts",
        "output_filter": ("filter_answer filter_response find_prohibited_content withheld_failure"),
        "parquet_rows": "read_parquet_rows",
        "prices": (
            "CHARACTERS_PER_TOKEN Price Spending estimate_tokens find_price format_money "
            "read_prices"
        ),
        "private_files": (
            "create_folder create_private_file file_mode folder_mode private_opener rename_file "
            "replace_file replace_file_with restrict_umask sync_path write_error"
        ),
        "protocols": (
            "Attack Closeable Dataset Judge JudgeStream LogprobModel LoopModel Model NamesAnswers "
            "PrefixAware StreamingJudge StreamingModel TurnReadingModel iterate_models "
            "name_answer"
        ),
        "redaction": (
            "find_json_secrets find_url_secrets is_secret_header is_secret_name redact_headers "
            "redact_json redact_url"
        ),
        "remote_calls": "RemoteCalls",
        "secret": "REDACTED Scrubber Secret",
        "struct_fields": "find_type_faults read_struct_fields",
        "taxonomy": "Crosswalk HarmCategory Taxonomy load_crosswalk load_taxonomy",
        "text": "ends_sentence escape_controls escape_json_controls replace_surrogates",
        "text_calls": "read_text_calls without_doubled_braces",
        "toml_text": "add_lines find_key_lines parse_toml",
        "types": (
            "Answer AnswerCheck AnswerIndex ContinuationScores Conversation DataInfo Dimension "
            "Expect Failure ImageMessage Judgement Lineage MAX_ANSWERS Message MessageFormatError "
            "Preference Response Role Row Ruling Sample Sampling TokenLogprob Tool ToolCall Usage"
        ),
        "worst_judgement": "combine_worst",
    },
)
