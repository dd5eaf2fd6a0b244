"""Alembic migrations of the rating database, shipped with the package."""
