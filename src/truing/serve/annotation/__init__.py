"""The red-teaming and rating pages: server-rendered, plain JS and CSS from the package, nothing from elsewhere.

app.py      the app: handlers, errors, security headers      house.py   what all pages share; threads, limits
visit.py    one request: who, form, answer                   live.py    pairs of answers in the making
entry.py    invitations, sign-in                             own.py     home, consent, settings, rest, help
talk.py     the chat with a pair of answers                  review.py  the rating queue
verdicts.py agreement, adjudication                          admin.py   people, invitations, flags, audit
"""
