"""Types, errors, protocols, taxonomies, lineage and the output filter: what every other package builds on.

Imports nothing of the project."""
