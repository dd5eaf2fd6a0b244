"""Spec strings (`kind:name,key=value`): the parser, the table of builders, and `resolve`, which makes the object."""
