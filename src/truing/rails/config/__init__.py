"""Guardrails configurations in NeMo's format (`config.yml`, `*.co`, `kb/`).

`loader.RailsConfig` loads one, checking it against `schema`. `models` builds the models that it
names, with the sampling defaults of `parameters`. `files` and `entries` are parts of the loader.
"""
