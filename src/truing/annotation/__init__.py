"""Red teaming and rating by people: dialogues, a review queue, agreement, storage. No web code.

A function that reads or writes takes a `Transaction`; `Store.read` and `Store.write` (store.py) run
it in one. The other modules: tables.py (schema), people.py (accounts), wellbeing.py (consent and
exposure), dialogues.py (red teaming), queue.py (review items and ratings), adjudication.py,
agreement.py, imports.py, exports.py.
"""

from __future__ import annotations

from truing.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "": "agreement dialogues overview people queue wellbeing",
        "adjudication": "decode_grades list_disputes save_adjudication",
        "dialogues": "GenerationJob MAX_ANSWER_CHARS save_answer",
        "erasure": "delete_account",
        "export_files": "write_export",
        "exports": "REVIEW_JUDGE",
        "group_commit": "MAX_BATCH",
        "imports": "import_gold import_run",
        "overview": "has_admin",
        "people": "NewLogin check_phrase create_invitation create_phrase_reset hash_phrase",
        "queue": "Assessment",
        "review_items": "NewItem Target add_item decode_targets",
        "sign_in_limits": "release_guess reserve_guess",
        "store": (
            "DatabaseUnavailable OLDEST_EXCHANGE_SCHEMA RequestRejected Store Transaction "
            "finish_erasure open_store"
        ),
        "study": (
            "GRADE_LABELS SUCCESS_LABELS Study decode_list load_secret load_study new_id "
            "read_study save_lineages save_study"
        ),
        "tables": "Adjudication Person Rating ReviewItem",
    },
)
