"""The human queue: pairs, leases, gold items, adjudication, agreement, care for people, storage. No web in it.

Everything that people do goes through `Store.write` (one durable transaction) and the verbs of these modules:

    store.py      the database: open, migrate, transactions, clock    tables.py   what is stored
    people.py     invitations, pass phrases, sign-in, roles, deletion   care.py     consent, opt-outs, exposure
    dialogues.py  red teaming: turns, pairs, choices, closing           queue.py    items, leases, ratings, gold
    agreement.py  alpha, rater bias                                     adjudication.py  disagreements first
    imports.py    rows of a run or a draw become items                  exports.py  writing.py  redaction.py
"""
