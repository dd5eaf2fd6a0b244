"""Guardrails configurations (`config.yml` and `*.co`): the schema, the loader, models and their parameters."""
