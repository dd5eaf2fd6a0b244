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
        "errors": (
            "BudgetExceeded DataError LineageError MissingExtra PlanError RunError SpecError "
            "TruingError UserError did_you_mean"
        ),
        "ids": "content_id stream_seed with_ids",
        "input_files": "open_input read_input_bytes read_input_text",
        "jsonl": "decode_line read_complete_lines number_nonblank_lines read_located_records read_records",
        "language_id": (
            "count_latin_letters detect_language find_foreign_part looks_english "
            "share_of_common_words"
        ),
        "lazy": "lazy_exports",
        "lineage": (
            "ancestors digest find_judge_conflict find_shared_prompts hash_prompt hash_prompts "
            "normalise_prompt"
        ),
        "output_filter": ("filter_answer filter_response find_prohibited_content withheld_failure"),
        "private_files": (
            "create_folder create_private_file file_mode folder_mode private_opener rename_file "
            "replace_file replace_file_with restrict_umask sync_path write_error"
        ),
        "protocols": "Attack Closeable Dataset Judge LogprobModel Model StreamingModel",
        "secret": "Scrubber Secret",
        "taxonomy": "Crosswalk HarmCategory Taxonomy load_crosswalk load_taxonomy",
        "types": (
            "Answer AnswerCheck ContinuationScores Conversation DataInfo Dimension Expect Failure "
            "Judgement Lineage Message Preference Response Role Row Ruling Sample Sampling "
            "TokenLogprob Tool ToolCall Usage"
        ),
    },
)
