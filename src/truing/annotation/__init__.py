"""Red teaming and rating by people: dialogues, a review queue, agreement, storage. No web code.

A function that reads or writes takes a `Transaction`; `Store.read` and `Store.write` (store.py) run
it in one. The other modules: tables.py (schema), people.py (accounts), wellbeing.py (consent and
exposure), dialogues.py (red teaming), queue.py (review items and ratings), adjudication.py,
agreement.py, imports.py, exports.py.
"""
