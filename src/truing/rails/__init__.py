"""Guardrails in NeMo Guardrails' format (Colang 1.0): read, checked, and run before a model.

`guarded.GuardedModel` is a model behind the rails of a folder; `actions.action` marks the actions
of an `actions.py`; `static.check` checks a configuration without running it; `dialogue_tests` runs
its own tests.
"""
