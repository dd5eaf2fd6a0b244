"""Decisions on a run for CI: rules, the gate, certificates, and their JUnit and SARIF forms."""
