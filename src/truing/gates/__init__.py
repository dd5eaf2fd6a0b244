"""Decisions on a run for CI and releases.

`gate_run` checks a run against rules (`read_rules`), with JUnit and SARIF output; `certify` finds
a threshold with a guarantee. Nothing here ever says "safe".
"""
