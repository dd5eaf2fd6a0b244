"""Colang 1.0: lexer, parser, syntax tree, compiler and expressions."""
