"""Types and protocols that every other package builds on; imports nothing else of the project.

`types` holds the data model (Sample, Answer, Response, Judgement, ...), `protocols` the interfaces
(Model, Judge, Dataset, Attack), `errors` the exceptions.
"""
