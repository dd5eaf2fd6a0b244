"""Runs a model on a data set and judges its answers: `evaluate`, `judge_run`, `EvaluateOptions`.

`evaluate` prepares the run folder, `ingest` reads the data set into it, `scheduler` runs the
workers.
"""
