"""Runs a model on a data set and judges its answers: `evaluate`, its scheduler and its options."""
