"""Data that ships with the package: prompts, plans, taxonomies, data sets and weights. No code."""
