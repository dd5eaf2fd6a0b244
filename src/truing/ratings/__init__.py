"""The human queue: pairs, leases, gold items, adjudication, agreement, care for people, storage. No web in it.

Everything that people do goes through `Store.write` (one durable transaction) and the verbs of these modules:

    store.py      the database: open, migrate, transactions, clock    tables.py   what is stored
    people.py     invitations, pass phrases, sessions, roles, deletion      care.py     consent, opt-outs, exposure, breaks
    dialogues.py  red teaming: turns, pairs, choices, the closing form      queue.py    items, leases, ratings, gold
    agreement.py  alpha, rater bias, disagreements first                    adjudication.py
    imports.py    rows of a run or a draw become items                      exports.py  run folder, preferences, tables
"""
