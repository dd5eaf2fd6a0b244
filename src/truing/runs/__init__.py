"""The run folder on disk: `Run` reads one, `RunWriter` writes one (append-only, crash-safe,
resumable).
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "append_only_file": "AppendOnlyFile truncate_partial_line",
        "damage": "LineFault describe_faults describe_numbers find_line_faults set_aside_lines",
        "folder": (
            "DataRecord JudgeRecord Manifest Run RunWriter encode_line judgement_file label_hash "
            "replace_surrogates"
        ),
        "index": (
            "IdIndex LineSpans ResponseKey SampleKey SampleStore check_cells max_cells_per_sample"
        ),
        "parts": (
            "PARTS_FILE RecordReader RunParts file_bytes list_run_parts locate_record_files "
            "part_name read_located_run_records read_run_records record_bytes"
        ),
        "run_files": "delete_run_file is_judgement_file locate_run_file open_run_file",
        "write_lock": "acquire_write_lock is_being_written",
    },
)
