"""The shipped rails: their flows (`*.co`), their actions, and the detectors that these use.

`catalog` lists them; `references.library_for_config` chooses those that a configuration uses.
"""
