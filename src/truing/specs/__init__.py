"""Spec strings such as `openai:NAME,base_url=URL` and the objects that they describe.

`parser` (Spec, parse_spec) is the grammar, `resolve` (resolve, Args) builds objects, `builders` is
the table of built-in kinds.
"""
